"""Decode bodies that are text in another form: compressed, or in UTF-16 or UTF-32.

A search that reads UTF-8 alone would miss everything in them. They are decoded here. Wide encodings
are written back as they were; a compressed body is stored uncompressed, since nobody could read it
in a diff.

Internal: not part of the public API.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable

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


def unpacked(body: bytes, encoding: str) -> bytes:
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


def charset_of(body: bytes) -> str | None:
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


def packed_texts(body: bytes) -> list[tuple[int, int, bytes]]:
    """Return the compressed parts of a body, as (start, end, decompressed bytes)."""
    found: list[tuple[int, int, bytes]] = []
    for match in _PACKED.finditer(body):
        start = match.start()
        if found and start < found[-1][1]:
            continue
        # A ZIP archive ends with its directory, so its end is not known here: it takes the rest.
        if match[0][:2] == b"PK":
            plain, used = _zipped(body[start:]), len(body) - start
        else:
            plain, used = _inflated(body[start:], 31 if match[0][:1] == b"\x1f" else 15)
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
    return _inflated(data, 15)[0] or _inflated(data, -15)[0] or None


def _inflated(data: bytes, wbits: int) -> tuple[bytes, int]:
    decoder = zlib.decompressobj(wbits)
    try:
        plain = decoder.decompress(data, _MAX_BYTES)
    except zlib.error:
        return b"", 0
    return plain, len(data) - len(decoder.unused_data)


def _zipped(data: bytes) -> bytes:
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


def _by_httpx(name: str) -> Callable[[bytes], bytes | None]:
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
    "br": _by_httpx("br"),
    "zstd": _by_httpx("zstd"),
}
