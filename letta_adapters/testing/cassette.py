"""Read and write cassette files: vcrpy's YAML (version 1), laid out for people to read and diff.

Plain vcrpy 8.x loads and replays these files. Two keys it ignores may follow a response's body:

``x_timing``
    ``[[delay_ms, byte_count], ...]``, one entry per SSE event, in order. Recorded only on request:
    a delay is noise by nature, and two recordings of one scenario shall give one file. For the
    same reason an entry is an event (where one TCP segment ends and the next begins differs from
    run to run) and a delay is rounded to one of a few steps (see ``recording/recorder.py``).
``x_error``
    ``{type, after_bytes}``: how the exchange ended, if it failed. ``type`` is the name of an
    ``httpx`` transport exception, or ``closed_by_client`` when the consumer stopped reading.
    ``after_bytes`` always equals the length of the stored body. Status code 0 means that no
    response had begun.

Text bodies are literal blocks (an SSE event is one line, JSON stays as it came). Text that YAML
cannot hold literally (U+0085, U+2028, carriage returns, control characters) is double-quoted with
one source line per line. Only bodies that are not UTF-8 become ``!!binary``. The writer is our own,
because PyYAML's two emitters (C and Python) lay the same text out differently.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Headers = tuple[tuple[str, str], ...]

CLOSED_BY_CLIENT = "closed_by_client"
# The methods of a WebSocket's interactions: a connection that was opened, and a frame of ours.
OPENED = "WEBSOCKET"
SENT = "SEND"

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_PLAIN_END = re.compile(rb"\n\n")
# The characters that a YAML literal block can hold.
_LITERAL = re.compile(
    "[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*"
)
_PLAIN_URI = re.compile(r"https?://[!-~]*[!-9;-~]")
_PLAIN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9-]{2,}")
# Plain words that YAML reads as something else than text.
_YAML_WORDS = {"yes", "off", "true", "false", "null"}
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\t": "\\t", "\r": "\\r", "\0": "\\0"}
_NEEDS_ESCAPE = re.compile(
    '[\\\\"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|^[ ]', re.MULTILINE
)


class CassetteFormatError(ValueError):
    """The error for a cassette file that cannot be read, with its path and the reason."""


@dataclass(frozen=True)
class RecordedRequest:
    """A request: ``method``, absolute ``uri``, headers as sent, and the whole ``body``."""

    method: str
    uri: str
    headers: Headers = ()
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return the first value of header ``name`` (any case), or ``""``."""
        return _find_header(self.headers, name)


@dataclass(frozen=True)
class RecordedError:
    """The way an exchange failed: an exception's name (or ``closed_by_client``), and the place."""

    type: str
    after_bytes: int = 0


@dataclass(frozen=True)
class RecordedResponse:
    """A response; its ``status`` is 0 if none began.

    ``timing`` holds (delay in ms, byte count) per event.
    """

    status: int
    reason: str = ""
    headers: Headers = ()
    body: bytes = b""
    timing: tuple[tuple[int, int], ...] | None = None
    error: RecordedError | None = None

    def header(self, name: str) -> str:
        """Return the first value of header ``name`` (any case), or ``""``."""
        return _find_header(self.headers, name)

    @property
    def is_sse(self) -> bool:
        """Return whether the body is a server-sent event stream."""
        return "text/event-stream" in self.header("content-type")


@dataclass(frozen=True)
class Interaction:
    """A request with its response.

    ``span`` is when it began and ended (seconds on any clock). It is known while a recording is
    fresh; it is not in the file.
    """

    request: RecordedRequest
    response: RecordedResponse
    span: tuple[float, float] | None = field(default=None, compare=False)


