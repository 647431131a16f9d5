"""Internal: the one connection of a backend, and the turns and calls on it.

The connection is made when it is needed, exchanged only while no turn or call is on it, and closed.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Final, Protocol, TypeVar

from typing_extensions import ParamSpec

from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.server import Host, Timeouts
from letta_adapters.backends.base import inside_a_turn
from letta_adapters.errors import SessionClosedError

# Seconds a new turn waits for those that run. Then it goes ahead: one may wait for a person.
EXCHANGE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.5

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Traffic:
    """A count of turns and calls."""

    def __init__(self) -> None:
        self._count = 0
        self._quiet = asyncio.Event()
        self._exchange: asyncio.Future[None] | None = None
        self._wanted: Callable[[], bool] = bool

    @property
    def busy(self) -> bool:
        """True while anything goes on."""
        return self._count > 0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Count a call, which never waits: a turn that runs may be what needs it."""
        self._count += 1
        try:
            yield
        finally:
            self._less()

    async def begin_turn(self) -> Callable[[], None]:
        """Count a turn, and return a function that ends it; that may be called more than once.

        While the connection is to be exchanged the turn waits, unless a turn that runs waits for
        it.
        """
        until = time.monotonic() + EXCHANGE_SECONDS
        # Looked at from time to time, as the exchange may become needless without coming to its
        # end.
        while self._to_be_exchanged() and not inside_a_turn.get() and time.monotonic() < until:
            assert self._exchange is not None
            await asyncio.wait({self._exchange}, timeout=_LOOK_SECONDS)
        self._count += 1
        # A turn that is ended twice must not count another one out.
        over = False

        def end() -> None:
            nonlocal over
            if not over:
                over = True
                self._less()

        return end

    def exchange(self, work: Callable[[], Awaitable[bool]], wanted: Callable[[], bool]) -> None:
        """Let turns wait, and do ``work`` as soon as nothing goes on.

        Args:
            work: Returns ``False`` if something goes on again; then it is tried again.
            wanted: Returns whether there is still something to exchange, for which turns wait.
        """
        if self._to_be_exchanged():
            return
        if self._exchange is not None:
            # One that is still there has become needless.
            self._exchange.cancel()
        self._wanted = wanted
        self._exchange = asyncio.ensure_future(self._when_quiet(work))

    def _to_be_exchanged(self) -> bool:
        return self._exchange is not None and not self._exchange.done() and self._wanted()

    async def aclose(self) -> None:
        """Exchange nothing any more."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()
            await asyncio.wait({exchange})

    async def _when_quiet(self, work: Callable[[], Awaitable[bool]]) -> None:
        while True:
            while self.busy:
                self._quiet.clear()
                await self._quiet.wait()
            if await work():
                return

    def _less(self) -> None:
        self._count -= 1
        if self._count == 0:
            self._quiet.set()


class HasTraffic(Protocol):
    """A backend whose calls are counted."""

    @property
    def traffic(self) -> Traffic: ...


_Home = TypeVar("_Home", bound=HasTraffic)


def count_use(
    method: Callable[Concatenate[_Home, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[_Home, _P], Coroutine[Any, Any, _T]]:
    """Decorate a method of a backend that may talk to the server."""

    @functools.wraps(method)
    async def call(home: _Home, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with home.traffic.passing():
            return await method(home, *args, **kwargs)

    return call


class Link:
    """At most one open connection, with a count of the turns and calls on it.

    Args:
        host: The one who runs the server, or knows where it listens.
        timeouts: The time limits.
        made: Called with every new connection, before anybody uses it.
    """

    def __init__(
        self, host: Host, timeouts: Timeouts, *, made: Callable[[Connection], None]
    ) -> None:
        self.traffic = Traffic()
        self.current: Connection | None = None
        self._host = host
        self._timeouts = timeouts
        self._made = made
        self._connecting = asyncio.Lock()
        self._closed = False

    async def connection(self) -> Connection:
        """Return the open connection; a new one if there is none or it was lost."""
        async with self._connecting:
            if self._closed:
                raise SessionClosedError("The client was closed.")
            # A lost connection is replaced when it is needed, and not before: nobody may need it
            # again.
            if self.current is None or not self.current.usable:
                old, self.current = self.current, None
                if old is not None:
                    await old.aclose()
                connection = await Connection.open(
                    await self._host.endpoint(),
                    connect_timeout=self._timeouts.connect,
                    request_timeout=self._timeouts.request,
                )
                self._made(connection)
                self.current = connection
            return self.current

    def retire(self) -> None:
        """Give up the connection, and the share in the server, as soon as nothing goes on.

        Turns that begin meanwhile wait, and go to the server that is there afterwards.
        """
        old = self.current

        def wanted() -> bool:
            # Once the connection is lost or another one, there is nothing left to wait for.
            return self.current is old and (old is None or old.usable) and not self._closed

        async def give_up() -> bool:
            async with self._connecting:
                # A call may have begun since the last look.
                if self.traffic.busy:
                    return False
                if self.current is old and not self._closed:
                    self.current = None
                    if old is not None:
                        await old.aclose()
                    await self._host.release()
            return True

        self.traffic.exchange(give_up, wanted)

    async def aclose(self, last: Callable[[], Awaitable[None]]) -> None:
        """Close the connection for good, once ``last`` is done."""
        self._closed = True
        await self.traffic.aclose()
        async with self._connecting:  # a connection that is being made would outlive its client
            connection, self.current = self.current, None
        try:
            await last()
        finally:
            if connection is not None:
                await connection.aclose()

    async def shut_down(self) -> None:
        """Give up the share in the server."""
        await self._host.release()
