"""Remember between calls of a process: paused turns, conversations' names, and calls made.

Internal: not part of the public API.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from letta_adapters._utils.bounded import BOUND, Bounded
from letta_adapters.backends.base import Change, Conversation
from letta_adapters.client.client import requests_of
from letta_adapters.messages import Message

if TYPE_CHECKING:
    from letta_adapters.client.client import AsyncLettaClient
    from letta_adapters.client.turn import Turn

_RECENT_CALLS: Final = BOUND
_DEFAULT_SECONDS: Final = 30.0
# For so long after its last event this process need not ask whether others used a conversation.
_MOMENT: Final = 30.0  # seconds
# The App Server gives a client-side tool 300 s; a later answer would be told to nobody.
HELD_SECONDS: Final = 290.0


@dataclass(frozen=True, slots=True)
class PausedTurn:
    """Hold a turn that is paused on an App Server, where only this connection can resume it.

    Attributes:
        turn: The paused turn.
        log: All messages of the turn so far.
        began: The index in ``log`` at which each call of the turn begins, by the call's key: the
            same call again gets all messages since then.
        tools: Digests of the client-side tools it was begun with, which are its tools to its end.
    """

    turn: Turn
    log: tuple[Message, ...]
    began: Mapping[str, int]
    tools: frozenset[str]

    def since(self, key: str | None) -> tuple[Message, ...] | None:
        """Return the messages since that call; ``None`` if the call is none of the turn's."""
        at = self.began.get(key) if key is not None else None
        return None if at is None else self.log[at:]

    @classmethod
    def of(
        cls,
        turn: Turn,
        key: str | None,
        said: Sequence[Message],
        before: PausedTurn | None,
        tools: frozenset[str],
    ) -> PausedTurn:
        """Return the record of a turn that pauses, again or for the first time, after a call.

        Args:
            turn: The turn.
            key: The key of the call.
            said: The messages of the call.
            before: The record from before this call resumed the turn.
            tools: Digests of the tools that the call brought.
        """
        log = before.log if before is not None else ()
        began = dict(before.began) if before is not None else {}
        if key is not None:
            began[key] = len(log)
        return cls(turn, (*log, *said), began, tools if before is None else before.tools)


class Memo:
    """Hold what is known of one client's conversations, and forget what is gone or long unused."""

    def __init__(self) -> None:
        # Turns that wait for their caller; :meth:`hold` bounds them.
        self.held: dict[Conversation, PausedTurn] = {}
        # Conversations by agent and name.
        self.threads: Bounded[tuple[str, str], str] = Bounded()
        # The default agent's id, and the monotonic time at which the server named it.
        self.default_agent: tuple[str, float] | None = None
        # Digests of the system text and the standing instructions that conversations were told
        # last.
        self.told: Bounded[Conversation, tuple[str | None, str | None]] = Bounded()
        # Conversations that a call gave a model of its own.
        self.changed: Bounded[Conversation, str] = Bounded()

    def known_default(self) -> str | None:
        """Return the default agent if it was asked for just now: others may delete or change it."""
        if self.default_agent is None:
            return None
        agent_id, asked_at = self.default_agent
        return agent_id if time.monotonic() - asked_at < _DEFAULT_SECONDS else None

    def hold(self, held: PausedTurn) -> list[Turn]:
        """Keep a turn that waits, and return the turns that are to be stopped instead.

        Those waited too long, or are too many. The App Server gives a call up after 300 s, and
        nobody may ever come back to it.
        """
        self.held.pop(held.turn.conversation, None)
        self.held[held.turn.conversation] = held
        now, given_up = time.monotonic(), []
        for where, other in list(self.held.items()):
            waits_since = other.turn.paused_at
            old = waits_since is None or now - waits_since > HELD_SECONDS
            # The oldest stand first, so those go first when there are too many.
            if other is not held and (old or len(self.held) > BOUND):
                del self.held[where]
                given_up.append(other.turn)
        return [turn for turn in given_up if turn.paused]

    def notice(self, change: Change) -> None:
        """Forget what is no longer true after a change of an agent or a conversation."""
        if change.conversation_id or change.gone:
            known = self.threads
            gone = [key for key in known if change.concerns(key[0], known[key])]
            self.threads.drop(lambda key: key in gone)
        if not change.gone:
            return
        if self.default_agent is not None and change.agent_id == self.default_agent[0]:
            self.default_agent = None

        def concerned(where: Conversation) -> bool:
            return change.concerns(where.agent_id, where.conversation_id)

        self.told.drop(concerned)
        self.changed.drop(concerned)
        recent.drop(concerned)


