"""Internal: keep connections to one server; hand out the one used last, and close old ones.

httpx keeps all connections in one list and asks each of them whether it still lives, at every
request and again at the end of every response; with a hundred of them that costs more than the
requests. Here each is kept by itself, so taking one costs the same however many there are.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class _Closable(Protocol):
    async def aclose(self) -> None: ...


_C = TypeVar("_C", bound=_Closable)


class Connections(Generic[_C]):
    """Connections of one kind, each used by one request at a time.

    Args:
        make: Makes a connection, which connects when it is first used.
        most: The greatest number in use at once, at least 2; ``None`` is no limit.
        kept: The greatest number that is kept open while nobody uses it.
        seconds: The time that an unused one is kept; ``None`` is no limit.
    """

    def __init__(
        self, make: Callable[[], _C], *, most: int | None, kept: int, seconds: float | None
    ) -> None:
        self._make = make
        self._kept = kept
        self._seconds = seconds
        self._all: set[_C] = set()
        # The one used last stands at the right, the one unused for longest at the left.
        self._unused: deque[tuple[float, _C]] = deque()
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
        now = time.monotonic()
        self._unused.append((now, connection))
        while self._unused and (len(self._unused) > self._kept or self._is_old(now)):
            surplus = self._unused.popleft()[1]
            self._all.discard(surplus)
            await surplus.aclose()

    def _is_old(self, now: float) -> bool:
        return self._seconds is not None and now - self._unused[0][0] > self._seconds

    async def aclose(self) -> None:
        """Close all of them, those in use included."""
        self._closed = True
        self._unused.clear()
        while self._all:
            await self._all.pop().aclose()


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
        self._over = True
        try:
            await self._connections.keep(self.connection)
        finally:
            self._connections.leave(self._for_turn)
