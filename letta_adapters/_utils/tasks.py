"""Internal: event loops and tasks of asyncio: the loop that runs, time limits, and waits.

No wait here ever loses a cancellation of its caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from letta_adapters.errors import TimeoutAfterAcceptanceError, WrongEventLoopError

_T = TypeVar("_T")

# Since Python 3.11 a task counts its cancellations. Below that version a task of another class may
# do so too (that of ``backports.asyncio.runner``), but whoever cancels it does not take the count
# back.
_COUNTED = hasattr(asyncio.Task, "uncancel")


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running loop.

    Raises:
        WrongEventLoopError: This is trio, another framework's loop, or no loop at all.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise WrongEventLoopError(
            "The async client needs asyncio, and no asyncio event loop runs here.",
            hint="Start it with asyncio.run(...). Under trio, use the sync client in a worker "
            "thread (trio.to_thread.run_sync).",
        ) from None


def running_task() -> asyncio.Task[Any] | None:
    """Return the running task; raise the error of :func:`running_loop` if there is no loop."""
    return asyncio.current_task(running_loop())


class Deadline:
    """A time limit for a turn: cancel the task that waits between enter and leave when time is up.

    It costs nothing per message. ``asyncio.timeout`` (3.11+) around every step would cost something
    for each; and it could not span the consumer's own code between two messages, which must not be
    interrupted.
    """

    __slots__ = ("_cancels_before", "_handle", "_task", "expired", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.expired = False
        self._task: asyncio.Task[object] | None = None
        self._cancels_before = 0
        self._handle: asyncio.TimerHandle | None = None
        if seconds is not None:
            self._handle = asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        self.expired = True
        if self._task is not None:
            self._task.cancel()

    def enter(self) -> None:
        """Begin a wait of the current task; raise the error if time is up already."""
        if self.expired:
            raise self.error()
        if self.seconds is not None:
            self._task = task = asyncio.current_task()
            # A cancel that somebody caught earlier still counts, and is not ours.
            counted = getattr(task, "cancelling", None) if _COUNTED else None
            self._cancels_before = counted() if counted is not None else 0

    def leave(self) -> None:
        """End the wait of the current task."""
        self._task = None

    def absorbs_cancel(self) -> bool:
        """Return whether the ``CancelledError`` just caught is this deadline's alone."""
        task = self._task
        if not self.expired or task is None:
            return False
        uncancel = getattr(task, "uncancel", None) if _COUNTED else None
        return uncancel is None or uncancel() <= self._cancels_before

    def error(self) -> TimeoutAfterAcceptanceError:
        """Return the error of a turn that took too long."""
        return TimeoutAfterAcceptanceError(
            f"The turn took longer than {self.seconds:g} seconds and was aborted."
        )

    def stop(self) -> None:
        """Stop the clock, because the turn is over."""
        if self._handle is not None:
            self._handle.cancel()


@asynccontextmanager
async def limit(seconds: float, late: Callable[[str], Exception]) -> AsyncIterator[None]:
    """Raise an error if something takes longer than some seconds in all.

    Args:
        seconds: The time limit.
        late: Makes the error, of a text.
    """
    deadline = Deadline(seconds)
    deadline.enter()
    try:
        yield
    except asyncio.CancelledError:
        if not deadline.absorbs_cancel():
            raise
        raise late(f"not complete after {seconds:g} seconds") from None
    finally:
        deadline.leave()
        deadline.stop()


async def run_within(seconds: float, work: Awaitable[_T]) -> _T:
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
            await end_task(task)
    except asyncio.CancelledError:
        # The caller was told to stop, so the work is stopped too, and its end waited for.
        await end_task(task)
        raise
    # By the time limit, since a cancellation of the caller has left this function above.
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


async def end_task(task: asyncio.Future[_T]) -> None:
    """Cancel a task and wait until it has ended, however it ends.

    Unlike ``suppress(CancelledError)`` around an ``await``, this does not swallow a cancellation of
    the caller.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # nobody else will look at it


class Once:
    """Work that is done one time, and to its end: whoever asks again waits for the same.

    A cancellation ends the wait of the caller alone. What closes something uses it: a close that is
    left in the middle would leave the rest open for good, as the next one finds it closed.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin the work, unless it has begun, and wait for its end."""
        if self._task is None:
            self._task = asyncio.ensure_future(work())
            # All who wait may have gone by the time it fails.
            self._task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # On another loop there is nothing to wait for: its own one has ended, and the work with it.
        if self._task.get_loop() is running_loop() or self._task.done():
            await asyncio.shield(self._task)


async def await_all(tasks: Collection[asyncio.Future[Any]]) -> None:
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
