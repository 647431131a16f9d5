"""Internal: match live requests to recorded exchanges whose answers hand out ids.

Sessions that run in parallel create their conversations with equal requests, and in another order
in every run. So an id from a recorded answer is not tied to one live request in advance: it is
bound when the client first *uses* it. As long as the live order is the recorded one, nothing is
renamed. When a request fits no recorded exchange that is left, all exchanges so far are assigned
again: each to a recorded one whose request equals its own but for ids, and whose answer equals the
answer given but for ids (and numbers), with one renaming of ids for all of them. Later answers are
given in the ids which the client knows.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import httpx

from letta_adapters.testing.cassette import RecordedRequest, RecordedResponse
from letta_adapters.testing.recording.matching import RequestKey, covers
from letta_adapters.testing.sanitizer.patterns import ID_TOKEN

# The search below is exponential in the worst case. Real recordings need a few steps per exchange,
# so this bound ends only a search that is hopeless.
_MAX_STEPS = 20_000
# Numbers as JSON values: two answers that differ in a count or a time alone are equal.
NUMBER = re.compile(r"(?<=[:\s,\[])-?\d+(?:\.\d+)?(?=[,\s}\]]|\Z)")
Pairs = tuple[tuple[str, str], ...]


@dataclass
class PlayableInteraction:
    """A recorded exchange and the key of its request; ``number`` counts from 1."""

    number: int
    request: RecordedRequest
    response: RecordedResponse
    key: RequestKey
    played: bool = False

    @property
    def label(self) -> str:
        """Return the number, method and path, for messages."""
        target = httpx.URL(self.request.uri).raw_path.decode("ascii")
        return f"#{self.number} {self.request.method} {target}"

    @cached_property
    def text(self) -> str:
        """Return the answer's body as text."""
        return self.response.body.decode("utf-8", "surrogateescape")


@dataclass
class _PlayedInteraction:
    """A live exchange: its request, and the text of the answer that was given."""

    key: RequestKey
    entry: PlayableInteraction
    given: str | None = None  # None: as recorded

    @property
    def text(self) -> str:
        return self.entry.text if self.given is None else self.given


@dataclass
class _IdMapping:
    """A one-to-one mapping between the ids of the client and those of the recording."""

    recorded: dict[str, str] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)

    def bind(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]] | None:
        """Add (live, recorded) pairs and return the new ones; on a conflict add none: ``None``."""
        added: list[tuple[str, str]] = []
        for live, recorded in pairs:
            if self.recorded.get(live) == recorded:
                continue
            # One of the two already has another partner: take back this call's pairs, so that the
            # caller can try another exchange from an unchanged mapping.
            if live in self.recorded or recorded in self.live:
                self.undo(added)
                return None
            self.recorded[live], self.live[recorded] = recorded, live
            added.append((live, recorded))
        return added

    def undo(self, pairs: Iterable[tuple[str, str]]) -> None:
        for live, recorded in pairs:
            del self.recorded[live], self.live[recorded]

    def to_recorded(self, live: str) -> str:
        """Return the recorded id of a live one; for an id never bound, an id that is free."""
        return _follow(live, self.recorded, self.live)

    def to_live(self, recorded: str) -> str:
        """Return the client's id of a recorded one.

        An id never bound gets a free one, and is bound to it.
        """
        live = _follow(recorded, self.live, self.recorded)
        self.recorded[live], self.live[recorded] = recorded, live
        return live


def _follow(token: str, known: dict[str, str], taken: dict[str, str]) -> str:
    found = known.get(token)
    if found is not None:
        return found
    # An unbound id keeps its own name, unless that name was given to another id. Then it takes the
    # name that the other one gave up, so that the mapping stays one to one.
    while token in taken:
        token = taken[token]
    return token


