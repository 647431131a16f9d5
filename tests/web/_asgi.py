"""Drive an ASGI application as a server does: streams piece by piece, slow and lost clients.

httpx' transport for ASGI gives a response only when it is whole, and an event stream never is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

HOST = "chat.test"


def _headers(given: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    named = {"host": HOST, **{k.lower(): v for k, v in given.items()}}
    return [(k.encode(), v.encode("latin-1")) for k, v in named.items()]


class Stream:
    """An open event stream. While ``slow`` the client takes nothing: its sends wait."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = asyncio.Event()
        self.started = asyncio.Event()
        self.taking = asyncio.Event()
        self.taking.set()
        self._gone = asyncio.Event()
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._text = ""
        self._body: dict[str, Any] | None = None
        self.last_id: str | None = None
        self.all: list[tuple[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return body
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            self.started.set()
            return
        await self.taking.wait()
        self._pieces.put_nowait(message.get("body", b""))

    def leave(self) -> None:
        """Close the connection, as a browser does whose tab is closed."""
        self._gone.set()

    async def next(self) -> tuple[str, Any]:
        """Return the next event: its kind and its data."""
        while "\n\n" not in self._text:
            getting = asyncio.ensure_future(self._pieces.get())
            ending = asyncio.ensure_future(self.ended.wait())
            await asyncio.wait({getting, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if not getting.done():
                getting.cancel()
                raise EOFError
            self._text += getting.result().decode()
        block, _, self._text = self._text.partition("\n\n")
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line)
        if "data" not in fields:  # a ping
            return await self.next()
        self.last_id = fields.get("id", self.last_id)
        event = (fields["event"], json.loads(fields["data"]))
        self.all.append(event)
        return event

    async def until(self, kind: str, **wanted: Any) -> Any:
        """Return the data of the next event of a kind that has these values."""
        while True:
            found, data = await self.next()
            if found == kind and all(data.get(k) == v for k, v in wanted.items()):
                return data


class Browser:
    """Somebody with a name (``authorize`` of the tests reads it) and a page of some origin."""

    def __init__(self, app: Any, name: str | None, origin: str | None = f"http://{HOST}") -> None:
        self.app = app
        self.given = {} if name is None else {"x-user": name}
        self.origin = origin

    def scope(self, path: str, method: str, **headers: str) -> dict[str, Any]:
        path, _, query = path.partition("?")
        sent = dict(self.given)
        if self.origin is not None:
            sent["origin"] = self.origin
        sent.update({k.replace("_", "-"): v for k, v in headers.items()})
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": _headers(sent),
            "client": ("127.0.0.1", 1),
            "server": (HOST, 80),
        }

    @asynccontextmanager
    async def events(self, path: str = "/events", **headers: str) -> AsyncIterator[Stream]:
        """Open the event stream, and leave at the end."""
        stream = Stream()
        app = self.app(self.scope(path, "GET", **headers), stream.receive, stream.send)
        serving = asyncio.ensure_future(app)
        serving.add_done_callback(lambda _: stream.ended.set())
        try:
            await asyncio.wait(
                {serving, asyncio.ensure_future(stream.started.wait())},
                return_when=asyncio.FIRST_COMPLETED,
            )
            yield stream
        finally:
            stream.leave()
            stream.taking.set()
            await serving

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Return status and JSON."""
        return await self._ask(self.scope(path, "GET", **headers), b"")

    async def post(self, path: str, data: Any = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON; ``data`` is JSON, or bytes that are sent as they are."""
        body = data if isinstance(data, bytes) else json.dumps(data or {}).encode()
        headers = {"content_type": "application/json", **headers}
        return await self._ask(self.scope(path, "POST", **headers), body)

    async def _ask(self, scope: dict[str, Any], body: bytes) -> tuple[int, Any]:
        stream = Stream()
        stream._body = {"type": "http.request", "body": body, "more_body": False}
        await self.app(scope, stream.receive, stream.send)
        text = b"".join(stream._pieces.get_nowait() for _ in range(stream._pieces.qsize()))
        return stream.status, json.loads(text) if text else None


class Socket:
    """An open WebSocket."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outbox: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.all: list[dict[str, Any]] = []
        self.inbox.put_nowait({"type": "websocket.connect"})

    def say(self, **data: Any) -> None:
        self.inbox.put_nowait({"type": "websocket.receive", "text": json.dumps(data)})

    async def next(self) -> dict[str, Any]:
        """Return the next thing that was sent; ``close`` if it was closed."""
        message = await self.outbox.get()
        if message["type"] != "websocket.send":
            return {"event": "close", "code": message.get("code")}
        self.all.append(json.loads(message["text"]))
        return self.all[-1]

    async def until(self, event: str, **wanted: Any) -> Any:
        while True:
            found = await self.next()
            data = found.get("data") or {}
            if found["event"] == event and all(data.get(k) == v for k, v in wanted.items()):
                return found


@asynccontextmanager
async def open_socket(browser: Browser, path: str = "/socket", **headers: str) -> Any:
    """Open a WebSocket, which is accepted or not; leave at the end."""
    scope = browser.scope(path, "GET", **headers)
    scope |= {"type": "websocket", "scheme": "ws", "subprotocols": []}
    scope["extensions"] = {"websocket.http.response": {}}
    del scope["method"]
    socket = Socket()

    async def send(message: Mapping[str, Any]) -> None:
        socket.outbox.put_nowait(message)

    serving = asyncio.ensure_future(browser.app(scope, socket.inbox.get, send))
    try:
        yield socket, await socket.outbox.get()
    finally:
        socket.inbox.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await serving


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[None]:
    """Run the application's lifespan, as a server does around its requests."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()

    async def send(message: Mapping[str, Any]) -> None:
        said.put_nowait(message)

    inbox.put_nowait({"type": "lifespan.startup"})
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    serving = asyncio.ensure_future(app(scope, inbox.get, send))
    assert (await said.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        inbox.put_nowait({"type": "lifespan.shutdown"})
        assert (await said.get())["type"] == "lifespan.shutdown.complete"
        await serving
