"""Internal: read JSON as text: where each string and number stands, and under which keys.

Bodies are edited in place, so formatting, escapes and number notation stay as the server wrote
them. The reader is tolerant: of a body that is cut off (even within a string) it yields all there
is.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from letta_adapters.testing.sanitizer.edits import View, unescape
from letta_adapters.testing.sanitizer.secrets import Path

_TOKEN = re.compile(
    r'(?P<string>"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))'
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"|(?P<mark>[{}\[\],:])|(?P<word>true|false|null)|(?P<space>[ \t\r\n]+)",
    re.DOTALL,
)


class Leaf(NamedTuple):
    """A key, string or number: ``[start, end)`` in the source, without the quotes."""

    kind: Literal["key", "string", "number"]
    start: int
    end: int
    path: Path

    def view(self, source: str) -> View:
        """Return the decoded text, with its way back to the source."""
        content = source[self.start : self.end]
        view = unescape(content) if self.kind != "number" else None
        if view is None:
            return View(content, range(self.start, self.end + 1))
        return View(view.text, [self.start + offset for offset in view.offsets])


class _Container:
    """An object or array that is open at the reader's position, with the key or index reached."""

    def __init__(self, is_object: bool, path: Path) -> None:
        self.path = path
        self.is_object = is_object
        self.at_key = is_object
        self.part: str | int = "" if is_object else 0


def read_json(source: str, start: int = 0, end: int | None = None) -> tuple[list[Leaf], int]:
    """Return the leaves of the JSON text in ``source[start:end]``, and where the JSON ended."""
    stop = len(source) if end is None else end
    frames: list[_Container] = []
    # Not `json`: it gives values without their places, and refuses a body that breaks off.
    leaves: list[Leaf] = []
    position = start
    while position < stop:
        # The order of the tokens is not checked: a body that is cut or not quite JSON must be
        # searched, too.
        match = _TOKEN.match(source, position, stop)
        if match is None:
            break
        position = match.end()
        if match["mark"]:
            _apply_mark(match["mark"], frames)
        elif match["string"] or match["number"]:
            leaves.append(_make_leaf(match, frames))
    return leaves, position


def _apply_mark(mark: str, frames: list[_Container]) -> None:
    if mark in "{[":
        frames.append(_Container(mark == "{", _path(frames)))
    elif mark in "}]":
        if frames:
            frames.pop()
    elif mark == "," and frames:
        frame = frames[-1]
        frame.at_key = frame.is_object
        if isinstance(frame.part, int):
            frame.part += 1
    elif frames:
        frames[-1].at_key = False


def _make_leaf(match: re.Match[str], frames: list[_Container]) -> Leaf:
    if match["number"]:
        return Leaf("number", *match.span(), _path(frames))
    start, end = match.start() + 1, match.end()
    # A string that was cut off has no closing quote to leave out.
    end -= len(match[0]) > 1 and match[0].endswith('"') and not _is_open(match[0])
    if frames and frames[-1].at_key:
        frames[-1].part = match[0][1:-1]
        return Leaf("key", start, end, _path(frames))
    return Leaf("string", start, end, _path(frames))


def _is_open(string: str) -> bool:
    # Tell a cut string whose last character is an escaped quote from a finished one.
    return (len(string) - 1 - len(string[:-1].rstrip("\\"))) % 2 == 1


def _path(frames: list[_Container]) -> Path:
    if not frames:
        return ()
    return (*frames[-1].path, frames[-1].part)
