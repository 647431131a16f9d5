"""Internal: find the replacements in one body: JSON, event streams, text or binary data.

JSON is read key by key. The events of a stream are also read as one text, joined across their
deltas, since a secret may be split over several of them. Everything else is searched as plain text.

A body may be text in another form: compressed, or in UTF-16 or UTF-32. A search that reads UTF-8
alone would miss everything in it, so it is decoded. Wide encodings are written back as they were; a
compressed body is stored uncompressed, since nobody could read it in a diff.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from letta_adapters.testing.sanitizer.dates import EPOCH, Place
from letta_adapters.testing.sanitizer.edits import Edit, View, apply, fill, merge, spread
from letta_adapters.testing.sanitizer.finder import Finder
from letta_adapters.testing.sanitizer.json_text import Leaf, read_json
from letta_adapters.testing.sanitizer.patterns import (
    DURATION_KEY,
    ENDPOINT_KEY,
    EPOCH_KEY,
    HARMLESS_VALUE,
    ID_TOKEN,
    OWNER_KEYS,
    REDACTED,
    STAMP_KEY,
)
from letta_adapters.testing.sanitizer.secrets import Path, is_sensitive

# Edits of up to this rank remove private data; the others make volatile data constant.
_PRIVATE = 5
# A shorter number under a sensitive key is a limit or a count, and no secret.
_PIN = 6
_DATA = re.compile(r"^data: ?([^\r\n]*)", re.MULTILINE)
_BLANK = re.compile(r"[\ufeff\s]*")
_TAIL = re.compile(r"[0-9A-Za-z_-]+\Z")
_ENDPOINT = "http://endpoint.test/v1"
# Fields that are repeated, or whole, in every event of a message: joining them means nothing.
_WHOLE = re.compile(
    r"(?:.*_)?id|otid|.*_at|date|name|message_type|type|status|role|source|.*_reason|model|object"
)


# The speaker of each message type decides which dates in it are volatile.
_SPEAKERS = {
    "assistant_message": Place.MODEL,
    "reasoning_message": Place.MODEL,
    "hidden_reasoning_message": Place.MODEL,
    "tool_call_message": Place.MODEL,
    "approval_request_message": Place.MODEL,
    "user_message": Place.ECHO,
}


@dataclass
class Streams:
    """Strings that continue each other over a stream's events, joined so they can be searched."""

    groups: dict[tuple[Any, ...], list[View]] = field(default_factory=dict)

    def add(self, leaves: list[Leaf], views: list[View], cut: bool = False) -> None:
        """Note the strings of one event; ``cut`` says that the recording broke off within it."""
        values = {leaf.path: view.text for leaf, view in zip(leaves, views, strict=True)}
        # The App Server wraps a message in a frame, one level further down.
        at = ("delta",) if ("delta", "message_type") in values else ()
        kind, message = values.get((*at, "message_type")), values.get((*at, "id"))
        for leaf, view in zip(leaves, views, strict=True):
            if leaf.kind != "string" or _WHOLE.fullmatch(_last(leaf)):
                continue
            call = values.get((*leaf.path[:-1], "tool_call_id"))
            index = values.get((*leaf.path[:-2], "index")) if len(leaf.path) > 1 else None
            # Grouped by message and tool call, as a client joins them.
            self.groups.setdefault((kind, message, call, index, leaf.path), []).append(view)
            if cut and call is None:
                self._add_cut(kind, message, leaf, view)
            if call is None and index is None:
                # All strings of one kind are joined as well, in case each event has an id of its
                # own. Tool calls are left out: parallel ones are interleaved, so joining them would
                # make texts nobody said.
                self.groups.setdefault((kind, leaf.path), []).append(view)

    def _add_cut(self, kind: Any, message: Any, leaf: Leaf, view: View) -> None:
        # The event broke off before it named its tool call, so it may continue any of them.
        for key, views in self.groups.items():
            if (*key[:2], key[-1]) == (kind, message, leaf.path) and key[2] is not None:
                views.append(view)

    def edits(self, finder: Finder) -> Iterator[Edit]:
        """Yield, as edits of the body, the findings that show only across several events."""
        for (kind, *_), views in self.groups.items():
            if len(views) < 2:
                continue
            ends = list(accumulate(len(view.text) for view in views))
            place = _SPEAKERS.get(kind, Place.SERVER)
            for edit in merge(finder.edits("".join(view.text for view in views), 0, place)):
                for number, piece in spread(edit, ends):
                    # A finding in the joined text knows more than one in a single event, so it
                    # wins.
                    yield views[number].back([piece._replace(rank=edit.rank - 100)])[0]

    def texts(self) -> Iterator[str]:
        """Yield the joined strings."""
        for views in self.groups.values():
            yield "".join(view.text for view in views)


