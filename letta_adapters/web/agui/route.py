"""Internal: the route of AG-UI: a run goes in, its events come out."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from letta_adapters.errors import InvalidInputError, NotFoundError
from letta_adapters.web.access import Authorize, Gate, Viewer
from letta_adapters.web.agui.asked import read_asked
from letta_adapters.web.agui.run import Parking, start_run
from letta_adapters.web.rooms import Hubs
from letta_adapters.web.serving import EventStream, guard, read_body

FindRoom: TypeAlias = Callable[[Viewer, str], str | Awaitable[str | None] | None]


class _Agui:
    def __init__(self, hubs: Hubs, gate: Gate, find_room: FindRoom | None, max_body: int) -> None:
        self._hubs = hubs
        self._gate = gate
        self._find_room = find_room
        self._max_body = max_body
        self._parking = Parking()

    async def run(self, request: Request) -> Response:
        """Take a ``RunAgentInput``, and send the events of its run."""
        # First: nothing is read of a request whose sender is not known.
        viewer = await self._gate.admit(request)
        body = await read_body(request, self._max_body)
        limit = self._hubs.options.max_message_characters
        asked = read_asked(body, limit, self._hubs.frontend_tools)
        hub = self._hubs.get(await self._choose_room(viewer, asked.thread_id))
        run = await start_run(hub, viewer, asked, self._parking)
        return EventStream(run.events(), run.leave)

    async def _choose_room(self, viewer: Viewer, thread_id: str) -> str:
        """Return the room that is meant; a thread's id is what the client says, and no proof."""
        if self._find_room is None:
            return viewer.room
        found = self._find_room(viewer, thread_id)
        room = await found if inspect.isawaitable(found) else found
        # The same for another viewer's thread: an error of its own would tell that there is one.
        if not isinstance(room, str):
            raise NotFoundError("There is no such thread.", hint="Begin a new one.")
        return room


def agui_routes(
    hubs: Hubs,
    *,
    authorize: Authorize,
    allowed_origins: Sequence[str] = (),
    find_room: FindRoom | None = None,
    path: str = "/agui",
    max_body: int = 2 * 1024 * 1024,
) -> list[BaseRoute]:
    """Return the route that speaks AG-UI 1.0, for ``create_app(..., pages=...)`` or your own app.

    Args:
        hubs: The rooms, which the other routes may share.
        authorize: Returns the :class:`Viewer` who asks, or ``None``, as :func:`routes` has it.
        allowed_origins: The origins of other hosts' pages that may ask; give them to
            ``create_app`` too, whose answers let browsers read.
        find_room: Returns the room of a thread's id for a viewer, and ``None`` where that viewer
            has no such thread: an id comes from the client, so look it up among the viewer's own.
            Without it each viewer has the room that ``authorize`` names, whatever the id.
        path: The route's path.
        max_body: The length of a request's body in bytes. AG-UI sends the whole history each time.

    Raises:
        InvalidInputError: One of ``allowed_origins`` is no origin, or ``max_body`` not positive.
    """
    if max_body < 1:
        raise InvalidInputError("max_body must be positive.")
    agui = _Agui(hubs, Gate(authorize, allowed_origins), find_room, max_body)
    return [Route(path, guard(agui.run), methods=["POST"])]
