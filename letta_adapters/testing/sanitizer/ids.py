"""Internal: renumber ids, so that every recording of one scenario has the same ones.

A new id is ``prefix-00000000-<crc of the prefix>-4000-a000-<number><part>``, numbered per prefix in
order of appearance; different ids stay different. Letta derives the ``otid`` of a part of a message
from the message's uuid, by putting the part's index into the last seven bits. So uuids that differ
in the last byte only are one family and stay one: its message ends in ``7f`` (the next one, should
ids of one family differ, in ``7e``), its otids in their index.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

from letta_adapters.engine.otids import get_call_part
from letta_adapters.testing.sanitizer.patterns import ID_TOKEN, UUID

_PARTS = re.compile(rf"(?:(?P<prefix>[a-z][a-z0-9_]*)-)?(?P<uuid>{UUID})")
_OPAQUE = re.compile(r"(?P<prefix>[a-z]+)(?P<mark>[_-])(?P<rest>[0-9A-Za-z]+)")
_CUT = re.compile(r"(?P<prefix>(?:[a-z][a-z0-9_]*-)?)(?P<rest>[0-9a-f]{8}-[0-9a-f-]*)")
_NUMBERED = "00000000"


@dataclass
class _Family:
    """A group of uuids that share all but their last byte."""

    prefix: str
    members: list[str] = field(default_factory=list)
    number: int = 0
    has_message: bool = False


class IdMap:
    """A translation of ids: learn every id first (:meth:`see`), then translate (:meth:`get`).

    Ids beginning with zeros (Letta's default ids, those of tests, and those made here) stay as they
    are.
    """

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}
        self._others: dict[str, str] = {}
        self._tokens: dict[str, None] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def see(self, token: str) -> None:
        """Note an id; the order of the calls decides the numbers."""
        if self._passes(token):
            # Numbers that a test chose itself must not be given to another id.
            self._taken.add(token.lower())
            return
        match = _PARTS.fullmatch(token)
        if match is None:
            self._others.setdefault(token, "")
            return
        self._tokens.setdefault(token)
        prefix, uuid = match["prefix"] or "", match["uuid"].lower()
        family = self._families.setdefault(uuid[:-2], _Family(prefix))
        family.has_message |= prefix == "message"
        # A bare uuid beside a message is its otid, which has its part index in it already.
        if (prefix or not family.has_message) and uuid not in family.members:
            family.members.append(uuid)
        family.prefix = family.prefix or prefix

    def get(self, token: str) -> str:
        """Return the id to write instead; ids never seen stay as they are."""
        if self._passes(token):
            # In an otid of an adapter's call, the rest names the conversation, which is a new one
            # in every run.
            call = get_call_part(token)
            return call + "0" * (len(token) - len(call))
        match = _PARTS.fullmatch(token)
        if match is None:
            return self._other(token)
        prefix, uuid = match["prefix"], match["uuid"].lower()
        family = self._families.get(uuid[:-2])
        if family is None:
            return token
        if not family.number:
            family.number = self._next_number("message" if family.has_message else family.prefix)
        new = f"{self._base(family)}{family.number:010x}{self._part(family, prefix, uuid):02x}"
        return f"{prefix}-{new}" if prefix else new

    def get_cut(self, piece: str) -> str:
        """Return the text to write for the beginning of an id; other texts stay as they are."""
        if self._passes(piece) or len(piece) < 4:
            return piece
        for token in (*self._tokens, *self._others):
            if token.startswith(piece):
                return self.get(token)[: len(piece)]
        # The whole id was never seen, so no number is known: zeros say no more than that an id was
        # here.
        match = _CUT.fullmatch(piece)
        return piece if match is None else match["prefix"] + re.sub("[0-9a-f]", "0", match["rest"])

    def number(self) -> None:
        """Assign numbers in the order of appearance; call it once everything was seen."""
        for family in self._families.values():
            if not family.number:
                prefix = "message" if family.has_message else family.prefix
                family.number = self._next_number(prefix)
        for token in self._others:
            self._others[token] = self._others[token] or self._opaque(token)

    @staticmethod
    def _passes(token: str) -> bool:
        return _NUMBERED in token[:24]

    @staticmethod
    def _base(family: _Family) -> str:
        prefix = "message" if family.has_message else family.prefix
        return f"{_NUMBERED}-{zlib.crc32(prefix.encode()) & 0xFFFF:04x}-4000-a000-"

    @staticmethod
    def _part(family: _Family, prefix: str | None, uuid: str) -> int:
        if family.has_message:
            if not prefix:
                return int(uuid[-2:], 16) & 0x7F
            return 0x7F - _index(family.members, uuid)
        return _index(family.members, uuid)

    def _next_number(self, prefix: str) -> int:
        number = self._counts.get(prefix, 0) + 1
        crc = zlib.crc32(prefix.encode()) & 0xFFFF
        # A recording that is extended contains numbered ids already: those numbers are skipped.
        while any(f"-{crc:04x}-4000-a000-{number:010x}" in taken for taken in self._taken):
            number += 1
        self._counts[prefix] = number
        return number

    def _other(self, token: str) -> str:
        return self._others.get(token) or token

    def _opaque(self, token: str) -> str:
        match = _OPAQUE.fullmatch(token)
        if match is None:  # a bare hash: keep its length
            number = self._next_opaque("")
            # The letter keeps it recognisable as a hash.
            return f"{_NUMBERED}a{number:0{len(token) - 9}x}"
        number = self._next_opaque(match["prefix"])
        return f"{match['prefix']}{match['mark']}{_NUMBERED}{number:04d}"

    def _next_opaque(self, prefix: str) -> int:
        key = f"{prefix}:"
        number = self._counts.get(key, 0) + 1
        while any(_tail_number(taken) == (prefix, number) for taken in self._taken):
            number += 1
        self._counts[key] = number
        return number


def _index(members: list[str], uuid: str) -> int:
    return members.index(uuid) if uuid in members else len(members)


def _tail_number(token: str) -> tuple[str, int] | None:
    match = _OPAQUE.fullmatch(token)
    if match is not None and match["rest"][8:].isdigit():
        return match["prefix"], int(match["rest"][8:])
    if match is None and not _PARTS.fullmatch(token) and ID_TOKEN.fullmatch(token):
        return "", int(token[9:], 16)
    return None
