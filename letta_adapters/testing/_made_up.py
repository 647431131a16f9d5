"""What a machine made up: keys of services that nobody listed, told by how they look.

Words, and names made of words, change between letters, capitals and digits where the words do;
random letters do so all over. Shorter runs than these are in every text.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Iterator

# Longer ones are contents (pictures, signatures), not keys.
_LONGEST = 400
_RUN = re.compile(
    r"(?<![A-Za-z0-9+=_%\\.~-])[A-Za-z0-9_-][A-Za-z0-9_.~-]{18,}[A-Za-z0-9_~-](?![A-Za-z0-9_~-]|\.\w)"
)
# What stands around a run, if it is a part of base64; pictures, documents and archives, by how they
# begin.
_BEFORE = re.compile(r"[A-Za-z0-9+/_-]*\Z")
_AFTER = re.compile(r"[A-Za-z0-9+/_-]*=*")
_CONTENTS = ("iVBORw0KGgo", "R0lGOD", "UklGR", "JVBERi", "UEsDB", "/9j/")
_SEPARATORS = re.compile(r"[_.~-]+")
# Placeholders, and ids, which are numbered; also several in a row, as a stream's joined texts are.
_KNOWN = re.compile(r"REDACTED|00000000|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}")
# From a small letter to another kind, from a digit to a letter, from a capital to a digit.
_TURN = re.compile(r"(?<=[a-z])[A-Z0-9]|(?<=[0-9])[A-Za-z]|(?<=[A-Z])[0-9]")
_CHANGE = re.compile(r"(?<=[0-9])[A-Za-z]|(?<=[A-Za-z])[0-9]")
_LEAST = 20
_PRINTABLE = re.compile(rb"[\t\n\r\x20-\x7e]+")


def made_up(text: str) -> Iterator[tuple[int, int]]:
    """Where in ``text`` there are runs of letters that no person typed."""
    for match in _RUN.finditer(text):
        if _is_random(match[0]) and not _KNOWN.search(match[0]):
            start, end = _whole(text, match)
            if not _is_content(text, start, end):
                # Base64, and not a path with a key in it.
                is_coded = "+" in text[start:end] or text[end - 1] == "="
                yield (start, end) if is_coded else match.span()


def _whole(text: str, match: re.Match[str]) -> tuple[int, int]:
    before = _BEFORE.search(text, max(match.start() - _LONGEST, 0), match.start())
    after = _AFTER.match(text, match.end())
    return before.start() if before else match.start(), after.end() if after else match.end()


def _is_content(text: str, start: int, end: int) -> bool:
    whole = text[start:end]
    if whole.startswith(_CONTENTS) or text[max(start - 7, 0) : start] == "base64,":
        return True
    return len(whole) > _LONGEST or (len(whole) > 100 and "+" in whole)


def _is_random(run: str) -> bool:
    letters = _SEPARATORS.sub("", run)
    size = len(letters)
    if size < _LEAST or _says_something(run):
        return False
    small, capital, digit = (bool(re.search(k, letters)) for k in ("[a-z]", "[A-Z]", "[0-9]"))
    if small and capital and digit:
        return len(_TURN.findall(letters)) * 4 >= size and _entropy(letters) > 3.3
    if digit and (small or capital):
        longest = max(len(_CHANGE.findall(part)) for part in _SEPARATORS.split(run))
        return longest >= 3 and len(_CHANGE.findall(letters)) * 6 >= size
    return False


def _says_something(run: str) -> bool:
    """Whether it is base64 of a text, which is looked into, and not taken out whole."""
    plain = run.replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return False
    return _PRINTABLE.fullmatch(content) is not None


def _entropy(text: str) -> float:
    """Bits a letter."""
    shares = (count / len(text) for count in Counter(text).values())
    return -sum(share * math.log2(share) for share in shares)
