"""Describe where in an application a call is made, and which conversation belongs there.

A conversation belongs to the place that keeps its history. A name that a call merely inherits (the
``thread_id`` of a graph, inside one of its tools) names no conversation.

Internal: not part of the public API.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from letta_adapters._utils.bounded import Bounded
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.messages import HistoryMessage, digest_of

Scope = Literal["thread", "node", "fresh"]
SCOPES: Final = ("thread", "node", "fresh")

# The summary of a thread's conversation begins with this, so that it is found again.
THREAD_PREFIX: Final = "thread:"
_TASKS: Final = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """Describe the place of one call, as far as its framework tells.

    Attributes:
        thread: The thread it runs in.
        node: The node of a graph, with those it is nested in; ``""`` outside of graphs.
        agent: The name of the agent that the node is of.
        task: The one execution of the node, the same again when it is resumed.
        attempt: Differs between attempts of one task.
        within: The part of the node that this call alone belongs to (a branch, a tool's run, a
            middleware); ``""`` for the node itself.
        keeps: The place keeps a history over the turns of its thread.
        serves: The tool calls whose answers this call is part of.
    """

    thread: str | None = None
    node: str = ""
    agent: str = ""
    task: str = ""
    attempt: str | None = None
    within: str = ""
    keeps: bool = True
    serves: frozenset[str] = frozenset()

    def made(self, marker: Marker) -> bool | None:
        """Return whether the answer was given at this place; ``None`` if its marker is silent."""
        if not self.node:
            return True
        if not marker.node:
            return None
        here = (self.node, self.agent, self.within) == (marker.node, marker.agent, marker.within)
        # A thread that one of the two does not know cannot tell the places apart.
        return here and (None in (self.thread, marker.thread) or self.thread == marker.thread)

    @property
    def identity(self) -> str:
        """Return a digest that tells calls of one content at different places of a graph apart."""
        return digest_of(self.node, self.agent, self.within) if self.node else ""


def name_of(place: Place | None, scope: Scope | None, *, first: bool) -> str | None:
    """Return the name of the conversation that belongs to a place; ``None``: a fresh one.

    Args:
        place: Where the call is made.
        scope: The application's wish, if it has one.
        first: It is the first call of its task, and no question on the side.
    """
    if place is None or place.thread is None or scope == "fresh":
        return None
    if scope == "thread" or not place.node:
        # The whole thread has one conversation. Outside of graphs this is the default too, unless
        # the call merely inherits the thread.
        return THREAD_PREFIX + place.thread if place.keeps or scope else None
    if scope == "node" or (first and place.keeps):
        # A thread's name may hold a slash: two places must not come to one name.
        thread = place.thread.replace("%", "%25").replace("/", "%2F")
        return f"{THREAD_PREFIX}{thread}/{place.node}"
    return None


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
        asked = digest_of([entry.digest() for entry in entries], note)
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
