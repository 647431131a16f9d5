"""The one connection of a backend, which is made when needed, exchanged, and closed.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.server import Host, Timeouts
from letta_adapters.backends.app_server.traffic import Traffic
from letta_adapters.errors import SessionClosedError


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
        await last()
        if connection is not None:
            await connection.aclose()

    async def shut_down(self) -> None:
        """Give up the share in the server."""
        await self._host.release()
