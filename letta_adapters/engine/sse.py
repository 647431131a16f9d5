"""Internal: decode bytes into server-sent events, in time linear in the input, however it is cut.

Lines end with LF, CRLF or CR and nothing else: Letta sends raw U+2028 and U+0085 inside its JSON,
which ``str.splitlines`` (and ``httpx.Response.iter_lines``) would split at. Splitting bytes at
LF / CR cannot cut a UTF-8 sequence, so decoding is left to the JSON parser.
"""

from __future__ import annotations

import re

_BOM = b"\xef\xbb\xbf"
_NAME = re.compile(rb"[A-Za-z0-9_-]+")


class SSEDecoder:
    """An incremental decoder of ``text/event-stream`` (WHATWG HTML, section 9.2)."""

    __slots__ = ("_after_cr", "_data", "_event", "_first", "_partial", "held", "torn")

    def __init__(self) -> None:
        self._partial: list[bytes] = []  # pieces of the line that has not ended yet
        self._data: list[bytes] = []
        self._event: bytes | None = None
        self._after_cr = False
        self._first = True
        # The number of bytes of the event that has not ended yet.
        self.held = 0
        # True once a line came that is no field of any name. The standard passes it over; here it
        # would be a missing piece of an answer.
        self.torn = False

    def feed(self, chunk: bytes) -> list[tuple[str | None, bytes]]:
        """Take the next bytes; return the events they complete as ``(event name, data)``."""
        if (
            # One whole event in one chunk, which is how a live server sends them: nothing to join
            # or split.
            chunk.startswith(b"data: ")
            and chunk.find(b"\n") == len(chunk) - 2
            and not self._partial
            and not self._data
            and self._event is None
            and b"\r" not in chunk
            and chunk.endswith(b"\n\n")
        ):
            self._first = self._after_cr = False
            return [(None, chunk[6:-2])]
        if self._after_cr or b"\r" in chunk:
            chunk = self._normalise(chunk)
        if b"\n" not in chunk:
            if chunk:
                self._partial.append(chunk)
                self.held += len(chunk)
            return []
        return self._lines(chunk)

    def _normalise(self, chunk: bytes) -> bytes:
        # CR and LF of one line end may come in two chunks; the LF must not end a second line.
        if self._after_cr and chunk:
            chunk = chunk[1:] if chunk.startswith(b"\n") else chunk
            self._after_cr = False
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _lines(self, chunk: bytes) -> list[tuple[str | None, bytes]]:
        events: list[tuple[str | None, bytes]] = []
        lines = chunk.split(b"\n")
        self._partial.append(lines[0])
        lines[0] = b"".join(self._partial)
        rest = lines.pop()
        self._partial = [rest] if rest else []
        # A byte order mark may begin the stream, and belongs to no field.
        if self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if line:
                self._field(line)
            elif self._data:
                # An empty line ends an event; one without data is dropped, as the standard says.
                name = self._event.decode("utf-8", "replace") if self._event else None
                events.append((name, b"\n".join(self._data)))
                self._data = []
                self._event = None
            else:
                self._event = None
        self.held = len(rest) + sum(map(len, self._data))
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name and not _NAME.fullmatch(name):
            self.torn = True
        # `id`, `retry` and comments carry nothing in Letta's streams.
