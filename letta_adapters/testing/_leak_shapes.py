"""Recognise keys for the leak scanner: not by a list of services, but by how keys look.

The sanitizer knows services by their prefixes. This module knows few of them: a short prefix and a
long run of letters that no person typed are enough. So a key of a service that the sanitizer does
not know is refused here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

_RUN = re.compile(
    r"(?<![A-Za-z0-9_+/=.-])(?:[A-Za-z][A-Za-z0-9]{0,11}(?:[_-][A-Za-z0-9]{1,12}){0,2}[_.-])"
    r"(?P<tail>[A-Za-z0-9_-]{20,180})(?![A-Za-z0-9+/=])"
)
# Keys of services that put no separator after the prefix, which the pattern above requires.
_GLUED = re.compile(
    r"(?<![A-Za-z0-9_+/=-])(?:A[A-Z]{3}(?=[A-Z]*\d)[A-Z2-7]{16}|AIza[\w-]{35}|LTAI\w{16,}"
    r"|(?:dapi|SK)[0-9a-f]{32}|AKCp\w{50,}|GR1348941\S{20}|ABSK\S{80,}|EZ[AT]K\w{50,})(?!\w)"
)
_ASSIGNED = re.compile(
    r"(?i:pass(?:word|wd|phrase)?|pwd|secret(?:[-_]?key)?|(?:api|access)[-_ ]?key|token)"
    r"[\"']?\s?(?:=|:)\s?[\"']?"
    r"(?P<value>(?=[^\s\"'&]*(?:[a-z]\d|\d[a-z]|[a-z][A-Z]))[^\s\"'&,;(){}<>\[\]\\]{6,})"
)
_LOGIN = re.compile(r"[a-z]{2,12}://[^/\s:@\"'\\]*:(?P<value>[^/\s@\"'\\]{3,})@")
# The sanitizer's own placeholders.
_OURS = re.compile(r"(?:REDACTED|00000000)")


def keys_in(text: str) -> Iterator[str]:
    """Yield every part of ``text`` that looks like a key, a token or a password."""
    for match in _GLUED.finditer(text):
        yield match[0]
    for match in _RUN.finditer(text):
        if _is_random(match["tail"]) and not _OURS.search(match[0]):
            yield match[0]
    for pattern in (_ASSIGNED, _LOGIN):
        for match in pattern.finditer(text):
            if not _OURS.search(match["value"]):
                yield match["value"]


def _is_random(tail: str) -> bool:
    # Names are made of words; generated text mixes digits and letters of both cases all over.
    kinds = [bool(re.search(kind, tail)) for kind in ("[a-z]", "[A-Z]", "[0-9]")]
    turns = len(re.findall(r"(?<=[a-z])[A-Z0-9]|(?<=[0-9])[A-Za-z]|(?<=[A-Z])[0-9]", tail))
    return sum(kinds) == 3 and turns * 4 >= len(tail) and _entropy(tail) > 3.6


def _entropy(text: str) -> float:
    """Return the entropy in bits per letter."""
    shares = (count / len(text) for count in Counter(text).values())
    return -sum(share * math.log2(share) for share in shares)
