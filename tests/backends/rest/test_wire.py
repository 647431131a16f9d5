"""Below httpx nothing is lost, nobody waits for ever, and who watches httpx sees all requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpcore
import httpx
import pytest

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters.backends.rest.wire import Network, Socket, Stream, Transport, may_replace_httpx
from letta_adapters.testing import FakeLetta
from tests.faults._turns import until
from tests.snippets.scenes import serve


@asynccontextmanager
async def connected(*said: bytes) -> AsyncIterator[httpcore.AsyncNetworkStream]:
    """A connection to a server that says this and then nothing."""

    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(said)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stream = await Network().connect_tcp("127.0.0.1", server.sockets[0].getsockname()[1], 10)
    try:
        yield stream
    finally:
        await stream.aclose()
        await over.wait()
        server.close()
        await server.wait_closed()


async def test_a_shorter_limit_than_that_of_the_read_before_is_kept() -> None:
    async with connected(b"hello") as stream:
        assert await stream.read(100, timeout=60) == b"hello"
        for _ in range(2):
            with pytest.raises(httpcore.ReadTimeout):
                await stream.read(100, timeout=0.01)


async def test_a_read_that_was_left_takes_nothing_from_the_next() -> None:
    async with connected() as stream:
        reading = asyncio.ensure_future(stream.read(100, timeout=60))
        await asyncio.sleep(0)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        assert reading.cancelled()
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(100, timeout=0.01)


class _Transport:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.done.append(name)


async def test_what_came_before_a_reset_is_read_first() -> None:
    socket = Socket()
    socket.connection_made(_Transport())
    socket.data_received(b"all of it")
    socket.connection_lost(ConnectionResetError("reset"))
    stream = Stream(socket)
    assert [await stream.read(6), await stream.read(6)] == [b"all of", b" it"]
    with pytest.raises(httpcore.ReadError, match="reset"):
        await stream.read(6)


async def test_the_server_waits_for_a_reader_who_is_away() -> None:
    transport, socket = _Transport(), Socket()
    socket.connection_made(transport)
    for _ in range(3):
        socket.data_received(b"x" * 40_000)
    assert transport.done == ["pause_reading"]
    stream = Stream(socket)
    assert sum([len(await stream.read(65_536)) for _ in range(3)]) == 120_000
    assert transport.done == ["pause_reading", "resume_reading"]


@pytest.mark.parametrize(
    ("body", "packets"),
    [
        (b"", [b"head"]),
        (b"body", [b"headbody"]),
        # Copying a large one would cost more than a packet does.
        (b"x" * 100_000, [b"head", b"x" * 100_000]),
    ],
    ids=["none", "small", "large"],
)
async def test_the_head_of_a_request_goes_with_its_body(body: bytes, packets: list[bytes]) -> None:
    transport, socket = _Transport(), Socket()
    socket.connection_made(transport)
    stream = Stream(socket)
    for part in (b"head", body, b""):
        await stream.write(part)
    socket.data_received(b"answer")
    assert await stream.read(100) == b"answer"
    assert transport.written == packets


async def test_a_response_that_nobody_closed_does_not_block_the_next_request() -> None:
    ended = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")
        ended.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    transport = Transport(httpx.create_ssl_context(), 5)
    answers = [await transport.send(httpx.Request("GET", address)) for _ in range(2)]
    for answer in answers:
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        assert await anext(aiter(answer.stream)) == b"hi"
    assert not ended
    await transport.aclose()
    await until(lambda: len(ended) == 2)
    server.close()


async def test_httpx_as_it_is_installed_is_not_watched() -> None:
    assert may_replace_httpx()


async def test_httpx_is_used_on_an_event_loop_of_another_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Other(asyncio.AbstractEventLoop):
        """As uvloop's is: it has what the protocol of event loops asks for, and no more."""

    monkeypatch.setattr(asyncio, "get_running_loop", Other)
    assert not may_replace_httpx()


def test_a_turn_on_uvloop(letta_fake: FakeLetta) -> None:
    # Not in the extra for tests: uvicorn would then use it in all of them.
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def ask(url: str) -> Any:
        async with AsyncLettaClient(Rest(base_url=url, api_key="")) as client:
            agent = await client.create_agent(persona="I am a librarian.")
            return await client.prompt("Hello!", agent)

    with serve(letta_fake) as url:
        loop = uvloop.new_event_loop()
        try:
            assert loop.run_until_complete(ask(url)).success
        finally:
            loop.close()


async def test_what_takes_the_place_of_httpx_sees_every_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    async def answer(self: object, request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200, json=[])

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
    async with AsyncLettaClient(Rest(base_url="http://127.0.0.1:9", api_key="")) as client:
        assert await client.request("GET", "/v1/runs") == []
    assert seen == ["/v1/runs"]
