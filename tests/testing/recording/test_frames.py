"""Single frames and connections, recorded and replayed; whole sessions are in test_websocket.py."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from letta_adapters.testing import (
    Cassette,
    CassetteMissError,
    SanitizeRules,
    sanitize_cassette,
    scan_text,
)
from letta_adapters.testing.cassette import CassetteFormatError
from letta_adapters.testing.recording.websocket import WebSocketPlayer, WebSocketRecorder

URL = "ws://127.0.0.1:43117/ws"
TOKEN = "tok-9f8E7d6C5b4A"


def ask(kind: str = "input", number: int = 0, **fields: Any) -> str:
    return json.dumps({"type": kind, "request_id": f"la-{number:032x}", **fields})


def answer(number: int = 0, **fields: Any) -> str:
    return json.dumps({"type": "answer", "request_id": f"la-{number:032x}", **fields})


def clean(recorder: WebSocketRecorder, **rules: Any) -> Cassette:
    return sanitize_cassette(recorder.cassette, rules=SanitizeRules(environment={}, **rules))


async def first(socket: Any) -> Any:
    async for text in socket:
        return json.loads(text)
    raise AssertionError("the connection ended")


async def test_what_is_private_in_a_frame_of_ours_matches_again() -> None:
    recorder = WebSocketRecorder()
    talk = recorder.opened(URL, {"Authorization": f"Bearer {TOKEN}"})
    talk.sent(ask(content="write to boss@corp.io", cwd="/home/alice/work"))
    talk.came(answer(cwd="/home/alice/work", echo=f"boss@corp.io has {TOKEN}"))
    recording = clean(recorder)
    text = recording.dumps()
    assert "boss" not in text
    assert "alice" not in text
    assert TOKEN not in text

    player = WebSocketPlayer(recording)
    socket = await player.connect(URL, additional_headers={"Authorization": "Bearer another-one-1"})
    await socket.send(ask(number=7, content="write to boss@corp.io", cwd="/home/bob/elsewhere"))
    assert await first(socket) == {
        "type": "answer",
        "request_id": f"la-{7:032x}",
        "cwd": "/home/bob/elsewhere",
        "echo": "user@example.com has REDACTED",
    }
    player.assert_all_played()


async def test_connections_at_the_same_time_are_told_apart() -> None:
    recorder = WebSocketRecorder()
    one, two = recorder.opened(URL, {}), recorder.opened(URL, {})
    one.sent(ask(content="first"))
    two.sent(ask(content="second"))
    one.came(answer(says="to the first"))
    two.came(answer(says="to the second"))
    player = WebSocketPlayer(clean(recorder))
    a, b = await player.connect(URL), await player.connect(URL)
    await b.send(ask(content="second"))
    await a.send(ask(content="first"))
    assert (await first(a))["says"] == "to the first"
    assert (await first(b))["says"] == "to the second"
    player.assert_all_played()


async def test_a_connection_that_nobody_opens_is_said() -> None:
    recorder = WebSocketRecorder()
    recorder.opened(URL, {})
    recorder.opened(URL, {})
    player = WebSocketPlayer(clean(recorder))
    await player.connect(URL)
    with pytest.raises(AssertionError, match="1 recorded connections were not opened"):
        player.assert_all_played()
    await player.connect(URL)
    with pytest.raises(CassetteMissError, match="no \\(further\\) connection"):
        await player.connect(URL)


def test_a_frame_without_a_connection_is_no_recording() -> None:
    recorder = WebSocketRecorder()
    recorder.opened(URL, {}).sent(ask())
    lonely = Cassette(recorder.cassette.interactions[1:])
    with pytest.raises(CassetteFormatError, match="before its connection"):
        WebSocketPlayer(lonely)


async def test_half_a_character_is_recorded() -> None:
    # JavaScript may cut an emoji in two; each half is valid in JSON only.
    recorder = WebSocketRecorder()
    talk = recorder.opened(URL, {})
    talk.sent(ask(content="\ud83d"))
    talk.came('{"text": "\\ud83d"}')
    talk.came('{"text": "\\ude00 é"}')
    recording = Cassette.loads(clean(recorder).dumps())
    player = WebSocketPlayer(recording)
    socket = await player.connect(URL)
    await socket.send(ask(content="\ud83d"))
    assert [await first(socket) for _ in range(2)] == [{"text": "\ud83d"}, {"text": "\ude00 é"}]


@pytest.mark.parametrize("gap", [False, True])
def test_a_secret_split_over_frames(gap: bool) -> None:
    recorder = WebSocketRecorder()
    talk = recorder.opened(URL, {})
    talk.sent(ask())
    for number, piece in enumerate(["it is /home/al", "icecanary/x and sk-let-", "aB3dE6gH9jK2m"]):
        delta = {"id": "ui-1", "message_type": "assistant_message", "content": [{"text": piece}]}
        talk.came(json.dumps({"type": "stream_delta", "event_seq": number, "delta": delta}))
        if gap:
            talk.sent(ask("list_models", number))
            talk.came(answer(number))
    raw = recorder.cassette
    assert scan_text(raw.dumps(), environment={})
    text = sanitize_cassette(raw, rules=SanitizeRules(environment={})).dumps()
    assert "canary" not in text
    assert "aB3d" not in text
    assert scan_text(text, environment={}) == []


def test_a_secret_that_is_set_is_one_everywhere() -> None:
    recorder = WebSocketRecorder()
    talk = recorder.opened(URL, {})
    talk.sent(ask("secret_apply", set={"PLACE": "opaque-Value-123"}, unset=[]))
    talk.came(answer(echo="it is opaque-Value-123"))
    recording = clean(recorder)
    assert "opaque" not in recording.dumps()
    sent = json.loads(recording.interactions[1].request.body)
    assert sent["set"] == {"PLACE": "REDACTED"}
    raw = recorder.cassette.dumps()
    assert {leak.kind for leak in scan_text(raw, environment={})} >= {"sensitive"}


def test_closing_ends_the_reading() -> None:
    async def read() -> list[str]:
        recorder = WebSocketRecorder()
        recorder.opened(URL, {})
        socket = await WebSocketPlayer(clean(recorder)).connect(URL)
        asyncio.get_running_loop().call_later(0.01, asyncio.ensure_future, socket.close())
        return [text async for text in socket]

    assert asyncio.run(read()) == []
