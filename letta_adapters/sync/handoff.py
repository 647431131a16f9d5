"""Internal: hand the items of a stream from a task on one event loop to a reader elsewhere.

The reader is a thread, or a task on another loop. A full hand-off stops the task that fills it, and
with it the socket, so nothing is dropped.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeVar

# Both count items. One read of the socket (64 KiB) holds up to ~180 events; a lower mark would stop
# the loop in the middle of it, before the consumer had a chance to run.
HIGH_WATER: Final = 256
LOW_WATER: Final = 64
# On Windows a thread that waits for a lock without a limit cannot be interrupted by Ctrl-C.
WAIT: Final = 0.5 if sys.platform == "win32" else None

T_co = TypeVar("T_co", covariant=True)


class Closable(Protocol[T_co]):
    """An async iterator with ``aclose``."""

    def __aiter__(self) -> AsyncIterator[T_co]: ...
    async def aclose(self) -> None: ...


class End:
    """The end of a stream, with the exception that ended it (if one did)."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _HandOff(ABC):
    """Hold items between the one who puts them in and one reader, who is woken if it sleeps."""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self.asleep = False

    def put(self, item: Any) -> None:
        """Add an item."""
        self.items.append(item)
        if self.asleep:
            self.asleep = False
            self._wake()

    @abstractmethod
    def _wake(self) -> None:
        """Wake the reader; being woken for nothing does it no harm."""


class ForThread(_HandOff):
    """A hand-off that a thread reads."""

    def __init__(self) -> None:
        super().__init__()
        self._bell: SimpleQueue[None] = SimpleQueue()

    def _wake(self) -> None:
        self._bell.put(None)

    def wait(self) -> None:
        """Return when there may be items."""
        self.asleep = True
        # Looked at again, as one may have been added before it could be seen that this sleeps.
        if not self.items:
            with suppress(Empty):
                self._bell.get(timeout=WAIT)
        self.asleep = False


class ForTask(_HandOff):
    """A hand-off that a task reads, on another loop than that of what fills it."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the reader's loop is closed: nobody reads any more
            self._reader.call_soon_threadsafe(self._news.set)

    async def wait(self) -> None:
        """Return when there may be items."""
        self._news.clear()
        self.asleep = True
        if not self.items:
            await self._news.wait()
        self.asleep = False


class Pump:
    """A task on the loop that moves a stream's items into a hand-off."""

    def __init__(self, loop: asyncio.AbstractEventLoop, to: _HandOff) -> None:
        self.blocked = False
        # True once the consumer has left, so that items which still come are not wanted.
        self.left = False
        self._to = to
        self._loop = loop
        self._gate = asyncio.Event()

    async def run(self, stream: Closable[Any]) -> None:
        """Move all items, and close the stream."""
        items, put = self._to.items, self._to.put
        end = End()
        try:
            async for item in stream:
                if self.left:
                    continue
                put(item)
                if len(items) >= HIGH_WATER:
                    self._gate.clear()
                    self.blocked = True
                    # Looked at again, as the consumer may have emptied it before it could see
                    # `blocked`.
                    if len(items) >= HIGH_WATER and not self.left:
                        await self._gate.wait()
                    self.blocked = False
        except BaseException as error:
            end = End(error)
            # The loop has to see its own cancellation and exit; an ordinary error is the
            # consumer's.
            if not isinstance(error, Exception):
                raise
        finally:
            # The end comes last: whoever reads it may rely on the stream being closed.
            try:
                await stream.aclose()
            finally:
                put(end)

    def unblock(self) -> None:
        """Let the pump go on; the consumer calls this when few items are left."""
        self.blocked = False
        with suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._gate.set)
