"""The state of the device comes in every turn, and is parsed when somebody asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from letta_adapters.errors import ProtocolError
from tools.fake_app_server import HERE, Frame, accept, fake_app_server

STATE = {"current_loaded_tools": ["Bash"], "note": 'a "quoted" ,"runtime":{ word'}
SAYS = {"message_type": "assistant_message", "id": "m1", "content": "Hi."}
TURN = (
    {"type": "stream_delta", "runtime": HERE, "delta": SAYS},
    {"type": "turn_finished", "runtime": HERE, "stop_reason": "end_turn"},
)


def written(state: str, runtime: dict[str, Any] | None = None) -> str:
    """A frame as letta 0.34.12 writes it."""
    where = json.dumps(HERE if runtime is None else runtime, separators=(",", ":"))
    rest = '"event_seq":7,"emitted_at":"2026-11-30T01:58:53.843Z","idempotency_key":"state:7"'
    return f'{{"type":"update_device_status","device_status":{state},"runtime":{where},{rest}}}'


def told(*states: str) -> Callable[[Frame], Iterator[Any]]:
    """A server that tells these states in a turn, and answers."""

    def play(frame: Frame) -> Iterator[Any]:
        yield accept(frame)
        if frame["type"] == "input":
            yield from states
            yield from TURN

    return play


def short(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@pytest.mark.parametrize(
    "state",
    [
        written(short(STATE)),
        short({"type": "update_device_status", "runtime": HERE, "device_status": STATE}),
        json.dumps({"type": "update_device_status", "device_status": STATE, "runtime": HERE}),
    ],
    ids=["as it comes", "another order", "another spelling"],
)
async def test_a_state_is_told_when_it_is_asked_for(state: str) -> None:
    async with fake_app_server(told(state), request_timeout=3) as client:
        session = client.resume_session(**HERE)
        assert (await session.run_turn("hello")).result == "Hi."
        assert await session.device_status() == STATE


async def test_the_last_state_counts() -> None:
    states = [written(short({"note": number})) for number in range(3)]
    async with fake_app_server(told(*states), request_timeout=3) as client:
        session = client.resume_session(**HERE)
        await session.run_turn("hello")
        assert await session.device_status() == {"note": 2}


async def test_a_state_that_cannot_be_read_fails_only_who_asks_for_it() -> None:
    async with fake_app_server(told(written('{"note":}')), request_timeout=3) as client:
        session = client.resume_session(**HERE)
        assert (await session.run_turn("hello")).result == "Hi."
        with pytest.raises(ProtocolError, match="state of the device"):
            await session.device_status()


@pytest.mark.parametrize("odd", ["5", '"x"', "[5]"])
async def test_a_state_that_is_no_object_fails_only_who_asks_for_it(odd: str) -> None:
    async with fake_app_server(told(written(odd)), request_timeout=3) as client:
        session = client.resume_session(**HERE)
        assert (await session.run_turn("hello")).result == "Hi."
        with pytest.raises(ProtocolError, match="state of the device"):
            await session.device_status()


async def test_a_state_belongs_to_the_conversation_that_its_frame_names() -> None:
    """A conversation that is named inside the state is part of the state."""
    elsewhere = {"agent_id": "agent-2", "conversation_id": "conv-2"}
    state = {"first": 1, "runtime": elsewhere}
    mine, other = written(short(state)), written(short({"first": 2}), elsewhere)
    async with fake_app_server(told(mine, other), request_timeout=3) as client:
        session = client.resume_session(**HERE)
        await session.run_turn("hello")
        assert await session.device_status() == state


@pytest.mark.parametrize(
    "frame",
    [
        written("{}", {"agent_id": 5}),
        '{"type":"update_device_status","device_status":{"a":1},"runtime":5}',
        '{"type":"update_device_status","device_status":{"a":1,"runtime":{"agent_id":"x"}',
    ],
    ids=["an odd conversation", "no conversation", "torn"],
)
async def test_a_state_of_nobody_fails_the_turn(frame: str) -> None:
    """As any frame that does not tell whose it is: it may be a torn one."""
    async with fake_app_server(told(frame), settle_timeout=0.1, request_timeout=3) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert (result.success, result.error_code) == (False, "protocol_error")
