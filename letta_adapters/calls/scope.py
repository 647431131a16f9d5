"""Where in an application a call is made, and which conversation of a thread belongs there.

A conversation belongs to the place that keeps its history. What a call merely inherits (the
``thread_id`` of a graph, inside one of its tools) names no conversation.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from letta_adapters._bounded import Bounded
from letta_adapters.calls.entries import Entry, digest_of
from letta_adapters.calls.marker import Marker

Scope = Literal["thread", "node", "fresh"]
SCOPES: Final = ("thread", "node", "fresh")

# How the conversation of a thread is found again: its summary begins so.
THREAD_PREFIX: Final = "thread:"
_TASKS: Final = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """The place of one call, as far as its framework tells.

    ``thread``: the thread it runs in. ``node``: the node of a graph, with those it is nested in;
    ``""`` outside of graphs. ``agent``: the name of the agent that the node is of. ``task``: the
    one execution of the node, the same again when it is resumed; ``attempt``: differs between
    attempts of one task. ``within``: what of the node this call alone belongs to (a branch, a
    tool's run, a middleware); ``""`` for the node itself. ``keeps``: does this place keep a
    history over the turns of its thread? ``serves``: the tool calls that it is part of the answer
    to.
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
        """Was that answer given at this place? ``None``: it does not say where it was given."""
        if not self.node:
            return True
        if not marker.node:
            return None
        here = (self.node, self.agent, self.within) == (marker.node, marker.agent, marker.within)
        return here and (None in (self.thread, marker.thread) or self.thread == marker.thread)

    @property
    def identity(self) -> str:
        """Tells calls with the same content at different places of a graph apart."""
        return digest_of(self.node, self.agent, self.within) if self.node else ""


def name_of(place: Place | None, scope: Scope | None, *, first: bool) -> str | None:
    """The name of the conversation that belongs to a place; ``None``: a fresh one.

    Args:
        place: Where the call is made.
        scope: What the application says about it.
        first: Is it the first call of its task, and no question on the side?
    """
    if place is None or place.thread is None or scope == "fresh":
        return None
    if scope == "thread" or not place.node:
        return THREAD_PREFIX + place.thread if place.keeps or scope else None
    if scope == "node" or (first and place.keeps):
        # A thread's name may hold a slash: two places must not come to one name.
        thread = place.thread.replace("%", "%25").replace("/", "%2F")
        return f"{THREAD_PREFIX}{thread}/{place.node}"
    return None


class Tasks:
    """The first call of each task of a graph, in this process; bounded. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: Bounded[tuple[str, str | None, str], tuple[str | None, str]] = Bounded(_TASKS)

    def is_first(self, agent_id: str, place: Place, entries: Sequence[Entry], note: str) -> bool:
        """Is this the first call of its task? A call that is repeated is the first again.

        A task that is tried again, or resumed, begins anew; so its first call is told by the
        attempt as well as by what is asked.
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
            return known[1] == asked


tasks = Tasks()
