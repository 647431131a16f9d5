"""Internal: a viewer on a WebSocket: events go out, requests come in, each with its reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from letta_adapters._utils.tasks import await_all, run_within
from letta_adapters.errors import InvalidInputError, LettaError
from letta_adapters.web.access import Viewer
from letta_adapters.web.commands import (
    ANSWER,
    MESSAGE,
    STOP,
    answer_call,
    parse_object,
    send_message,
    stop_turn,
)
from letta_adapters.web.events import write_json
from letta_adapters.web.replies import describe_error
from letta_adapters.web.rooms import Hubs
from letta_adapters.web.watch import Watch

_log: Final = logging.getLogger(__name__)
#: Seconds that a client may take to receive one piece.
SEND_TIMEOUT: Final = 30.0
# A client that has gone, or takes nothing.
_EVERYDAY: Final = (WebSocketDisconnect, OSError, asyncio.TimeoutError)
_Request = Callable[[Hubs, Viewer, Mapping[str, Any]], Awaitable[dict[str, Any]]]
_REQUESTS: Final[Mapping[str, tuple[_Request, frozenset[str]]]] = {
    "message": (send_message, MESSAGE),
    "stop": (stop_turn, STOP),
    "approval": (answer_call, ANSWER),
}
# The codes of RFC 6455 that say why a connection is closed.
_GOING_AWAY: Final = 1001
_NOT_TEXT: Final = 1003
_TOO_LARGE: Final = 1009
_TRY_AGAIN: Final = 1013


class SocketTalk:
    """One open connection of a viewer.

    Out go ``{"event", "id", "data"}`` and, for each request, ``{"event": "reply", "to", "data"}``
    with ``error`` in place of ``data`` where it failed. In come ``{"do": "message" | "stop" |
    "approval", "to": ..., ...}`` with the fields of the route of that name; ``to`` is any text, and
    comes back.

    Args:
        socket: The connection, accepted.
        hubs: The rooms.
        watch: The events of the viewer's room.
        max_body: The length of a request in bytes.
    """

    def __init__(self, socket: WebSocket, hubs: Hubs, watch: Watch, max_body: int) -> None:
        self._socket = socket
        self._hubs = hubs
        self._watch = watch
        self._max_body = max_body
        # Replies and events are written by two tasks.
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Talk until one of both sides has had enough."""
        tasks = {asyncio.ensure_future(self._write()), asyncio.ensure_future(self._read())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await await_all(tasks)
        for task in tasks:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, _EVERYDAY):
                _log.error("A connection has failed.", exc_info=error)

    async def _send(self, data: Mapping[str, Any], text: str | None = None) -> None:
        # An event's data is JSON already, written once for all viewers.
        shown = write_json(data)
        whole = shown if text is None else f'{shown[:-1]}, "data": {text}}}'
        async with self._sending:
            await run_within(SEND_TIMEOUT, self._socket.send_text(whole))

    async def _write(self) -> None:
        may_approve = self._watch.viewer.may_approve
        dropped = False
        async for event in self._watch:
            dropped = event.kind == "dropped"
            text = event.write(may_approve=may_approve)
            await self._send({"event": event.kind, "id": event.id}, text)
        await self._socket.close(_TRY_AGAIN if dropped else _GOING_AWAY)

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                await self._socket.close(_NOT_TEXT)
                return
            if len(text.encode(errors="replace")) > self._max_body:
                await self._socket.close(_TOO_LARGE)
                return
            # One request after the other, so that the replies keep the order of the requests.
            await self._send(await self._answer(text))

    async def _answer(self, text: str) -> dict[str, Any]:
        to: object = None
        try:
            names = frozenset({"do", "to"})
            data = parse_object(text, names.union(*(fields for _, fields in _REQUESTS.values())))
            to = data.pop("to", None)
            if to is not None and (not isinstance(to, str) or len(to) > 200):
                to = None
                raise InvalidInputError("`to` must be a short text.")
            return {"event": "reply", "to": to, "data": await self._do(data)}
        except Exception as error:
            if not isinstance(error, LettaError):
                _log.error("A request failed.", exc_info=error)
            return {"event": "reply", "to": to, "error": describe_error(error)}

    async def _do(self, data: dict[str, Any]) -> dict[str, Any]:
        do = data.pop("do", None)
        request, fields = _REQUESTS.get(do if isinstance(do, str) else "", (None, frozenset()))
        if request is None:
            raise InvalidInputError("`do` is unknown.", hint=f"Known are: {', '.join(_REQUESTS)}.")
        unknown = sorted(data.keys() - fields)
        if unknown:
            raise InvalidInputError(f"{unknown[0]!r} does not belong to {do!r}.")
        return await request(self._hubs, self._watch.viewer, data)
