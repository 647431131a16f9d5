"""Internal: keep connections to one server; hand out the one used last, and close idle ones.

httpx keeps all connections in one list and asks each of them whether it still lives, at every
request and again at the end of every response; with a hundred of them that costs more than the
requests. Here each is kept by itself, so taking one costs the same however many there are.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar


class _Closable(Protocol):
    async def aclose(self) -> None: ...


_C = TypeVar("_C", bound=_Closable)


class Connections(Generic[_C]):
    """Connections of one kind, each used by one request at a time.

    Args:
        make: Makes a connection, which connects when it is first used.
        most: The greatest number in use at once, at least 2; ``None`` is no limit.
        kept: The greatest number that is kept open while nobody uses it; ``None`` is no limit.
        seconds: The time that an unused one is kept before it is closed; ``None`` is no limit.
    """

    def __init__(
        self, make: Callable[[], _C], *, most: int | None, kept: int | None, seconds: float | None
    ) -> None:
        self._make = make
        self._kept = kept
        self._seconds = seconds
        self._all: set[_C] = set()
        # The one used last stands at the right, the one unused for longest at the left.
        self._unused: deque[tuple[float, _C]] = deque()
        # What waits until the oldest is due, and what closes it then.
        self._closing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._free = None if most is None else asyncio.Semaphore(most)
        # Turns leave one to the other requests: else none of them could be aborted.
        self._free_for_turns = None if most is None else asyncio.Semaphore(most - 1)

    async def take(self, *, for_turn: bool = False) -> Lease[_C]:
        """Return a connection, once there may be one more in use.

        Args:
            for_turn: Whether it is for the answer of a turn, which may take very long.

        Raises:
            RuntimeError: All were closed.
        """
        await self._enter(for_turn)
        try:
            connection = self._next()
        except BaseException:
            self.leave(for_turn)
            raise
        return Lease(self, connection, for_turn)

    def _next(self) -> _C:
        if self._closed:
            raise RuntimeError("The connections have been closed.")
        if self._unused:
            # The one used last, so that the others get old enough to be closed.
            return self._unused.pop()[1]
        connection = self._make()
        self._all.add(connection)
        return connection

    async def _enter(self, for_turn: bool) -> None:
        if self._free is None or self._free_for_turns is None:
            return
        if not for_turn:
            await self._free.acquire()
            return
        # In this order: a turn that waits for other turns must not hold a place of all requests.
        await self._free_for_turns.acquire()
        try:
            await self._free.acquire()
        except BaseException:
            self._free_for_turns.release()
            raise

    def leave(self, for_turn: bool) -> None:
        """Let the next one have the place of a connection that is no longer used."""
        if self._free is None or self._free_for_turns is None:
            return
        self._free.release()
        if for_turn:
            self._free_for_turns.release()

    async def keep(self, connection: _C) -> None:
        """Keep a connection that is no longer used, and close those that are too many or too old.

        It may have lost its server: then it connects anew when it is used again.
        """
        if self._closed:
            return
        self._unused.append((time.monotonic(), connection))
        self._await_the_oldest()
        await self._close_surplus()

    async def _close_surplus(self) -> None:
        while self._unused and (self._are_too_many() or self._seconds_left() <= 0):
            surplus = self._unused.popleft()[1]
            self._all.discard(surplus)
            await surplus.aclose()

    def _are_too_many(self) -> bool:
        return self._kept is not None and len(self._unused) > self._kept

    def _seconds_left(self) -> float:
        """Return how long the one unused for longest is kept yet."""
        if self._seconds is None:
            return math.inf
        return self._unused[0][0] + self._seconds - time.monotonic()

    def _await_the_oldest(self) -> None:
        """See to it that idle connections are closed, though nothing may be sent any more.

        There is one timer at most, and none once no unused connection is left.
        """
        if self._closed or self._seconds is None or not self._unused:
            return
        loop = asyncio.get_running_loop()
        # A loop that has ended takes its timers with it.
        if self._timer is None or self._timer_loop is not loop:
            self._timer = loop.call_later(max(self._seconds_left(), 0), self._timer_is_due)
            self._timer_loop = loop

    def _timer_is_due(self) -> None:
        self._closing = asyncio.ensure_future(self._close_idle())

    async def _close_idle(self) -> None:
        try:
            await self._close_surplus()
        except (OSError, RuntimeError):
            # Of a connection that nobody uses: it is gone, and no caller could do anything.
            return
        finally:
            self._timer = None
            self._await_the_oldest()

    async def aclose(self) -> None:
        """Close all of them, those in use included."""
        self._closed = True
        self._unused.clear()
        if self._timer is not None:
            self._timer.cancel()
        while self._all:
            # One that fails to close is gone; the others are still to be closed.
            with suppress(OSError, RuntimeError):
                await self._all.pop().aclose()
        closing = self._closing
        # A task can be waited for on its own loop alone, and that one may have ended.
        if closing and not closing.done() and closing.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({closing})


class Lease(Generic[_C]):
    """The use of a connection, until it is given back."""

    def __init__(self, connections: Connections[_C], connection: _C, for_turn: bool) -> None:
        self.connection = connection
        self._connections = connections
        self._for_turn = for_turn
        self._over = False

    async def give_back(self) -> None:
        """Give the connection back; further calls do nothing."""
        if self._over:
            return
        # Noted before anything waits: a second call meanwhile must not free another's place.
        self._over = True
        try:
            await self._connections.keep(self.connection)
        finally:
            # Last, so that whoever is let in finds this connection and opens no new one.
            self._connections.leave(self._for_turn)
