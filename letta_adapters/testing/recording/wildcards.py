"""Compare texts in which the sanitizer's placeholders stand for anything of their kind.

A recording does not say what was taken out of it, and that differs by the machine and the day. So a
placeholder in a recorded request matches whatever is sent in its place; all else must be equal.

Internal: not part of the public API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_CLOCK = (
    r"\d{1,2}:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:\s?[AP]M)?"
    r"(?:Z|\s?(?:UTC|GMT)?[+-]\d\d:?\d\d|\s(?:UTC|GMT))?"
)
_CONSTANT_CLOCK = (
    r"(?:00:00|12:00)(?::00(?:\.0+)?)?(?:\s?AM)?(?:Z|\s?(?:UTC|GMT)?[+-]00:?00|\s(?:UTC|GMT))?"
)
_PROSE = r"(?:Thu(?:rsday)?,? )?(?:Jan(?:uary)?\.? 1,? 2026|1 Jan(?:uary)?,? 2026)"
_MONTH = r"[A-Z][a-z]{2,8}\.?"
# No part of this pattern can match in two ways, so that even a text with many dates in it is read
# only once.
_ANY_PROSE = (
    rf"(?:[A-Z][a-z]{{2,8}},? )?(?:{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? (?:19|20)\d\d"
    rf"|\d{{1,2}}(?:st|nd|rd|th)? {_MONTH},? (?:19|20)\d\d)"
)
# By kind: the placeholder, and a pattern of what it may stand for. Nothing stands there for
# REDACTED, which may hide any text.
_KINDS = {
    "secret": (r"(?:REDACTED)+(?:R(?:E(?:D(?:A(?:C(?:T(?:E)?)?)?)?)?)?)?", ""),
    "moment": (rf"2026-01-01[T ]{_CONSTANT_CLOCK}", rf"(?:19|20)\d\d-\d\d-\d\d[T ]{_CLOCK}"),
    "day": (r"2026-01-01", r"(?:19|20)\d\d-\d\d-\d\d"),
    "prose_moment": (
        rf"{_PROSE},? (?:at )?{_CONSTANT_CLOCK}",
        rf"{_ANY_PROSE},? (?:at )?{_CLOCK}",
    ),
    "prose_day": (_PROSE, _ANY_PROSE),
    "python_date": (r"(?<=datetime\()2026, 1, 1(?:, 0)*(?=[,)])", r"\d{4}(?:, \d{1,6}){2,6}"),
    "mail": (r"user@example\.com", r"[^\s@\"'<>]+@[^\s@\"'<>]+"),
    "origin": (
        r"http://(?:letta\d*|host|endpoint)\.test(?:/v1)?",
        r"\w{2,8}://[^\s\"'<>/]+(?:/[^\s\"'<>/]+){0,2}?",
    ),
    "host": (r"(?:host|letta\d*)\.test", r"[^\s\"'<>/@]+"),
    # A login where a machine writes one; or in a sentence, where it may only stand for a name that
    # is no word.
    "login": (
        r"(?<=[/\\=@~])user(?!\w)|(?<!\w)user(?=[@/\\]|:\d)",
        r"[^\s/\\\"'<>@:=]+",
    ),
    "name": (r"(?<![\w.\"'-])user(?![\w\"'-])", r"(?:user|(?=[A-Za-z.]*[^\sA-Za-z.])[\w.-]+)"),
}
_PLACEHOLDER = re.compile("|".join(f"(?P<{kind}>{form})" for kind, (form, _) in _KINDS.items()))


def may_stand_for_something(text: str) -> bool:
    """Return whether there is a placeholder in ``text``."""
    return _PLACEHOLDER.search(text) is not None


def same_text(recorded: str, live: str) -> bool:
    """Return whether two texts are equal but for the parts that placeholders stand for.

    Either text may have one: a word that is not private on one machine is somebody's name on
    another.
    """
    return recorded == live or _covers(recorded, live) or _covers(live, recorded)


def _covers(recorded: str, live: str) -> bool:
    pieces = _pieces(recorded)
    if pieces is None:
        return False
    # Between two placeholders for any text, the next piece is taken where it is first found: no
    # later place could do better. So the time is linear in the text's length, whatever is in it.
    first, *rest = pieces
    found = first.match(live)
    for number, piece in enumerate(rest, 1):
        if found is None:
            return False
        # A placeholder replaced something, so it stands for at least one character.
        start = found.end() + 1
        found = _at_end(piece, live, start) if number == len(rest) else piece.search(live, start)
    return found is not None and (bool(rest) or found.end() == len(live))


def _at_end(piece: re.Pattern[str], live: str, start: int) -> re.Match[str] | None:
    # The last piece must end the text, so its first occurrence may be too early.
    found = piece.search(live, start)
    while found is not None and found.end() != len(live):
        found = piece.search(live, found.start() + 1)
    return found


@lru_cache(maxsize=4096)
def _pieces(recorded: str) -> tuple[re.Pattern[str], ...] | None:
    """Return patterns of the pieces between placeholders for any text; ``None`` without any."""
    parts: list[list[str]] = [[]]
    position = 0
    for match in _PLACEHOLDER.finditer(recorded):
        parts[-1].append(re.escape(recorded[position : match.start()]))
        if match.lastgroup == "secret":
            parts.append([])
        else:
            parts[-1].append(_KINDS[str(match.lastgroup)][1])
        position = match.end()
    if not position:
        return None
    parts[-1].append(re.escape(recorded[position:]))
    return tuple(re.compile("".join(part), re.DOTALL) for part in parts)


def same_value(recorded: Any, live: Any) -> bool:
    """Return whether two JSON values are equal but for the parts that placeholders stand for."""
    if isinstance(recorded, str) and isinstance(live, str):
        return same_text(recorded, live)
    if isinstance(recorded, list) and isinstance(live, list):
        pairs = zip(recorded, live, strict=False)
        return len(recorded) == len(live) and all(same_value(a, b) for a, b in pairs)
    if isinstance(recorded, Mapping) and isinstance(live, Mapping):
        if recorded.keys() == live.keys():
            return all(same_value(recorded[key], live[key]) for key in recorded)
        # Keys may contain placeholders, too: a key may be a path or a name.
        ours, theirs = sorted(recorded.items()), sorted(live.items())
        return len(ours) == len(theirs) and all(
            same_text(a, b) and same_value(x, y)
            for (a, x), (b, y) in zip(ours, theirs, strict=True)
        )
    return type(recorded) is type(live) and bool(recorded == live)
