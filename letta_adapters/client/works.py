"""Tasks of a session or a client that must not outlive it.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from letta_adapters._utils.loops import running_task
from letta_adapters._utils.waiting import all_ended, ended
from letta_adapters.errors import SessionClosedError

T = TypeVar("T")


class Works:
    """The running tasks (openings and sends) of a client's sessions, each with its session.

    Args:
        finish: Runs a clean-up to its end, even if its caller is cancelled.
    """

    def __init__(self, finish: Callable[[Awaitable[None]], Awaitable[None]]) -> None:
        self._finish = finish
        self._running: dict[asyncio.Task[Any], object] = {}

    async def run(
        self,
        owner: object,
        work: Coroutine[Any, Any, T],
        undo: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Await ``work``; cancelling the caller cancels it, and waits for its clean-up.

        Args:
            owner: The session it belongs to.
            work: The work. It starts with the event loop's next round.
            undo: Called with the result of ``work`` if the caller never gets it, because it was
                cancelled just as ``work`` ended.

        Raises:
            SessionClosedError: The owner was closed meanwhile.
        """
        task = self.start(owner, work)
        try:
            # Not awaited directly: that would not tell its cancellation from the caller's.
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # Whoever cancels a second time does not wait for the clean-up.
            await self._finish(_cleaned(task, undo))
            raise
        if task.cancelled():
            raise SessionClosedError("The session was closed meanwhile.")
        return task.result()

    def start(self, owner: object, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let ``work`` run beside everything else; its exceptions are left to whoever awaits it."""
        task = asyncio.ensure_future(work)
        self._running[task] = owner
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self._running[task]
        if not task.cancelled():
            task.exception()  # else one that nobody waits for any more is reported as lost

    async def end(self, owner: object = None) -> None:
        """Cancel the tasks of ``owner`` (``None``: all of them), and wait for their end.

        The task that calls this is left out.
        """
        # A task that closes its own session must not wait for itself.
        me = running_task()
        of = [task for task, whose in self._running.items() if owner is None or whose is owner]
        ending = [task for task in of if task is not me]
        for task in ending:
            task.cancel()
        await all_ended(ending)


async def _cleaned(task: asyncio.Task[T], undo: Callable[[T], Awaitable[None]] | None) -> None:
    await ended(task)
    if undo is not None and not task.cancelled() and task.exception() is None:
        await undo(task.result())
