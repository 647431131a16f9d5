"""``Deny(interrupt=True)`` ends the run of an adapter, as it ends the turn of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from letta_adapters import Allow, Deny, LettaClient, Postpone, TurnCancelledError
from letta_adapters.langchain import ChatLetta, LettaRunnable, decide
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

RAN: list[str] = []


def launch(where: str) -> str:
    """Launch a rocket."""
    RAN.append(where)
    return "launched"


@pytest.fixture
def letta() -> FakeLetta:
    RAN.clear()
    uses = [ToolUse("launch", {"where": w}, id=f"call_{w}") for w in ("here", "there")]
    return FakeLetta(Reply(tool_calls=uses), "Done.")


@pytest.fixture
def client(letta: FakeLetta) -> Iterator[LettaClient]:
    with letta.client() as client:
        yield client


@pytest.fixture
def place(client: LettaClient) -> dict[str, str]:
    agent = client.create_agent(name="a")
    return {"agent_id": agent, "conversation_id": client.conversations.create(agent)["id"]}


def answers(letta: FakeLetta) -> list[Any]:
    sent = [m for request in letta.requests for m in request.get("messages", [])]
    return [a for m in sent if m.get("type") == "approval" for a in m["approvals"]]


def stop_there(name: str, tool_input: dict[str, Any], context: Any) -> Any:
    return Deny("Stop it.", interrupt=True) if tool_input["where"] == "there" else Allow()


async def astop_there(name: str, tool_input: dict[str, Any], context: Any) -> Any:
    return stop_there(name, tool_input, context)


async def astream(agent: LettaRunnable) -> Any:
    return [item async for item in agent.astream("Go.")]


FACES: Any = {
    "invoke": lambda agent: agent.invoke("Go."),
    "stream": lambda agent: list(agent.stream("Go.")),
    "ainvoke": lambda agent: asyncio.run(agent.ainvoke("Go.")),
    "astream": lambda agent: asyncio.run(astream(agent)),
}


def check_end(letta: FakeLetta, client: LettaClient, where: str) -> None:
    """The turn is over, nothing ran, and the conversation is free."""
    assert RAN == []
    here, there = answers(letta)
    assert (there["tool_call_id"], there.get("reason") or there["tool_return"]) == (
        "call_there",
        "Stop it.",
    )
    assert here["tool_call_id"] == "call_here"
    assert "The user has not refused it" in here["tool_return"]
    with client.resume_session(where) as session:
        assert session.pending_approvals() == ()
    # The model was not asked again.
    assert letta.said == ["Go."]


@pytest.mark.parametrize("face", list(FACES))
@pytest.mark.parametrize("ask", [stop_there, astop_there])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("max_rounds", [1, 25])
def test_the_run_ends_before_anything_runs(
    letta: FakeLetta,
    client: LettaClient,
    place: dict[str, str],
    face: str,
    ask: Any,
    own: bool,
    max_rounds: int,
) -> None:
    fields: Any = {"client": client, "tools": [launch] if own else [], "max_rounds": max_rounds}
    agent = LettaRunnable(can_use_tool=ask, **fields, **place)
    with pytest.raises(TurnCancelledError, match="Stop it") as caught:
        FACES[face](agent)
    assert caught.value.code == "cancelled"
    assert isinstance(caught.value, ModelError)
    check_end(letta, client, place["conversation_id"])
    letta.script("Again.")
    assert FACES["invoke"](agent)["messages"][-1].text


@pytest.mark.parametrize("face", list(FACES))
@pytest.mark.parametrize("answer", [Deny(interrupt=True), Deny("Late.", interrupt=True)])
def test_so_does_the_answer_that_stands_for_a_silence(
    letta: FakeLetta, client: LettaClient, place: dict[str, str], face: str, answer: Deny
) -> None:
    async def forever(*_: Any) -> bool:
        await asyncio.Event().wait()
        return True

    limit: Any = {"ask_timeout": 0.05, "ask_timeout_answer": answer}
    agent = LettaRunnable(client=client, tools=[launch], can_use_tool=forever, **limit, **place)
    with pytest.raises(TurnCancelledError):
        FACES[face](agent)
    assert RAN == []
    assert letta.said == ["Go."]
    assert [a["tool_call_id"] for a in answers(letta)] == ["call_here", "call_there"]


@pytest.mark.parametrize("face", list(FACES))
def test_a_call_that_was_left_open_is_ended_and_nothing_is_sent(
    letta: FakeLetta, client: LettaClient, place: dict[str, str], face: str
) -> None:
    with client.resume_session(
        place["conversation_id"], tools=[launch], can_use_tool=lambda *_: Postpone()
    ) as session:
        assert session.run_turn("Go.").error_code == "detached"
    agent = LettaRunnable(client=client, tools=[launch], can_use_tool=stop_there, **place)
    with pytest.raises(TurnCancelledError, match="Stop it") as caught:
        FACES[face](agent)
    assert caught.value.accepted is False
    check_end(letta, client, place["conversation_id"])


@pytest.mark.parametrize("own", [True, False])
def test_a_decision_in_a_history_ends_the_turn_too(
    letta: FakeLetta, client: LettaClient, place: dict[str, str], own: bool
) -> None:
    model: Any = ChatLetta(client=client, **place)
    if own:
        model = model.bind_tools([launch])
    history: list[Any] = [HumanMessage("Go.")]
    answer = model.invoke(history)
    history += [answer, decide(answer.tool_calls[1], Deny("Stop it.", interrupt=True))]
    for _ in range(2):  # however often it is called
        with pytest.raises(TurnCancelledError, match="Stop it"):
            model.invoke(history)
        check_end(letta, client, place["conversation_id"])
    # What is said next begins another turn.
    letta.script(Reply("Sorry.", when="And now?"))
    assert model.invoke([*history, HumanMessage("And now?")]).text
    assert len(answers(letta)) == 2  # the calls do not wait any more


def test_nothing_that_was_allowed_beside_it_runs(
    letta: FakeLetta, client: LettaClient, place: dict[str, str]
) -> None:
    model = ChatLetta(client=client, **place)
    history: list[Any] = [HumanMessage("Go."), model.invoke("Go.")]
    here, there = history[1].tool_calls
    history += [decide(here, True), decide(there, Deny("Stop it.", interrupt=True))]
    with pytest.raises(TurnCancelledError):
        model.invoke(history)
    check_end(letta, client, place["conversation_id"])


def test_a_person_behind_a_graph_ends_its_run(
    letta: FakeLetta, client: LettaClient, place: dict[str, str]
) -> None:
    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", LettaRunnable(client=client, **place))
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "one"}}
    graph.invoke({"messages": "Go."}, config)
    graph.invoke(Command(resume=True), config)
    denial = {"behavior": "deny", "message": "Stop it.", "interrupt": True}
    with pytest.raises(TurnCancelledError, match="Stop it"):
        graph.invoke(Command(resume=denial), config)
    check_end(letta, client, place["conversation_id"])


def test_with_a_message_behind_it_such_a_decision_is_an_answer(
    letta: FakeLetta, client: LettaClient, place: dict[str, str]
) -> None:
    """The calls wait still, and are answered with the message."""
    model = ChatLetta(client=client, **place)
    history: list[Any] = [HumanMessage("Go."), model.invoke("Go.")]
    history += [decide(call, Deny("Stop.", interrupt=True)) for call in history[1].tool_calls]
    letta.script(Reply("Sorry.", when="And now?"))
    assert model.invoke([*history, HumanMessage("And now?")]).text
    assert [a["reason"] for a in answers(letta)] == ["Stop.", "Stop."]
