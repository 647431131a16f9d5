"""Internal: the routes: events, messages, stop, approvals, and one WebSocket for all of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias

from sse_starlette import ServerSentEvent
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from letta_adapters.errors import InvalidInputError
from letta_adapters.web.access import Authorize, Gate
from letta_adapters.web.commands import (
    ANSWER,
    MESSAGE,
    STOP,
    answer_call,
    parse_object,
    send_message,
    stop_turn,
)
from letta_adapters.web.replies import describe_error, find_status
from letta_adapters.web.rooms import Hubs
from letta_adapters.web.serving import EventStream, guard, read_body
from letta_adapters.web.socket import SocketTalk
from letta_adapters.web.watch import Watch

_log: Final = logging.getLogger(__name__)
Lifespan: TypeAlias = Callable[[Starlette], AbstractAsyncContextManager[None]]


class _Routes:
    """The endpoints over the rooms."""

    def __init__(self, hubs: Hubs, gate: Gate, max_body: int) -> None:
        self._hubs = hubs
        self._gate = gate
        self._max_body = max_body

    async def events(self, request: Request) -> Response:
        """Send the events of the viewer's room, as server-sent events."""
        viewer = await self._gate.admit(request)
        # A browser that comes back names the last event by itself; a page that was reloaded may do
        # so in the address.
        after = request.headers.get("last-event-id") or request.query_params.get("after")
        # Starlette lets it in with GET; it must not take the place of a viewer.
        if request.method == "HEAD":
            return Response()
        watch = await self._hubs.get(viewer.room).watch(viewer, after=after)
        return EventStream(_write_events(watch), watch.close)

    async def messages(self, request: Request) -> Response:
        """Take a message: ``{"text": "...", "key": "..."}``."""
        viewer = await self._gate.admit(request)
        data = await self._read(request, MESSAGE)
        return JSONResponse(await send_message(self._hubs, viewer, data), 202)

    async def stop(self, request: Request) -> Response:
        """Stop the turn that runs, or the message ``{"id": "..."}``."""
        viewer = await self._gate.admit(request)
        data = await self._read(request, STOP)
        return JSONResponse(await stop_turn(self._hubs, viewer, data))

    async def approvals(self, request: Request) -> Response:
        """Take the answer to a call: ``{"tool_call_id": "...", "allow": true}``."""
        viewer = await self._gate.admit(request)
        data = await self._read(request, ANSWER)
        return JSONResponse(await answer_call(self._hubs, viewer, data))

    async def socket(self, socket: WebSocket) -> None:
        """Send the events, and take what the client asks for, over one WebSocket."""
        watch: Watch | None = None
        try:
            # Before the connection is accepted: later a refusal could have no status and no body.
            viewer = await self._gate.admit(socket)
            after = socket.query_params.get("after")
            watch = await self._hubs.get(viewer.room).watch(viewer, after=after)
        except Exception as error:
            await _deny(socket, error)
            return
        try:
            await socket.accept()
            await SocketTalk(socket, self._hubs, watch, self._max_body).run()
        finally:
            watch.close()

    async def _read(self, request: Request, names: frozenset[str]) -> dict[str, Any]:
        body = await read_body(request, self._max_body)
        return parse_object(body or b"{}", names)


async def _write_events(watch: Watch) -> AsyncIterator[ServerSentEvent]:
    async for event in watch:
        text = event.write(may_approve=watch.viewer.may_approve)
        yield ServerSentEvent(text, event=event.kind, id=event.id or None, sep="\n")


async def _deny(socket: WebSocket, error: Exception) -> None:
    """Refuse a WebSocket, with the reason where the server can send one."""
    status = find_status(error)
    if status == 500:
        _log.error("A request failed.", exc_info=error)
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        denial = JSONResponse({"error": describe_error(error)}, status)
        await socket.send_denial_response(denial)
    else:
        await socket.close()


def routes(
    hubs: Hubs,
    *,
    authorize: Authorize,
    allowed_origins: Sequence[str] = (),
    max_body: int = 256 * 1024,
) -> list[BaseRoute]:
    """Return the routes for an application of your own.

    Close ``hubs`` when the application ends (``await hubs.aclose()``). :func:`create_app` does so
    by itself.

    Args:
        hubs: The rooms.
        authorize: Returns the :class:`Viewer` who asks, or ``None``; it gets the request or the
            WebSocket, and may be asynchronous. What it raises counts as ``None``.
        allowed_origins: The origins of other hosts' pages that may ask.
        max_body: The length of a request's body in bytes.

    Raises:
        InvalidInputError: One of ``allowed_origins`` is no origin.
    """
    gate = Gate(authorize, allowed_origins)
    if max_body < 1:
        raise InvalidInputError("max_body must be positive.")
    ends = _Routes(hubs, gate, max_body)
    return [
        Route("/events", guard(ends.events), methods=["GET"]),
        Route("/messages", guard(ends.messages), methods=["POST"]),
        Route("/stop", guard(ends.stop), methods=["POST"]),
        Route("/approvals", guard(ends.approvals), methods=["POST"]),
        WebSocketRoute("/socket", ends.socket),
    ]


def create_app(
    hubs: Hubs,
    *,
    authorize: Authorize,
    allowed_origins: Sequence[str] = (),
    max_body: int = 256 * 1024,
    pages: Sequence[BaseRoute] = (),
    lifespan: Lifespan | None = None,
) -> Starlette:
    """Return an ASGI application with the routes of :func:`routes`.

    Args:
        hubs: The rooms; they are closed when the application ends.
        authorize: Returns the :class:`Viewer` who asks, or ``None``.
        allowed_origins: The origins of other hosts' pages that may ask.
        max_body: The length of a request's body in bytes.
        pages: Routes of your own, which nobody guards.
        lifespan: A context of your own around the application, as Starlette takes it. The client
            that ``open_session`` uses belongs there: the rooms are closed before it.

    Raises:
        InvalidInputError: One of ``allowed_origins`` is no origin.
    """

    @asynccontextmanager
    async def whole(app: Starlette) -> AsyncIterator[None]:
        if lifespan is None:
            async with hubs:
                yield
            return
        async with lifespan(app), hubs:
            yield

    made = routes(hubs, authorize=authorize, allowed_origins=allowed_origins, max_body=max_body)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(allowed_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "last-event-id"],
        allow_credentials=True,
    )
    middleware = [cors] if allowed_origins else []
    return Starlette(routes=[*made, *pages], middleware=middleware, lifespan=whole)
