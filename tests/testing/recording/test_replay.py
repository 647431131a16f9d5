"""The player: the right answer to the right request, and every way in which it can arrive."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from letta_adapters.testing import Cassette, CassetteMissError, CassetteTransport
from letta_adapters.testing.cassette import (
    CLOSED_BY_CLIENT,
    Interaction,
    RecordedError,
    RecordedRequest,
    RecordedResponse,
)

EVENTS = [b'data: {"n": %d}\n\n' % n for n in range(4)]
BODY = b"".join(EVENTS)
JSON = (("content-type", "application/json"),)
SSE = (("content-type", "text/event-stream"),)
UUID = "1f0e8d1c-1244-4f9b-bc48-3b71b43e216f"


def said(
    body: Any = None, answer: Any = None, path: str = "/v1/x", method: str = "POST"
) -> Interaction:
    sent = b"" if body is None else json.dumps(body).encode()
    answered = json.dumps({} if answer is None else answer).encode()
    return Interaction(
        RecordedRequest(method, f"http://letta.test{path}", JSON, sent),
        RecordedResponse(200, "OK", JSON, answered),
    )


def streamed(body: bytes = BODY, headers: Any = SSE, status: int = 200, **kind: Any) -> Cassette:
    response = RecordedResponse(status, "OK", headers, body, **kind)
    return Cassette([Interaction(RecordedRequest("GET", "http://letta.test/s"), response)])


def client_of(transport: CassetteTransport, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, base_url="http://letta.test", **options)


async def collect(response: httpx.Response, chunks: list[bytes]) -> None:
    """Append what comes to ``chunks``, which keeps it should the stream break."""
    async for chunk in response.aiter_raw():
        chunks.append(chunk)  # noqa: PERF401  # at once, not when all have come


async def ask_once(client: httpx.AsyncClient) -> Any:
    """(status, text) or the class of the exception."""
    try:
        response = await client.post("/v1/x", json={})
    except httpx.TransportError as error:
        return type(error)
    return response.status_code, response.text


async def chunks_of(transport: CassetteTransport, **options: Any) -> list[bytes]:
    client = client_of(transport, **options)
    async with client, client.stream("GET", "/s") as response:
        return [chunk async for chunk in response.aiter_raw()]


def sync_chunks_of(transport: CassetteTransport, **options: Any) -> list[bytes]:
    client = httpx.Client(transport=transport, base_url="http://letta.test", **options)
    with client, client.stream("GET", "/s") as response:
        return list(response.iter_raw())


# Which answer ---------------------------------------------------------------------------------


async def test_each_is_played_once_in_recorded_order() -> None:
    transport = CassetteTransport(
        Cassette([said({"a": 1}, "1"), said({"a": 1}, "2"), said(2, "b")])
    )
    async with client_of(transport) as client:
        assert (await client.post("/v1/x", json=2)).json() == "b"
        assert len(transport.unplayed) == 2
        assert [(await client.post("/v1/x", json={"a": 1})).json() for _ in "12"] == ["1", "2"]
        assert transport.all_played
        transport.assert_all_played()
        with pytest.raises(CassetteMissError, match="all played already: 2"):
            await client.post("/v1/x", json={"a": 1})
    assert not transport.all_played


async def test_json_matches_by_meaning_and_queries_in_any_order() -> None:
    item = said({"b": 1, "a": ["é", 2]}, path="/v1/x?p=1&q=a%20b")
    transport = CassetteTransport(Cassette([item]))
    async with client_of(transport) as client:
        body = b'{"a": ["\xc3\xa9" , 2], "b":1}'
        await client.post("/v1/x?q=a+b&p=1", content=body)
    assert transport.all_played


async def test_ids_made_by_the_client_do_not_matter() -> None:
    body = {"messages": [{"otid": "recorded", "content": "hi"}], "key": UUID, "a": f"agent-{UUID}"}
    transport = CassetteTransport(Cassette([said(body, path=f"/v1/agents/agent-{UUID}/x")]))
    fresh = str(uuid.uuid4())
    async with client_of(transport) as client:
        await client.post(
            f"/v1/agents/agent-{fresh}/x",
            json={
                "messages": [{"otid": fresh, "content": "hi"}],
                "key": str(uuid.uuid4()),
                "a": f"agent-{uuid.uuid4()}",
            },
        )
    assert transport.all_played


async def test_ids_the_server_made_do() -> None:
    calls = [f"call_{n}0a1b2c3d" for n in (1, 2)]
    recorded = [said({}, {"calls": calls}), said({"tool_call_id": calls[0]})]
    async with client_of(CassetteTransport(Cassette(recorded))) as client:
        await client.post("/v1/x", json={})
        with pytest.raises(CassetteMissError, match=r"body\.tool_call_id"):
            await client.post("/v1/x", json={"tool_call_id": calls[1]})
        await client.post("/v1/x", json={"tool_call_id": calls[0]})


async def test_what_the_sanitizer_replaces_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "live-Key-12345")
    recorded = {
        "secrets": {"A": "REDACTED"},
        "text": "REDACTED by user@example.com in /home/user/x on 2026-01-01T00:00:00+00:00",
        "url": "http://host.test/x",
    }
    transport = CassetteTransport(Cassette([said(recorded), said({"text": "it is REDACTED"})]))
    async with client_of(transport) as client:
        body = {
            "secrets": {"A": "opaque-Value-77"},
            "text": "live-Key-12345 by me@corp.io in /home/me/x on 2027-05-06T07:08:09+00:00",
            "url": "http://127.0.0.1:4711/x",
        }
        await client.post("/v1/x", json=body)
        # Seen under a telling key before, so known from then on.
        await client.post("/v1/x", json={"text": "it is opaque-Value-77"})
    assert transport.all_played


@pytest.mark.parametrize(
    ("content_type", "recorded", "sent"),
    [
        ("application/x-www-form-urlencoded", b"a=1&b=x+y", b"b=x%20y&a=1"),
        (
            "multipart/form-data; boundary=letta-test-boundary",
            b"--letta-test-boundary\r\nx\r\n--letta-test-boundary--",
            b"--abc123\r\nx\r\n--abc123--",
        ),
        ("application/json", b"{no json", b"{no json"),
        ("text/plain", b"\xff\xfe", b"\xff\xfe"),
    ],
)
async def test_other_bodies(content_type: str, recorded: bytes, sent: bytes) -> None:
    headers = (("content-type", content_type),)
    request = RecordedRequest("POST", "http://letta.test/f", headers, recorded)
    item = Interaction(request, RecordedResponse(200, "OK"))
    transport = CassetteTransport(Cassette([item]))
    live = content_type.replace("letta-test-boundary", "abc123")
    async with client_of(transport) as client:
        await client.post("/f", content=sent, headers={"content-type": live})
    assert transport.all_played


async def test_a_miss_shows_what_is_near_and_cannot_be_swallowed() -> None:
    recorded = [said({"a": 1, "b": [1, {"c": "x" * 200}]}), said(path="/v1/other", method="GET")]
    transport = CassetteTransport(Cassette(recorded))
    async with client_of(transport) as client:
        with pytest.raises(CassetteMissError) as caught:
            await client.post("/v1/x", json={"a": 2, "b": [1, {"c": "y"}]})
        text = str(caught.value)
        assert "near: #1 POST /v1/x" in text
        assert "body.a: 2 was asked, 1 is recorded" in text
        assert "body.b[1].c: 'y' was asked, 'xxx" in text
        with pytest.raises(CassetteMissError, match=r"query: \(\('q', '1'\),\) was asked"):
            await client.get("/v1/other?q=1")
        with pytest.raises(CassetteMissError, match="method: 'PUT' was asked"):
            await client.put("/v1/other", content=b"plain text")
    assert not isinstance(caught.value, httpx.HTTPError)
    with pytest.raises(CassetteMissError, match=r"no \(further\) answer for POST"):
        transport.assert_all_played()


async def test_what_was_not_played_is_named() -> None:
    transport = CassetteTransport(Cassette([said({"a": 1}), said(path="/v1/y?z=1", method="GET")]))
    async with client_of(transport) as client:
        await client.post("/v1/x", json={"a": 1})
    assert transport.unplayed == ["#2 GET /v1/y?z=1"]
    with pytest.raises(AssertionError, match="#2 GET"):
        transport.assert_all_played()


def test_threads_never_share_an_answer() -> None:
    transport = CassetteTransport(Cassette([said({"a": 1}, str(n)) for n in range(200)]))
    got: list[str] = []

    def work() -> None:
        with httpx.Client(transport=transport, base_url="http://letta.test") as client:
            got.extend(client.post("/v1/x", json={"a": 1}).json() for _ in range(25))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got, key=int) == [str(n) for n in range(200)]


def test_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(streamed().dumps(), encoding="utf-8")
    assert sync_chunks_of(CassetteTransport(path)) == EVENTS


# How it arrives ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunking", "chunks"),
    [
        ("recorded", EVENTS),
        ("event", EVENTS),
        ("whole", [BODY]),
        (1, [BODY[n : n + 1] for n in range(len(BODY))]),
        (7, [BODY[n : n + 7] for n in range(0, len(BODY), 7)]),
        (lambda body: [body[:3], b"", body[3:]], [BODY[:3], BODY[3:]]),
    ],
)
async def test_chunking(chunking: Any, chunks: list[bytes]) -> None:
    assert await chunks_of(CassetteTransport(streamed(), chunking=chunking)) == chunks
    assert sync_chunks_of(CassetteTransport(streamed(), chunking=chunking)) == chunks


async def test_a_chunking_function_may_not_change_the_body() -> None:
    with pytest.raises(ValueError, match="chunking changed the body"):
        await chunks_of(CassetteTransport(streamed(), chunking=lambda _body: [b"x"]))


async def test_plain_bodies_come_whole_and_headers_as_recorded() -> None:
    headers = (("content-type", "text/plain"), ("retry-after", "3"), ("content-encoding", "gzip"))
    transport = CassetteTransport(streamed(b"a\n\nb", headers, status=429))
    async with client_of(transport) as client:
        response = await client.get("/s")
    assert (response.status_code, response.text) == (429, "a\n\nb")
    assert (response.headers["retry-after"], response.http_version) == ("3", "HTTP/1.1")
    assert response.reason_phrase == "OK"


def timed() -> Cassette:
    size = len(EVENTS[0])
    return streamed(timing=((500, size), (0, size), (100, size), (2000, size)))


@pytest.mark.parametrize(
    ("options", "waits"),
    [
        ({}, []),
        ({"timing": "recorded"}, [0.5, 0.1, 2.0]),
        ({"timing": 0.1}, [0.05, 0.01, 0.2]),
        ({"timing": 1.0, "chunking": "whole"}, [2.6]),
        ({"timing": 1.0, "chunking": 2 * len(EVENTS[0])}, [0.5, 2.1]),
        ({"first_byte_delay": 3.0}, [3.0]),
    ],
)
async def test_timing(options: dict[str, Any], waits: list[float]) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await chunks_of(CassetteTransport(timed(), sleep=sleep, **options))
    assert slept == pytest.approx(waits)
    slept.clear()
    sync_chunks_of(CassetteTransport(timed(), sync_sleep=slept.append, **options))
    assert slept == pytest.approx(waits)


@pytest.mark.parametrize("options", [{"first_byte_delay": 30.0}, {"timing": "recorded"}])
async def test_the_read_timeout_ends_a_wait(options: dict[str, Any]) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with pytest.raises(httpx.ReadTimeout):
        await chunks_of(CassetteTransport(timed(), sleep=sleep, **options), timeout=1.5)
    assert slept[-1] == 1.5
    with pytest.raises(httpx.ReadTimeout):
        transport = CassetteTransport(timed(), sync_sleep=slept.append, **options)
        sync_chunks_of(transport, timeout=1.5)


def test_waits_for_real_by_default() -> None:
    assert len(sync_chunks_of(CassetteTransport(timed(), timing=0.001))) == 4


@pytest.mark.parametrize("cut", [0, 1, len(EVENTS[0]), len(BODY) - 1, len(BODY)])
async def test_cuts(cut: int) -> None:
    for chunking in ("event", 5):
        transport = CassetteTransport(streamed(), cut_after=cut, chunking=chunking)
        got: list[bytes] = []
        async with client_of(transport) as client, client.stream("GET", "/s") as response:
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                await collect(response, got)
        assert b"".join(got) == BODY[:cut]


async def test_nothing_is_cut_past_its_end_or_if_it_is_no_stream() -> None:
    assert await chunks_of(CassetteTransport(streamed(), cut_after=len(BODY) + 1)) == EVENTS
    plain = streamed(b"abc", (("content-type", "text/plain"),))
    assert await chunks_of(CassetteTransport(plain, cut_after=1)) == [b"abc"]


async def test_recorded_breaks_happen_again() -> None:
    for kind, wanted in (
        ("RemoteProtocolError", httpx.RemoteProtocolError),
        ("ReadTimeout", httpx.ReadTimeout),
        ("SomethingNew", httpx.RemoteProtocolError),
    ):
        broken = streamed(error=RecordedError(kind, len(BODY)))
        got: list[bytes] = []
        transport = CassetteTransport(broken)
        async with client_of(transport) as client, client.stream("GET", "/s") as response:
            with pytest.raises(wanted):
                await collect(response, got)
        assert got == EVENTS
        with pytest.raises(wanted):
            sync_chunks_of(CassetteTransport(broken))


async def test_an_answer_that_never_began() -> None:
    refused = streamed(b"", (), 0, error=RecordedError("ConnectError", 0))
    with pytest.raises(httpx.ConnectError, match="recorded"):
        await chunks_of(CassetteTransport(refused))
    with pytest.raises(httpx.ConnectError):
        sync_chunks_of(CassetteTransport(refused))


async def test_a_request_the_client_gave_up_stays_unanswered() -> None:
    silent = streamed(b"", (), 0, error=RecordedError(CLOSED_BY_CLIENT, 0))
    with anyio.move_on_after(0.05) as scope:
        await chunks_of(CassetteTransport(silent))
    assert scope.cancelled_caught
    with pytest.raises(httpx.ReadTimeout):
        await chunks_of(CassetteTransport(silent), timeout=0.01)
    with pytest.raises(httpx.ReadTimeout):
        sync_chunks_of(CassetteTransport(silent))


def left() -> Cassette:
    return streamed(error=RecordedError(CLOSED_BY_CLIENT, len(BODY)))


async def test_a_stream_the_client_left_stays_open_until_it_leaves_again() -> None:
    transport = CassetteTransport(left())
    async with client_of(transport) as client, client.stream("GET", "/s") as response:
        chunks = response.aiter_raw()
        assert [await anext(chunks) for _ in EVENTS] == EVENTS
        waiting = asyncio.ensure_future(anext(chunks))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        await response.aclose()
        with pytest.raises(httpx.ReadError):
            await waiting
    assert transport.all_played


async def test_reading_on_after_closing() -> None:
    async with client_of(CassetteTransport(left())) as client:
        response = await client.send(client.build_request("GET", "/s"), stream=True)
        chunks = aiter(response.stream)
        for _ in EVENTS:
            await anext(chunks)
        await response.aclose()
        with pytest.raises(httpx.ReadError):
            await anext(chunks)


async def test_silence_after_it_is_a_read_timeout() -> None:
    with pytest.raises(httpx.ReadTimeout):
        await chunks_of(CassetteTransport(left()), timeout=0.01)
    with pytest.raises(httpx.ReadTimeout):
        sync_chunks_of(CassetteTransport(left()))


async def test_faults_come_first() -> None:
    teapot = httpx.Response(418, text="short and stout")
    faults: list[Any] = [429, httpx.ConnectError, teapot, httpx.ReadError("gone"), None, 500]
    transport = CassetteTransport(Cassette([said({}, "1"), said({}, "2")]), faults=faults)
    async with client_of(transport) as client:
        got: list[Any] = [await ask_once(client) for _ in range(7)]
    assert [item if isinstance(item, type) else item[0] for item in got] == [
        429,
        httpx.ConnectError,
        418,
        httpx.ReadError,
        200,
        500,
        200,
    ]
    assert json.loads(got[0][1]) == {"detail": "scripted fault 429"}
    assert got[2][1] == "short and stout"
    transport.assert_all_played()


async def test_faults_left_over_and_faults_that_are_none() -> None:
    transport = CassetteTransport(Cassette(), faults=[None, 429])
    with pytest.raises(AssertionError, match="2 scripted faults were not used"):
        transport.assert_all_played()
    odd = CassetteTransport(Cassette(), faults=["429"])
    async with client_of(odd) as client:
        with pytest.raises(TypeError, match="no such fault"):
            await client.get("/x")


def test_faults_for_sync_clients() -> None:
    with httpx.Client(transport=CassetteTransport(Cassette(), faults=[503])) as client:
        assert client.get("http://letta.test/x").status_code == 503


async def test_other_tasks_run_between_chunks() -> None:
    transport = CassetteTransport(streamed())
    turns: list[str] = []

    async def other() -> None:
        for _ in range(3):
            turns.append("other")
            await asyncio.sleep(0)

    async with client_of(transport) as client, client.stream("GET", "/s") as response:
        task = asyncio.create_task(other())
        async for _chunk in response.aiter_raw():
            turns.append("chunk")  # noqa: PERF401  # when it comes: others append as well
        await task
    assert turns[:3] == ["other", "chunk", "other"]


def test_works_on_every_event_loop() -> None:
    transport = CassetteTransport(Cassette([*streamed(), *streamed(), *left()]))
    for _ in range(2):
        assert asyncio.run(chunks_of(transport)) == EVENTS
    with pytest.raises(httpx.ReadTimeout):
        asyncio.run(chunks_of(transport, timeout=0.01))


def test_an_id_that_a_long_stream_handed_out_is_the_only_one_that_fits() -> None:
    first, second = (f"call_0000000000{number:02d}" for number in (1, 2))
    ids = "".join(f'data: {{"n": {n}, "call": "{first}"}}\n\n' for n in range(3000))
    long = f'{ids}data: {{"call": "x-{second}"}}\n\ndata: {{"call": "{second}"}}\n\n'.encode()
    url = "http://letta.test/v1/x"
    stream = RecordedResponse(200, "OK", (("content-type", "text/event-stream"),), long)
    done = RecordedResponse(200, "OK", (("content-type", "application/json"),), b"{}")
    typed = (("content-type", "application/json"),)
    items = [
        Interaction(RecordedRequest("POST", url, typed, b'{"ask": 1}'), stream),
        Interaction(RecordedRequest("POST", url, typed, f'{{"r": "{first}"}}'.encode()), done),
    ]
    with httpx.Client(transport=CassetteTransport(Cassette(items))) as client:
        assert client.post(url, json={"ask": 1}).content == long
        for wrong in (second, "call_999999999999"):
            with pytest.raises(CassetteMissError):
                client.post(url, json={"r": wrong})
        assert client.post(url, json={"r": first}).json() == {}


def post(body: str, content_type: str) -> RecordedRequest:
    headers = (("content-type", content_type),)
    return RecordedRequest("POST", "http://letta.test/v1/x", headers, body.encode())


@pytest.mark.parametrize(
    ("recorded", "asked", "content_type"),
    [
        ("name=&x=1", "x=1", "application/x-www-form-urlencoded"),
        (f'{{"{"1" * 32}a": 1, "{"2" * 32}a": 2}}', f'{{"{"3" * 32}a": 5, "{"4" * 32}a": 2}}', ""),
    ],
    ids=["an empty field", "two ids as keys"],
)
def test_what_differs_in_one_field_is_another_request(
    recorded: str, asked: str, content_type: str
) -> None:
    one = Interaction(post(recorded, content_type), RecordedResponse(200, "OK", (), b"one"))
    assert CassetteTransport(Cassette([one])).answer_to(one.request).body == b"one"
    with pytest.raises(CassetteMissError):
        CassetteTransport(Cassette([one])).answer_to(post(asked, content_type))
