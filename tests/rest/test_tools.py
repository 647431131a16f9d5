"""Client-side tools, server tools, approvals, and what is left pending."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta_adapters import (
    Allow,
    Deny,
    ErrorMessage,
    PendingApprovalError,
    ToolCallMessage,
    ToolResultMessage,
    UnsupportedOptionError,
)
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.rest._say import result_of, turn, types

SERVER_TOOL = '''
def multiply(a: int, b: int) -> int:
    """Multiply two numbers.

    Args:
        a (int): The first.
        b (int): The second.
    """
    print("multiplying")
    return a * b
'''


def get_weather(city: str, days: int = 1) -> dict[str, Any]:
    """The weather of a city.

    Args:
        city: Its name.
        days: How many days ahead.
    """
    return {"city": city, "days": days, "sky": "sunny"}


async def get_time(city: str) -> str:
    """The time in a city."""
    await asyncio.sleep(0)
    return f"noon in {city}"


def explode(why: str) -> str:
    """Fails."""
    raise ValueError(f"no good: {why}")


async def allow_parallel_calls(client: Any, agent: str) -> None:
    """An agent's model makes one call at a time unless told otherwise."""
    settings = {"provider_type": "openai", "parallel_tool_calls": True}
    await client.agents.update(agent, model_settings=settings)


async def attach(client: Any, agent: str, *, asks: bool) -> None:
    """Give the agent the server-side tool."""
    body = {
        "source_code": SERVER_TOOL,
        "source_type": "python",
        "default_requires_approval": asks,
    }
    tool = await client.request("PUT", "/v1/tools/", body=body)
    await client.request("PATCH", f"/v1/agents/{agent}/tools/attach/{tool['id']}")


def calls(messages: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(m.tool_name, dict(m.tool_input)) for m in messages if isinstance(m, ToolCallMessage)]


def results(messages: list[Any]) -> list[tuple[str, bool]]:
    return [(m.content, m.is_error) for m in messages if isinstance(m, ToolResultMessage)]


@pytest.mark.letta_cassette("client_tool", shared=True)
@pytest.mark.parametrize("partial", [True])
async def test_a_client_tool_is_run_and_answered(
    client: Any, agent: str, letta_cassette: LettaCassette, partial: bool
) -> None:
    letta_cassette.script(
        Reply(text="Let me look.", tool_calls=[ToolUse("get_weather", {"city": "Paris"})]),
        Reply(text="It is sunny in Paris."),
    )
    async with client.create_session(
        agent, tools=[get_weather], include_partial_messages=partial
    ) as session:
        messages = await turn(session, "How is the weather in Paris?")
    assert [t for t in types(messages) if t != "stream_event"] == [
        "init",
        "assistant",
        "tool_call",
        "tool_result",
        "assistant",
        "result",
    ]
    assert calls(messages) == [("get_weather", {"city": "Paris"})]
    assert results(messages) == [('{"city":"Paris","days":1,"sky":"sunny"}', False)]
    result = result_of(messages)
    # Only the last step's text is the answer, and usage is the sum of both steps.
    assert result.result == "It is sunny in Paris."
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (200, 40)
    assert len(result.run_ids) == 2
    (call,) = [m for m in messages if isinstance(m, ToolCallMessage)]
    assert call.requires_approval


