"""Internal: replace spans of a text, and map findings in a decoded form of it back to the original.

Nothing is ever rewritten in its decoded form: a finding is a span, and a span found in a decoded,
joined or unwrapped text is carried back to the place it came from. So everything that is not
replaced stays the same, byte for byte.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from letta_adapters.testing.sanitizer.patterns import REDACTED


class Edit(NamedTuple):
    """A replacement of ``[start, end)`` by ``text``; of overlapping edits the lowest ``rank`` wins.

    ``fits`` says that the text is filler of the span's length; if the span grows, so does the
    filler.
    """

    start: int
    end: int
    text: str
    rank: int
    fits: bool = False


def fill(start: int, end: int, rank: int) -> Edit:
    """Return an edit that fills a span with ``REDACTED``, keeping its length for base64's sake."""
    return Edit(start, end, _filler(end - start), rank, True)


def _filler(length: int) -> str:
    return (REDACTED * (length // len(REDACTED) + 1))[:length]


class View(NamedTuple):
    """A text made from another one; character ``i`` of it came from place ``offsets[i]`` there.

    One more offset follows: the end of the other text.
    """

    text: str
    offsets: Sequence[int]

    def back(self, edits: Iterable[Edit]) -> list[Edit]:
        """Return edits of this text as edits of the text it was made from."""
        return [
            edit._replace(start=self.offsets[edit.start], end=self.offsets[edit.end])
            for edit in edits
        ]


def merge(edits: Iterable[Edit]) -> list[Edit]:
    """Return disjoint edits in order: overlapping ones become one over all they covered.

    Nothing that any of them covered survives. The text is that of the edit with the lowest rank,
    and among these of the longest one.
    """
    result: list[Edit] = []
    best: Edit | None = None
    # Sorted by where they begin, an edit can overlap only the one before, which has grown over all
    # that it met.
    for edit in sorted(edits, key=lambda e: (e.start, -e.end, e.rank)):
        if result and best is not None and edit.start < result[-1].end:
            # The edit that takes precedence gives the text for the whole overlap.
            best = min(best, edit, key=_get_precedence)
            start, end = result[-1].start, max(result[-1].end, edit.end)
            text = _filler(end - start) if best.fits else best.text
            result[-1] = best._replace(start=start, end=end, text=text)
        else:
            result.append(edit)
            best = edit
    return result


def apply(text: str, edits: Iterable[Edit]) -> str:
    """Return ``text`` with disjoint, ordered edits carried out."""
    parts: list[str] = []
    position = 0
    for edit in edits:
        parts += [text[position : edit.start], edit.text]
        position = edit.end
    return "".join([*parts, text[position:]])


def spread(edit: Edit, ends: Sequence[int]) -> list[tuple[int, Edit]]:
    """Distribute an edit of joined texts over them; ``ends`` are the ends of the texts when joined.

    A replacement of equal length keeps every boundary. Any other goes into the first text as a
    whole, and the others lose their part of the span.
    """
    # A client joins the texts again, so any of them may hold the replacement.
    first = bisect_right(ends, edit.start)
    pieces: list[tuple[int, Edit]] = []
    same = len(edit.text) == edit.end - edit.start
    position, number = edit.start, first
    while position < edit.end:
        start = ends[number - 1] if number else 0
        stop = min(edit.end, ends[number])
        if stop > position:
            text = edit.text if number == first else ""
            if same:
                text = edit.text[position - edit.start : stop - edit.start]
            pieces.append((number, Edit(position - start, stop - start, text, edit.rank)))
        position, number = stop, number + 1
    return pieces


def _get_precedence(edit: Edit) -> tuple[int, int]:
    return edit.rank, edit.start - edit.end


# Surrogate pairs come first: two escapes of one character.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[\"'\\/bfnrt])"
)
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+")
# Base64 in lines, as in MIME (76 letters) and PEM (64).
_WRAPPED = re.compile(r"(?:[A-Za-z0-9+/]{40,}\r?\n)+(?=[A-Za-z0-9+/])")


def unescape(text: str) -> View | None:
    """Return ``text`` with JSON and Python string escapes undone once, or ``None`` without any."""
    if "\\" not in text:
        return None
    return _substitute(text, _ESCAPE, lambda m: [(_decode_escape(m[0]), 0)])


def unquote(text: str) -> View | None:
    """Return ``text`` with percent-encoding undone once; ``None`` if there is none."""
    if "%" not in text:
        return None
    return _substitute(text, _PERCENT, _decode_percent)


def unwrap(text: str) -> View | None:
    """Return ``text`` without the line ends inside base64 blocks; ``None`` if there are none."""
    if "\n" not in text or not _WRAPPED.search(text):
        return None
    return _substitute(text, _WRAPPED, _drop_line_ends)


def _substitute(
    text: str,
    pattern: re.Pattern[str],
    decode: Callable[[re.Match[str]], list[tuple[str, int]]],
) -> View | None:
    parts: list[str] = []
    offsets: list[int] = []
    position = 0
    for match in pattern.finditer(text):
        parts.append(text[position : match.start()])
        offsets.extend(range(position, match.start()))
        for char, shift in decode(match):
            parts.append(char)
            # Each decoded character points at the place that it was decoded from, so that an edit
            # of it replaces its whole escape.
            offsets.extend([match.start() + shift] * len(char))
        position = match.end()
    if not position:
        return None
    parts.append(text[position:])
    offsets.extend(range(position, len(text) + 1))
    return View("".join(parts), offsets)


def _decode_escape(escape: str) -> str:
    kind = escape[1]
    if kind == "u" and len(escape) == 12:
        # A character beyond U+FFFF is written as a surrogate pair, two escapes of one character.
        high, low = int(escape[2:6], 16), int(escape[8:12], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    if kind in "ux":
        return chr(int(escape[2:], 16))
    return _SHORT.get(kind, kind)


def _decode_percent(match: re.Match[str]) -> list[tuple[str, int]]:
    raw = unquote_to_bytes(match[0])
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError:
        # Not UTF-8, so every byte is one character: a secret in Latin-1 is still found.
        return [(chr(byte), 3 * index) for index, byte in enumerate(raw)]
    starts = accumulate((3 * len(char.encode("utf-8")) for char in decoded), initial=0)
    return list(zip(decoded, starts, strict=False))


def _drop_line_ends(match: re.Match[str]) -> list[tuple[str, int]]:
    return [(char, index) for index, char in enumerate(match[0]) if char not in "\r\n"]
