"""Close the connections opened for one test, each on the event loop that it lives on.

A Letta client that was given an ``http_client`` leaves it open, since it is the caller's. A
connection that nobody closes ends as a ``ResourceWarning`` in some later test.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
import contextlib

import httpx

# Seconds that an event loop of another thread has for closing its connections.
_PATIENCE = 5.0


class _Noting(httpx.AsyncHTTPTransport):
    """A transport that notes the event loop on which it is used."""

    loop: asyncio.AbstractEventLoop | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.loop is None:
            with contextlib.suppress(RuntimeError):  # not asyncio's
                self.loop = asyncio.get_running_loop()
        return await super().handle_async_request(request)


class Opened:
    """The real transports of one test."""

    def __init__(self) -> None:
        self._sync: list[httpx.HTTPTransport] = []
        self._async: list[_Noting] = []

    def sync(self) -> httpx.HTTPTransport:
        """Open another transport for synchronous clients."""
        self._sync.append(httpx.HTTPTransport())
        return self._sync[-1]

    def asynchronous(self) -> httpx.AsyncHTTPTransport:
        """Open another transport for asynchronous clients."""
        self._async.append(_Noting())
        return self._async[-1]

    def close(self) -> None:
        """Close every connection still open; those of an event loop that ended went with it."""
        for transport in self._sync:
            transport.close()
        for noted in self._async:
            if noted.loop is not None and not noted.loop.is_closed():
                _run(noted, noted.loop)
        self._sync.clear()
        self._async.clear()


def _run(transport: _Noting, loop: asyncio.AbstractEventLoop) -> None:
    # A connection belongs to its loop. A running one is a background thread's, so it is asked from
    # here; an idle one is run for just this.
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(transport.aclose(), loop).result(_PATIENCE)
    else:
        loop.run_until_complete(transport.aclose())
