"""Client-side tools, tools that the server runs, and permission for both."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from letta_adapters import (
    Allow,
    Deny,
    InvalidInputError,
    ToolCallMessage,
    ToolContext,
    ToolProgressMessage,
    ToolResultMessage,
    UnsupportedOptionError,
    tool,
)
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.behaviour._say import calls, result_of, results, turn, types
from tests.behaviour._world import World


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


@pytest.mark.behaviour("client_tool")
async def test_a_client_tool_is_run_and_answered(client: Any, agent: str, world: World) -> None:
    world.script(
        Reply(text="Let me look.", tool_calls=[ToolUse("get_weather", {"city": "Paris"})]),
        Reply(text="It is sunny in Paris."),
    )
    async with client.create_session(
        agent, tools=[get_weather], include_partial_messages=True
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
    usage = result.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.step_count) == (200, 40, 2)
    (call,) = [m for m in messages if isinstance(m, ToolCallMessage)]
    (returned,) = [m for m in messages if isinstance(m, ToolResultMessage)]
    assert call.requires_approval
    assert returned.tool_call_id == call.tool_call_id


@pytest.mark.behaviour("client_tool")
async def test_a_client_tool_reports_while_it_runs(client: Any, world: World) -> None:
    """The server has no part in it: its recording is the one of a tool that reports nothing."""
    # So the agent has the name that is in that recording.
    agent = await world.agent(client, "test test_a_client_tool_is_run_and_answered")
    read = threading.Event()

    def report_weather(city: str, context: ToolContext, days: int = 1) -> dict[str, Any]:
        """The weather of a city.

        Args:
            city: Its name.
            context: The call.
            days: How many days ahead.
        """
        context.report(f"Asking about {city} for {context.tool_call_id}", progress=1, total=2)
        assert read.wait(20), "the report was not read while the tool ran"
        return get_weather(city, days)

    world.script(
        Reply(text="Let me look.", tool_calls=[ToolUse("get_weather", {"city": "Paris"})]),
        Reply(text="It is sunny in Paris."),
    )
    seen = []
    async with client.create_session(
        agent, tools=[tool(report_weather, name="get_weather")], include_partial_messages=True
    ) as session:
        await session.send("How is the weather in Paris?")
        async for message in session.stream():
            seen.append(message)
            if isinstance(message, ToolProgressMessage):
                read.set()
    assert [t for t in types(seen) if t not in ("stream_event", "init")] == [
        "assistant",
        "tool_call",
        "tool_progress",
        "tool_result",
        "assistant",
        "result",
    ]
    (call,) = [m for m in seen if isinstance(m, ToolCallMessage)]
    (told,) = [m for m in seen if isinstance(m, ToolProgressMessage)]
    text = f"Asking about Paris for {call.tool_call_id}"
    assert told == ToolProgressMessage(call.tool_call_id, "get_weather", text, 1, 2)
    assert results(seen) == [('{"city":"Paris","days":1,"sky":"sunny"}', False)]


@pytest.mark.behaviour("parallel_tools")
async def test_parallel_calls_are_answered_together(client: Any, agent: str, world: World) -> None:
    await world.allow_parallel_calls(client, agent)
    world.script(
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
    assert sorted(results(messages)) == [
        ("ValueError: no good: test", True),
        ("noon in Rome", False),
        ('{"city":"Rome","days":2,"sky":"sunny"}', False),
    ]
    assert result_of(messages).result == "Done."


@pytest.mark.behaviour("parallel_off")
async def test_only_the_calls_the_server_kept_are_run(
    client: Any, agent: str, world: World
) -> None:
    """Where parallel calls are off the stream shows two calls, and one of them does not exist."""
    world.script(
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
    kept = ["Oslo", "Rome"] if world.capabilities.parallel_calls else ["Oslo"]
    assert calls(messages) == [("get_time", {"city": city}) for city in kept]
    assert results(messages) == [(f"noon in {city}", False) for city in kept]
    assert result_of(messages).result == "Done."


@pytest.mark.behaviour("tool_error")
async def test_bad_arguments_and_exceptions_are_shown_to_the_model(
    client: Any, agent: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.script(
        Reply(tool_calls=[ToolUse("get_weather", '{"city": ')]),
        Reply(tool_calls=[ToolUse("get_weather", {"days": 3})]),
        Reply(tool_calls=[ToolUse("get_weather", {"city": "Oslo", "days": "many"})]),
        Reply(tool_calls=[ToolUse("explode", {"why": "again"})]),
        Reply(text="I give up."),
    )
    async with client.create_session(agent, tools=[get_weather, explode]) as session:
        messages = await turn(session, "Try")
        page = await session.list_messages()
    texts = results(messages)
    assert [is_error for _, is_error in texts] == [True] * 4
    assert "get_weather" in texts[0][0]
    assert "city" in texts[1][0]
    assert texts[2][0].startswith("Invalid arguments for get_weather")
    assert "days" in texts[2][0]
    assert texts[3][0] == "ValueError: no good: again"
    # What your own code raised is for you as well, with its line; a model's mistake is not.
    shown = [m.traceback for m in messages if isinstance(m, ToolResultMessage)]
    assert shown[:3] == [None] * 3
    assert 'raise ValueError(f"no good: {why}")' in str(shown[3])
    (record,) = [r for r in caplog.records if r.name.startswith("letta_adapters")]
    assert record.levelname == "WARNING"
    assert "explode" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert result_of(messages).result == "I give up."
    stored = [m for m in page.raw if m["message_type"] == "tool_return_message"]
    # The first two calls were refused before any function was called.
    functions = "error" if world.capabilities.tool_errors_listed else "success"
    assert [m["status"] for m in stored[2:]] == ["error"] * 2
    assert [m["status"] for m in stored[:2]] == [functions] * 2


@pytest.mark.behaviour("permission")
async def test_the_callback_allows_edits_and_denies(client: Any, agent: str, world: World) -> None:
    world.script(
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
    paris, moscow, rome = results(messages)
    assert (paris, rome) == (("noon in Paris", False), ("noon in Milan", False))
    assert moscow[0].endswith("not there")
    assert moscow[1]
    assert result_of(messages).success


@pytest.mark.behaviour("server_tool")
async def test_a_server_tool_shows_its_call_and_its_result(
    client: Any, agent: str, world: World
) -> None:
    tool = await world.server_tool(client, agent, asks=False)
    world.script(Reply(tool_calls=[tool.use]), Reply(text="42."))
    options: Any = {"include_partial_messages": True, **tool.options}
    async with client.create_session(agent, **options) as session:
        messages = await turn(session, "6 times 7?")
    assert [t for t in types(messages) if t != "stream_event"] == [
        "init",
        "tool_call",
        "tool_result",
        "assistant",
        "result",
    ]
    (call,) = [m for m in messages if isinstance(m, ToolCallMessage)]
    assert calls(messages) == [(tool.use.name, tool.use.arguments)]
    assert not call.requires_approval
    assert results(messages) == [(tool.returns, False)]
    (returned,) = [m for m in messages if isinstance(m, ToolResultMessage)]
    assert returned.tool_name == tool.use.name
    assert returned.tool_call_id == call.tool_call_id
    # Letta Code loads a conversation's tools in its first turn.
    async with client.resume_session(session.conversation_id) as session:
        listed = (await session.initialize()).tools
        assert (tool.use.name in listed) is world.capabilities.tools_told
    assert result_of(messages).usage.step_count == 2


@pytest.mark.behaviour("server_tool_approval")
async def test_a_server_tool_that_asks_is_approved_or_denied(
    client: Any, agent: str, world: World
) -> None:
    tool = await world.server_tool(client, agent, asks=True)
    use = tool.use
    world.script(
        Reply(tool_calls=[use]),
        Reply(text="42."),
        Reply(tool_calls=[use]),
        Reply(text="Then not."),
        Reply(tool_calls=[use]),
        Reply(text="Pity."),
        Reply(tool_calls=[use]),
        Reply(text="Edited."),
    )
    answers: list[Any] = [Allow(), Deny("no sums today"), Allow(tool.edited)]

    async def can_use_tool(name: str, tool_input: dict[str, Any], context: Any) -> Any:
        assert (name, tool_input, context.client_tool) == (use.name, use.arguments, False)
        return answers.pop(0)

    async with client.create_session(agent, can_use_tool=can_use_tool) as session:
        approved = await turn(session, "6 times 7?")
        denied = await turn(session, "Again?")
    assert results(approved) == [(tool.returns, False)]
    assert result_of(approved).result == "42."
    (refusal,) = results(denied)
    assert (refusal[0].endswith("no sums today"), refusal[1]) == (True, True)
    assert result_of(denied).result == "Then not."
    where = {"agent_id": agent, "conversation_id": session.conversation_id}
    async with client.resume_session(**where) as session:
        nobody = await turn(session, "And now?")
    (refusal,) = results(nobody)
    assert ("the user has not refused it" in refusal[0], refusal[1]) == (True, True)
    assert "User reason" not in refusal[0]
    assert result_of(nobody).result == "Pity."
    async with client.resume_session(**where, can_use_tool=can_use_tool) as session:
        edited = await turn(session, "Once more?")
        # Said, not ignored; and nothing is left waiting.
        assert not (await session.bootstrap_state()).has_pending_approval
    if world.capabilities.editable_server_tools:
        assert results(edited) == [(tool.edited_returns, False)]
        assert result_of(edited).result == "Edited."
    else:
        assert result_of(edited).error_code == "unsupported_option"


@pytest.mark.behaviour("denied_for_good")
async def test_a_denial_can_end_the_turn(client: Any, agent: str, world: World) -> None:
    tool = await world.server_tool(client, agent, asks=True)
    world.script(Reply(tool_calls=[tool.use]))
    async with client.create_session(
        agent, can_use_tool=lambda *_: Deny("Stop.", interrupt=True)
    ) as session:
        result = await session.run_turn("6 times 7?")
        assert (result.success, result.error_code) == (False, "cancelled")
        world.script(Reply(text="Gladly."))
        assert (await session.run_turn("Something else?")).result == "Gladly."


@pytest.mark.behaviour("another_client_clears")
async def test_a_question_nobody_answers_can_be_cleared_by_another_client(
    client: Any, agent: str, world: World
) -> None:
    tool = await world.server_tool(client, agent, asks=True)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def never(*_: Any) -> bool:
        loop.call_soon_threadsafe(asked.set)
        await asyncio.sleep(60)
        return False

    world.script(Reply(tool_calls=[tool.use]))
    async with client.create_session(agent, can_use_tool=never) as waiting:
        await waiting.initialize()
        turn_of_it = asyncio.ensure_future(waiting.run_turn("go"))
        await asyncio.wait_for(asked.wait(), 10)
        async with world.client().resume_session(
            agent_id=agent, conversation_id=waiting.conversation_id
        ) as other:
            state = await other.bootstrap_state()
            assert [c.tool_name for c in state.pending] == [tool.use.name]
            recovered = await other.recover_pending_approvals()
            assert [c.tool_name for c in recovered.denied] == [tool.use.name]
            assert not (await other.bootstrap_state()).has_pending_approval
            assert not (await other.recover_pending_approvals()).recovered
            world.script(Reply(text="free"))
            assert (await other.run_turn("hello")).result == "free"
        await waiting.abort()
        assert not (await turn_of_it).success


@pytest.mark.behaviour("offered_tools")
async def test_a_session_offers_exactly_the_tools_it_names(
    client: Any, agent: str, world: World
) -> None:
    if not world.supports("offered_tools"):
        # Also an empty list, which asks for nothing elsewhere: here it would mean no tool at all.
        for names in (["get_weather"], []):
            with pytest.raises(UnsupportedOptionError, match="offered_tools"):
                session = client.create_session(agent, tools=[get_weather], offered_tools=names)
                await session.initialize()
        return
    weather, time = (
        ToolUse("get_weather", {"city": "Paris"}),
        ToolUse("get_time", {"city": "Paris"}),
    )
    world.script(Reply(tool_calls=[weather]), "Sunny.", Reply(tool_calls=[time]), "I cannot.")
    both = [get_weather, get_time]
    offered = {"tools": both, "offered_tools": ["get_weather", "Read"]}
    async with client.create_session(agent, **offered) as session:
        messages = await turn(session, "How is it?")
        assert world.tools_sent() == {"get_weather", "Read"}
        assert result_of(messages).result == "Sunny."
        # A model may make up a call of another: it is denied, and not run.
        messages = await turn(session, "And how late?")
        assert result_of(messages).result == "I cannot."
        assert "noon" not in str(messages)
        here = session.conversation_id
    world.script("None.")
    # It is the session's, and not the conversation's.
    async with client.resume_session(here, tools=both, offered_tools=[]) as session:
        assert (await session.run_turn("What can you do?")).success
        assert world.tools_sent() == set()
    with pytest.raises(InvalidInputError, match="Did you mean 'get_weather'"):
        async with client.resume_session(here, tools=both, offered_tools=["get_wether"]) as session:
            await session.run_turn("x")
