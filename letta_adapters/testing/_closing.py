"""Connections that were opened for one test, closed with it, each on the loop that it lives on.

A client that was handed a transport, or an ``http_client``, leaves it open; what nobody closes ends
as a ``ResourceWarning`` in some later test.
"""

from __future__ import annotations

import asyncio
import contextlib

import httpx

# Seconds for a loop of another thread to close its connections.
_PATIENCE = 5.0


class _Noting(httpx.AsyncHTTPTransport):
    """Knows the loop that it was used on."""

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
        """Open another one for synchronous clients."""
        self._sync.append(httpx.HTTPTransport())
        return self._sync[-1]

    def asynchronous(self) -> httpx.AsyncHTTPTransport:
        """Open another one for asynchronous clients."""
        self._async.append(_Noting())
        return self._async[-1]

    def close(self) -> None:
        """Close whatever is still open; what belongs to a loop that ended went with it."""
        for transport in self._sync:
            transport.close()
        for noted in self._async:
            if noted.loop is not None and not noted.loop.is_closed():
                _run(noted, noted.loop)
        self._sync.clear()
        self._async.clear()


def _run(transport: _Noting, loop: asyncio.AbstractEventLoop) -> None:
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(transport.aclose(), loop).result(_PATIENCE)
    else:
        loop.run_until_complete(transport.aclose())
