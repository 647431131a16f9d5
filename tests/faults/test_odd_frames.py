"""Frames that no real server sends: written by hand, because none can be made to send them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient
from letta_adapters.errors import ProtocolError, ServerError
from letta_adapters.langchain import ChatLetta
from tools.fake_app_server import CLOSE, HERE, Frame, accept, fake_app_server


def asked(name: str) -> dict[str, Any]:
    """A stored message of the user."""
    return {"message_type": "user_message", "id": "m1", "otid": name, "content": "hello"}


def answering(
    *odd: Any, stored: Callable[[str], list[Any]] = lambda name: [asked(name)]
) -> AbstractAsyncContextManager[AsyncLettaClient]:
    """A client of a server that accepts everything and follows a message with ``odd`` frames.

    ``stored``: what it holds then, newest first; it is given the message's own name.
    """
    named: list[str] = []

    def play(frame: Frame) -> list[Any]:
        answer = accept(frame)
        if frame["type"] == "input":
            named.extend(re.findall(r'"client_message_id": "([^"]+)"', json.dumps(frame)))
            return [answer, *odd]
        if frame["type"] == "conversation_messages_list":
            answer["messages"] = stored(named[-1])
        return [answer]

    return fake_app_server(play, settle_timeout=0.1, request_timeout=3)


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "update_queue", "queue": 5},
        {"type": "update_queue", "queue": 5, "removed": 5},
        {"type": "update_loop_status", "loop_status": "idle"},
    ],
)
async def test_a_frame_that_cannot_be_taken_ends_the_turn_with_a_protocol_error(odd: Any) -> None:
    async with answering(odd | {"runtime": HERE}) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert (result.success, result.error_code) == (False, "protocol_error")
        with pytest.raises(ProtocolError, match=odd["type"]):
            result.raise_for_status()


async def test_a_connection_that_was_given_up_is_made_anew() -> None:
    async with answering({"type": "update_queue", "queue": 5, "runtime": HERE}) as client:
        session = client.resume_session(**HERE)
        for _ in range(2):
            result = await session.run_turn("hello")
            assert result.error_code == "protocol_error"


DELTA = {
    "type": "stream_delta",
    "delta": {"message_type": "assistant_message", "id": "m-1", "content": "mean"},
}
FINISHED = {"type": "turn_finished", "stop_reason": "end_turn", "runtime": HERE}


@pytest.mark.parametrize(
    "odd",
    [
        *("5", "[]", "no json", "null", '"x"', "{}", '{"type": 5}', "[" * 9000 + "]" * 9000),
        '{"type": "stream_delta", "delta": {"message_type": "assist',
        {"type": "stream_delta", "runtime": []},
        DELTA,
        DELTA | {"runtime": HERE | {"conversation_id": ["conv-1"]}},
        DELTA | {"type": ["stream_delta"], "runtime": HERE},
    ],
)
async def test_what_cannot_be_told_for_whom_it_is_fails_the_turn(odd: Any) -> None:
    """It may be a piece of the answer, which would be shorter without a word."""
    async with answering(odd, FINISHED) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert (result.success, result.error_code) == (False, "protocol_error")


@pytest.mark.parametrize("kind", [5, ["assistant_message"], None, {}])
async def test_an_event_without_a_readable_kind_fails_the_turn(kind: Any) -> None:
    delta = DELTA["delta"] | {"message_type": kind}
    async with answering(DELTA | {"delta": delta, "runtime": HERE}, FINISHED) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert (result.success, result.error_code) == (False, "protocol_error")


@pytest.mark.parametrize("odd", [5, "x", [5], True])
async def test_an_odd_state_of_the_device_is_not_kept(odd: Any) -> None:
    state = {"type": "update_device_status", "runtime": HERE, "device_status": odd}
    answer = {"message_type": "assistant_message", "id": "m2", "content": "Hi."}
    says = {"type": "stream_delta", "runtime": HERE, "delta": answer}
    plays = iter([[state], [says, FINISHED]])

    def play(frame: Frame) -> list[Any]:
        return [accept(frame), *(next(plays) if frame["type"] == "input" else ())]

    async with fake_app_server(play, settle_timeout=0.1, request_timeout=3) as client:
        session = client.resume_session(**HERE)
        assert (await session.run_turn("hello")).error_code == "protocol_error"
        assert (await session.run_turn("again")).success


@pytest.mark.slow
async def test_runs_that_name_no_messages_fail_the_turn() -> None:
    """Whose run it is decides whether its text is taken."""
    loop = {"status": "x", "client_message_ids_by_run_id": {"run-1": {"a": 1}}}
    odd = {"type": "update_loop_status", "loop_status": loop, "runtime": HERE}
    async with answering(odd, FINISHED) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert (result.success, result.error_code) == (False, "protocol_error")


@pytest.mark.parametrize("reason", [None, 5, {}])
async def test_an_end_without_a_reason_is_no_success(reason: Any) -> None:
    async with answering(FINISHED | {"stop_reason": reason}) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert (result.success, result.error_code) == (False, "protocol_error")


@pytest.mark.parametrize("other", [{"type": "of_tomorrow"}, {"type": "x", "runtime": HERE}])
async def test_a_kind_of_frame_that_is_not_known_is_no_fault(other: Any) -> None:
    async with answering(other, FINISHED) as client:
        assert (await client.resume_session(**HERE).run_turn("hello")).success


async def test_a_closed_socket_is_noticed_after_an_odd_frame() -> None:
    odd = {"type": "update_queue", "queue": 5, "runtime": HERE}
    async with answering(odd, CLOSE) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert result.error_code == "protocol_error"


USAGE = {"message_type": "usage_statistics", "prompt_tokens": 9, "completion_tokens": 7}
SHOWS_NOTHING: list[Any] = [
    {"type": "stream_delta", "runtime": HERE, "delta": USAGE},
    {"type": "turn_finished", "runtime": HERE, "stop_reason": "end_turn"},
]


def told(text: str) -> dict[str, Any]:
    return {"message_type": "assistant_message", "id": "m2", "content": text}


async def test_an_answer_that_a_turn_did_not_show_is_read_from_the_conversation() -> None:
    async with answering(*SHOWS_NOTHING, stored=lambda name: [told("Hi."), asked(name)]) as client:
        result = await client.prompt("hello", "agent-1")
    assert (result.success, result.result) == (True, "Hi.")


async def test_a_turn_of_which_the_server_has_nothing_is_a_failure() -> None:
    earlier = [told("Before."), asked("another")]
    async with answering(*SHOWS_NOTHING, stored=lambda _: earlier) as client:
        result = await client.prompt("hello", "agent-1")
        assert (result.success, result.error_code) == (False, "server_error")
        assert result.input_stored is False
        with pytest.raises(ServerError, match="stored nothing"):
            await ChatLetta(agent_id="agent-1", client=client, max_retries=0).ainvoke("hello")


async def test_an_agent_of_letta_code_that_said_nothing_said_nothing() -> None:
    async with answering(*SHOWS_NOTHING) as client:
        result = await client.prompt("hello", "agent-1")
    assert (result.success, result.result) == (True, "")
