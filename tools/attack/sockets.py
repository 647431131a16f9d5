"""A hostile App Server: at the handshake, in its answers, and in the frames it sends by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from letta_adapters import AsyncLettaClient, Remote
from tools.attack.judge import Tally, nothing_left
from tools.attack.mutations import hurried, is_answer
from tools.attack.streams import app_frames
from tools.fake_app_server import CLOSE, HERE, Frame, accept, fake_app_server, reply

Scene = Callable[[Frame], list[Any]]
_DEEP: Final = "[" * 20_000 + "]" * 20_000
_OPTIONS: Final = {"settle_timeout": 0.05, "request_timeout": 1.5}


def _message_id(frame: Frame) -> str | None:
    if frame["type"] != "input" or frame["payload"]["kind"] != "create_message":
        return None
    return str(frame["payload"]["messages"][0]["client_message_id"])


def _turn(distort: Callable[[list[Any]], list[Any]]) -> Scene:
    """Answer everything well, and a message with its turn as ``distort`` changes it."""

    def play(frame: Frame) -> list[Any]:
        message_id = _message_id(frame)
        if message_id is None:
            return [accept(frame)]
        return [accept(frame), *distort(list(app_frames(message_id)))]

    return play


def _before(odd: Any) -> Scene:
    """Say something odd in the middle of the turn."""
    return _turn(lambda frames: [*frames[:3], odd, *frames[3:]])


def _answers(of: str, odd: Callable[[Frame], list[Any]]) -> Scene:
    """Answer requests of one kind with something odd."""
    well = _turn(lambda frames: frames)
    return lambda frame: odd(frame) if frame["type"] == of else well(frame)


def _other_turn(frames: list[Any]) -> list[Any]:
    """Mix in the turn of another conversation, and one of another message's run."""
    other = {"agent_id": "agent-1", "conversation_id": "conv-2"}
    mixed: list[Any] = []
    for frame in frames:
        of_other = {**frame, "runtime": other, "idempotency_key": f"x{len(mixed)}"}
        mixed += [of_other, frame]
    return mixed


def _late_tail(frames: list[Any]) -> list[Any]:
    """Begin with the late tail of a turn before: its text, and its end."""
    loop = {"status": "x", "client_message_ids_by_run_id": {"local-run-0": ["cm-before"]}}
    said = {"message_type": "assistant_message", "id": "m0", "content": "old", "seq_id": 9}
    tail = [
        {"type": "update_loop_status", "loop_status": loop},
        {"type": "stream_delta", "delta": {**said, "run_id": "local-run-0"}},
        {"type": "turn_finished", "stop_reason": "end_turn", "run_id": "local-run-0"},
    ]
    return [*({**frame, "runtime": HERE} for frame in tail), *frames]


def _scenes() -> Iterator[tuple[str, Scene]]:
    yield "as it should be", _turn(lambda frames: frames)
    yield "every frame twice", _turn(lambda frames: [f for f in frames for _ in range(2)])
    yield "another conversation's turn between", _turn(_other_turn)
    yield "the late tail of the turn before", _turn(_late_tail)
    yield "closes at once", lambda _: [CLOSE]
    yield "never answers", lambda _: []
    yield "answers another request", lambda frame: [{**accept(frame), "request_id": "other"}]
    yield "answers without an id", lambda frame: [{**accept(frame), "request_id": None}]
    yield "answers twice", lambda frame: [accept(frame), *_turn(lambda frames: frames)(frame)]
    for name, odd in (
        ("no JSON", "<html>"),
        ("half a frame", '{"type": "stream_delta", "delta": {"message_ty'),
        ("bytes that are no UTF-8", b"\xff\xfe\x00"),
        ("20,000 deep", _DEEP),
        ("a field 20,000 deep", '{"type": "x", "y": ' + _DEEP + "}"),
        ("a frame of 16 MB", json.dumps({"type": "x", "y": "A" * (16 << 20)})),
        ("NaN", '{"type": "x", "y": NaN}'),
        ("nothing", ""),
        ("the same key twice", '{"type": "x", "type": 5}'),
    ):
        yield f"in the turn: {name}", _before(odd)
        yield f"as an answer: {name}", _answers("runtime_start", lambda _, odd=odd: [odd])
    for number in (5, 60, 2000):
        frames = [{"type": "x", "runtime": HERE, "n": n} for n in range(number)]
        yield f"{number} unknown frames", _turn(lambda turn, odd=frames: [*odd, *turn])
    for reason in ("banana", 5, None, {}, "requires_approval", "error", "cancelled"):
        end = {"type": "turn_finished", "stop_reason": reason, "runtime": HERE}
        yield f"ends with {reason!r} too soon", _turn(lambda turn, end=end: [*turn[:3], end])
    yield "never ends", _turn(lambda turn: turn[:-2])
    for kind in ("input", "runtime_start", "app_server_info"):
        for name, odd in (
            ("refuses", {"success": False, "accepted": False, "error": "no"}),
            ("refuses oddly", {"success": False, "accepted": False, "error": {"a": [1]}}),
            ("neither accepts nor refuses", {"success": None, "accepted": 5}),
        ):
            yield f"{kind}: {name}", _answers(kind, lambda f, odd=odd: [reply(f, **odd)])
    for version in (0, 2, "1", None, {}, 10**30):
        field = {"protocol_version": version}
        yield (
            f"protocol {version!r}",
            _answers("app_server_info", lambda f, field=field: [{**reply(f), **field}]),
        )
    for request in ({}, {"subtype": 5}, {"subtype": "can_use_tool", "tool_name": ["x"]}):
        odd = {"type": "control_request", "request_id": "q", "request": request, "runtime": HERE}
        yield f"asks about {request}", _before(odd)
    odd = {"type": "external_tool_call_request", "request_id": 5, "runtime": HERE, "input": 5}
    yield "calls a tool of no name", _before(odd)


_HANDSHAKES: Final = (
    ("says nothing", b""),
    ("is no WebSocket", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"),
    ("refuses the token", b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"),
    ("leads elsewhere", b"HTTP/1.1 302 Moved\r\nlocation: ws://127.0.0.1:1/\r\n\r\n"),
    ("has a wrong accept", b"HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"),
    ("speaks no HTTP", b"\x16\x03\x01\x02\x00" * 100),
    ("breaks", b"HTTP/1.1 500 Oh\r\n\r\n"),
    ("never ends its headers", b"HTTP/1.1 101 S\r\n" + b"x: y\r\n" * 10_000),
)


@asynccontextmanager
async def _handshake(data: bytes) -> AsyncIterator[AsyncLettaClient]:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        try:
            await writer.drain()
            await asyncio.sleep(0.2)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with AsyncLettaClient(Remote(url=f"ws://127.0.0.1:{port}/ws", **_OPTIONS)) as client:
            yield client
    finally:
        server.close()


async def hostile_sockets(*, every: int = 1) -> Tally:
    """Ask App Servers that misbehave in each of these ways (one in ``every``)."""
    tally = Tally("hostile App Servers (WebSocket)")
    with hurried():
        for name, scene in list(_scenes())[::every]:
            async with fake_app_server(scene, **_OPTIONS) as client:
                await _ask(client, tally, name)
        for name, data in _HANDSHAKES[::every]:
            async with _handshake(data) as client:
                await _ask(client, tally, f"handshake: {name}")
    await nothing_left(tally)
    return tally


async def _ask(client: AsyncLettaClient, tally: Tally, name: str) -> None:
    session = client.resume_session(**HERE, turn_timeout=3)
    await tally.judge(name, session.run_turn("hi"), is_answer)
    tally.look_behind(name, client)
