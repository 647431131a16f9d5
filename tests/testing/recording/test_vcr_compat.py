"""Plain vcrpy plays our files; vcrpy as we set it up records them, sanitized, and is strict."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import vcr as vcrpy
from vcr.errors import (
    CannotOverwriteExistingCassetteException,
)

from letta_adapters.testing import (
    Cassette,
    CassetteTransport,
    LeakError,
    RecordingTransport,
    SanitizeRules,
    letta_vcr,
    save_cassette,
    use_letta_vcr,
)
from letta_adapters.testing.cassette import RecordedRequest
from letta_adapters.testing.recording.vcr import make_matchers
from letta_adapters.testing.sanitizer.sanitize import RequestCleaner
from tests.testing._loopback import Exchange, Loopback

EVENTS = [b'data: {"t": "\xe2\x80\xa8 %d"}\n\n' % n for n in range(3)] + [b"data: [DONE]\n\n"]
UUID = "e422b946-1244-4f9b-bc48-3b71b43e216f"


@pytest.fixture
def server() -> Iterator[Loopback]:
    def agent(exchange: Exchange) -> None:
        exchange.json({"id": f"agent-{UUID}", "mail": "bob@corp.io"})

    def echo(exchange: Exchange) -> None:
        exchange.answer(exchange.body, "application/json")

    with Loopback(agent=agent, echo=echo, s=lambda e: e.stream(EVENTS)) as running:
        yield running


def talk(client: httpx.Client, otid: str = UUID) -> list[Any]:
    agent = client.post("/agent", json={"secrets": {"A": "opaque-Value-123"}}).json()
    body = {"agent": agent["id"], "otid": otid, "text": "opaque-Value-123 of bob@corp.io"}
    said = client.post("/echo", params={"id": agent["id"]}, json=body).json()
    with client.stream("GET", "/s") as response:
        return [agent, said, b"".join(response.iter_raw())]


async def talk_async(client: httpx.AsyncClient, otid: str = UUID) -> list[Any]:
    agent = (await client.post("/agent", json={"secrets": {"A": "opaque-Value-123"}})).json()
    body = {"agent": agent["id"], "otid": otid, "text": "opaque-Value-123 of bob@corp.io"}
    said = (await client.post("/echo", params={"id": agent["id"]}, json=body)).json()
    async with client.stream("GET", "/s") as response:
        return [agent, said, b"".join([chunk async for chunk in response.aiter_raw()])]


@pytest.fixture
def recorded(server: Loopback, tmp_path: Path) -> Path:
    transport = RecordingTransport(timing=True)
    with httpx.Client(transport=transport, base_url=server.url) as client:
        talk(client)
    save_cassette(transport.cassette, tmp_path / "x.yaml")
    return tmp_path / "x.yaml"


def test_plain_vcrpy_plays_our_file(recorded: Path) -> None:
    before = recorded.read_bytes()
    wanted = [(item.response.status, item.response.body) for item in Cassette.load(recorded)]
    paths = [item.request.uri for item in Cassette.load(recorded)]
    with vcrpy.use_cassette(
        str(recorded), record_mode="none", match_on=["method", "uri"]
    ) as played:
        methods = ["POST", "POST", "GET"]
        with httpx.Client() as client:
            answers = [client.request(m, p) for m, p in zip(methods, paths, strict=True)]
        assert [(answer.status_code, answer.content) for answer in answers] == wanted
        assert played.all_played
    assert recorded.read_bytes() == before


def test_ours_plays_it_sync(recorded: Path) -> None:
    with use_letta_vcr(recorded) as played, httpx.Client(base_url="http://letta.test") as client:
        agent, said, streamed = talk(client, "another-otid")
    assert agent["id"] == "agent-00000000-9c9d-4000-a000-000000000100"
    assert said["text"] == "REDACTED of user@example.com"
    assert streamed == b"".join(EVENTS)
    assert played.all_played


async def test_ours_plays_it_async(recorded: Path) -> None:
    with use_letta_vcr(recorded) as played:
        async with httpx.AsyncClient(base_url="http://letta.test") as client:
            await talk_async(client, "another-otid")
    assert played.all_played


def test_it_is_strict(recorded: Path, server: Loopback) -> None:
    seen = len(server.seen)
    with use_letta_vcr(recorded), httpx.Client(base_url=server.url) as client:
        talk(client)
        # A second time, another body, and loopback all stay within the cassette.
        for body in ({"secrets": {"A": "opaque-Value-123"}}, {"other": 1}):
            with pytest.raises(CannotOverwriteExistingCassetteException):
                client.post("/agent", json=body)
    assert len(server.seen) == seen


def test_records_sanitized_and_the_same_as_our_recorder(
    server: Loopback, recorded: Path, tmp_path: Path
) -> None:
    path = tmp_path / "y.yaml"
    with use_letta_vcr(path, record_mode="once"), httpx.Client(base_url=server.url) as client:
        talk(client)
    ours = [(item.request, item.response.body) for item in Cassette.load(recorded)]
    assert [(item.request, item.response.body) for item in Cassette.load(path)] == ours
    transport = CassetteTransport(path)
    with httpx.Client(transport=transport, base_url="http://letta.test") as client:
        talk(client, "z")
    transport.assert_all_played()


def test_a_leak_or_an_error_saves_nothing(server: Loopback, tmp_path: Path) -> None:
    path = tmp_path / "z.yaml"
    sends = httpx.HTTPTransport.handle_request
    rules = SanitizeRules(request_headers=frozenset({"x-secret"}))
    with pytest.raises(LeakError), use_letta_vcr(path, record_mode="once", rules=rules):
        httpx.get(f"{server.url}/agent", headers={"x-secret": "1"})
    assert httpx.HTTPTransport.handle_request is sends
    with pytest.raises(ZeroDivisionError), use_letta_vcr(path, record_mode="once"):
        httpx.get(f"{server.url}/agent")
        raise ZeroDivisionError
    assert httpx.HTTPTransport.handle_request is sends
    assert not path.exists()


def test_recording_anew_ignores_the_old_file(server: Loopback, recorded: Path) -> None:
    options = {"record_mode": "once", "ignore_existing": True, "secrets": ["plain words"]}
    with use_letta_vcr(recorded, **options):
        httpx.post(f"{server.url}/echo", json={"t": "plain words"})
    (item,) = Cassette.load(recorded)
    assert json.loads(item.response.body) == {"t": "REDACTED"}
    with use_letta_vcr(recorded, secrets=["plain words"]):
        httpx.post("http://letta.test/echo", json={"t": "plain words"})


def test_its_setup() -> None:
    logging.getLogger("vcr.cassette").setLevel(logging.NOTSET)
    configured = letta_vcr()
    assert logging.getLogger("vcr.cassette").level == logging.WARNING
    assert configured.match_on == ("method", "path", "query", "letta_body")
    assert not configured.ignore_localhost
    assert not configured.get_merged_config()["allow_playback_repeats"]
    assert not configured.get_merged_config()["record_on_exception"]


def test_matchers_say_what_differs() -> None:
    def request(uri: str, body: Any = None) -> Any:
        headers = {"content-type": "application/json"}
        return vcrpy.request.Request("POST", uri, json.dumps(body).encode(), headers)

    one = make_matchers()
    zero = "00000000-9c9d-4000-a000-000000000100"
    one["path"](request(f"http://a.test/agent-{UUID}"), request(f"http://b.test/agent-{zero}"))
    with pytest.raises(AssertionError, match="path: '/x' was asked, '/y' is recorded"):
        one["path"](request("http://a.test/x"), request("http://a.test/y"))
    with pytest.raises(AssertionError, match="query"):
        one["query"](request("http://a.test/?a=1"), request("http://a.test/?a=2"))
    with pytest.raises(AssertionError, match=r"body\.a"):
        one["letta_body"](request("http://a.test/", {"a": 1}), request("http://a.test/", {"a": 2}))
    with pytest.raises(AssertionError, match="ids differ"):
        first, second = (request("http://a.test/", {"a": zero[:-3] + n}) for n in ("100", "200"))
        one["letta_body"](first, second)
    text = request("http://a.test/")
    text.body = f"text {UUID}".encode()
    one["letta_body"](text, text)


def test_every_request_is_cleaned_once_however_often_it_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cleaned: list[RecordedRequest] = []
    clean = RequestCleaner.__call__

    def counting(self: RequestCleaner, request: RecordedRequest) -> RecordedRequest:
        cleaned.append(request)
        return clean(self, request)

    monkeypatch.setattr(RequestCleaner, "__call__", counting)
    same_body = make_matchers()["letta_body"]
    typed = {"content-type": "application/json"}
    requests = [
        vcrpy.request.Request("POST", "http://letta.test/x", json.dumps({"n": number}), typed)
        for number in range(10)
    ]
    for one in requests:
        for other in requests:
            if one is other:
                same_body(one, other)
            else:
                with pytest.raises(AssertionError):
                    same_body(one, other)
    assert len(cleaned) == len(requests)
