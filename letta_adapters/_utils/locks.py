"""Internal: a lock that tasks of several event loops share."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

# Seconds between two looks of a waiting task whether the holder's event loop is gone.
_LOOK_SECONDS: Final = 1.0
_guard = threading.Lock()
_queues: dict[Hashable, deque[_Ticket]] = {}


class _Ticket(Future[None]):
    """A place in the queue for a name; the first one holds it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, blocks: threading.Thread | None) -> None:
        super().__init__()
        self.loop = loop
        self.blocks = blocks


class NeverFreeError(RuntimeError):
    """The thread that waits for the name is the one that holds it, so the wait would never end."""


async def take(
    name: Hashable, blocks: threading.Thread | None = None, *, waits: bool = False
) -> Callable[[], None]:
    """Wait until nobody in this process holds the name, on whatever event loop.

    First come, first served. A task that is cancelled while it waits leaves the queue. A name held
    on an event loop that was closed counts as free.

    Args:
        name: The name to hold.
        blocks: The thread that makes the call and waits for it meanwhile.
        waits: True if that thread does not wait for it, and so can end its own hold meanwhile.

    Returns:
        A function that gives the name back; it can be called on any thread.

    Raises:
        NeverFreeError: A call of this very thread holds the name.
    """
    # A future of threads, not of asyncio: whoever frees the name may run on any loop.
    ticket = _Ticket(asyncio.get_running_loop(), blocks)
    here = blocks or threading.current_thread()
    with _guard:
        queue = _queues.setdefault(name, deque())
        _wake(queue)
        # A thread that waits here cannot give back what it holds itself.
        if not waits and any(other.blocks is here for other in queue):
            raise NeverFreeError(f"{name} is held by a call that this thread has not ended.")
        queue.append(ticket)
        _wake(queue)
    # The usual case: nobody was there, and there is nothing to wait for.
    if ticket.done():
        return partial(_leave, name, ticket)
    try:
        turn = asyncio.wrap_future(ticket)
        # Its turn comes by itself, unless the loop of the one before it was closed without a word.
        while not turn.done():
            await asyncio.wait({turn}, timeout=_LOOK_SECONDS)
            with _guard:
                _wake(queue)
    except BaseException:
        _leave(name, ticket)
        raise
    return partial(_leave, name, ticket)


@asynccontextmanager
async def process_lock(name: Hashable) -> AsyncIterator[None]:
    """Hold a name that one task of this process holds at a time; see :func:`take`."""
    leave = await take(name)
    try:
        yield
    finally:
        leave()


def _wake(queue: deque[_Ticket]) -> None:
    """Tell the first in the queue that it holds the name."""
    while queue and queue[0].loop.is_closed():
        queue.popleft()
    if queue and not queue[0].done():
        with suppress(InvalidStateError):  # it is leaving too, and will wake the one after it
            queue[0].set_result(None)


def _leave(name: Hashable, ticket: _Ticket) -> None:
    with _guard:
        queue = _queues.get(name)
        if queue is None:
            return
        if ticket in queue:
            queue.remove(ticket)
        _wake(queue)
        if not queue:
            del _queues[name]