@pytest.mark.letta_cassette("parallel_tools", shared=True)
async def test_parallel_calls_are_answered_together(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    await allow_parallel_calls(client, agent)
    letta_cassette.script(
        Reply(
            tool_calls=[
                ToolUse("get_weather", {"city": "Rome", "days": 2}),
                ToolUse("get_time", {"city": "Rome"}),
                ToolUse("explode", {"why": "test"}),
            ]
        ),
        Reply(text="Done."),
    )
    async with client.create_session(
        agent, tools=[get_weather, get_time, explode], include_partial_messages=True
    ) as session:
        messages = await turn(session, "Everything about Rome")
    assert calls(messages) == [
        ("get_weather", {"city": "Rome", "days": 2}),
        ("get_time", {"city": "Rome"}),
        ("explode", {"why": "test"}),
    ]
    assert results(messages) == [
        ('{"city":"Rome","days":2,"sky":"sunny"}', False),
        ("noon in Rome", False),
        ("ValueError: no good: test", True),
    ]
    assert result_of(messages).result == "Done."


@pytest.mark.letta_cassette("parallel_off", shared=True)
async def test_only_the_call_the_server_kept_is_run(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    """With parallel calls off the stream shows two calls, and one of them does not exist."""
    letta_cassette.script(
        Reply(
            tool_calls=[
                ToolUse("get_time", {"city": "Oslo"}),
                ToolUse("get_time", {"city": "Rome"}),
            ]
        ),
        Reply(text="Done."),
    )
    async with client.create_session(
        agent, tools=[get_time], include_partial_messages=True
    ) as session:
        messages = await turn(session, "What time is it?")
    assert calls(messages) == [("get_time", {"city": "Oslo"})]
    assert results(messages) == [("noon in Oslo", False)]
    assert result_of(messages).result == "Done."


@pytest.mark.letta_cassette("tool_error", shared=True)
async def test_bad_arguments_and_exceptions_are_shown_to_the_model(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(
        Reply(tool_calls=[ToolUse("get_weather", '{"city": ')]),
        Reply(tool_calls=[ToolUse("get_weather", {"days": 3})]),
        Reply(tool_calls=[ToolUse("explode", {"why": "again"})]),
        Reply(text="I give up."),
    )
    async with client.create_session(agent, tools=[get_weather, explode]) as session:
        messages = await turn(session, "Try")
        page = await session.list_messages()
    texts = results(messages)
    assert [is_error for _, is_error in texts] == [True, True, True]
    assert texts[0][0].startswith("Invalid arguments for get_weather")
    assert "city" in texts[1][0]
    assert texts[2][0] == "ValueError: no good: again"
    assert result_of(messages).result == "I give up."
    stored = [m for m in page.messages if m["message_type"] == "tool_return_message"]
    assert [m["status"] for m in stored] == ["error"] * 3


@pytest.mark.letta_cassette("permission", shared=True)
async def test_the_callback_allows_edits_and_denies(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(
        Reply(tool_calls=[ToolUse("get_time", {"city": "Paris"})]),
        Reply(tool_calls=[ToolUse("get_time", {"city": "Moscow"})]),
        Reply(tool_calls=[ToolUse("get_time", {"city": "Rome"})]),
        Reply(text="Enough."),
    )
    asked = []

    def can_use_tool(name: str, tool_input: dict[str, Any], context: Any) -> Any:
        asked.append((name, tool_input["city"], context.client_tool, context.agent_id == agent))
        if tool_input["city"] == "Moscow":
            return Deny("not there")
        return Allow({"city": "Milan"}) if tool_input["city"] == "Rome" else True

    async with client.create_session(agent, tools=[get_time], can_use_tool=can_use_tool) as session:
        messages = await turn(session, "What time is it?")
    assert asked == [("get_time", city, True, True) for city in ("Paris", "Moscow", "Rome")]
    assert results(messages) == [
        ("noon in Paris", False),
        ("Error: request to call tool denied. User reason: not there", True),
        ("noon in Milan", False),
    ]
    assert result_of(messages).success


@pytest.mark.letta_cassette("server_tool", shared=True)
async def test_a_server_tool_shows_its_call_and_its_result(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    await attach(client, agent, asks=False)
    letta_cassette.script(
        Reply(tool_calls=[ToolUse("multiply", {"a": 6, "b": 7})]), Reply(text="42.")
    )
    async with client.create_session(agent, include_partial_messages=True) as session:
        messages = await turn(session, "6 times 7?")
        with pytest.raises(UnsupportedOptionError, match="multiply"):
            await client.create_session(agent, can_use_tool=lambda *_: True).initialize()
    assert [t for t in types(messages) if t != "stream_event"] == [
        "init",
        "tool_call",
        "tool_result",
        "assistant",
        "result",
    ]
    (call,) = [m for m in messages if isinstance(m, ToolCallMessage)]
    (returned,) = [m for m in messages if isinstance(m, ToolResultMessage)]
    assert not call.requires_approval
    assert (returned.content, returned.tool_name, returned.is_error) == ("42", "multiply", False)
    assert returned.stdout == ("multiplying\n",)
    assert returned.tool_call_id == call.tool_call_id
    assert messages[0].tools == ("multiply",)  # type: ignore[union-attr]


@pytest.mark.letta_cassette("server_tool_approval", shared=True)
async def test_a_server_tool_that_asks_is_approved_denied_or_denied_for_want_of_a_callback(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    await attach(client, agent, asks=True)
    use = ToolUse("multiply", {"a": 6, "b": 7})
    letta_cassette.script(
        Reply(tool_calls=[use]),
        Reply(text="42."),
        Reply(tool_calls=[use]),
        Reply(text="Then not."),
        Reply(tool_calls=[use]),
        Reply(text="Pity."),
        Reply(tool_calls=[use]),
    )
    answers: list[Any] = [Allow(), Deny("no sums today"), Allow({"a": 1, "b": 1})]

    async def can_use_tool(name: str, tool_input: dict[str, Any], context: Any) -> Any:
        assert (name, tool_input, context.client_tool) == ("multiply", {"a": 6, "b": 7}, False)
        return answers.pop(0)

    async with client.create_session(agent, can_use_tool=can_use_tool) as session:
        approved = await turn(session, "6 times 7?")
        denied = await turn(session, "Again?")
    assert results(approved) == [("42", False)]
    assert result_of(approved).result == "42."
    assert results(denied) == [
        ("Error: request to call tool denied. User reason: no sums today", True)
    ]
    assert result_of(denied).result == "Then not."
    async with client.resume_session(
        agent_id=agent, conversation_id=session.conversation_id
    ) as session:
        nobody = await turn(session, "And now?")
    assert result_of(nobody).result == "Pity."
    assert [is_error for _, is_error in results(nobody)] == [True]
    # The API cannot run it with another input: said, not ignored, and nothing is left waiting.
    async with client.resume_session(session.conversation_id, can_use_tool=can_use_tool) as session:
        edited = await turn(session, "Once more?")
        assert not (await session.bootstrap_state()).has_pending_approval
    assert types(edited)[-2:] == ["error", "result"]
    assert result_of(edited).error_code == "unsupported_option"


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
