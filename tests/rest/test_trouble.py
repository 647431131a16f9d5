"""Failures a real server produces: provider errors, limits, cancels, conflicts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta_adapters import (
    AuthenticationError,
    ConversationBusyError,
    ErrorMessage,
    ModelProviderError,
    ProviderAuthenticationError,
    ProviderRateLimitError,
    StreamEvent,
    TurnCancelledError,
    TurnFailedError,
)
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.scripted_model import ModelError, Reply, ToolUse
from tests.rest._say import result_of, streamed_text, turn, types

MODEL = "openai-proxy/scripted"
# Without its delays a replayed stream is over before anybody can leave it.
REPLAY_SPEED = 0.2

RATE = ModelError(429, "Rate limit reached for requests", type="rate_limit_error")
KEY = ModelError(401, "Incorrect API key provided", type="invalid_request_error")
BROKEN = ModelError(400, "The model does not like this", type="invalid_request_error")


@pytest.mark.letta_cassette("provider_errors", shared=True)
async def test_each_provider_error_has_its_type_and_stores_nothing(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    # The server repeats a rate-limited call by itself.
    letta_cassette.script(Reply(error=KEY), Reply(error=BROKEN), *[Reply(error=RATE)] * 6)
    async with client.create_session(agent) as session:
        outcomes = [await turn(session, f"try {i}") for i in range(3)]
        page = await session.list_messages()
        letta_cassette.script(Reply(text="Well again."))
        assert (await session.run_turn("now")).result == "Well again."
    for messages in outcomes:
        assert types(messages)[-2:] == ["error", "result"]
        assert sum(isinstance(m, ErrorMessage) for m in messages) == 1
    results = [result_of(messages) for messages in outcomes]
    assert [r.error_code for r in results] == [
        "provider_authentication",
        "provider_error",
        "provider_rate_limit",
    ]
    # The first model call failed, so the server kept nothing: sending again is safe.
    assert [r.input_stored for r in results] == [False, False, False]
    assert [m["message_type"] for m in page.messages] == ["system_message"]
    for result, error in zip(
        results,
        (ProviderAuthenticationError, ModelProviderError, ProviderRateLimitError),
        strict=True,
    ):
        with pytest.raises(error):
            result.raise_for_status()


@pytest.mark.letta_cassette("provider_breaks", shared=True)
async def test_a_model_that_breaks_off_is_a_failure_not_a_shorter_answer(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(
        *[Reply(text=["This ", "is ", "cut "], break_after=2)] * 4, Reply(text="Whole.")
    )
    async with client.create_session(agent, include_partial_messages=True) as session:
        messages = await turn(session, "go")
        letta_cassette.script(Reply(text="Whole."))
        again = await session.run_turn("go")
    result = result_of(messages)
    assert not result.success
    assert result.result is None
    assert "assistant" not in types(messages)
    assert streamed_text(messages, "assistant") == "This is "
    assert result.error_code == "provider_error"
    assert again.result == "Whole."


@pytest.mark.letta_cassette("failure_after_a_tool", shared=True)
async def test_a_later_step_that_fails_says_that_the_input_is_stored(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    def ping() -> str:
        """Answers pong."""
        return "pong"

    letta_cassette.script(Reply(tool_calls=[ToolUse("ping", {})]), Reply(error=BROKEN))
    async with client.create_session(agent, tools=[ping]) as session:
        messages = await turn(session, "ping it", otid="00000000-stored")
        letta_cassette.script(Reply(text="It said pong."))
        again = await session.run_turn("continue")
    result = result_of(messages)
    assert types(messages) == ["init", "tool_call", "tool_result", "error", "result"]
    assert (result.success, result.input_stored) == (False, True)
    assert result.usage.prompt_tokens == 100
    assert again.result == "It said pong."


@pytest.mark.letta_cassette("limits", shared=True)
async def test_limits_and_empty_answers(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    def ping() -> str:
        """Answers pong."""
        return "pong"

    letta_cassette.script(
        Reply(text=""),
        Reply(text=""),
        Reply(text="cut off here", finish_reason="length"),
        Reply(tool_calls=[ToolUse("ping", {})]),
    )
    async with client.create_session(agent, tools=[ping], include_partial_messages=True) as session:
        empty = await session.run_turn("say nothing")
    async with client.resume_session(session.conversation_id, tools=[ping]) as session:
        refused = await session.run_turn("say nothing")
        cut = await turn(session, "say much", otid="00000000-cut")
    async with client.resume_session(session.conversation_id, tools=[ping], max_steps=1) as session:
        limited = await turn(session, "ping it", otid="00000000-limited")
    # The server takes an empty answer for one while it streams tokens, else for a failure.
    assert (empty.success, empty.result) == (True, "")
    assert (refused.success, refused.error_code) == (False, "provider_error")
    assert types(cut) == ["assistant", "error", "result"]
    assert cut[0].content == "cut off here"  # type: ignore[union-attr]
    assert result_of(cut).error_code == "max_tokens_exceeded"
    assert result_of(limited).error_code == "max_steps"
    with pytest.raises(TurnFailedError, match="step limit"):
        result_of(limited).raise_for_status()


@pytest.mark.letta_cassette("abort", shared=True, timing=True)
async def test_abort_ends_the_stream_with_a_cancelled_result(
    new_client: Any, letta_cassette: LettaCassette
) -> None:
    letta_cassette.replay_options(timing=REPLAY_SPEED)
    client = new_client()
    agent = await client.create_agent(name="test abort", model=MODEL, base_tools=False)
    # Slow enough that the server always notices the cancel at the same token.
    letta_cassette.script(Reply(text=["word "] * 9, token_delay=0.8), Reply(text="Fine."))
    async with client.create_session(agent, include_partial_messages=True) as session:
        await session.abort()  # nothing runs: no error
        await session.send("count")
        messages = []
        async for message in session.stream():
            messages.append(message)
            if isinstance(message, StreamEvent) and len(messages) == 3:
                await session.abort()
        result = result_of(messages)
        assert (result.success, result.stop_reason, result.error_code) == (
            False,
            "cancelled",
            "cancelled",
        )
        assert types(messages) == ["init", "stream_event", "error", "result"]
        with pytest.raises(TurnCancelledError):
            result.raise_for_status()
        assert (await session.run_turn("again")).result == "Fine."


@pytest.mark.letta_cassette("left_early", shared=True, timing=True)
async def test_leaving_the_stream_early_stops_the_agent(
    new_client: Any, letta_cassette: LettaCassette
) -> None:
    letta_cassette.replay_options(timing=REPLAY_SPEED)
    client = new_client()
    agent = await client.create_agent(name="test left early", model=MODEL, base_tools=False)
    letta_cassette.script(Reply(text=["word "] * 9, token_delay=0.8))
    async with client.create_session(agent, include_partial_messages=True) as session:
        await session.send("count")
        stream = session.stream()
        async for message in stream:
            if isinstance(message, StreamEvent):
                break
        await stream.aclose()
        page = await session.list_messages()
        letta_cassette.script(Reply(text="Fine."))
        assert (await session.run_turn("again")).result == "Fine."
    # A run that is cancelled in its first step leaves nothing behind.
    assert [m["message_type"] for m in page.messages] == ["system_message"]


@pytest.mark.letta_cassette(
    "unauthorized",
    shared=True,
    base_url_env="LETTA_SECURE_BASE_URL",
    model_env="LETTA_SECURE_RIG_MODEL",
)
async def test_a_wrong_key_is_refused_and_not_shown(
    new_client: Any, letta_cassette: LettaCassette
) -> None:
    key = "wrong-" + "k3y-of-someone"
    letta_cassette.secrets.append(key)
    client = new_client(api_key=key)
    with pytest.raises(AuthenticationError, match="LETTA_API_KEY") as caught:
        await client.prompt("hello")
    assert (caught.value.status_code, caught.value.accepted) == (401, False)
    assert key not in str(caught.value) + repr(caught.value) + repr(client)
    with pytest.raises(AuthenticationError):
        where = {"agent_id": "agent-1", "conversation_id": "conv-1"}
        await client.resume_session(**where).send("hello")


@pytest.mark.letta_cassette(
    "busy",
    shared=True,
    base_url_env="LETTA_REDIS_BASE_URL",
    model_env="LETTA_REDIS_RIG_MODEL",
)
async def test_a_conversation_that_is_busy_elsewhere_is_an_error(
    new_client: Any, client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text=["slow "] * 12, token_delay=0.1), Reply(text="Free."))
    other = new_client()
    conversation = await client.conversations.create(agent)
    first = client.resume_session(
        agent_id=agent, conversation_id=conversation["id"], include_partial_messages=True
    )
    second = other.resume_session(agent_id=agent, conversation_id=conversation["id"])
    async with first, second:
        await first.send("take your time")
        stream = first.stream()
        head = []
        async for message in stream:
            head.append(message)
            if isinstance(message, StreamEvent):
                break
        with pytest.raises(ConversationBusyError, match="currently being processed") as caught:
            await second.send("me too")
        assert str(caught.value.run_id).startswith("run-")
        assert caught.value.status_code == 409
        rest = [message async for message in stream]
        assert result_of(head + rest).result == "slow " * 12
        assert (await second.run_turn("now?")).result == "Free."


@pytest.mark.letta_cassette("queued", shared=True)
async def test_sends_of_one_client_to_one_conversation_queue(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text="First."), Reply(text="Second."))
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


@pytest.mark.letta_cassette(
    "background",
    shared=True,
    base_url_env="LETTA_REDIS_BASE_URL",
    model_env="LETTA_REDIS_RIG_MODEL",
)
async def test_background_runs_number_their_events(
    new_client: Any, letta_cassette: LettaCassette
) -> None:
    client = new_client(background=True)
    agent = await client.create_agent(
        name="test background", model="openai-proxy/scripted", base_tools=False
    )
    letta_cassette.script(Reply(text="One two three."))
    async with client.create_session(agent, include_partial_messages=True) as session:
        messages = await turn(session, "count")
    assert result_of(messages).result == "One two three."
    numbers = [m.seq_id for m in messages if isinstance(m, StreamEvent)]
    assert numbers == sorted(set(numbers))
    assert None not in numbers


@pytest.mark.letta_cassette("background_unavailable", shared=True)
async def test_without_redis_a_background_run_falls_back_to_a_plain_one(
    new_client: Any, letta_cassette: LettaCassette
) -> None:
    client = new_client(background=True)
    agent = await client.create_agent(
        name="test no redis", model="openai-proxy/scripted", base_tools=False
    )
    letta_cassette.script(Reply(text="One."), Reply(text="Two."))
    async with client.create_session(agent) as session:
        assert (await session.run_turn("one")).result == "One."
        # It is tried once per client, not once per turn.
        assert (await session.run_turn("two")).result == "Two."
        page = await session.list_messages()
    users = [m["content"] for m in page.messages if m["message_type"] == "user_message"]
    assert users == ["two", "one"]
