"""Calls that outlive the session that met them, and questions that nobody answers in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta_adapters import (
    Allow,
    Deny,
    Postpone,
    ToolResultMessage,
    UnsupportedOptionError,
    WrongToolCallsError,
)
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.behaviour._say import result_of, results, turn
from tests.behaviour._world import World


@pytest.mark.behaviour("answered_elsewhere")
async def test_a_question_is_postponed_and_answered_by_another_client(
    client: Any, agent: str, world: World
) -> None:
    tool = await world.server_tool(client, agent, asks=True)
    durable = world.capabilities.durable_pending_calls
    world.script(Reply(tool_calls=[tool.use]), *([Reply(text="It is 42.")] if durable else []))
    async with client.create_session(agent, can_use_tool=lambda *_: Postpone()) as session:
        left = result_of(await turn(session, "6 times 7?"))
    where = {"agent_id": agent, "conversation_id": session.conversation_id}
    async with world.client().resume_session(**where) as other:
        waiting = await other.pending_approvals()
        if not durable:
            assert (left.success, left.error_code) == (False, "unsupported_option")
            assert waiting == ()
            for refused in (other.detach(), other.respond({"call_1": Allow()})):
                with pytest.raises(UnsupportedOptionError, match="interrupts") as caught:
                    await refused
                assert caught.value.supported_by == ("rest",)
            return
        assert (left.success, left.error_code) == (False, "detached")
        (call,) = waiting
        assert (call.tool_name, call.tool_input) == (tool.use.name, tool.use.arguments)
        assert str(call.message_id).startswith("message-")
        assert str(call.run_id).startswith("run-")
        with pytest.raises(WrongToolCallsError) as wrong:
            await other.respond({"call_of_another": Allow()})
        assert wrong.value.missing == (call.tool_call_id,)
        await other.respond({call.tool_call_id: Allow()})
        answered = [message async for message in other.stream()]
        assert results(answered) == [(tool.returns, False)]
        (returned,) = [m for m in answered if isinstance(m, ToolResultMessage)]
        assert returned.tool_name == tool.use.name
        assert result_of(answered).result == "It is 42."
        assert await other.pending_approvals() == ()


@pytest.mark.behaviour("left_by_closing")
async def test_closing_speaks_for_nobody_and_the_next_turn_asks_again(
    client: Any, agent: str, world: World
) -> None:
    durable = world.capabilities.durable_pending_calls
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    asked: list[tuple[str, bool]] = []

    async def remind(what: str) -> str:
        """Remind the user."""
        loop.call_soon_threadsafe(begun.set)
        await asyncio.sleep(0 if asked else 60)
        return f"reminded of {what}"

    def can_use_tool(name: str, tool_input: Any, context: Any) -> bool:
        asked.append((name, context.recovered))
        return True

    world.script(Reply(tool_calls=[ToolUse("remind", {"what": "tea"})]))
    async with client.create_session(agent, tools=[remind]) as session:
        await session.initialize()
        reading = asyncio.ensure_future(session.run_turn("Remind me of my tea."))
        await asyncio.wait_for(begun.wait(), 10)
    assert (await reading).error_code == "cancelled"
    where = {"agent_id": agent, "conversation_id": session.conversation_id}
    world.script(Reply(text="It is done."))
    async with world.client().resume_session(
        **where, tools=[remind], can_use_tool=can_use_tool
    ) as other:
        result = await other.run_turn("And?")
        page = await other.list_messages()
    assert result.result == "It is done."
    assert asked == ([("remind", True)] if durable else [])
    assert [(r.call.tool_name, r.asked, r.allowed) for r in result.recovered] == (
        [("remind", True, True)] if durable else []
    )
    assert "User reason" not in str(page.messages)


@pytest.mark.behaviour("nobody_answers")
async def test_a_question_that_nobody_answers_gets_the_chosen_answer(
    client: Any, agent: str, world: World
) -> None:
    ran: list[str] = []

    async def remind(what: str) -> str:
        """Remind the user."""
        ran.append(what)
        return "reminded"

    async def never(*_: Any) -> bool:
        await asyncio.sleep(60)
        return False

    world.script(
        Reply(tool_calls=[ToolUse("remind", {"what": "tea"})]),
        Reply(text="Then not."),
    )
    async with client.create_session(
        agent,
        tools=[remind],
        can_use_tool=never,
        ask_timeout=0.2,
        ask_timeout_answer=Deny("Ask again tomorrow."),
    ) as session:
        messages = await turn(session, "Remind me of my tea.")
    ((text, is_error),) = results(messages)
    assert (text.endswith("Ask again tomorrow."), is_error) == (True, True)
    assert result_of(messages).result == "Then not."
    assert ran == []
