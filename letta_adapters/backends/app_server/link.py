"""The one connection of a backend, which is made when needed, exchanged, and closed.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from letta_adapters.backends.app_server.connection import Connection, Endpoint
from letta_adapters.backends.app_server.traffic import Traffic
from letta_adapters.errors import SessionClosedError


class Link:
    """At most one open connection, with a count of the turns and calls on it.

    Args:
        endpoint: Returns where to connect; asked again for every new connection.
        connect_timeout: Seconds to reach it.
        request_timeout: Seconds a request may take.
        shutdown: Gives up the share that ``endpoint`` has taken.
        made: Called with every new connection, before anybody uses it.
    """

    def __init__(
        self,
        endpoint: Callable[[], Awaitable[Endpoint]],
        *,
        connect_timeout: float,
        request_timeout: float,
        shutdown: Callable[[], Awaitable[None]] | None,
        made: Callable[[Connection], None],
    ) -> None:
        self.traffic = Traffic()
        self.current: Connection | None = None
        self._endpoint = endpoint
        self._timeouts = {"connect_timeout": connect_timeout, "request_timeout": request_timeout}
        self._shutdown = shutdown
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
                connection = await Connection.open(await self._endpoint(), **self._timeouts)
                self._made(connection)
                self.current = connection
            return self.current

    def retire(self) -> None:
        """Give up the connection, and the share in the server, as soon as nothing goes on.

        Turns that begin meanwhile wait, and go to the server that is there afterwards.
        """
        old = self.current

        def wanted() -> bool:
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
                    if self._shutdown is not None:
                        await self._shutdown()
            return True

        self.traffic.exchange(give_up, wanted)

    async def aclose(self, last: Callable[[], Awaitable[None]]) -> None:
        """Close the connection for good, once ``last`` is done."""
        self._closed = True
        await self.traffic.aclose()
        async with self._connecting:  # a connection that is being made would outlive its client
            connection, self.current = self.current, None
        await last()
        if connection is not None:
            await connection.aclose()

    async def shut_down(self) -> None:
        """Give up the share in the server."""
        if self._shutdown is not None:
            await self._shutdown()
