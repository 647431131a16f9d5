"""A question that ``can_use_tool`` of a ``LettaRunnable`` leaves for later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.exceptions import ModelError

from letta_adapters import Allow, LettaClient, Postpone, TurnDetachedError, UnsupportedOptionError
from letta_adapters.langchain import LettaRunnable
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

RAN: list[str] = []


def launch(where: str) -> str:
    """Launch a rocket.

    Args:
        where: The place.
    """
    RAN.append(where)
    return "launched"


def postpone_there(name: str, tool_input: dict[str, Any], context: Any) -> Any:
    return Postpone() if tool_input["where"] == "there" else Allow()


async def apostpone_there(name: str, tool_input: dict[str, Any], context: Any) -> Any:
    return postpone_there(name, tool_input, context)


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("ask", [postpone_there, apostpone_there])
def test_a_postponed_call_waits_for_an_answer_of_a_session(colour: str, ask: Any) -> None:
    RAN.clear()
    uses = [ToolUse("launch", {"where": w}, id=f"call_{w}") for w in ("here", "there")]
    letta = FakeLetta(Reply(tool_calls=uses), "Launched.")
    with letta.client() as client:
        agent = client.create_agent(name="later")
        where = client.conversations.create(agent)["id"]
        runnable = LettaRunnable(
            client=client, conversation_id=where, tools=[launch], can_use_tool=ask
        )
        with pytest.raises(TurnDetachedError, match=f"call_there.*{where}") as raised:
            if colour == "sync":
                runnable.invoke("Launch it.")
            else:
                asyncio.run(runnable.ainvoke("Launch it."))
        assert raised.value.code == "detached"
        assert isinstance(raised.value, ModelError)
        assert RAN == []  # not the one that was allowed either: all are answered together
        answer_all(client, where)


def answer_all(client: LettaClient, where: str) -> None:
    with client.resume_session(where, tools=[launch]) as session:
        waiting = [call.tool_call_id for call in session.pending_approvals()]
        assert waiting == ["call_here", "call_there"]
        assert session.respond_turn(dict.fromkeys(waiting, Allow())).result == "Launched."
    assert sorted(RAN) == ["here", "there"]


def test_where_no_call_can_wait_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    use = ToolUse("launch", {"where": "there"}, id="call_1")
    with FakeLetta(Reply(tool_calls=[use])).client() as client:
        agent = client.create_agent(name="now")
        runnable = LettaRunnable(
            client=client, agent_id=agent, tools=[launch], can_use_tool=postpone_there
        )
        # The fake server stands for a Letta Code here, of which only the name matters.
        monkeypatch.setattr(type(runnable.model._runner.clients), "backend_name", "local")
        with pytest.raises(UnsupportedOptionError, match="rest") as raised:
            runnable.invoke("Launch it.")
    assert isinstance(raised.value, ModelError)
