"""The recorder over real sockets: nothing is delayed, and everything that happens is kept."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from letta_adapters.testing import Cassette, CassetteTransport, RecordingTransport
from letta_adapters.testing.cassette import CLOSED_BY_CLIENT, RecordedError
from tests.testing._loopback import Exchange, Loopback

EVENTS = [b'data: {"n": %d}\n\n' % n for n in range(5)]
DONE = b"data: [DONE]\n\n"


def sse(*chunks: bytes, ends: bool = True) -> Any:
    return lambda exchange: exchange.stream(chunks, ends=ends)


async def read(client: httpx.AsyncClient, path: str, stop: int | None = None) -> list[bytes]:
    """The chunks of a stream, leaving after ``stop`` of them."""
    chunks: list[bytes] = []
    async with client.stream("POST", path, json={"x": 1}) as response:
        async for chunk in response.aiter_raw():
            chunks.append(chunk)
            if len(chunks) == stop:
                break
    return chunks


def get(transport: RecordingTransport, url: str) -> None:
    """One request by a sync client of its own."""
    with httpx.Client(transport=transport) as client:
        client.get(url)


async def asked(server: Loopback) -> None:
    """Until a request has reached the server."""
    for _ in range(500):
        if server.seen:
            return
        await asyncio.sleep(0.01)


def only(cassette: Cassette) -> Any:
    (interaction,) = cassette
    return interaction.response


async def test_hands_chunks_on_live() -> None:
    first_arrived = threading.Event()

    def slow(exchange: Exchange) -> None:
        def chunks() -> Iterator[bytes]:
            yield EVENTS[0]
            # Whoever waits for the whole body before handing on its beginning hangs here.
            assert first_arrived.wait(30)
            yield EVENTS[1]

        exchange.stream(chunks())

    transport = RecordingTransport()
    with Loopback(s=slow) as server:
        client = httpx.AsyncClient(transport=transport, base_url=server.url)
        async with client, client.stream("GET", "/s") as response:
            async for _chunk in response.aiter_raw():
                first_arrived.set()
    assert only(transport.cassette).body == EVENTS[0] + EVENTS[1]
    assert only(transport.cassette).error is None
    assert only(transport.cassette).timing is None


def test_sync_client_records_the_same() -> None:
    transport = RecordingTransport()
    with Loopback(s=sse(*EVENTS)) as server:
        with httpx.Client(transport=transport, base_url=server.url) as client:
            response = client.post("/s", json={"a": "ä"})
            assert response.content == b"".join(EVENTS)
        request = transport.cassette.interactions[0].request
        assert (request.method, request.uri) == ("POST", f"{server.url}/s")
        assert request.body == response.request.content
        assert request.header("content-type") == "application/json"
    assert only(transport.cassette).body == b"".join(EVENTS)
    assert only(transport.cassette).header("content-type").startswith("text/event-stream")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
async def test_hands_on_events_however_they_were_cut(size: int, end: bytes) -> None:
    body = b"".join(event.replace(b"\n\n", end) for event in EVENTS)
    cut = [body[start : start + size] for start in range(0, len(body), size)]

    async def handler(_request: httpx.Request) -> httpx.Response:
        async def chunks() -> Any:
            for chunk in cut:
                yield chunk

        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=chunks())

    transport = RecordingTransport(httpx.MockTransport(handler))
    async with httpx.AsyncClient(transport=transport, base_url="http://x.test") as client:
        chunks = await read(client, "/s")
    assert b"".join(chunks) == body == only(transport.cassette).body
    ends = {sum(map(len, chunks[: n + 1])) for n in range(len(chunks))}
    assert {(n + 1) * (len(EVENTS[0]) + len(end) - 2) for n in range(5)} <= ends


async def test_closed_early_stores_what_was_had_in_whole_events() -> None:
    transport = RecordingTransport()
    everything = b"".join(EVENTS)
    with Loopback(s=sse(everything[:-4])) as server:
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as client:
            assert await read(client, "/s", stop=2) == EVENTS[:2]
    response = only(transport.cassette)
    assert response.body == b"".join(EVENTS[:2])
    assert response.error == RecordedError(CLOSED_BY_CLIENT, len(response.body))


async def test_a_piece_of_an_event_is_dropped_when_the_client_stops_there() -> None:
    transport = RecordingTransport()
    with Loopback(s=sse(EVENTS[0] + EVENTS[1][:5], EVENTS[1][5:])) as server:
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as client:
            assert await read(client, "/s", stop=2) == [EVENTS[0], EVENTS[1][:5]]
    assert only(transport.cassette).body == EVENTS[0]


async def test_stopping_at_done_is_no_early_close() -> None:
    transport = RecordingTransport()
    with Loopback(s=sse(EVENTS[0], DONE, EVENTS[1])) as server:
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as client:
            assert (await read(client, "/s", stop=2))[-1] == DONE
    assert only(transport.cassette).error is None


async def test_a_stream_that_breaks_is_stored_as_it_broke() -> None:
    transport = RecordingTransport()
    with Loopback(s=sse(EVENTS[0], EVENTS[1][:6], ends=False)) as server:
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await read(client, "/s")
    response = only(transport.cassette)
    assert response.body == EVENTS[0] + EVENTS[1][:6]
    assert response.error == RecordedError("RemoteProtocolError", len(response.body))
    replay = CassetteTransport(transport.cassette)
    async with httpx.AsyncClient(transport=replay, base_url="http://letta.test") as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await read(client, "/s")


def test_breaks_of_sync_streams_too() -> None:
    transport = RecordingTransport()
    server = Loopback(s=sse(EVENTS[0], ends=False))
    with server, httpx.Client(transport=transport, base_url=server.url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/s")
        with client.stream("POST", "/s") as response:
            next(response.iter_raw())
    broken, left = (item.response.error for item in transport.cassette)
    assert broken == RecordedError("RemoteProtocolError", len(EVENTS[0]))
    assert left == RecordedError(CLOSED_BY_CLIENT, len(EVENTS[0]))


async def test_no_connection_and_a_reset_before_the_answer() -> None:
    transport = RecordingTransport()
    with Loopback(r=Exchange.reset) as server:
        url = server.url
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(httpx.ReadError):
                await client.get(f"{url}/r")
    async with httpx.AsyncClient(transport=transport.sibling()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/r")
    with pytest.raises(httpx.ConnectError):
        get(transport.sibling(), f"{url}/r")
    kinds = [(item.response.status, item.response.error) for item in transport.cassette]
    refused = (0, RecordedError("ConnectError", 0))
    assert kinds == [(0, RecordedError("ReadError", 0)), refused, refused]


async def test_a_request_given_up_before_its_answer() -> None:
    transport = RecordingTransport()
    release = threading.Event()

    def silent(exchange: Exchange) -> None:
        release.wait(30)
        exchange.answer(b"late")

    with Loopback(s=silent) as server:
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as client:
            task = asyncio.create_task(client.get("/s"))
            await asked(server)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        release.set()
    assert only(transport.cassette).error == RecordedError(CLOSED_BY_CLIENT, 0)


async def test_a_second_request_during_a_stream() -> None:
    cancelled = threading.Event()

    def stream(exchange: Exchange) -> None:
        def chunks() -> Iterator[bytes]:
            yield EVENTS[0]
            assert cancelled.wait(30)
            yield EVENTS[1]

        exchange.stream(chunks())

    def cancel(exchange: Exchange) -> None:
        cancelled.set()
        exchange.json({"run-1": "cancelled"})

    transport = RecordingTransport()
    with Loopback(s=stream, c=cancel) as server:
        client = httpx.AsyncClient(transport=transport, base_url=server.url)
        async with client, client.stream("POST", "/s") as response:
            chunks = response.aiter_raw()
            await anext(chunks)
            during = transport.cassette
            assert (await client.post("/c")).json() == {"run-1": "cancelled"}
            rest = [chunk async for chunk in chunks]
    assert rest == [EVENTS[1]]
    assert [item.request.uri[-2:] for item in transport.cassette] == ["/s", "/c"]
    assert [item.response.error for item in transport.cassette] == [None, None]
    assert only(during).error == RecordedError(CLOSED_BY_CLIENT, len(EVENTS[0]))


async def test_order_is_that_of_the_requests() -> None:
    second_done = threading.Event()

    def slow(exchange: Exchange) -> None:
        second_done.wait(30)
        exchange.answer(b"slow")

    def fast(exchange: Exchange) -> None:
        exchange.answer(b"fast")

    transport = RecordingTransport()
    with Loopback(slow=slow, fast=fast) as server:
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as client:
            first = asyncio.create_task(client.get("/slow"))
            await asked(server)
            await client.get("/fast")
            second_done.set()
            await first
    assert [item.response.body for item in transport.cassette] == [b"slow", b"fast"]


async def test_asks_for_plain_bodies_and_stores_them_plain_anyway() -> None:
    packed = gzip.compress(b'{"a": 1}')

    def zipped(exchange: Exchange) -> None:
        exchange.answer(packed, "application/json", content_encoding="gzip")

    def lying(exchange: Exchange) -> None:
        exchange.answer(b"not gzip", "application/json", content_encoding="gzip")

    transport = RecordingTransport(timing=True)
    with Loopback(z=zipped, l=lying) as server:
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as client:
            response = await client.get("/z", headers={"accept-encoding": "gzip"})
            assert response.json() == {"a": 1}
            assert response.request.headers["accept-encoding"] == "gzip"
            async with client.stream("GET", "/l") as broken:
                assert b"".join([chunk async for chunk in broken.aiter_raw()]) == b"not gzip"
        assert server.seen[0][2]["accept-encoding"] == "identity"
    good, bad = (item.response for item in transport.cassette)
    assert good.body == b'{"a": 1}'
    assert good.header("content-encoding") == ""
    assert bad.body == b"not gzip"


async def test_timing_is_coarse_and_by_event() -> None:
    now = [0.0]

    async def handler(_request: httpx.Request) -> httpx.Response:
        async def chunks() -> Any:
            now[0] += 0.3
            yield EVENTS[0] + EVENTS[1] + EVENTS[2][:3]
            now[0] += 0.021
            yield EVENTS[2][3:]
            now[0] += 60
            yield EVENTS[3]

        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=chunks())

    inner = httpx.MockTransport(handler)
    transport = RecordingTransport(inner, timing=True, clock=lambda: now[0])
    async with httpx.AsyncClient(transport=transport, base_url="http://x.test") as client:
        await read(client, "/s")
        await client.get("/s", headers={"accept": "text/plain"})
    size = len(EVENTS[0])
    wanted = ((500, size), (0, size), (0, size), (10000, size))
    assert transport.cassette.interactions[0].response.timing == wanted


async def test_timing_of_a_compressed_stream_is_left_out() -> None:
    def zipped(exchange: Exchange) -> None:
        packed = gzip.compress(b"".join(EVENTS) * 50)
        exchange.answer(packed, "text/event-stream", content_encoding="gzip")

    transport = RecordingTransport(timing=True)
    with Loopback(z=zipped) as server:
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as client:
            await client.get("/z")
    assert only(transport.cassette).timing is None
    assert only(transport.cassette).body == b"".join(EVENTS) * 50


async def test_siblings_record_together_and_close_apart() -> None:
    transport = RecordingTransport()
    with Loopback(a=lambda e: e.answer(b"a"), b=lambda e: e.answer(b"b")) as server:
        for path in ("/a", "/b"):
            async with httpx.AsyncClient(
                transport=transport.sibling(), base_url=server.url
            ) as client:
                await client.get(path)
        get(transport, f"{server.url}/a")
    assert [item.response.body for item in transport.cassette] == [b"a", b"b", b"a"]
