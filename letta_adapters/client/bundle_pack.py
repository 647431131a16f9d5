"""Internal: read the objects of a git bundle, without git, and with bounds on all of it.

A bundle from elsewhere may claim any size and unpack to anything, so nothing is made before its
size is known to be allowed, and the objects of a bundle together have a limit as well. Formats:
``gitformat-bundle`` (version 2, SHA-1) and ``gitformat-pack`` (version 2).
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from letta_adapters.errors import InvalidInputError

#: How a file begins that is a bundle of any version.
MARK: Final = re.compile(rb"# v\d+ git bundle\n")
_HEADER: Final = b"# v2 git bundle\n"
_REF: Final = re.compile(rb"([0-9a-f]{40}) (refs/[\x21-\x7e]{1,200})")
_MAX_REFS: Final = 10
_MAX_OBJECTS: Final = 100_000
_MAX_OBJECT: Final = 16 << 20
_MAX_TOTAL: Final = 256 << 20
_PIECE: Final = 64 << 10
_SHA: Final = 20
_COMMIT, _TREE, _BLOB, _OFFSET, _NAMED = 1, 2, 3, 6, 7
_KINDS: Final[Mapping[int, str]] = {_COMMIT: "commit", _TREE: "tree", _BLOB: "blob"}


@dataclass(frozen=True, slots=True)
class Object:
    """An object of a repository: a ``commit``, a ``tree`` or a ``blob``."""

    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of a bundle: its refs, and its objects by their ids."""

    refs: Mapping[str, str]
    objects: Mapping[str, Object]

    def find(self, sha: str, kind: str) -> bytes:
        """Return the content of an object; raise InvalidInputError if it is missing, or another."""
        found = self.objects.get(sha)
        if found is None or found.kind != kind:
            raise refuse(f"it has no {kind} {sha[:12]}, which it needs")
        return found.data


def refuse(why: str) -> InvalidInputError:
    """Return the error of a bundle that cannot be read."""
    return InvalidInputError(f"This is no bundle of an agent: {why}.")


def read_bundle(data: bytes) -> Bundle:
    """Return what a bundle holds.

    Raises:
        InvalidInputError: It is damaged, of another version, needs other objects than its own, or
            is larger than the bounds.
    """
    if not data.startswith(_HEADER):
        raise refuse("it is of another version of the format than 2")
    refs: dict[str, str] = {}
    at = len(_HEADER)
    while True:
        end = data.find(b"\n", at, at + 1024)
        if end < 0:
            raise refuse("its header is damaged")
        line, at = data[at:end], end + 1
        if not line:
            return Bundle(refs, _Pack(data, at).read())
        # Such a line names a commit that whoever reads the bundle must have already.
        if line.startswith(b"-"):
            raise refuse("it is incomplete, and needs another repository")
        found = _REF.fullmatch(line)
        if found is None or len(refs) == _MAX_REFS or found[2].decode() in refs:
            raise refuse("its header is damaged")
        refs[found[2].decode()] = found[1].decode()


