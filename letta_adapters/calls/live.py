"""What of the agents' tool calls is being answered in this process, and what answers were given.

An adapter tells which tools run; nobody then denies the calls that they answer.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from letta_adapters._bounded import Bounded
from letta_adapters.backends.base import Conversation
from letta_adapters.calls.entries import digest_of
from letta_adapters.calls.marker import Marker

_GIVEN: Final = 4096


class Given:
    """Answers given lately, by the names they can be known by. Threads share it; bounded.

    A framework may drop what a message says of itself; its id and those of its calls remain. Where
    not even these do, an answer is known by what it says and by the answer before it, which names
    the conversation.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._markers: Bounded[tuple[str, str], Marker] = Bounded(_GIVEN)

    def put(self, name: str, marker: Marker, said: str) -> None:
        """Note an answer: by the message's id, by its calls, and by what it followed and said."""
        names = [name, *(id_ for id_, _ in marker.pending)]
        if marker.previous is not None:
            names.append(_following(marker.previous, marker.inputs, said))
        with self._lock:
            for known in names:
                self._markers[marker.agent_id, known] = marker

    def find(self, agent_id: str, names: Iterable[str | None]) -> Marker | None:
        """The marker of an answer of this agent that one of the names is of."""
        with self._lock:
            found = (self._markers.get((agent_id, name)) for name in names if name)
            return next((marker for marker in found if marker is not None), None)

    def follower(self, before: Marker, inputs: Sequence[str], said: str) -> Marker | None:
        """The marker of the answer that said this to these inputs, in the conversation of another.

        Args:
            before: The answer before it.
            inputs: Digests of what stands between the two, as a marker's ``inputs``.
            said: Its text.
        """
        return self.find(before.agent_id, [_following(before.key, inputs, said)])


def _following(previous: str, inputs: Sequence[str], said: str) -> str:
    return digest_of(previous, list(inputs), said.strip())


given = Given()


class RunningTools:
    """Tool calls that are being answered in this process. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[object, tuple[str, Callable[[], bool]]] = {}

    def begin(self, run: object, tool_call_id: str) -> None:
        """Note that a tool runs; ``run`` names that run of it."""
        with self._lock:
            self._runs[run] = (tool_call_id, _who_runs())

    def end(self, run: object) -> None:
        """Note that it is over."""
        with self._lock:
            self._runs.pop(run, None)

    def ids(self) -> frozenset[str]:
        """The calls that are being answered now."""
        with self._lock:
            # A task that is cancelled tells nobody.
            for run in [run for run, (_, alive) in self._runs.items() if not alive()]:
                del self._runs[run]
            return frozenset(id_ for id_, _ in self._runs.values())


running_tools = RunningTools()


def _who_runs() -> Callable[[], bool]:
    """Tell whether the task, or the thread, that asks this now is still at work."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        return threading.current_thread().is_alive
    reference = weakref.ref(task)

    def alive() -> bool:
        found = reference()
        return found is not None and not found.done()

    return alive


def calls_in_work(where: Conversation) -> frozenset[str]:
    """The calls of this conversation that are being answered in this process."""
    return frozenset(
        id_
        for id_ in running_tools.ids()
        if (marker := given.find(where.agent_id, (id_,))) is not None
        and marker.conversation_id == where.conversation_id
    )
