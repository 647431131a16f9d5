"""What a process remembers between calls: paused turns, names, and what was sent already."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from letta_adapters.backends.base import Conversation
from letta_adapters.messages import Message

if TYPE_CHECKING:
    from letta_adapters.client import AsyncLettaClient
    from letta_adapters.turns import Turn

_RECENT_CALLS: Final = 1024


@dataclass(frozen=True, slots=True)
class Held:
    """A turn that is paused on an App Server, where nobody but this connection can resume it.

    ``log``: what it said so far. ``began``: where in it each call of the turn begins, by the call's
    key: the same call again gets all that was said since then.
    """

    turn: Turn
    log: tuple[Message, ...]
    began: Mapping[str, int]

    def since(self, key: str | None) -> tuple[Message, ...] | None:
        """What was said since that call; ``None`` if it is none of the turn's."""
        at = self.began.get(key) if key is not None else None
        return None if at is None else self.log[at:]

    @classmethod
    def of(cls, turn: Turn, key: str | None, said: Sequence[Message], before: Held | None) -> Held:
        """The turn pauses (again) after a call."""
        log = before.log if before is not None else ()
        began = dict(before.began) if before is not None else {}
        if key is not None:
            began[key] = len(log)
        return cls(turn, (*log, *said), began)


@dataclass(slots=True)
class Memo:
    """What is known of one client's conversations."""

    held: dict[Conversation, Held] = field(default_factory=dict)
    threads: dict[tuple[str, str], str] = field(default_factory=dict)
    default_agent: str | None = None
    models: dict[str, str | None] = field(default_factory=dict)
    # What system text conversations were told, by digest.
    told: dict[Conversation, str | None] = field(default_factory=dict)
    # Conversations that a call gave a model of its own.
    changed: dict[Conversation, str] = field(default_factory=dict)


_memos: WeakKeyDictionary[AsyncLettaClient, Memo] = WeakKeyDictionary()


def memo_of(client: AsyncLettaClient) -> Memo:
    """The client's memo."""
    found = _memos.get(client)
    if found is None:
        found = _memos[client] = Memo()
    return found


class RecentCalls:
    """Where repeatable calls of this process went, newest last. Threads share it.

    An App Server stores what an agent had said when its turn was cut off, and nothing in it says
    that it is only a part; so it is known here which calls came to their end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: OrderedDict[tuple[str, str], Conversation] = OrderedDict()
        self._unended: set[tuple[str, str]] = set()

    def get(self, agent_id: str, key: str | None) -> Conversation | None:
        """Where this call of the agent went before."""
        with self._lock:
            return self._calls.get((agent_id, key)) if key is not None else None

    def put(self, key: str | None, where: Conversation) -> None:
        """It goes there."""
        if key is None:
            return
        with self._lock:
            call = (where.agent_id, key)
            self._calls[call] = where
            self._unended.add(call)
            self._calls.move_to_end(call)
            while len(self._calls) > _RECENT_CALLS:
                self._unended.discard(self._calls.popitem(last=False)[0])

    def ended(self, key: str | None, where: Conversation) -> None:
        """It was answered there, or waits for its caller."""
        if key is not None:
            with self._lock:
                call = (where.agent_id, key)
                self._calls[call] = where
                self._unended.discard(call)

    def was_cut_off(self, agent_id: str, key: str | None) -> bool:
        """Was it begun here and never came to its end?"""
        with self._lock:
            return key is not None and (agent_id, key) in self._unended


recent = RecentCalls()
