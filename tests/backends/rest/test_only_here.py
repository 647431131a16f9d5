"""What only the Letta API has: calls that wait for ever, background runs."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import (
    ErrorMessage,
    PendingApprovalError,
    StreamEvent,
)
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.behaviour._say import result_of, turn, types


@pytest.mark.letta_cassette("rest_empty_step", shared=True)
async def test_an_empty_step_is_a_failure_unless_tokens_stream(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text=""))
    async with client.create_session(agent) as session:
        refused = await session.run_turn("say nothing")
    assert (refused.success, refused.error_code) == (False, "provider_error")


@pytest.mark.letta_cassette("pending_approval", shared=True)
async def test_an_abandoned_call_is_reported_and_cleared(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(
        Reply(tool_calls=[ToolUse("get_time", {"city": "Paris"})]),
        Reply(text="Recovered."),
        Reply(tool_calls=[ToolUse("get_time", {"city": "Paris"})]),
        Reply(text="Recovered again."),
    )
    conversation = await client.conversations.create(agent)

    async def abandon() -> None:
        """What a client that dies in the middle of a tool call leaves behind."""
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        await client.request(
            "POST",
            f"/v1/conversations/{conversation['id']}/messages",
            body={
                "messages": [{"role": "user", "content": "time?"}],
                "streaming": False,
                "client_tools": [{"name": "get_time", "parameters": schema}],
            },
        )

    await abandon()
    async with client.resume_session(conversation["id"]) as session:
        state = await session.bootstrap_state()
        assert [(c.tool_name, c.raw_arguments) for c in state.pending] == [
            ("get_time", '{"city": "Paris"}')
        ]
        blocked = await turn(session, "hello?")
        assert types(blocked) == ["init", "error", "result"]
        error = blocked[1]
        assert isinstance(error, ErrorMessage)
        assert error.error_code == "pending_approval"
        result = result_of(blocked)
        assert result.input_stored is False
        with pytest.raises(PendingApprovalError, match="waiting for approval"):
            result.raise_for_status()
        # run_turn() clears it and sends once more.
        assert (await session.run_turn("hello?")).result == "Recovered."
        await abandon()
        recovered = await session.recover_pending_approvals()
        assert [c.tool_name for c in recovered.denied] == ["get_time"]
        assert not (await session.recover_pending_approvals()).recovered
        assert (await session.run_turn("and now?")).result == "Recovered again."


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
    users = [m["content"] for m in page.raw if m["message_type"] == "user_message"]
    assert users == ["two", "one"]
