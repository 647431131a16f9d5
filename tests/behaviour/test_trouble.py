"""What goes wrong with the model, the conversation or the key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta_adapters import (
    AuthenticationError,
    ConversationBusyError,
    ErrorMessage,
    ProviderAuthenticationError,
    StreamEvent,
    TurnFailedError,
    UnsupportedOptionError,
)
from letta_adapters.errors import ProviderRefusedError
from letta_adapters.testing.scripted_model import ModelError, Reply, ToolUse
from tests.behaviour._say import result_of, said, streamed_text, turn, types
from tests.behaviour._world import World

QUOTA = ModelError(429, "No quota left", "insufficient_quota", "insufficient_quota")
KEY = ModelError(401, "Incorrect API key provided", type="invalid_request_error")
BROKEN = ModelError(400, "The model does not like this", type="invalid_request_error")


def ping() -> str:
    """Answers pong."""
    return "pong"


@pytest.mark.behaviour("provider_errors")
async def test_each_provider_error_has_its_type(client: Any, agent: str, world: World) -> None:
    expected: list[Any] = []
    if world.capabilities.exact_failures:
        expected += [(QUOTA, TurnFailedError, "insufficient_credits")]
    if world.capabilities.final_refusals:
        expected += [
            (KEY, ProviderAuthenticationError, "provider_authentication"),
            (BROKEN, ProviderRefusedError, "provider_refused"),
        ]
    for error, raised, code in expected:
        async with client.create_session(agent) as session:
            # The Letta API repeats some calls by itself, and Letta Code over it those.
            world.script(*[Reply(error=error)] * 40)
            messages = await turn(session, "try")
            page = await session.list_messages(limit=5)
            world.script(Reply(text="Well again."))
            assert (await session.run_turn("now")).result == "Well again."
        assert types(messages)[-2:] == ["error", "result"]
        assert sum(isinstance(m, ErrorMessage) for m in messages) == 1
        result = result_of(messages)
        with pytest.raises(raised):
            result.raise_for_status()
        assert result.error_code == code
        # Is it safe to send it again?
        assert result.input_stored is not world.capabilities.failed_input_is_dropped
        assert said(page, "user_message") == (["try"] if result.input_stored else [])


@pytest.mark.behaviour("provider_breaks")
async def test_a_model_that_breaks_off_is_a_failure_not_a_shorter_answer(
    client: Any, agent: str, world: World
) -> None:
    world.script(*[Reply(text=["This ", "is ", "cut "], break_after=2)] * 16)
    async with client.create_session(agent, include_partial_messages=True) as session:
        messages = await turn(session, "go")
        world.script(Reply(text="Whole."))
        again = await session.run_turn("go")
    result = result_of(messages)
    assert not result.success
    assert result.result is None
    assert "assistant" not in types(messages)
    assert set(streamed_text(messages, "assistant").split()) == {"This", "is"}
    assert result.error_code == "provider_error"
    assert again.result == "Whole."


@pytest.mark.behaviour("failure_after_a_tool")
async def test_a_later_step_that_fails_says_that_the_input_is_stored(
    client: Any, agent: str, world: World
) -> None:
    world.script(Reply(tool_calls=[ToolUse("ping", {})]), *[Reply(error=QUOTA)] * 40)
    async with client.create_session(agent, tools=[ping]) as session:
        messages = await turn(session, "ping it", otid=world.otid("stored"))
        world.script(Reply(text="It said pong."))
        again = await session.run_turn("continue")
    result = result_of(messages)
    whole = [name for name in types(messages) if name != "retry"]
    assert whole == ["init", "tool_call", "tool_result", "error", "result"]
    assert (result.success, result.input_stored) == (False, True)
    assert again.result == "It said pong."


@pytest.mark.behaviour("limits")
async def test_limits(client: Any, agent: str, world: World) -> None:
    world.script(Reply(text="cut off here", finish_reason="length"))
    async with client.create_session(agent) as session:
        cut = await turn(session, "say much", otid=world.otid("much"))
    assert cut[1].content == "cut off here"
    if world.capabilities.exact_failures:
        assert types(cut) == ["init", "assistant", "error", "result"]
        assert result_of(cut).error_code == "max_tokens_exceeded"
        assert result_of(cut).result is None
    else:
        assert result_of(cut).result == "cut off here"
    if not world.supports("max_steps"):
        with pytest.raises(UnsupportedOptionError, match="max_steps"):
            client.create_session(agent, max_steps=1)
        return
    world.script(Reply(tool_calls=[ToolUse("ping", {})]))
    async with client.create_session(agent, tools=[ping], max_steps=1) as session:
        result = await session.run_turn("ping it", otid=world.otid("limited"))
    assert result.error_code == "max_steps"
    with pytest.raises(TurnFailedError, match="step limit"):
        result.raise_for_status()


@pytest.mark.behaviour("empty_answers")
async def test_an_empty_answer(client: Any, agent: str, world: World) -> None:
    world.script(Reply(text=""))
    async with client.create_session(agent, include_partial_messages=True) as session:
        messages = await turn(session, "say nothing")
    assert "assistant" not in types(messages)
    assert (result_of(messages).success, result_of(messages).result) == (True, "")


@pytest.mark.behaviour(
    "unauthorized",
    base_url_env="LETTA_SECURE_BASE_URL",
    model_env="LETTA_SECURE_RIG_MODEL",
)
async def test_a_wrong_key_is_refused_and_not_shown(world: World) -> None:
    key = "wrong-" + "k3y-of-someone"
    world.hide(key)
    client = world.client(key=key)
    with pytest.raises(
        AuthenticationError, match=r"LETTA_API_KEY|LETTA_APP_SERVER_TOKEN"
    ) as caught:
        await client.prompt("hello")
    assert (caught.value.status_code, caught.value.accepted) == (401, False)
    assert key not in str(caught.value) + repr(caught.value) + repr(client)
    with pytest.raises(AuthenticationError):
        where = {"agent_id": "agent-1", "conversation_id": "conv-1"}
        await client.resume_session(**where).send("hello")


@pytest.mark.behaviour(
    "busy",
    base_url_env="LETTA_REDIS_BASE_URL",
    model_env="LETTA_REDIS_RIG_MODEL",
)
async def test_a_conversation_that_is_busy_elsewhere(client: Any, agent: str, world: World) -> None:
    world.script(Reply(text=["slow "] * 12, token_delay=0.1), Reply(text="Free."))
    other = world.client()
    conversation = await client.conversations.create(agent)
    where = {"agent_id": agent, "conversation_id": conversation["id"]}
    first = client.resume_session(**where, include_partial_messages=True)
    second = other.resume_session(**where)
    async with first, second:
        await first.send("take your time")
        stream = first.stream()
        head = []
        async for message in stream:
            head.append(message)
            if isinstance(message, StreamEvent):
                break
        if world.capabilities.shared_queue:
            theirs = asyncio.ensure_future(second.run_turn("now?"))
        else:
            with pytest.raises(ConversationBusyError, match="currently being processed") as caught:
                await second.send("me too")
            assert str(caught.value.run_id).startswith("run-")
            assert caught.value.status_code == 409
        rest = [message async for message in stream]
        assert result_of(head + rest).result == "slow " * 12
        if not world.capabilities.shared_queue:
            theirs = asyncio.ensure_future(second.run_turn("now?"))
        assert (await theirs).result == "Free."


@pytest.mark.behaviour("queued")
async def test_sends_of_one_client_to_one_conversation_queue(
    client: Any, agent: str, world: World
) -> None:
    world.script(Reply(text="First."), Reply(text="Second."))
    conversation = await client.conversations.create(agent)
    where = {"agent_id": agent, "conversation_id": conversation["id"]}
    async with client.resume_session(**where) as one, client.resume_session(**where) as two:
        await one.send("one")
        waiting = asyncio.create_task(two.run_turn("two"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        messages = [message async for message in one.stream()]
        assert result_of(messages).result == "First."
        assert (await waiting).result == "Second."


@pytest.mark.behaviour("in_parallel")
async def test_conversations_run_in_parallel(client: Any, agent: str, world: World) -> None:
    words = ("red", "green", "blue")
    world.script(*(Reply([f"{word} "] * 3, when=f"say {word}") for word in words))
    sessions = [client.create_session(agent) for _ in words]
    for session in sessions:
        await session.initialize()
    results = await asyncio.gather(
        *(session.run_turn(f"say {word}") for session, word in zip(sessions, words, strict=True))
    )
    assert [r.result for r in results] == [f"{word} " * 3 for word in words]
    assert len({r.conversation_id for r in results}) == 3
    for session in sessions:
        await session.close()