class _Pack:
    """The pack behind the header of a bundle, from its first byte at ``start``."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._view = memoryview(data)
        self._start = start
        # The checksum is the last thing in the file.
        self._end = len(data) - _SHA
        self._at = start
        self._total = 0
        self._by_place: dict[int, tuple[int, bytes]] = {}
        self._by_sha: dict[str, tuple[int, bytes]] = {}

    def read(self) -> dict[str, Object]:
        """Return all objects."""
        start, data = self._start, self._data
        # A pack begins with its mark, its version and the number of its objects, four bytes each.
        if self._end < start + 12 or data[start : start + 8] != b"PACK\0\0\0\2":
            raise refuse("it has no pack of objects")
        count = int.from_bytes(data[start + 8 : start + 12], "big")
        if count > _MAX_OBJECTS:
            raise refuse(f"it has more than {_MAX_OBJECTS} objects")
        summed = hashlib.sha1(self._view[start : self._end], usedforsecurity=False).digest()
        if summed != data[self._end :]:
            raise refuse("its checksum is another one: it is damaged or cut off")
        self._at = start + 12
        for _ in range(count):
            self._read_object()
        if self._at != self._end:
            raise refuse("something stands behind its objects")
        return {sha: Object(_KINDS[kind], made) for sha, (kind, made) in self._by_sha.items()}

    def _read_object(self) -> None:
        place = self._at
        kind, size = self._read_size()
        # A change is read order by order, which takes longer than the bytes of an object do.
        self._count(size if kind in _KINDS else 4 * size)
        if kind == _OFFSET:
            base = self._by_place.get(place - self._read_distance())
            kind, made = self._apply(base, self._inflate(size))
        elif kind == _NAMED:
            name = self._data[self._at : self._at + _SHA].hex()
            self._at += _SHA
            kind, made = self._apply(self._by_sha.get(name), self._inflate(size))
        elif kind in _KINDS:
            made = self._inflate(size)
        else:
            raise refuse("it has an object that is no commit, tree or blob")
        # The id is made of the content, as git does it, so an object cannot pass for another one.
        whole = hashlib.sha1(b"%s %d\0" % (_KINDS[kind].encode(), len(made)), usedforsecurity=False)
        whole.update(made)
        sha = whole.hexdigest()
        if sha in self._by_sha:
            raise refuse("it has an object twice")
        self._by_place[place] = self._by_sha[sha] = kind, made

    def _next(self) -> int:
        if self._at >= self._end:
            raise refuse("it is cut off")
        self._at += 1
        return self._data[self._at - 1]

    def _read_size(self) -> tuple[int, int]:
        """Return the kind of an object and its size, as its header claims it."""
        byte = self._next()
        kind, size, shift = (byte >> 4) & 7, byte & 15, 4
        while byte & 0x80:
            if shift > 32:
                raise refuse("it has an object that is too large")
            byte = self._next()
            size |= (byte & 0x7F) << shift
            shift += 7
        if size > _MAX_OBJECT:
            raise refuse(f"it has an object of more than {_MAX_OBJECT >> 20} MiB")
        return kind, size

    def _read_distance(self) -> int:
        byte = self._next()
        distance = byte & 0x7F
        while byte & 0x80:
            byte = self._next()
            # The format adds one for each further byte, so that no distance has two spellings.
            distance = ((distance + 1) << 7) | (byte & 0x7F)
            if distance > len(self._data):
                raise refuse("it is damaged")
        return distance

    def _count(self, size: int) -> None:
        self._total += size
        if self._total > _MAX_TOTAL:
            raise refuse(f"it unpacks to more than {_MAX_TOTAL >> 20} MiB")

    def _inflate(self, size: int) -> bytes:
        """Return what is compressed here, which must have exactly this size."""
        unpacker = zlib.decompressobj()
        made = bytearray()
        # Little more than the object can take up: zlib copies what it is fed beyond its end.
        piece = min(_PIECE, size + 128)
        try:
            while not unpacker.eof:
                fed = self._view[self._at : min(self._at + piece, self._end)]
                if not fed:
                    raise refuse("it is cut off")
                # One byte more than it may be, which tells a bomb from its end.
                made += unpacker.decompress(fed, size + 1 - len(made))
                if len(made) > size:
                    raise refuse("it has an object that is larger than it claims")
                rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
                self._at += len(fed) - len(rest)
        except zlib.error as error:
            raise refuse(f"it is damaged ({error})") from None
        if len(made) != size:
            raise refuse("it has an object that is smaller than it claims")
        return bytes(made)

    def _apply(self, base: tuple[int, bytes] | None, delta: bytes) -> tuple[int, bytes]:
        """Return the object that is a change of another one."""
        if base is None:
            raise refuse("it has a change of an object that does not stand before it")
        kind, old = base
        old_size, at = _read_varint(delta, 0)
        size, at = _read_varint(delta, at)
        if old_size != len(old) or size > _MAX_OBJECT:
            raise refuse("it has a change that does not fit its object")
        self._count(size)
        made = bytearray()
        while at < len(delta):
            order = delta[at]
            at += 1
            if order & 0x80:
                numbers = [0, 0]
                for bit, (number, shift) in enumerate(_COPY):
                    if order & (1 << bit):
                        numbers[number] |= _byte(delta, at) << shift
                        at += 1
                # In the format a length of zero stands for 64 KiB.
                begin, length = numbers[0], numbers[1] or 0x10000
                piece = old[begin : begin + length]
            else:
                length = order
                piece = delta[at : at + length]
                at += length
            # An empty piece is no order at all.
            if not length or len(piece) != length or len(made) + length > size:
                raise refuse("it has a change that does not fit its object")
            made += piece
        if len(made) != size:
            raise refuse("it has a change that does not fit its object")
        return kind, bytes(made)


# The bits of an order to copy: for each a byte of the place (0) or of the length (1).
_COPY: Final = ((0, 0), (0, 8), (0, 16), (0, 24), (1, 0), (1, 8), (1, 16))


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise refuse("it has a change that is cut off")
    return data[at]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = _byte(data, at)
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
        if shift > 35:
            raise refuse("it has a change that is too large")