def clean_body(body: bytes, is_sse: bool, finder: Finder, place: Place = Place.SERVER) -> bytes:
    """Return ``body`` with everything replaced; untouched parts stay the same bytes."""
    charset = detect_charset(body)
    try:
        text = body.decode(charset or "utf-8")
    except UnicodeDecodeError:
        return _clean_binary(body, finder, place)
    if charset is not None:
        # The text is cleaned as UTF-8 and encoded again. Since a body may only look like UTF-16,
        # its bytes are searched as well.
        wide = clean_body(text.encode(), is_sse, finder, place).decode().encode(charset)
        return _clean_binary(wide, finder, place)
    span = 0, len(text)
    edits = find_sse_edits(text, finder) if is_sse else find_json_edits(text, finder, span, place)
    # An id that is cut off at the body's end is too short to be recognised by its form.
    tail = _TAIL.search(text)
    if tail is not None and (new := finder.translate_cut_id(tail[0])) != tail[0]:
        edits.append(Edit(*tail.span(), new, 6))
    return apply(text, merge(edits)).encode("utf-8")


def find_sse_edits(text: str, finder: Finder) -> list[Edit]:
    """Return the edits of an event stream's text."""
    streams = Streams()
    edits: list[Edit] = []
    position = 0
    for match in _DATA.finditer(text):
        edits += _find_in_part(finder, text, (position, match.start(1)), Place.SERVER)
        position = match.end()
        edits += find_json_edits(text, finder, match.span(1), Place.SERVER, streams)
    rest = _find_in_part(finder, text, (position, len(text)), Place.SERVER)
    return [*edits, *rest, *streams.edits(finder)]


def find_json_edits(
    text: str,
    finder: Finder,
    span: tuple[int, int],
    place: Place,
    streams: Streams | None = None,
) -> list[Edit]:
    """Return the edits of the JSON (or other) text in this span of ``text``."""
    start, end = span
    # White space before JSON, or the mark that some servers begin a text with, changes nothing.
    found = _BLANK.match(text, start, end)
    start = found.end() if found else start
    if text[start : start + 1] not in '{["':
        return _find_in_part(finder, text, span, place)
    leaves, stop = read_json(text, start, end)
    views = [leaf.view(text) for leaf in leaves]
    # A `message_type` tells who said everything beside and below it.
    speakers = {
        leaf.path[:-1]: _SPEAKERS[view.text]
        for leaf, view in zip(leaves, views, strict=True)
        if _last(leaf) == "message_type" and view.text in _SPEAKERS
    }
    edits: list[Edit] = []
    for leaf, view in zip(leaves, views, strict=True):
        by_key = _replace_by_key(leaf, view.text)
        if by_key is not None:
            # The key decides for the whole value, so no finding within it may win.
            edits.append(Edit(leaf.start, leaf.end, by_key, -1000))
        elif leaf.kind != "number":
            edits += view.back(finder.edits(view.text, 0, _place(leaf, speakers, place)))
    if streams is not None:
        streams.add(leaves, views, cut=not text[start:end].endswith("}"))
    return edits + _find_in_part(finder, text, (stop, end), place)


def _place(leaf: Leaf, speakers: dict[Path, Place], default: Place) -> Place:
    """Return who said the value at ``leaf``: the nearest message around it decides."""
    if STAMP_KEY.fullmatch(_last(leaf)):
        return Place.STAMP
    if speakers and default is not Place.REQUEST:
        for size in range(len(leaf.path) - 1, -1, -1):
            if leaf.path[:size] in speakers:
                return speakers[leaf.path[:size]]
    return default


def _last(leaf: Leaf) -> str:
    return str(leaf.path[-1]) if leaf.path else ""


def _replace_by_key(leaf: Leaf, value: str) -> str | None:
    """Return the text that a value's key requires in its place, or ``None``."""
    key = _last(leaf).lower()
    if leaf.kind == "number":
        secret = is_sensitive(leaf.path) and len(value) >= _PIN
        return "0" if secret else _replace_number(key, value)
    if leaf.kind == "key" or not value:
        return None
    if is_sensitive(leaf.path):
        return None if HARMLESS_VALUE.fullmatch(value) else REDACTED
    if ENDPOINT_KEY.fullmatch(key) and "://" in value:
        return _ENDPOINT
    if key in OWNER_KEYS and not ID_TOKEN.fullmatch(value):
        return REDACTED
    return None


def _replace_number(key: str, value: str) -> str | None:
    if DURATION_KEY.fullmatch(key):
        return "0"
    if EPOCH_KEY.fullmatch(key) and float(value) > 1e9:
        return str(EPOCH)
    return None


def _find_in_part(finder: Finder, text: str, span: tuple[int, int], place: Place) -> list[Edit]:
    start, end = span
    part = text[start:end]
    if not part.strip():
        return []
    return [
        edit._replace(start=edit.start + start, end=edit.end + start)
        for edit in finder.edits(part, 0, place)
    ]


