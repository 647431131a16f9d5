"""A hostile Letta API on a real socket: its answers to a message, and its redirects."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from letta_adapters import AsyncLettaClient, Rest
from tools.attack.judge import Tally, nothing_left
from tools.attack.mutations import hurried, is_answer
from tools.attack.streams import REST_TURN, rest_events, sse
from tools.fake_app_server import HERE

_SSE: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_END: Final = b"connection: close\r\n\r\n"
_MB: Final = 1 << 20
# How much an attack sends that sends without end.
_FLOOD_MB: Final = 64
_DEEP: Final = b"[" * 20_000 + b"]" * 20_000

Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


class HostileServer:
    """A server that answers messages as it is told, and everything else as a Letta API would."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""
        self.says: Send | None = None
        self.everywhere = False
        self._open: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one request."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._answer(reader, writer)
        self._open.discard(task)
        with suppress(OSError):
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        pairs = (line.partition(":") for line in head[1:] if ":" in line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((method, target, headers))
        path = target.partition("?")[0]
        sends = method == "POST" and path.endswith("/messages")
        if self.says is not None and (sends or self.everywhere):
            await self.says(writer)
            with suppress(OSError):
                await writer.drain()
            return
        body: Any = []
        if path.startswith("/v1/runs/run"):
            body = {"id": path.split("/")[3], "status": "completed"}
        status = "409 Conflict" if path.endswith("/cancel") else "200 OK"
        writer.write(whole(json.dumps(body).encode(), status))
        await writer.drain()

    async def hang_up(self) -> None:
        """End the answers that are still on their way."""
        for task in tuple(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)


@asynccontextmanager
async def hostile_server() -> Any:
    """Yield a server on loopback."""
    made = HostileServer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        await made.hang_up()


def whole(body: bytes, status: str = "200 OK", extra: bytes = b"") -> bytes:
    """Return an answer of a known length."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + extra + _END + body


def stream(body: bytes, extra: bytes = b"") -> bytes:
    """Return an answer that is a stream."""
    return _SSE + extra + _END + body


def says(data: bytes) -> Send:
    """Return an answer that sends just these bytes, and closes."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return send


def resets(data: bytes) -> Send:
    """Return an answer that sends just these bytes, and resets the connection."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return send


def floods(start: bytes, block: bytes, pause: float = 0.0) -> Send:
    """Return an answer without end (for some time)."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for _ in range(_FLOOD_MB * _MB // len(block) if not pause else 2000):
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(pause)

    return send


def _event(**fields: Any) -> bytes:
    return sse([{**rest_events()[4], "seq_id": None, **fields}])


def _odd_streams() -> Iterator[tuple[str, bytes]]:
    turn = REST_TURN
    yield "an answer as it should be", stream(turn)
    yield "a compressed one", stream(gzip.compress(turn), b"content-encoding: gzip\r\n")
    cut = gzip.compress(turn)[:-9]
    yield "a compressed one that is cut", stream(cut, b"content-encoding: gzip\r\n")
    yield "not compressed, says it is", stream(turn, b"content-encoding: gzip\r\n")
    yield "an encoding that is none", stream(turn, b"content-encoding: rot13\r\n")
    yield "brotli that is none", stream(b"\x0b\x02\x80x", b"content-encoding: br\r\n")
    bomb = gzip.compress(b"data: " + b"A" * (64 * _MB))
    yield "64 MB packed into 64 kB", stream(bomb, b"content-encoding: gzip\r\n")
    yield "one event of 32 MB", stream(_event(x="A" * (32 * _MB)) + turn)
    yield "100,000 empty events", stream(b"data: {}\n\n" * 100_000 + turn)
    yield "100,000 comments", stream(b": x\n\n" * 100_000 + turn)
    yield "20,000 deep", stream(b"data: " + _DEEP + b"\n\n" + turn)
    deep = b'{"message_type": "assistant_message", "id": "m", "x": ' + _DEEP + b"}"
    yield "an event 20,000 deep", stream(sse([deep]) + turn)
    yield "deep arguments of a tool", stream(_tool_call(b"[" * 3000 + b"]" * 3000) + turn)
    yield (
        "NaN and Infinity",
        stream(
            sse([b'{"message_type": "usage_statistics", "total_tokens": NaN, "x": Infinity}'])
            + turn
        ),
    )
    yield (
        "a number of 5,000 digits",
        stream(
            sse([b'{"message_type": "usage_statistics", "total_tokens": ' + b"9" * 5000 + b"}"])
            + turn
        ),
    )
    yield (
        "the same key twice",
        stream(
            sse([b'{"message_type": "x", "message_type": "assistant_message", "content": 5}'])
            + turn
        ),
    )
    yield "bytes that are no UTF-8", stream(b"data: \xff\xfe\x00\n\n" + turn)
    yield "half a surrogate", stream(sse([b'{"message_type": "x", "y": "\\ud800"}']) + turn)
    yield "an error that says nothing", stream(b"event: error\ndata:\n\n")
    yield "an error of odd kinds", stream(b'event: error\ndata: {"error": [1], "message": {}}\n\n')
    yield "nothing", stream(b"")
    yield "only its end", stream(b"data: [DONE]\n\n")
    yield "a text and no end", stream(_event())
    yield "a text and an end without a reason", stream(_event() + b"data: [DONE]\n\n")
    for reason in (b'"banana"', b"5", b"{}", b"null"):
        stop = b'{"message_type": "stop_reason", "stop_reason": ' + reason + b"}"
        yield f"stops because of {reason.decode()}", stream(sse([stop, b"[DONE]"]))
    yield (
        "wants approval for nothing",
        stream(
            sse([{"message_type": "stop_reason", "stop_reason": "requires_approval"}, b"[DONE]"])
        ),
    )


def _tool_call(arguments: bytes) -> bytes:
    called = {"name": "f", "tool_call_id": "call_9", "arguments": arguments.decode()}
    return sse([{"message_type": "tool_call_message", "id": "m", "tool_calls": [called]}])


def _odd_http() -> Iterator[tuple[str, bytes]]:
    turn = REST_TURN
    for status in (
        *("100 Continue", "204 No", "206 Part", "300 Many", "304 Same", "400 Bad", "401 Who"),
        *("403 No", "404 None", "409 Busy", "410 Gone", "418 Tea", "422 Odd", "429 Slow"),
        *("500 Oh", "502 Oh", "503 Oh", "504 Oh", "999 Oh", "000 Oh", "abc Oh"),
    ):
        yield f"status {status}", whole(b'{"detail": "no"}', status)
    for seconds in ("1e999", "-5", "nan", "soon", "99999999999999999999"):
        after = f"retry-after: {seconds}\r\n".encode()
        yield f"retry after {seconds}", whole(b"{}", "429 Slow", after)
    for detail in (_DEEP, b"\xff", b'{"detail": ' + _DEEP + b"}", b'{"error": [1]}', b"5", b""):
        yield f"a refusal of {detail[:12]!r}", whole(detail, "400 Bad")
    yield "HTTP/1.0", b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + turn
    yield "HTTP/0.9", turn
    yield "no HTTP", b"\x16\x03\x01\x00\xa5\x01\x00"
    yield "SSH", b"SSH-2.0-OpenSSH_9.6\r\n"
    yield "a header of 300 kB", stream(turn, b"x: " + b"y" * 300_000 + b"\r\n")
    yield "5,000 headers", stream(turn, b"x: y\r\n" * 5000)
    yield "a header with a NUL", stream(turn, b"x: \x00\r\n")
    yield "too long a length", _SSE + b"content-length: 999999\r\n\r\n" + turn
    yield "too short a length", _SSE + b"content-length: 40\r\n\r\n" + turn
    yield "a negative length", _SSE + b"content-length: -4\r\n\r\n" + turn
    yield "two lengths", _SSE + b"content-length: 4\r\ncontent-length: 5\r\n\r\n" + turn
    yield "chunks of no size", _SSE + b"transfer-encoding: chunked\r\n\r\nxyz\r\n" + turn
    chunk = b"%x\r\n%s\r\n" % (len(turn), turn)
    yield "chunks without an end", _SSE + b"transfer-encoding: chunked\r\n\r\n" + chunk
    yield "a chunk of 2 EB", _SSE + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n" + turn
    yield "continues 50 times", b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + stream(turn)
    yield "JSON and no stream", whole(b'{"messages": []}')
    yield "a page", b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<ht>"
    yield "nothing at all", b""


def _endless() -> Iterator[tuple[str, Send]]:
    yield "an event without end", floods(stream(b"data: "), b"A" * _MB)
    yield "a line without end", floods(stream(b""), b"A" * _MB)
    yield "headers without end", floods(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000)
    yield "comments without end", floods(stream(b""), b": still here\n\n", 0.01)
    yield "a byte now and then", floods(stream(b"data: "), b"a", 0.05)
    yield "pings without end", floods(stream(b""), sse([{"message_type": "ping"}]), 0.01)
    yield "a header now and then", floods(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", 0.05)


async def hostile_answers(*, every: int = 1) -> Tally:
    """Send a message to a server that answers it in each of these ways (one in ``every``)."""
    tally = Tally("hostile answers (HTTP, SSE)")
    scenes = [(name, says(data)) for name, data in (*_odd_streams(), *_odd_http())]
    scenes += _endless()
    with hurried():
        async with hostile_server() as server:
            for name, send in scenes[::every]:
                server.says = send
                await _ask(server, tally, name)
    await nothing_left(tally)
    return tally


async def resets_everywhere(*, every: int = 1) -> Tally:
    """Reset the connection at each byte of an answer (one in ``every``), its head included."""
    tally = Tally("connection reset at a byte")
    data = stream(REST_TURN)
    with hurried():
        async with hostile_server() as server:
            for at in range(0, len(data), every):
                server.says = resets(data[:at])
                await _ask(server, tally, f"byte {at}")
    await nothing_left(tally)
    return tally


async def _ask(server: HostileServer, tally: Tally, name: str) -> None:
    place = Rest(
        base_url=server.url, api_key="", settle_timeout=0.05, request_timeout=2, idle_timeout=2
    )
    async with AsyncLettaClient(place) as client:
        session = client.resume_session(**HERE, turn_timeout=5)
        before = sum(method == "POST" for method, *_ in server.requests)
        await tally.judge(name, session.run_turn("hi"), is_answer)
        tally.look_behind(name, client)
        posts = [target for method, target, _ in server.requests if method == "POST"][before:]
        if sum(target.partition("?")[0].endswith("/messages") for target in posts) > 1:
            tally.note("wrong", f"{name}: the message was sent twice")


_LEADS: Final = (
    *("http://{other}/v1/x", "https://{other}/v1/x", "//{other}/v1/x", "ftp://x/y", "http://[::1"),
    *("http://a b/", "javascript:alert(1)", "http://", "\x7f", "http://{here}@{other}/"),
)


async def leads_elsewhere() -> Tally:
    """Redirect every request to another place, and set cookies: nothing may arrive there."""
    tally = Tally("redirects and cookies")
    async with hostile_server() as server, hostile_server() as other:
        server.everywhere = True
        for status in (301, 302, 303, 307, 308):
            for lead in _LEADS:
                where = lead.format(other=other.url[7:], here=server.url[7:])
                moved = f"HTTP/1.1 {status} Moved\r\nlocation: {where}\r\ncontent-length: 0\r\n"
                server.says = says((moved + "set-cookie: evil=1; Path=/\r\n\r\n").encode("latin-1"))
                await _ask(server, tally, f"{status} to {where!r}")
    for method, target, _ in other.requests:
        tally.note("wrong", f"{method} {target} reached another host")
    if any("cookie" in headers for *_, headers in server.requests):
        tally.note("wrong", "a cookie was sent")
    await nothing_left(tally)
    return tally