class Matcher:
    """Assign recorded exchanges to live requests: each once, equal ones in recorded order.

    ``server_ids`` holds the ids that may be bound. Ids that the client makes up are ``*`` in the
    keys already, so they match any.
    """

    def __init__(self, entries: list[PlayableInteraction], server_ids: Container[str]) -> None:
        self.entries = entries
        self._ids = server_ids
        self._waiting: dict[RequestKey, deque[PlayableInteraction]] = {}
        self._past: list[_PlayedInteraction] = []
        # No renaming exists until one is needed: most runs repeat the recorded order.
        self._renaming: _IdMapping | None = None
        self._wait()

    def _wait(self) -> None:
        self._waiting.clear()
        for entry in self.entries:
            if not entry.played:
                self._waiting.setdefault(entry.key, deque()).append(entry)

    def take(self, key: RequestKey) -> tuple[PlayableInteraction, RecordedResponse] | None:
        """Return the exchange for ``key``, with its answer in the client's ids, or ``None``."""
        entry = self._find(key)
        if entry is None:
            # No recorded key equals this one: it may differ only where a placeholder stands.
            for known in self._covering(key):
                entry = self._find(known)
                if entry is not None:
                    key = known
                    break
        if entry is None:
            return None
        entry.played = True
        response, given = self._to_live_ids(entry)
        self._past.append(_PlayedInteraction(key, entry, given))
        return entry, response

    def knows(self, key: RequestKey) -> bool:
        """Return whether an exchange that was not played yet may answer ``key``."""
        form = self._mask(key)
        left = (self._mask(entry.key) for entry in self.entries if not entry.played)
        return any(covers(other, form) for other in left)

    def _find(self, key: RequestKey) -> PlayableInteraction | None:
        return self._next(self._translate(key)) or self._assign_anew(key)

    def _next(self, key: RequestKey) -> PlayableInteraction | None:
        waiting = self._waiting.get(key)
        return waiting.popleft() if waiting else None

    def _covering(self, key: RequestKey) -> Iterator[RequestKey]:
        """Yield the recorded keys that equal ``key`` but for their placeholders.

        They come with the ids of ``key`` in place of their own.
        """
        form, ids, tried = self._mask(key), self.find_ids(key.text), set()
        for entry in self.entries:
            if entry.played or entry.key in tried:
                continue
            tried.add(entry.key)
            recorded = self.find_ids(entry.key.text)
            if len(recorded) == len(ids) and covers(self._mask(entry.key), form):
                live = dict(zip(recorded, ids, strict=True))
                yield entry.key.replace_ids(live.__getitem__, self._ids)

    def _translate(self, key: RequestKey) -> RequestKey:
        if self._renaming is None:
            return key
        return key.replace_ids(self._renaming.to_recorded, self._ids)

    def _to_live_ids(self, entry: PlayableInteraction) -> tuple[RecordedResponse, str | None]:
        renaming = self._renaming
        if renaming is None:
            return entry.response, None

        def rename(text: str) -> str:
            return ID_TOKEN.sub(
                lambda match: renaming.to_live(match[0]) if match[0] in self._ids else match[0],
                text,
            )

        text = rename(entry.text)
        if text == entry.text:
            return entry.response, None
        # A changed length invalidates the recorded timing (it counts bytes) and moves the place
        # where a recorded failure comes.
        old = entry.response
        body = text.encode("utf-8", "surrogateescape")
        headers = tuple((name, rename(value)) for name, value in old.headers)
        error = old.error and replace(old.error, after_bytes=len(body))
        timing = old.timing if len(body) == len(old.body) else None
        return replace(old, body=body, headers=headers, error=error, timing=timing), text

    def _assign_anew(self, key: RequestKey) -> PlayableInteraction | None:
        # Exchanges are grouped by their request without ids: only those of one group can stand for
        # one another.
        groups: dict[RequestKey, list[PlayableInteraction]] = {}
        for entry in self.entries:
            groups.setdefault(self._mask(entry.key), []).append(entry)
        if self._mask(key) not in groups:
            return None
        renaming, found = _Assignment(self, groups).solve(key)
        if renaming is None:
            return None
        self._renaming = renaming
        for past, entry in zip(self._past, found, strict=False):
            # The client has already read this answer, so its text stays, whichever exchange it now
            # counts for.
            past.given, past.entry = past.text, entry
        for entry in self.entries:
            entry.played = False
        for entry in found:
            entry.played = True
        self._wait()
        return found[-1]

    def _mask(self, key: RequestKey) -> RequestKey:
        return key.replace_ids(lambda _token: "#", self._ids)

    def find_ids(self, text: str) -> list[str]:
        """Return the server's ids in a text, in order."""
        return [token for token in ID_TOKEN.findall(text) if token in self._ids]

    def mask_text(self, text: str) -> str:
        """Return a text without the server's ids and without numbers."""
        plain = ID_TOKEN.sub(lambda m: "#" if m[0] in self._ids else m[0], text)
        return NUMBER.sub("0", plain)

    def past(self) -> list[_PlayedInteraction]:
        """Return the live exchanges so far."""
        return self._past

    def pairs(self, live: RequestKey, recorded: RequestKey) -> list[tuple[str, str]] | None:
        """Pair the ids of two keys of one form; ``None`` if one key has more of them."""
        ours, theirs = self.find_ids(live.text), self.find_ids(recorded.text)
        return list(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else None


class _Assignment:
    """A search for one recorded exchange per live one: depth first, without recursion."""

    def __init__(
        self, matcher: Matcher, groups: dict[RequestKey, list[PlayableInteraction]]
    ) -> None:
        self._matcher = matcher
        self._groups = groups
        self._forms: dict[int, str] = {}
        self._renaming = _IdMapping()
        self._used: set[int] = set()

    def solve(self, key: RequestKey) -> tuple[_IdMapping | None, list[PlayableInteraction]]:
        """Return the renaming, and the entries in the order of the past, ``key``'s last."""
        live: list[tuple[RequestKey, _PlayedInteraction | None]] = [
            (past.key, past) for past in self._past
        ]
        live.append((key, None))
        # Requests with the fewest candidates come first: their ids decide for the others. Among
        # equals the latest comes first, since it is the one that did not fit.
        order = sorted(range(len(live)), key=lambda i: (self._count_choices(live[i][0]), -i))
        found: list[PlayableInteraction | None] = [None] * len(live)
        # One trail per assigned request: the candidates left to try, the one chosen, and the id
        # pairs it bound, which are unbound when the search goes back.
        trails: list[
            tuple[Iterator[tuple[PlayableInteraction, Pairs]], PlayableInteraction | None, Pairs]
        ] = []
        steps = 0
        while len(trails) < len(order) and steps < _MAX_STEPS:
            trails.append((self._list_candidates(*live[order[len(trails)]]), None, ()))
            while trails and steps < _MAX_STEPS:
                steps += 1
                candidates, entry, added = trails.pop()
                if entry is not None:
                    self._renaming.undo(added)
                    self._used.discard(entry.number)
                step = next(candidates, None)
                if step is not None:
                    entry, added = step
                    self._used.add(entry.number)
                    found[order[len(trails)]] = entry
                    trails.append((candidates, entry, added))
                    break
            if not trails:
                return None, []
        if len(trails) < len(order) or steps >= _MAX_STEPS:
            return None, []
        return self._renaming, [entry for entry in found if entry is not None]

    @property
    def _past(self) -> list[_PlayedInteraction]:
        return self._matcher.past()

    def _count_choices(self, key: RequestKey) -> int:
        return len(self._groups.get(self._matcher._mask(key), ()))

    def _list_candidates(
        self, key: RequestKey, past: _PlayedInteraction | None
    ) -> Iterator[tuple[PlayableInteraction, Pairs]]:
        group = self._groups.get(self._matcher._mask(key), [])
        # The exchange assigned so far comes first, so that as little as possible changes.
        for entry in sorted(group, key=lambda e: past is not None and e is not past.entry):
            if entry.number in self._used:
                continue
            pairs = self._matcher.pairs(key, entry.key)
            if pairs is not None and past is not None:
                pairs = self._add_answer_ids(pairs, past, entry)
            added = None if pairs is None else self._renaming.bind(pairs)
            if added is not None:
                yield entry, tuple(added)

    def _add_answer_ids(
        self, pairs: list[tuple[str, str]], past: _PlayedInteraction, entry: PlayableInteraction
    ) -> list[tuple[str, str]] | None:
        same = past.entry.response.status == entry.response.status
        if not same or (entry is not past.entry and self._mask(past.entry) != self._mask(entry)):
            return None
        # The answer was given before, so its ids are known to the client: they are bound as well.
        given, recorded = self._matcher.find_ids(past.text), self._matcher.find_ids(entry.text)
        if len(given) != len(recorded):
            return None
        return [*pairs, *zip(given, recorded, strict=True)]

    def _mask(self, entry: PlayableInteraction) -> str:
        if entry.number not in self._forms:
            self._forms[entry.number] = self._matcher.mask_text(entry.text)
        return self._forms[entry.number]
