"""Interruptions: aborts, early ends, time limits, broken connections, callbacks that fail."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from letta_adapters import (
    AssistantMessage,
    InvalidInputError,
    ResultMessage,
    SessionClosedError,
    StreamEvent,
    ToolContext,
    TurnCancelledError,
)
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.behaviour._say import result_of, said, streamed_text, turn, types
from tests.behaviour._world import World


@pytest.mark.behaviour("abort", timing=True)
async def test_abort_ends_the_stream_with_a_cancelled_result(
    client: Any, agent: str, world: World
) -> None:
    # Slow enough that the server always notices the cancel at the same token.
    world.script(world.slow(9), Reply(text="Fine."))
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
        # What was said before is on the result, up to the last token that came.
        said_so_far = streamed_text(messages, "assistant")
        assert said_so_far.startswith("word ")
        assert result.partial == result.text == said_so_far
        whole = [name for name in types(messages) if name != "unknown"]
        assert whole == ["init", "stream_event", "error", "result"]
        with pytest.raises(TurnCancelledError):
            result.raise_for_status()
        assert (await session.run_turn("again")).result == "Fine."


@pytest.mark.behaviour("left_early", timing=True)
async def test_leaving_the_stream_early_stops_the_agent(
    client: Any, agent: str, world: World
) -> None:
    world.script(world.slow(9))
    async with client.create_session(agent, include_partial_messages=True) as session:
        await session.send("count")
        stream = session.stream()
        async for message in stream:
            if isinstance(message, StreamEvent):
                break
        await stream.aclose()
        page = await session.list_messages()
        world.script(Reply(text="Fine."))
        assert (await session.run_turn("again")).result == "Fine."
    # What was said of an answer that was cut is kept, or the turn leaves nothing behind.
    if world.capabilities.whole_answers_only:
        assert said(page, "user_message") == said(page, "assistant_message") == []
    else:
        assert said(page, "user_message") == ["count"]


@pytest.mark.behaviour("closed_early", timing=True)
async def test_closing_the_session_stops_the_agent(client: Any, agent: str, world: World) -> None:
    world.script(world.slow(9))
    async with client.create_session(agent, include_partial_messages=True) as session:
        await session.send("count")
    with pytest.raises(SessionClosedError):
        await session.send("more")
    world.script(Reply(text="Fine."))
    where = {"agent_id": agent, "conversation_id": session.conversation_id}
    async with client.resume_session(**where) as session:
        assert (await session.run_turn("again")).result == "Fine."


@pytest.mark.behaviour("abort_in_a_tool")
async def test_abort_while_a_client_tool_runs(client: Any, agent: str, world: World) -> None:
    running, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait_long() -> str:
        """Waits."""
        loop.call_soon_threadsafe(running.set)
        try:
            await asyncio.sleep(60)
        finally:
            loop.call_soon_threadsafe(ended.set)
        return "never"

    world.script(Reply(tool_calls=[ToolUse("wait_long", {})]))
    async with client.create_session(agent, tools=[wait_long]) as session:
        await session.initialize()
        started = asyncio.ensure_future(session.run_turn("go"))
        await asyncio.wait_for(running.wait(), 10)
        await session.abort()
        result = await asyncio.wait_for(started, 30)
        assert (result.success, result.error_code) == (False, "cancelled")
        await asyncio.wait_for(ended.wait(), 5)
        world.script(Reply(text="Fine."))
        assert (await session.run_turn("go on")).result == "Fine."


@pytest.mark.behaviour("abort_in_a_tool")
async def test_abort_between_two_reports_of_a_tool(client: Any, world: World) -> None:
    """The function cannot be stopped, and sees it; its thousands of reports hold nothing up."""
    # What the server is told is the same as in the recording, made with an agent of this name.
    agent = await world.agent(client, "test test_abort_while_a_client_tool_runs")
    ended = threading.Event()

    def wait_long(context: ToolContext) -> str:
        """Waits."""
        while not context.stopped:
            context.report("still waiting")
            ended.wait(0.0005)
        ended.set()
        return "never"

    world.script(Reply(tool_calls=[ToolUse("wait_long", {})]))
    async with client.create_session(agent, tools=[wait_long]) as session:
        await session.initialize()
        await session.send("go")
        messages = []
        async for message in session.stream():
            told = message.type == "tool_progress"
            if told and "tool_progress" not in types(messages):
                await session.abort()
            messages.append(message)
        result = result_of(messages)
        assert (result.success, result.error_code) == (False, "cancelled")
        assert await asyncio.to_thread(ended.wait, 20)
        world.script(Reply(text="Fine."))
        assert (await session.run_turn("go on")).result == "Fine."


@pytest.mark.behaviour("time_limit", timing=True)
async def test_a_time_limit_stops_the_agent(client: Any, agent: str, world: World) -> None:
    world.script(world.slow(9))
    async with client.create_session(
        agent, turn_timeout=world.limit, include_partial_messages=True
    ) as session:
        result = await session.run_turn("count")
        assert (result.success, result.error_code) == (False, "timeout_after_acceptance")
        world.script(Reply(text="Fine."))
    where = {"agent_id": agent, "conversation_id": session.conversation_id}
    async with client.resume_session(**where) as session:
        assert (await session.run_turn("again")).result == "Fine."


@pytest.mark.behaviour("callback_raises")
async def test_a_callback_that_raises_allows_nothing(client: Any, agent: str, world: World) -> None:
    def can_use_tool(*_: Any) -> bool:
        raise RuntimeError("the callback is broken")

    ran = []

    def ping() -> str:
        """Answers pong."""
        ran.append(1)
        return "pong"

    world.script(Reply(tool_calls=[ToolUse("ping", {})]), Reply(text="Then not."))
    async with client.create_session(agent, tools=[ping], can_use_tool=can_use_tool) as session:
        messages = await turn(session, "ping it")
    assert result_of(messages).result == "Then not."
    (told,) = [m for m in messages if m.type == "tool_result"]
    assert told.is_error
    assert "broken" in told.content
    assert ran == []


@pytest.mark.behaviour("callback_hangs")
async def test_a_callback_that_never_returns_meets_the_time_limit(
    client: Any, agent: str, world: World
) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def can_use_tool(*_: Any) -> bool:
        try:
            await asyncio.sleep(600)
        finally:
            loop.call_soon_threadsafe(ended.set)
        return True

    def ping() -> str:
        """Answers pong."""
        raise AssertionError("it was not allowed")

    world.script(Reply(tool_calls=[ToolUse("ping", {})]))
    options = {"tools": [ping], "can_use_tool": can_use_tool, "turn_timeout": 2.0}
    async with client.create_session(agent, **options) as session:
        result = await session.run_turn("ping it")
        assert (result.success, result.error_code) == (False, "timeout_after_acceptance")
        await asyncio.wait_for(ended.wait(), 5)
        world.script(Reply(text="Fine."))
        assert (await session.run_turn("go on")).result == "Fine."


@pytest.mark.slow
@pytest.mark.behaviour("cut", timing=True)
async def test_a_lost_connection_is_no_shorter_answer(world: World) -> None:
    client = world.wired()
    agent = await world.agent(client, "test cut")
    # The Letta API finishes a turn whose client is gone: short enough to wait for.
    world.script(world.slow(5))
    async with client.create_session(agent, include_partial_messages=True) as session:
        await session.send("count", otid=world.otid("cut"))
        messages: list[Any] = []
        async for message in session.stream():
            messages.append(message)
            if isinstance(message, StreamEvent) and len(messages) == 3:
                world.cut()
        result = messages[-1]
        assert isinstance(result, ResultMessage)
        assert (result.success, result.error_code) == (False, "stream_truncated"), result
        assert not [m for m in messages if isinstance(m, AssistantMessage)]
        assert result.input_stored is True
        world.script(Reply(text="Fine."))
        after = await session.run_turn("go on")
        if world.capabilities.usable_after_a_cut:
            assert after.result == "Fine."
            return
        assert (after.success, after.error_code, after.input_stored) == (
            False,
            "conversation_busy",
            False,
        )
        fork = await client.conversations.fork(str(session.conversation_id))
    async with client.resume_session(agent_id=agent, conversation_id=fork["id"]) as session:
        assert (await session.run_turn("go on")).result == "Fine."


@pytest.mark.behaviour("bad_input")
async def test_bad_input_is_refused_and_nothing_is_sent(
    client: Any, agent: str, world: World
) -> None:
    async with client.create_session(agent) as session:
        for wrong in ("", [], None, [42], ["text", object()]):
            with pytest.raises(InvalidInputError):
                await session.send(wrong)
        with pytest.raises(InvalidInputError):
            await session.list_messages(limit=0)
        with pytest.raises(InvalidInputError):
            await session.list_messages(before="a", after="b")
    with pytest.raises(InvalidInputError):
        client.create_session(agent, turn_timeout=0)
    with pytest.raises(InvalidInputError):
        client.resume_session("neither-nor")