def _clean_binary(body: bytes, finder: Finder, place: Place) -> bytes:
    """Clean bytes that contain text, keeping every length.

    Binary formats store lengths and offsets, which a moved byte would make wrong.
    """
    text = body.decode("latin-1")
    edits = [
        edit if edit.rank > _PRIVATE else fill(edit.start, edit.end, edit.rank)
        for edit in finder.edits(text, 0, place)
        if edit.rank <= _PRIVATE or len(edit.text) == edit.end - edit.start
    ]
    # Compressed data cannot be edited in place: if it contains anything private, all of it goes.
    for start, end, plain in find_packed(body):
        inner = plain.decode("utf-8", "replace")
        if any(edit.rank <= _PRIVATE for edit in finder.edits(inner)):
            edits.append(fill(start, end, 0))
    return apply(text, merge(edits)).encode("latin-1")


# -- compressed bodies, and other encodings -----------------------------------------------------

# A small body can decompress to gigabytes; no recording has more than this.
_MAX_BYTES = 50_000_000
_BOMS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# Wide encodings without a byte order mark: the name, the width of a character in bytes, and which
# of these bytes is not zero in an English text.
_WIDE = (("utf-32-le", 4, 0), ("utf-32-be", 4, 3), ("utf-16-le", 2, 0), ("utf-16-be", 2, 1))
_PACKED = re.compile(rb"\x1f\x8b\x08|PK\x03\x04|x[\x01\x5e\x9c\xda]")


def unpack(body: bytes, encoding: str) -> bytes:
    """Return ``body`` without its ``content-encoding``; unchanged if that cannot be undone."""
    # The header lists encodings in the order they were applied, so they are undone from the last.
    for name in reversed([part.strip().lower() for part in encoding.split(",")]):
        decode = _DECODERS.get(name)
        plain = None if decode is None else decode(body)
        if plain is None:
            return body
        body = plain
    # A gzip file is unpacked even if no header says so: a download may be one.
    return (_gunzip(body) or body) if body[:3] == b"\x1f\x8b\x08" else body


def detect_charset(body: bytes) -> str | None:
    """Return the name of the wide encoding that a body is in, or ``None``."""
    for mark, name in _BOMS:
        if body.startswith(mark):
            return name
    # Without a mark, the zero bytes tell: an English text has one letter, and else zeros, in every
    # character.
    sample = body[:400]
    if len(body) < 8 or sample.count(0) * 5 < len(sample) * 2:
        return None
    for name, width, at in _WIDE:
        letters = sample[at::width]
        zeros = sample.count(0) >= len(sample) * (width - 1) // width * 4 // 5
        if len(body) % width == 0 and zeros and letters.count(0) * 10 < len(letters):
            return name
    return None


def find_packed(body: bytes) -> list[tuple[int, int, bytes]]:
    """Return the compressed parts of a body, as (start, end, decompressed bytes)."""
    found: list[tuple[int, int, bytes]] = []
    for match in _PACKED.finditer(body):
        start = match.start()
        if found and start < found[-1][1]:
            continue
        # A ZIP archive ends with its directory, so its end is not known here: it takes the rest.
        if match[0][:2] == b"PK":
            plain, used = _unzip(body[start:]), len(body) - start
        else:
            plain, used = _decompress(body[start:], 31 if match[0][:1] == b"\x1f" else 15)
        if plain:
            found.append((start, start + used, plain))
    return found


def _gunzip(data: bytes) -> bytes | None:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(_MAX_BYTES)
    except (OSError, EOFError, zlib.error):
        return None


def _inflate(data: bytes) -> bytes | None:
    # Some servers send raw deflate data without the zlib header, against RFC 9110.
    return _decompress(data, 15)[0] or _decompress(data, -15)[0] or None


def _decompress(data: bytes, wbits: int) -> tuple[bytes, int]:
    decoder = zlib.decompressobj(wbits)
    try:
        plain = decoder.decompress(data, _MAX_BYTES)
    except zlib.error:
        return b"", 0
    return plain, len(data) - len(decoder.unused_data)


def _unzip(data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [item for item in archive.infolist() if item.file_size < _MAX_BYTES]
            return b"\n".join(
                item.filename.encode() + b"\n" + archive.read(item) for item in entries
            )
    except (
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
        zlib.error,
        EOFError,
        ValueError,
    ):
        return b""


def _decode_by_httpx(name: str) -> Callable[[bytes], bytes | None]:
    def decode(data: bytes) -> bytes | None:
        import httpx

        response = httpx.Response(200, headers={"content-encoding": name}, content=data)
        # Without the decoder's package the bytes come as they are.
        return None if response.content == data else response.content

    def guarded(data: bytes) -> bytes | None:
        import httpx

        try:
            return decode(data)
        except httpx.DecodingError:
            return None

    return guarded


_DECODERS: dict[str, Callable[[bytes], bytes | None]] = {
    "": lambda data: data,
    "identity": lambda data: data,
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "br": _decode_by_httpx("br"),
    "zstd": _decode_by_httpx("zstd"),
}