@dataclass
class Cassette:
    """A recording: interactions in the order in which their requests began.

    ::

        cassette = Cassette.load("cassettes/hello.yaml")
        assert [item.response.status for item in cassette] == [200, 200]
    """

    interactions: list[Interaction] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | Path) -> Cassette:
        """Read a file.

        Raises:
            FileNotFoundError: There is no such file.
            CassetteFormatError: It is no version 1 cassette.
        """
        try:
            return cls.loads(Path(path).read_text(encoding="utf-8"))
        except (CassetteFormatError, UnicodeDecodeError) as error:
            raise CassetteFormatError(f"{path}: {error}") from error

    @classmethod
    def loads(cls, text: str) -> Cassette:
        """Parse YAML text.

        Raises:
            CassetteFormatError: It is no version 1 cassette.
        """
        return cls.from_dict(load_yaml(text))

    @classmethod
    def from_dict(cls, data: Any) -> Cassette:
        """Build a cassette from vcrpy's dict form (bodies may be ``str`` or ``bytes``)."""
        if not isinstance(data, Mapping) or data.get("version") != 1:
            raise CassetteFormatError("not a version 1 cassette")
        try:
            return cls([_read_interaction(item) for item in data["interactions"]])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CassetteFormatError(f"malformed interaction: {error!r}") from error

    def dumps(self) -> str:
        """Return the file's text. The same cassette always gives the same text."""
        lines = ["version: 1", "interactions:" if self.interactions else "interactions: []"]
        for interaction in self.interactions:
            lines.extend(_write_request(interaction.request))
            lines.extend(_write_response(interaction.response))
        return "\n".join(lines) + "\n"

    def __len__(self) -> int:
        return len(self.interactions)

    def __iter__(self) -> Iterator[Interaction]:
        return iter(self.interactions)


def load_yaml(text: str) -> Any:
    """Parse cassette YAML, with the fast loader if there is one; only safe types are allowed."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise CassetteFormatError(f"not YAML: {error}") from error


def split_events(body: bytes) -> list[bytes]:
    """Cut an SSE body after each blank line; joined again, the pieces give ``body``.

    The last piece is an unfinished event if the body does not end with a blank line.
    """
    pieces: list[bytes] = []
    start = 0
    ends = _EVENT_END if b"\r" in body else _PLAIN_END  # takes a seventh of the time
    for match in ends.finditer(body):
        pieces.append(body[start : match.end()])
        start = match.end()
    if start < len(body):
        pieces.append(body[start:])
    return pieces


def is_frame(interaction: Interaction) -> bool:
    """Return whether an interaction is a part of a WebSocket's recording."""
    return interaction.request.method in (OPENED, SENT)


def group_connections(cassette: Iterable[Interaction]) -> list[list[int]]:
    """Return the positions of each recorded WebSocket's interactions; those of HTTP are in none.

    Raises:
        CassetteFormatError: A frame was sent before there was a connection.
    """
    found: list[list[int]] = []
    by_name: dict[str, list[int]] = {}
    for number, interaction in enumerate(cassette):
        if not is_frame(interaction):
            continue
        # The recorder adds a number to the address of every connection but the first.
        name = interaction.request.uri.partition("?")[2]
        if interaction.request.method == OPENED:
            by_name[name] = []
            found.append(by_name[name])
        if name not in by_name:
            raise CassetteFormatError(f"a frame before its connection: {interaction.request.uri}")
        by_name[name].append(number)
    return found


def list_headers(headers: Any) -> Headers:
    """Return vcrpy's header mapping (``{name: [values]}`` or ``{name: value}``) as pairs."""
    pairs: list[tuple[str, str]] = []
    for name, values in dict(headers or {}).items():
        # A header may come more than once (`set-cookie`), and vcrpy writes either form.
        several = [values] if isinstance(values, (str, bytes)) else values
        pairs.extend((str(name), as_bytes(value).decode()) for value in several)
    return tuple(pairs)