_memos: WeakKeyDictionary[AsyncLettaClient, Memo] = WeakKeyDictionary()


def memo_of(client: AsyncLettaClient) -> Memo:
    """Return the client's memo."""
    found = _memos.get(client)
    if found is None:
        found = _memos[client] = Memo()
        # The client tells of every deletion and change that goes through it.
        requests_of(client).watch(found.notice)
    return found


class RecentCalls:
    """Remember where repeatable calls of this process went, newest last.

    An App Server stores what an agent had said when its turn was cut off, and nothing in it tells
    that it is only a part; so this object knows which calls came to their end. Threads share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: OrderedDict[tuple[str, str], Conversation] = OrderedDict()
        self._unended: set[tuple[str, str]] = set()
        # Conversations by when this process last knew all that happens in them.
        self._seen: Bounded[Conversation, float] = Bounded()

    def get(self, agent_id: str, key: str | None) -> Conversation | None:
        """Return the conversation that this call of the agent went to before, or ``None``."""
        with self._lock:
            return self._calls.get((agent_id, key)) if key is not None else None

    def put(self, key: str | None, where: Conversation) -> None:
        """Note that the call goes to this conversation; it has not ended there yet."""
        if key is None:
            return
        with self._lock:
            call = (where.agent_id, key)
            self._calls[call] = where
            self._unended.add(call)
            self._calls.move_to_end(call)
            while len(self._calls) > _RECENT_CALLS:
                self._unended.discard(self._calls.popitem(last=False)[0])

    def begun(self, key: str | None, where: Conversation) -> None:
        """Note that the server has accepted the call."""
        self.put(key, where)
        with self._lock:
            self._seen[where] = time.monotonic()

    def lost(self, key: str | None, where: Conversation) -> None:
        """Note that nobody can tell whether the call was accepted: its run may be active."""
        self.put(key, where)
        with self._lock:
            self._seen.pop(where, None)

    def knows(self, where: Conversation) -> bool:
        """Return whether this process saw all that happened in the conversation a moment ago.

        Loops of tools then ask the server once less. Another process would have to be asked in the
        meantime, to lose its connection and to send its call here; that takes longer.
        """
        with self._lock:
            seen = self._seen.get(where)
            return seen is not None and time.monotonic() - seen < _MOMENT

    def ended(self, key: str | None, where: Conversation) -> None:
        """Note that the call was answered in this conversation, or waits for its caller there."""
        with self._lock:
            self._seen[where] = time.monotonic()
            if key is not None:
                call = (where.agent_id, key)
                # The conversation may have been replaced by a fork while the call ran.
                if call in self._calls:
                    self._calls[call] = where
                self._unended.discard(call)

    def drop(self, gone: Callable[[Conversation], bool]) -> None:
        """Forget the calls that went to conversations which are gone.

        Args:
            gone: Returns whether a conversation is gone.
        """
        with self._lock:
            self._seen.drop(gone)
            for call in [call for call, where in self._calls.items() if gone(where)]:
                del self._calls[call]
                self._unended.discard(call)

    def was_cut_off(self, agent_id: str, key: str | None) -> bool:
        """Return whether the call was begun in this process and never came to its end."""
        with self._lock:
            return key is not None and (agent_id, key) in self._unended


recent = RecentCalls()
