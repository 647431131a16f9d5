"""The turns and calls on a connection, which is exchanged only while there are none.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Final, Protocol, TypeVar

from typing_extensions import ParamSpec

from letta_adapters.backends.base import inside_a_turn

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


def counted(
    method: Callable[Concatenate[_Home, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[_Home, _P], Coroutine[Any, Any, _T]]:
    """Decorate a method of a backend that may talk to the server."""

    @functools.wraps(method)
    async def call(home: _Home, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with home.traffic.passing():
            return await method(home, *args, **kwargs)

    return call
