"""Internal: remember between calls: turns that wait, calls made, answers given, tools at work.

None of it outlives the process: without it a call asks the server, or tells the history anew.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from letta_adapters._utils.bounded import BOUND, Bounded
from letta_adapters.backends.base import Change, Conversation
from letta_adapters.chat.history import digest_inputs
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.request import ID_PREFIX, HistoryMessage, Place, make_digest
from letta_adapters.client.client import get_requests
from letta_adapters.messages import Message

if TYPE_CHECKING:
    from letta_adapters.client.client import AsyncLettaClient
    from letta_adapters.client.turn import Turn

_RECENT_CALLS: Final = BOUND
_ANSWERS: Final = 4096
_TASKS: Final = 4096
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


class ConversationCache:
    """Hold what is known of one client's conversations, and forget what is gone or long unused."""

    def __init__(self) -> None:
        # Turns that wait for their caller; :meth:`hold` bounds them.
        self.held: dict[Conversation, PausedTurn] = {}
        # Conversations by agent and name.
        self.threads: Bounded[tuple[str, str], str] = Bounded()
        # The default agent's id, and the monotonic time at which the server named it.
        self.default_agent: tuple[str, float] | None = None
        # The settings and the model of agents, by which their conversations get settings, and the
        # monotonic time at which the server told them.
        self.models: Bounded[str, tuple[Mapping[str, Any], str | None, float]] = Bounded()
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

    def known_model(self, agent_id: str) -> tuple[Mapping[str, Any], str | None] | None:
        """Return an agent's settings and model if they were told just now: others may change it."""
        told = self.models.get(agent_id)
        if told is None or time.monotonic() - told[2] >= _DEFAULT_SECONDS:
            return None
        return told[:2]

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
        self.models.pop(change.agent_id, None)
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


_caches: WeakKeyDictionary[AsyncLettaClient, ConversationCache] = WeakKeyDictionary()


def get_cache(client: AsyncLettaClient) -> ConversationCache:
    """Return what is remembered for the client."""
    found = _caches.get(client)
    if found is None:
        found = _caches[client] = ConversationCache()
        # The client tells of every deletion and change that goes through it.
        get_requests(client).watch(found.notice)
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


# -- answers that were given, and tools that run ---------------------------------------------


