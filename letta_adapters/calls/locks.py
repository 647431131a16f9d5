"""A lock that tasks of several event loops share."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, suppress

_guard = threading.Lock()
_queues: dict[Hashable, deque[Future[None]]] = {}


@asynccontextmanager
async def process_lock(name: Hashable) -> AsyncIterator[None]:
    """Hold a name that one task of this process holds at a time, on whatever event loop.

    First come, first served. A task that is cancelled while it waits leaves the queue.
    """
    ticket: Future[None] = Future()
    with _guard:
        queue = _queues.setdefault(name, deque())
        queue.append(ticket)
        if len(queue) == 1:
            ticket.set_result(None)
    try:
        await asyncio.wrap_future(ticket)
        yield
    finally:
        _leave(name, ticket)


def _leave(name: Hashable, ticket: Future[None]) -> None:
    with _guard:
        queue = _queues[name]
        was_first = queue[0] is ticket
        queue.remove(ticket)
        if not queue:
            del _queues[name]
        elif was_first:
            with suppress(InvalidStateError):  # it is leaving too, and will wake the one after it
                queue[0].set_result(None)
