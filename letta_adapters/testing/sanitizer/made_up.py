"""Find generated keys of services that no list names, by how they look.

Words, and names made of words, change between small letters, capitals and digits where one word
ends; random letters do so all over. Runs shorter than twenty letters are in every text, so they do
not count.

Internal: not part of the public API.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Iterator

# Longer runs are contents (pictures, signatures), not keys.
_LONGEST = 400
_RUN = re.compile(
    r"(?<![A-Za-z0-9+=_%\\.~-])[A-Za-z0-9_-][A-Za-z0-9_.~-]{18,}[A-Za-z0-9_~-](?![A-Za-z0-9_~-]|\.\w)"
)
# The rest of a base64 text around a run, and the beginnings of pictures, documents and archives.
_BEFORE = re.compile(r"[A-Za-z0-9+/_-]*\Z")
_AFTER = re.compile(r"[A-Za-z0-9+/_-]*=*")
_CONTENTS = ("iVBORw0KGgo", "R0lGOD", "UklGR", "JVBERi", "UEsDB", "/9j/")
_SEPARATORS = re.compile(r"[_.~-]+")
# Placeholders, and ids, which are numbered; also several in a row, as a stream's joined texts are.
_KNOWN = re.compile(r"REDACTED|00000000|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}")
# Changes from a small letter to another kind, from a digit to a letter, from a capital to a digit.
_TURN = re.compile(r"(?<=[a-z])[A-Z0-9]|(?<=[0-9])[A-Za-z]|(?<=[A-Z])[0-9]")
_CHANGE = re.compile(r"(?<=[0-9])[A-Za-z]|(?<=[A-Za-z])[0-9]")
_LEAST = 20
_PRINTABLE = re.compile(rb"[\t\n\r\x20-\x7e]+")


def made_up(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of ``text`` with runs of letters that no person typed."""
    for match in _RUN.finditer(text):
        if _is_random(match[0]) and not _KNOWN.search(match[0]):
            start, end = _whole(text, match)
            if not _is_content(text, start, end):
                # Base64 is replaced as a whole; of a path with a key in it, only the key.
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
    # Three kinds of letters mixed at least at every fourth place, as chance does it.
    if small and capital and digit:
        return len(_TURN.findall(letters)) * 4 >= size and _entropy(letters) > 3.3
    # With two kinds of letters, chance changes less often; versions and numbered names do so hardly
    # ever.
    if digit and (small or capital):
        longest = max(len(_CHANGE.findall(part)) for part in _SEPARATORS.split(run))
        return longest >= 3 and len(_CHANGE.findall(letters)) * 6 >= size
    return False


def _says_something(run: str) -> bool:
    """Return whether a run is base64 of a text, which is searched and not replaced as a whole."""
    plain = run.replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return False
    return _PRINTABLE.fullmatch(content) is not None


def _entropy(text: str) -> float:
    """Return the entropy in bits per letter."""
    shares = (count / len(text) for count in Counter(text).values())
    return -sum(share * math.log2(share) for share in shares)
