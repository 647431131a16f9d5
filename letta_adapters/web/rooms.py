"""Internal: the rooms of an application."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from letta_adapters._utils.tasks import await_all
from letta_adapters.errors import ConversationBusyError, SessionClosedError
from letta_adapters.tools import Tool
from letta_adapters.web.frontend import read_names
from letta_adapters.web.hub import Hub, OpenSession
from letta_adapters.web.limits import HubOptions


class Hubs:
    """The rooms of an application, each opened when somebody comes.

    Args:
        open_session: Makes the session of a room, given its name and the function to pass on as
            ``can_use_tool``.
        options: The limits of each room.
        max_rooms: The number of rooms at a time.
        frontend_tools: The tools that pages may carry out, made by :func:`frontend_tool`; no page
            can bring one of its own.

    Raises:
        InvalidInputError: One of ``frontend_tools`` does not run in a page.
    """

    def __init__(
        self,
        open_session: OpenSession,
        *,
        options: HubOptions | None = None,
        max_rooms: int = 1000,
        frontend_tools: Sequence[Tool] = (),
    ) -> None:
        self.frontend_tools = read_names(frontend_tools)
        self.options = options or HubOptions()
        self._open_session = open_session
        self._max_rooms = max_rooms
        self._rooms: dict[str, Hub] = {}
        # Those that are not closed to their end.
        self._all: set[Hub] = set()
        self._closed = False

    def find(self, room: str) -> Hub | None:
        """Return the room of a name if it is open.

        Args:
            room: The name.
        """
        return self._rooms.get(room)

    def get(self, room: str) -> Hub:
        """Return the room of a name; a new one if there is none.

        Args:
            room: The name.

        Raises:
            ConversationBusyError: There are too many rooms.
            SessionClosedError: The application closes.
        """
        if self._closed:
            raise SessionClosedError("The server closes.", hint="Try again later.")
        hub = self._rooms.get(room)
        if hub is None:
            if len(self._all) >= self._max_rooms:
                raise ConversationBusyError("Too many rooms are open.", hint="Try again later.")
            hub = Hub(self._open_session, room=room, options=self.options, on_close=self._forget)
            self._rooms[room] = hub
            self._all.add(hub)
        return hub

    def _forget(self, hub: Hub) -> None:
        if self._rooms.get(hub.room) is hub:
            del self._rooms[hub.room]
        closing = asyncio.ensure_future(hub.close())
        closing.add_done_callback(lambda _: self._all.discard(hub))

    async def aclose(self) -> None:
        """Close all rooms: their turns are stopped, and nothing is left running."""
        # First, so that nobody opens another room while these are being closed.
        self._closed = True
        await await_all([asyncio.ensure_future(hub.close()) for hub in tuple(self._all)])

    async def __aenter__(self) -> Hubs:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
