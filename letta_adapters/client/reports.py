"""Internal: what the running tools of a turn report, until the turn's reader takes it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from letta_adapters._utils.tasks import end_task
from letta_adapters.messages import ToolProgressMessage

# Of progress the newest counts, so with more than these the oldest is dropped.
MOST_WAITING: Final = 256


class Reports:
    """A bounded queue that any thread fills and one task empties."""

    __slots__ = ("_items", "_lock", "_wake")

    def __init__(self) -> None:
        self._items: deque[ToolProgressMessage] = deque(maxlen=MOST_WAITING)
        self._lock = threading.Lock()
        # Wakes the reader, if it sleeps.
        self._wake: Callable[[], Any] | None = None

    def add(self, message: ToolProgressMessage) -> None:
        """Add a report; this never waits."""
        with self._lock:
            self._items.append(message)
            # Once only: a tool may report a thousand times before the reader is up.
            wake, self._wake = self._wake, None
        if wake is not None:
            with suppress(RuntimeError):  # the reader's loop is closed: nobody reads any more
                wake()

    def take(self) -> list[ToolProgressMessage]:
        """Return what waits, in order, and forget it."""
        with self._lock:
            taken = [*self._items]
            self._items.clear()
        return taken

    async def read(self, work: asyncio.Future[Any]) -> list[ToolProgressMessage]:
        """Return what was reported, as soon as there is anything; nothing once the work is over.

        Args:
            work: The task that runs the tools. It is cancelled, and its end waited for, when the
                caller is cancelled.
        """
        try:
            if self._items:
                # A tool that reports without a pause must not keep everything else from running.
                await asyncio.sleep(0)
            elif not work.done():
                await self._sleep(work)
        except asyncio.CancelledError:
            await end_task(work)
            raise
        return self.take()

    async def _sleep(self, work: asyncio.Future[Any]) -> None:
        """Wait until there is a report, or the work is over."""
        # The event is this loop's own: a tool on another thread can only ask the loop to set it.
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake(_: object = None) -> None:
            news.set()

        with self._lock:
            # Looked at again, as a thread may have reported just now.
            if self._items:
                return
            self._wake = lambda: loop.call_soon_threadsafe(wake)
        work.add_done_callback(wake)
        try:
            await news.wait()
        finally:
            work.remove_done_callback(wake)
            self._wake = None