def as_bytes(body: Any) -> bytes:
    """Return a body as bytes; vcrpy may hold ``None``, text, bytes, a file or an iterator."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode("utf-8")
    if hasattr(body, "read"):
        return as_bytes(body.read())
    # Before iterables: bytes are one, too, of numbers.
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    if isinstance(body, Iterable) and not isinstance(body, Mapping):
        return b"".join(as_bytes(part) for part in body)
    # A number in a file that was edited by hand: bytes(5) would be five zeros.
    raise TypeError(f"a body is text or bytes, not {body!r}")


def _find_header(headers: Headers, name: str) -> str:
    wanted = name.lower()
    return next((value for key, value in headers if key.lower() == wanted), "")


def _read_interaction(item: Any) -> Interaction:
    request, response = item["request"], item["response"]
    status = response["status"]
    timing, error = response.get("x_timing"), response.get("x_error")
    return Interaction(
        RecordedRequest(
            method=str(request["method"]),
            uri=str(request["uri"]),
            headers=list_headers(request.get("headers")),
            body=as_bytes(request.get("body")),
        ),
        RecordedResponse(
            status=int(status["code"]),
            reason=str(status.get("message") or ""),
            headers=list_headers(response.get("headers")),
            body=as_bytes(response["body"].get("string")),
            timing=None if timing is None else tuple((int(d), int(n)) for d, n in timing),
            error=None
            if error is None
            else RecordedError(str(error["type"]), int(error["after_bytes"])),
        ),
    )


def _write_request(request: RecordedRequest) -> Iterator[str]:
    yield "- request:"
    yield f"    method: {_write_scalar(request.method)}"
    yield f"    uri: {_write_scalar(request.uri)}"
    yield from _write_headers(request.headers)
    yield from _write_body("body", request.body, 4)


def _write_response(response: RecordedResponse) -> Iterator[str]:
    yield "  response:"
    yield f"    status: {{code: {response.status}, message: {_quote(response.reason, 4)}}}"
    yield from _write_headers(response.headers)
    yield "    body:"
    yield from _write_body("string", response.body, 6)
    if response.timing is not None:
        yield "    x_timing:" if response.timing else "    x_timing: []"
        for delay, count in response.timing:
            yield f"    - [{delay}, {count}]"
    if response.error is not None:
        kind, after = response.error.type, response.error.after_bytes
        yield f"    x_error: {{type: {_quote(kind, 4)}, after_bytes: {after}}}"


def _write_headers(headers: Headers) -> Iterator[str]:
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        grouped.setdefault(name.lower(), []).append(value)
    yield "    headers:" if grouped else "    headers: {}"
    # Sorted, so that two recordings of one scenario give the same file.
    for name in sorted(grouped):
        values = ", ".join(_quote(value, 6) for value in grouped[name])
        yield f"      {_write_scalar(name)}: [{values}]"


def _write_body(key: str, body: bytes, indent: int) -> Iterator[str]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        yield from _write_binary(key, body, indent)
        return
    # A block keeps one line of the body on one line of the file: an event of a stream in a review.
    if text.strip() and _LITERAL.fullmatch(text):
        yield from _write_literal(key, text, indent)
    else:
        yield f"{' ' * indent}{key}: {_quote(text, indent)}"


def _write_literal(key: str, text: str, indent: int) -> Iterator[str]:
    lines = text.split("\n")
    # YAML's chomping indicator keeps the text's final line breaks: none, one (the default) or more.
    chomp = "-"
    if lines[-1] == "":
        lines.pop()
        chomp = "+" if lines[-1] == "" else ""
    # Without the indentation indicator a parser would take leading blanks for the block's own
    # indentation.
    width = "2" if text[0] in " \n\t" else ""
    pad = " " * indent
    yield f"{pad}{key}: |{width}{chomp}"
    for line in lines:
        yield f"{pad}  {line}" if line else ""


def _write_binary(key: str, body: bytes, indent: int) -> Iterator[str]:
    encoded = base64.b64encode(body).decode("ascii")
    yield f"{' ' * indent}{key}: !!binary |"
    for start in range(0, len(encoded), 96):
        yield f"{' ' * indent}  {encoded[start : start + 96]}"


def _write_scalar(text: str) -> str:
    # Quotes only where YAML needs them, so that files stay easy to read.
    plain = _PLAIN_URI.fullmatch(text) or _PLAIN_WORD.fullmatch(text)
    return text if plain and text.lower() not in _YAML_WORDS else _quote(text, 4)


def _quote(text: str, indent: int) -> str:
    # An escaped line break joins the source lines again. YAML drops the leading blanks of the next
    # line, so a blank that begins a line is escaped, too.
    # Not as vcrpy writes it: that folds lines at blanks and escapes all that is not ASCII, and then
    # nobody can search a recording, or read its diff.
    lines = [_NEEDS_ESCAPE.sub(_escape, line) for line in text.split("\n")]
    return '"' + ("\\n\\\n" + " " * (indent + 2)).join(lines) + '"'


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if char == " ":
        return "\\ "
    return _ESCAPES.get(char) or f"\\u{ord(char):04x}"
