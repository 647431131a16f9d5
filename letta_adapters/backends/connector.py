"""The functions that open the WebSocket to an App Server, where it is not ``websockets`` itself.

A client is given its own with ``connector=``. The testing kit's recorder and player may also be
used as a block (``with player:``), which reaches the clients that were given none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from contextvars import ContextVar
from inspect import isawaitable
from typing import Any, Protocol, runtime_checkable

from letta_adapters._utils.tasks import run_within
from letta_adapters.errors import ConfigurationError, InvalidInputError


@runtime_checkable
class Socket(Protocol):
    """An open WebSocket: each text that is sent, and each that comes, is one frame.

    Its errors are those of ``websockets`` (``ConnectionClosed``) and ``OSError``; iteration ends
    without one if the server closed the connection in order.
    """

    async def send(self, text: str, /) -> None:
        """Send a frame."""

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Iterate over the frames that come, until the connection is closed."""
        ...

    async def close(self) -> None:
        """Close the connection."""


class Connector(Protocol):
    """An async callable that opens the WebSocket of a client: ``LettaClient(connector=...)``.

    ``websockets.connect`` is one, and so is ``partial(websockets.connect, ssl=context)``.
    """

    # Type checkers read `*args: Any, **options: Any` as "any further parameters"; what is passed by
    # position is the address alone.
    def __call__(self, url: str, /, *args: Any, **options: Any) -> Awaitable[Socket]:
        """Open a connection; called on the client's event loop, also after a lost connection.

        Args:
            url: The address, ``ws://host:port/ws``.
            *args: Nothing.
            **options: The keyword arguments of ``websockets.connect``, among them
                ``additional_headers`` (they hold the token) and ``open_timeout`` in seconds, which
                is kept to in any case.

        Raises:
            OSError: There is no connection. Errors of ``websockets`` mean the same, and both reach
                the user as ``ConnectionFailedError``; others do as they are.
        """
        ...


def check_connector(connector: Connector | None) -> Connector | None:
    """Return the connector that a user gave.

    Raises:
        InvalidInputError: It cannot be called.
    """
    if connector is not None and not callable(connector):
        raise InvalidInputError(
            f"connector must be an async callable that opens a WebSocket, not "
            f"{type(connector).__name__}."
        )
    return connector


async def dial(connector: Connector, url: str, *, open_timeout: float, **options: Any) -> Socket:
    """Open a connection by an injected connector.

    Raises:
        InvalidInputError: It is not async, or returns no WebSocket.
        asyncio.TimeoutError: It did not return in time.
    """
    opening = connector(url, open_timeout=open_timeout, **options)
    if not isawaitable(opening):
        raise InvalidInputError(
            f"connector must be async; it returned {type(opening).__name__}, which cannot be "
            "awaited."
        )
    task = asyncio.ensure_future(opening)
    try:
        socket = await run_within(open_timeout, task)
    except BaseException:
        # It may have opened one in the moment in which it was told to stop.
        if task.done() and not task.cancelled() and task.exception() is None:
            with suppress(Exception):
                await task.result().close()
        raise
    if not isinstance(socket, Socket):
        raise InvalidInputError(
            f"connector returned {type(socket).__name__}, not a WebSocket (send, close, and async "
            "iteration over what comes)."
        )
    return socket


# -- blocks -------------------------------------------------------------------------------------


class ConnectorBlock:
    """A block of code whose clients, if they were given no connector, use this one.

    Args:
        connector: The connector of the block.
    """

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.outer: ConnectorBlock | None = None

    def open(self) -> None:
        """Begin the block: in this context, and in all that are copied from it meanwhile."""
        self.outer = _innermost()
        _block.set(self)
        _open.append(self)

    def close(self) -> None:
        """End the block everywhere."""
        _open.remove(self)
        # Not by a token: a fixture may be left in another context than it was entered in.
        if _block.get() is self:
            _block.set(self.outer)


# Tasks, and what runs on the loop of the sync client, see the block in which they were begun.
_block: ContextVar[ConnectorBlock | None] = ContextVar("letta_connector", default=None)
# All open blocks of the process.
_open: list[ConnectorBlock] = []


def _innermost() -> ConnectorBlock | None:
    """Return the innermost open block of this context."""
    block = _block.get()
    while block is not None and block not in _open:
        block = block.outer  # a task may outlive the block in which it was begun
    return block


def current_connector() -> Connector | None:
    """Return the connector of the block that this code runs in.

    A plain thread does not have the block's context, and neither does a test whose fixture opened
    the block in another task. They belong to the only block there is: what was to be recorded, or
    played, must not pass by.

    Raises:
        ConfigurationError: There are several, so which one is meant cannot be known.
    """
    block = _innermost()
    if block is None:
        blocks = list(_open)
        outer = [block.outer for block in blocks]
        # Of blocks inside each other the innermost counts; only those side by side are unclear.
        inner = [block for block in blocks if block not in outer]
        if len(inner) > 1:
            raise ConfigurationError(
                f"{len(inner)} recorders or players of WebSockets are active, and this client is "
                "in the block of none of them.",
                hint="Hand the one that is meant to the client: connector=...",
            )
        block = inner[0] if inner else None
    return None if block is None else block.connector
