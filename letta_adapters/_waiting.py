"""Wait for a bounded time, and never lose a cancellation over it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


async def within(seconds: float, work: Awaitable[_T]) -> _T:
    """Return what ``work`` returns, if it does so in time; otherwise it is cancelled.

    In Python 3.10 and 3.11 ``asyncio.wait_for`` drops the cancellation of its caller when that
    arrives as ``work`` ends: a task that was told to stop would go on. Here the caller is cancelled
    all the same, and what ``work`` returned is dropped.

    Args:
        seconds: The time limit.
        work: A coroutine or a future; it is cancelled when the caller is.

    Raises:
        asyncio.TimeoutError: the time was up first. ``work`` has ended by then.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            await ended(task)
    except asyncio.CancelledError:
        # Told to stop: so is the work, and whoever told it to waits for its end.
        await ended(task)
        raise
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


async def ended(task: asyncio.Future[_T]) -> None:
    """Cancel a task and wait until it has ended, however it ends.

    Unlike ``suppress(CancelledError)`` around an ``await``, this is not deaf to a cancellation of
    the caller.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # nobody else will look at it
