"""Recorded on one machine and day, replayed on another: by all players, in both directions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from pathlib import Path
from typing import Any

import httpx
import pytest

from letta_adapters.testing import (
    Cassette,
    CassetteMissError,
    CassetteTransport,
    RecordingTransport,
    save_cassette,
    scan_file,
    use_letta_vcr,
)
from letta_adapters.testing.recording.matching import matches_text
from letta_adapters.testing.recording.websocket import WebSocketPlayer, WebSocketRecorder
from letta_adapters.testing.sanitizer import dates, sanitize
from tests.testing._loopback import Exchange, Loopback

JSON = (("content-type", "application/json"),)
Say = Callable[[str], str]


@dataclass
class Machine:
    """Where and when something runs."""

    login: str = "runner"
    host: str = "ci"
    day: date = date(2026, 11, 29)
    environment: dict[str, str] = field(default_factory=dict)

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        day = self.day

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime(day.year, day.month, day.day, 12, tzinfo=tz)

        for module in (dates, sanitize):
            if hasattr(module, "datetime"):
                patch.setattr(module, "datetime", Clock)
        patch.setattr("socket.gethostname", lambda: self.host)
        patch.setattr("getpass.getuser", lambda: self.login)
        patch.setenv("HOME", f"/home/{self.login}")
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def answer(self, text: str) -> dict[str, str]:
        """What a server says at noon: the model repeats the question."""
        return {
            "message_type": "assistant_message",
            "date": f"{self.day}T12:00:01Z",
            "content": f"You asked: {text}",
        }


def by_transport(path: Path, machine: Machine) -> tuple[Callable[[str], None], Say]:
    def answered(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=machine.answer(json.loads(request.content)["content"]))

    def record(text: str) -> None:
        transport = RecordingTransport(httpx.MockTransport(answered))
        with httpx.Client(transport=transport) as client:
            client.post("http://letta.test/v1/x", json={"content": text})
        save_cassette(transport.cassette, path)

    def say(text: str) -> str:
        with httpx.Client(transport=CassetteTransport(path)) as client:
            answer = client.post("http://letta.test/v1/x", json={"content": text}).json()
        return str(answer["content"])

    return record, say


def by_vcrpy(path: Path, machine: Machine) -> tuple[Callable[[str], None], Say]:
    def answered(exchange: Exchange) -> None:
        exchange.json(machine.answer(json.loads(exchange.body)["content"]))

    def record(text: str) -> None:
        with Loopback(x=answered) as server, use_letta_vcr(path, record_mode="once"):
            httpx.post(f"{server.url}/x", json={"content": text})

    def say(text: str) -> str:
        with use_letta_vcr(path) as cassette:
            try:
                answer = httpx.post("http://letta.test/x", json={"content": text}).json()
            except Exception as error:  # vcrpy's error is no error of its own kind
                raise CassetteMissError(str(error)) from error
            assert cassette.all_played
        return str(answer["content"])

    return record, say


def by_websocket(path: Path, machine: Machine) -> tuple[Callable[[str], None], Say]:
    def frame(text: str) -> str:
        return json.dumps({"type": "input", "content": text})

    def record(text: str) -> None:
        recorder = WebSocketRecorder()
        talk = recorder.opened("ws://letta.test/ws", {})
        talk.sent(frame(text))
        talk.came(json.dumps({"type": "stream_delta", "delta": machine.answer(text)}))
        save_cassette(recorder.cassette, path)

    async def said(text: str) -> str:
        player = WebSocketPlayer(Cassette.load(path))
        socket = await player.connect("ws://letta.test/ws")
        await socket.send(frame(text))
        answer: Any = json.loads(await anext(aiter(socket)))
        player.assert_all_played()
        return str(answer["delta"]["content"])

    return record, lambda text: asyncio.run(said(text))


PLAYERS = {"transport": by_transport, "vcr": by_vcrpy, "websocket": by_websocket}
CI, GRACE = Machine(), Machine("grace", "athena")
LATER = Machine(day=date(2026, 12, 1))
WORDS = Machine(environment={"API_TOKEN": "Hopper", "DB_PASSWORD": "compiler", "MY_SECRET": "what"})
# (one machine, another, the question there)
CASES: dict[str, tuple[Machine, Machine, Callable[[Machine], str]]] = {
    "a login that is a word": (GRACE, CI, lambda _: "Who was Grace Hopper? Ask athena, a goddess."),
    "a login in a path": (GRACE, CI, lambda m: f"Read /srv/{m.login}/x at {m.login}@{m.host}"),
    "a login in a fixed path": (GRACE, CI, lambda _: "Read /srv/grace/notes on grace@athena"),
    "a login that is no word": (Machine("grace7"), CI, lambda m: f"I am {m.login}, who are you?"),
    "a home": (GRACE, CI, lambda m: f"Read /home/{m.login}/notes"),
    "a host": (Machine(host="box-7"), CI, lambda m: f"Look at {m.host} again"),
    "a host of ordinary words": (
        Machine(host="web-server"),
        CI,
        lambda _: "Is the web-server up?",
    ),
    "secrets that are words": (WORDS, CI, lambda _: "What compiler did Hopper write?"),
    "today": (CI, LATER, lambda m: f"It is {m.day}. What is due?"),
    "today in words": (CI, LATER, lambda m: f"It is {m.day:%B} {m.day.day}, {m.day.year}. So?"),
    "now": (CI, LATER, lambda m: f"It is {m.day}T12:00:00+00:00. What is due?"),
    "a day that is the recording's": (CI, LATER, lambda _: "What happened on 2026-11-29?"),
    "a time of the recording's day": (CI, LATER, lambda _: "Who called on 2026-11-29 09:15?"),
    "another day": (CI, LATER, lambda _: "Who was born on December 9, 1906 at 10:30 AM?"),
}


@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("player", PLAYERS)
def test_a_recording_replays_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, player: str, case: str, back: bool
) -> None:
    one, other, question = CASES[case]
    there, here = (other, one) if back else (one, other)
    path = tmp_path / "x.yaml"
    with monkeypatch.context() as patch:
        there.enter(patch)
        record, _ = PLAYERS[player](path, there)
        record(question(there))
        assert scan_file(path) == []
    with monkeypatch.context() as patch:
        here.enter(patch)
        _, say = PLAYERS[player](path, here)
        said = say(question(here))
    if question(here) == question(there) and "/" not in question(here):
        # What a test can know beforehand is what it asserts on.
        assert said == f"You asked: {question(here)}"


@pytest.mark.parametrize("player", PLAYERS)
def test_another_question_is_missed_elsewhere_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, player: str
) -> None:
    path = tmp_path / "x.yaml"
    with monkeypatch.context() as patch:
        GRACE.enter(patch)
        record, _ = PLAYERS[player](path, GRACE)
        record("Read /srv/grace/notes on 2026-11-29: what does the user say?")
    LATER.enter(monkeypatch)
    _, say = PLAYERS[player](path, LATER)
    for other in (
        "Read /srv/ada/others on 2026-12-01: what does the user say?",
        "Read /srv/ada/notes on Monday: what does the user say?",
        "Read /srv/ada/notes on 2026-12-01: what does the admin say?",
        "Read /srv/ada/notes and /srv/ada on 2026-12-01: what does the user say?",
    ):
        with pytest.raises(CassetteMissError):
            say(other)
    assert "You asked" in say("Read /srv/ada/notes on 2026-12-01: what does the user say?")


@pytest.mark.parametrize("player", ["transport", "vcr"])
def test_a_request_that_is_recorded_as_it_is_comes_before_one_with_a_placeholder(
    tmp_path: Path, player: str
) -> None:
    def exchange(text: str, answer: str) -> str:
        return (
            "- request: {method: POST, uri: 'http://letta.test/v1/x', headers: {}, body: '"
            f'{{"content": "{text}"}}\'}}\n'
            "  response: {status: {code: 200, message: OK}, headers: {}, body: {string: '"
            f'{{"content": "{answer}"}}\'}}}}\n'
        )

    path = tmp_path / "x.yaml"
    items = exchange("My key: REDACTED", "hidden") + exchange("My key: none", "plain")
    path.write_text(f"version: 1\ninteractions:\n{items}")
    texts = ["My key: none", "My key: something"]
    if player == "transport":
        with httpx.Client(transport=CassetteTransport(path)) as client:
            said = [client.post("http://letta.test/v1/x", json={"content": t}) for t in texts]
    else:
        with use_letta_vcr(path):
            said = [httpx.post("http://letta.test/v1/x", json={"content": t}) for t in texts]
    assert [answer.json()["content"] for answer in said] == ["plain", "hidden"]


def test_parallel_sessions_with_placeholders_replay_in_another_order() -> None:
    def line(method: str, uri: str, body: Any, answer: Any) -> dict[str, Any]:
        return {
            "request": {
                "method": method,
                "uri": f"http://letta.test{uri}",
                "body": json.dumps(body),
            },
            "response": {
                "status": {"code": 200, "message": "OK"},
                "body": {"string": json.dumps(answer)},
            },
        }

    ids = [f"conv-00000000-99cc-4000-a000-{n:012x}" for n in (1, 2)]
    items = [line("POST", "/c", {}, {"id": one}) for one in ids]
    for one, name in zip(ids, "ab", strict=True):
        items.append(line("POST", f"/c/{one}/m", {"t": f"{name}: 2026-01-01"}, {"said": name}))
    cassette = Cassette.from_dict({"version": 1, "interactions": items})
    with httpx.Client(
        transport=CassetteTransport(cassette), base_url="http://letta.test"
    ) as client:
        first, second = (client.post("/c", json={}).json()["id"] for _ in range(2))
        for one, name in ((first, "b"), (second, "a")):
            answer = client.post(f"/c/{one}/m", json={"t": f"{name}: 1999-07-30"}).json()
            assert answer == {"said": name}


def test_what_the_server_says_of_time_is_constant_and_what_the_model_says_is_not() -> None:
    day = date(2026, 11, 29)
    said = {
        "messages": [
            {
                "message_type": "assistant_message",
                "date": f"{day}T10:11:12Z",
                "content": f"Apollo 11 landed on 1969-07-20 20:17 UTC; today is {day} 10:11",
            },
            {"message_type": "tool_return_message", "tool_return": f"time: {day} 10:11:12"},
        ]
    }
    transport = RecordingTransport(httpx.MockTransport(lambda _: httpx.Response(200, json=said)))
    with httpx.Client(transport=transport) as client:
        client.post("http://letta.test/v1/x", json={})
    (item,) = sanitize.sanitize(transport.cassette)
    first, second = json.loads(item.response.body)["messages"]
    assert first["content"] == said["messages"][0]["content"]
    assert first["date"] == "2026-01-01T00:00:00Z"
    assert second["tool_return"] == "time: 2026-01-01 00:00:00"


@pytest.mark.parametrize(
    ("recorded", "live"),
    [
        ("REDACTED a ", "b a "),
        ("/srv/user/ ", "/srv/abc/ "),
        ("2026-01-01T00:00:00Z ", "2030-01-01T10:20:30Z "),
        ("Jan 1, 2026 ", "May 10, 2027 "),
        ("user@example.com ", "ada@x.org "),
        ("http://host.test/x ", "http://abc:80/x "),
        ("user at host.test ", "grace7 at box "),
    ],
)
def test_many_placeholders_and_a_difference_are_told_at_once(recorded: str, live: str) -> None:
    assert matches_text(recorded * 300 + "x", live * 300 + "x")
    assert not matches_text(recorded * 300 + "x", live * 300 + "y")