class KnownAnswers:
    """Find the marker of a recent answer by any of the names the answer can be known by.

    A framework may drop the marker that a message carries; the ids of the message and of its calls
    remain. Where not even these do, an answer is known by its text together with the answer before
    it, which names the conversation. Threads share this object; its size is bounded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._markers: Bounded[tuple[str, str], Marker] = Bounded(_ANSWERS)

    def put(self, name: str, marker: Marker, said: str) -> None:
        """Note an answer by its id, by the ids of its calls, and by its text and what it followed.

        Args:
            name: The answer's id.
            marker: The marker of the answer.
            said: The text of the answer.
        """
        names = [name, *(id_ for id_, _ in marker.pending)]
        # The name of last resort, for frameworks that keep nothing but the text of an answer.
        if marker.previous is not None:
            names.append(_name_follower(marker.previous, marker.inputs, said))
        with self._lock:
            # Keyed by the agent as well: ids of tool calls are a model's choice, and two may choose
            # alike.
            for known in names:
                self._markers[marker.agent_id, known] = marker

    def find(self, agent_id: str, names: Iterable[str | None]) -> Marker | None:
        """Return the marker of this agent's answer that has one of the names, or ``None``.

        Args:
            agent_id: The agent.
            names: Ids of a message and of its tool calls; ``None`` among them is passed over.
        """
        with self._lock:
            found = (self._markers.get((agent_id, name)) for name in names if name)
            return next((marker for marker in found if marker is not None), None)

    def follower(self, before: Marker, inputs: Sequence[str], said: str) -> Marker | None:
        """Return the marker of the answer that gave this text to these inputs after another answer.

        Args:
            before: The marker of the answer before it.
            inputs: Digests of the messages between the two, as a marker's ``inputs``.
            said: The text of the answer.
        """
        return self.find(before.agent_id, [_name_follower(before.key, inputs, said)])

    def restore_markers(
        self, entries: Iterable[HistoryMessage], agent_id: str
    ) -> list[HistoryMessage]:
        """Return the history with the markers that a framework dropped put back.

        Args:
            entries: The history.
            agent_id: The agent, whose answers are looked for.
        """
        made: list[HistoryMessage] = []
        before: Marker | None = None
        since: list[HistoryMessage] = []
        for entry in entries:
            if entry.role == "assistant" and entry.marker is None:
                name = (entry.id or "").removeprefix(ID_PREFIX)
                names = (name, *(call.tool_call_id for call in entry.tool_calls))
                known = self.find(agent_id, names)
                # Neither the message's id nor a call's is known: its text and predecessor must do.
                if known is None and before is not None:
                    known = self.follower(before, digest_inputs(since)[0], entry.text)
                entry = replace(entry, marker=known)
            made.append(entry)
            if entry.marker is not None and entry.marker.agent_id == agent_id:
                before, since = entry.marker, []
            elif entry.role != "system":
                since.append(entry)
        return made


def _name_follower(previous: str, inputs: Sequence[str], said: str) -> str:
    """Return the name of an answer that has no id: what it followed, and its text."""
    return make_digest(previous, list(inputs), said.strip())


known_answers = KnownAnswers()


class RunningTools:
    """Hold the tool calls that are being answered in this process. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[object, tuple[str, Callable[[], bool]]] = {}

    def begin(self, run: object, tool_call_id: str) -> None:
        """Note that a tool begins to run.

        Args:
            run: Names this run of the tool.
            tool_call_id: The call that the run answers.
        """
        with self._lock:
            self._runs[run] = (tool_call_id, _watch_runner())

    def end(self, run: object) -> None:
        """Note that a run of a tool is over.

        Args:
            run: The run, as :meth:`begin` was given it.
        """
        with self._lock:
            self._runs.pop(run, None)

    def ids(self) -> frozenset[str]:
        """Return the ids of the calls that are being answered now."""
        with self._lock:
            # A task that is cancelled reports no end; its run is dropped here, or it would stay for
            # ever.
            for run in [run for run, (_, alive) in self._runs.items() if not alive()]:
                del self._runs[run]
            return frozenset(id_ for id_, _ in self._runs.values())


running_tools = RunningTools()


def _watch_runner() -> Callable[[], bool]:
    """Return a function that tells whether the present task, or thread, is still at work."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        return threading.current_thread().is_alive
    # A strong reference would keep a finished task, and all its locals, alive.
    reference = weakref.ref(task)

    def alive() -> bool:
        found = reference()
        return found is not None and not found.done()

    return alive


def find_calls_in_work(where: Conversation) -> frozenset[str]:
    """Return the calls of this conversation that are being answered in this process."""
    return frozenset(
        id_
        for id_ in running_tools.ids()
        if (marker := known_answers.find(where.agent_id, (id_,))) is not None
        and marker.conversation_id == where.conversation_id
    )


# -- tasks of a graph -----------------------------------------------------------------------


class Tasks:
    """Remember the first call of each task of a graph, in this process.

    Threads share this object; its size is bounded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: Bounded[tuple[str, str | None, str], tuple[str | None, str]] = Bounded(_TASKS)

    def is_first(
        self, agent_id: str, place: Place, entries: Sequence[HistoryMessage], note: str
    ) -> bool:
        """Return whether this is the first call of its task; the first repeated is the first again.

        A task that is tried again, or resumed, begins anew; so its first call is told by the
        attempt as well as by its content.

        Args:
            agent_id: The agent.
            place: The place, which names the task.
            entries: The history of the call.
            note: Other things that make two calls different.
        """
        if not place.task:
            return True
        asked = make_digest([entry.digest() for entry in entries], note)
        with self._lock:
            task = (agent_id, place.thread, place.task)
            known = self._first.get(task)
            again = known is not None and place.attempt is not None and place.attempt != known[0]
            if known is None or again:
                self._first[task] = (place.attempt, asked)
                return True
            # The same attempt: either its first call again, because the answer was lost, or a later
            # one.
            return known[1] == asked


tasks = Tasks()
