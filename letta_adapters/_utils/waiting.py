"""Wait for a bounded time without ever losing a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from typing import Any, TypeVar

_T = TypeVar("_T")


async def within(seconds: float, work: Awaitable[_T]) -> _T:
    """Return the result of ``work`` if it ends in time; otherwise cancel it.

    In Python 3.10 and 3.11 ``asyncio.wait_for`` drops the cancellation of its caller when that
    arrives as ``work`` ends: a task that was told to stop would go on. Here the caller is cancelled
    all the same, and the result of ``work`` is dropped.

    Args:
        seconds: The time limit.
        work: A coroutine or a future; it is cancelled when the caller is.

    Raises:
        asyncio.TimeoutError: The time was up first. ``work`` has ended by then.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            await ended(task)
    except asyncio.CancelledError:
        # The caller was told to stop, so the work is stopped too, and its end waited for.
        await ended(task)
        raise
    # By the time limit, since a cancellation of the caller has left this function above.
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


async def ended(task: asyncio.Future[_T]) -> None:
    """Cancel a task and wait until it has ended, however it ends.

    Unlike ``suppress(CancelledError)`` around an ``await``, this does not swallow a cancellation of
    the caller.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # nobody else will look at it


async def all_ended(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Wait until all have ended; a cancellation of the caller waits for that too, and is raised."""
    cancelled: asyncio.CancelledError | None = None
    while waiting := {task for task in tasks if not task.done()}:
        cancelled = await _interruption(waiting) or cancelled
    if cancelled is not None:
        raise cancelled


async def _interruption(tasks: Collection[asyncio.Future[Any]]) -> asyncio.CancelledError | None:
    """Return the cancellation that ended the wait for these tasks; ``None`` if they have ended."""
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError as error:
        return error
    return None
