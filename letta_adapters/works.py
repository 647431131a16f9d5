"""What is on its way for a session or a client, and must not outlive it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from letta_adapters._loops import running_task
from letta_adapters._waiting import all_ended, ended
from letta_adapters.errors import SessionClosedError

T = TypeVar("T")


class Works:
    """The openings and sends of a client's sessions, each under its session.

    Args:
        finish: Runs clean-up to its end, even if its caller is cancelled.
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
            owner: Whose it is: the session.
            work: What to do. Starts with the event loop's next round.
            undo: Called with what ``work`` returned where the caller never gets it: it was
                cancelled as ``work`` ended.

        Raises:
            SessionClosedError: the owner was closed meanwhile.
        """
        task = self.start(owner, work)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # Whoever cancels a second time does not wait for the clean-up.
            await self._finish(_cleaned(task, undo))
            raise
        if task.cancelled():
            raise SessionClosedError("The session was closed meanwhile.")
        return task.result()

    def start(self, owner: object, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let ``work`` run beside everything else; what it raises is its own affair."""
        task = asyncio.ensure_future(work)
        self._running[task] = owner
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self._running[task]
        if not task.cancelled():
            task.exception()  # else one that nobody waits for any more is reported as lost

    async def end(self, owner: object = None) -> None:
        """Cancel what is on its way for ``owner`` (``None``: for anyone), and wait for its end.

        Not what the caller itself is a part of.
        """
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
