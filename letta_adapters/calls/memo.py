"""What a process remembers between calls: paused turns, names, and what was sent already."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from letta_adapters.backends.base import Conversation
from letta_adapters.messages import Message

if TYPE_CHECKING:
    from letta_adapters.client import AsyncLettaClient
    from letta_adapters.turns import Turn

_RECENT_CALLS: Final = 1024


@dataclass(slots=True)
class Held:
    """A turn that is paused on an App Server, where nobody but this connection can resume it.

    ``key``: the call that began it, or went on with it. ``events``: what it said since then, for
    the same call again.
    """

    turn: Turn
    key: str | None
    events: tuple[Message, ...]
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


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
    """Where repeatable calls of this process went, newest last. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: OrderedDict[tuple[str, str], Conversation] = OrderedDict()

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
            self._calls.move_to_end(call)
            while len(self._calls) > _RECENT_CALLS:
                self._calls.popitem(last=False)


recent = RecentCalls()
