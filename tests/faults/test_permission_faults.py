"""Permission callbacks that go wrong, and what the Letta API cannot ask about or edit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import Allow, Deny, Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    InvalidInputError,
    LettaError,
    TurnCancelledError,
    UnsupportedOptionError,
)
from letta_adapters.tools.client_side import tool
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._tools import answers, get_weather, read
from tests.faults._wire import asks, echo
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


async def ask(server: Server, client: Any, can_use_tool: Any, **options: Any) -> list[Any]:
    server.script(asks(ev.call()))
    session = resume(client, can_use_tool=can_use_tool, recovery_attempts=0, **options)
    return await read(session)


async def test_a_callback_that_raises_allows_nothing(
    server: Server, rest: MakeRest, face: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    def acts(city: str) -> str:
        ran.append(city)
        return "done"

    def can_use_tool(name: str, tool_input: Any, context: Any) -> bool:
        raise RuntimeError("the dialog crashed")

    async with face(rest()) as client:
        messages = await ask(server, client, can_use_tool, tools=[tool(acts, name="get_weather")])
    assert messages[-1].success
    assert ran == []
    # Nobody has refused it: a denial is told to the agent as the user's.
    assert (answers(server)[0]["type"], answers(server)[0]["status"]) == ("tool", "error")
    assert "the dialog crashed" in answers(server)[0]["tool_return"]
    assert "Traceback" not in str(answers(server))
    (result,) = [m for m in messages if m.type == "tool_result"]
    assert 'raise RuntimeError("the dialog crashed")' in result.traceback
    assert 'raise RuntimeError("the dialog crashed")' in caplog.text


@pytest.mark.parametrize("value", [None, "yes", 1, {"behavior": "maybe"}, {}, {"allow": True}])
async def test_an_unclear_answer_allows_nothing(
    server: Server, client: AsyncLettaClient, value: Any
) -> None:
    messages = await ask(server, client, lambda *_: value, tools=[get_weather])
    assert messages[-1].success
    assert "permission callback failed" in answers(server)[0]["tool_return"]


async def test_without_a_callback_server_tools_do_not_run_and_nobody_has_refused_them(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(asks(ev.call("danger", arguments="{}")))
    messages = await read(resume(client))
    assert messages[-1].success
    assert (answers(server)[0]["type"], answers(server)[0]["status"]) == ("tool", "error")
    assert "the user has not refused it" in answers(server)[0]["tool_return"]


async def test_allowing_a_server_tool(server: Server, client: AsyncLettaClient) -> None:
    messages = await ask(server, client, lambda *_: Allow({"city": "Paris"}))
    assert messages[-1].success
    assert answers(server) == [{"type": "approval", "tool_call_id": "call_1", "approve": True}]


async def test_editing_the_input_of_a_server_tool_is_a_typed_error(
    server: Server, rest: MakeRest, face: Any
) -> None:
    """What REST cannot edit is not passed over in silence: the tool does not run at all."""
    async with face(rest()) as client:
        messages = await ask(server, client, lambda *_: Allow({"city": "Rome"}))
        assert [m.type for m in messages][-2:] == ["error", "result"]
        assert messages[-1].error_code == "unsupported_option"
        assert "updated_input" in messages[-1].error_detail
        with pytest.raises(LettaError) as caught:
            messages[-1].raise_for_status()
        assert caught.value.code == "unsupported_option"
        assert server.pending() == []
        # The user has allowed it, in another form: that is no refusal.
        assert [(a["type"], a["status"]) for a in answers(server)] == [("tool", "error")]
        assert (await resume(client).run_turn("again")).success


async def test_editing_the_input_of_a_client_tool(server: Server, client: AsyncLettaClient) -> None:
    await ask(server, client, lambda *_: Allow({"city": "Rome"}), tools=[get_weather])
    assert answers(server)[0]["tool_return"] == "sunny in Rome"


async def test_deny_with_interrupt_ends_the_turn(server: Server, rest: MakeRest, face: Any) -> None:
    async with face(rest()) as client:
        messages = await ask(
            server, client, lambda *_: Deny("stop it", interrupt=True), tools=[get_weather]
        )
        assert [m.type for m in messages][-2:] == ["error", "result"]
        assert messages[-1].error_code == "cancelled"
        assert "stop it" in messages[-1].error_detail
        with pytest.raises(TurnCancelledError):
            messages[-1].raise_for_status()
        assert server.pending() == []
        assert server.sent()[1].body["max_steps"] == 1
        assert answers(server)[0]["reason"] == "stop it"
        assert (await resume(client).run_turn("again")).success


async def test_deny_lets_the_agent_go_on(server: Server, client: AsyncLettaClient) -> None:
    messages = await ask(server, client, lambda *_: Deny("not today"), tools=[get_weather])
    assert messages[-1].success
    assert answers(server)[0] == {
        "type": "approval",
        "tool_call_id": "call_1",
        "approve": False,
        "reason": "not today",
    }
    result = next(m for m in messages if m.type == "tool_result")
    assert result.is_error and "not today" in result.content


async def test_a_callback_that_hangs_meets_the_turn_limit(
    server: Server, rest: MakeRest, face: Any
) -> None:
    never = threading.Event()

    def can_use_tool(*_: Any) -> bool:
        never.wait()
        return True

    async with face(rest()) as client:
        messages = await ask(server, client, can_use_tool, tools=[get_weather], turn_timeout=0.2)
        assert messages[-1].error_code == "timeout_after_acceptance"
        assert server.pending() == []
    never.set()


async def test_can_use_tool_is_refused_where_the_server_would_not_ask(
    server: Server, rest: MakeRest, face: Any
) -> None:
    """What REST cannot ask about is a typed error before anything is sent."""
    agent = server.agents[ev.AGENT]
    agent["tools"] = [{"name": "run_shell", "tool_type": "custom"}]
    async with face(rest()) as client:
        session = resume(client, can_use_tool=lambda *_: True)
        with pytest.raises(UnsupportedOptionError) as caught:
            await session.send("hello")
        assert "run_shell" in str(caught.value)
        assert caught.value.supported_by == ("local", "remote")
        assert server.sent() == []
        agent["tool_rules"] = [{"type": "requires_approval", "tool_name": "run_shell"}]
        assert (await session.run_turn("hello")).success


async def test_tools_a_session_cannot_run_are_refused(client: AsyncLettaClient) -> None:
    declared = {"name": "x", "description": "y", "parameters": {"type": "object"}}
    with pytest.raises(InvalidInputError, match="has no function to run"):
        resume(client, tools=[declared])


async def test_a_held_turn_can_still_be_read_by_the_tool(
    server: Server, rest: MakeRest, face: Any
) -> None:
    """A tool may look at the conversation it runs in."""
    found: list[int] = []

    async def looks() -> str:
        found.append(len((await session.list_messages()).raw))
        return "looked"

    server.script(asks(ev.call("looks", arguments="{}")), echo)
    async with face(rest()) as client:
        session = resume(client, tools=[looks])
        assert (await session.run_turn("hello")).success
    assert found == [3]
