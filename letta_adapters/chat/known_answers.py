"""Remember which tool calls are being answered in this process, and which answers were given.

An adapter reports which tools run, so that nobody denies the calls that they answer.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from letta_adapters._utils.bounded import Bounded
from letta_adapters.backends.base import Conversation
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.messages import digest_of

_GIVEN: Final = 4096


class Given:
    """Find the marker of a recent answer by any of the names the answer can be known by.

    A framework may drop the marker that a message carries; the ids of the message and of its calls
    remain. Where not even these do, an answer is known by its text together with the answer before
    it, which names the conversation. Threads share this object; its size is bounded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._markers: Bounded[tuple[str, str], Marker] = Bounded(_GIVEN)

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
            names.append(_following(marker.previous, marker.inputs, said))
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
        return self.find(before.agent_id, [_following(before.key, inputs, said)])


def _following(previous: str, inputs: Sequence[str], said: str) -> str:
    """Return the name of an answer that has no id: what it followed, and its text."""
    return digest_of(previous, list(inputs), said.strip())


given = Given()


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
            self._runs[run] = (tool_call_id, _who_runs())

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


def _who_runs() -> Callable[[], bool]:
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


def calls_in_work(where: Conversation) -> frozenset[str]:
    """Return the calls of this conversation that are being answered in this process."""
    return frozenset(
        id_
        for id_ in running_tools.ids()
        if (marker := given.find(where.agent_id, (id_,))) is not None
        and marker.conversation_id == where.conversation_id
    )
