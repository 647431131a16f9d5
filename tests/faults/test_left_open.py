"""A call of an adapter that meets a question somebody else has not answered yet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from letta_adapters import Allow, Deny, LettaClient, PendingApprovalError, Postpone, tool
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.llama_index import LettaLLM
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

OPEN = {"tool_call_id": "call_1", "tool_name": "launch"}


@tool
def launch(where: str) -> str:
    """Launch a rocket.

    Args:
        where: The place.
    """
    raise AssertionError("nobody has allowed it")


@pytest.fixture
def letta() -> FakeLetta:
    use = ToolUse("launch", {"where": "here"}, id="call_1")
    return FakeLetta(Reply(tool_calls=[use]), "Hello.", "Hello again.")


@pytest.fixture
def client(letta: FakeLetta) -> Iterator[LettaClient]:
    """Yield a client of an agent whose conversation waits for an answer."""
    with letta.client() as client:
        yield client


def leave_open(client: LettaClient) -> dict[str, str]:
    agent = client.create_agent(name="left")
    conversation = client.conversations.create(agent)["id"]
    later = client.resume_session(conversation, tools=[launch], can_use_tool=lambda *_: Postpone())
    with later as session:
        assert session.run_turn("Launch it.").error_code == "detached"
    return {"agent_id": agent, "conversation_id": conversation}


def find_answer(letta: FakeLetta) -> dict[str, Any]:
    """What was sent for the call, which is answered once."""
    (answers,) = [
        m["approvals"]
        for request in letta.requests
        for m in request.get("messages", [])
        if m.get("type") == "approval"
    ]
    (answer,) = answers
    assert answer["tool_call_id"] == "call_1"
    return dict(answer)


def by_model(client: LettaClient, place: dict[str, str]) -> tuple[str, Any]:
    answer = ChatLetta(client=client, **place).invoke("Hi.")
    return answer.text, answer.response_metadata


def by_runnable(client: LettaClient, place: dict[str, str]) -> tuple[str, Any]:
    answer = LettaRunnable(client=client, output="message", **place).invoke("Hi.")
    return answer.text, answer.response_metadata


def by_llm(client: LettaClient, place: dict[str, str]) -> tuple[str, Any]:
    answer = LettaLLM(client=client, **place).complete("Hi.")
    return answer.text, answer.raw


@pytest.mark.parametrize("ask", [by_model, by_runnable, by_llm])
def test_an_open_question_is_ended_without_the_users_name_and_named(
    letta: FakeLetta, client: LettaClient, ask: Any
) -> None:
    place = leave_open(client)
    text, metadata = ask(client, place)
    assert text == "Hello."
    assert metadata["recovered"] == [{**OPEN, "asked": False, "allowed": False}]
    answer = find_answer(letta)
    # The result of a tool that failed: a denial is told to the agent as "User reason: ...".
    assert (answer["type"], answer["status"]) == ("tool", "error")
    assert "has not refused it" in json.dumps(answer)


# -- where somebody can be asked ----------------------------------------------------------------


def invoke(agent: LettaRunnable) -> Any:
    return agent.invoke("Hi.")


def ainvoke(agent: LettaRunnable) -> Any:
    return asyncio.run(agent.ainvoke("Hi."))


def stream(agent: LettaRunnable) -> Any:
    return list(agent.stream("Hi."))[-1]


def astream(agent: LettaRunnable) -> Any:
    async def run() -> Any:
        return [item async for item in agent.astream("Hi.")][-1]

    return asyncio.run(run())


def stream_events(agent: LettaRunnable) -> Any:
    return agent.stream_events("Hi.", version="v3").output


FACES = [invoke, ainvoke, stream, astream, stream_events]


class Decision:
    """A permission callback, and what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def __call__(self, name: str, tool_input: dict[str, Any], context: Any) -> Any:
        place = (context.agent_id, context.conversation_id)
        self.asked.append((name, tool_input, context.client_tool, context.recovered, place))
        return self.answer


@pytest.mark.parametrize("face", FACES)
def test_a_call_of_yours_is_asked_about_again_and_runs_once(
    letta: FakeLetta, client: LettaClient, face: Any
) -> None:
    place, ran = leave_open(client), []

    def launch(where: str) -> str:
        """Launch it."""
        ran.append(where)
        return "launched"

    decide = Decision(Allow())
    agent = LettaRunnable(client=client, tools=[launch], can_use_tool=decide, **place)
    answer = face(agent)["messages"][-1]
    assert answer.text == "Hello."
    where = (place["agent_id"], place["conversation_id"])
    assert decide.asked == [("launch", {"where": "here"}, True, True, where)]
    assert ran == ["here"]
    assert answer.response_metadata["recovered"] == [{**OPEN, "asked": True, "allowed": True}]
    told = find_answer(letta)
    assert (told["type"], told["status"], told["tool_return"]) == ("tool", "success", "launched")
    # Nothing of it is said twice, and a later call meets nothing.
    assert letta.said == ["Launch it.", "Hi."]
    assert "recovered" not in face(agent)["messages"][-1].response_metadata


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("answer", [True, Deny("Not that.")])
def test_a_tool_of_the_agents_own_is_asked_about_again(
    letta: FakeLetta, client: LettaClient, face: Any, answer: Any
) -> None:
    place = leave_open(client)
    rule = {"type": "requires_approval", "tool_name": "launch"}
    letta._agents[place["agent_id"]] |= {"tools": [{"name": "launch"}], "tool_rules": [rule]}
    decide = Decision(answer)
    agent = LettaRunnable(client=client, can_use_tool=decide, **place)
    metadata = face(agent)["messages"][-1].response_metadata
    assert [asked[2:4] for asked in decide.asked] == [(False, True)]
    told = find_answer(letta)
    allowed = answer is True
    assert (told["type"], told["approve"]) == ("approval", allowed)
    assert told.get("reason") == (None if allowed else "Not that.")
    assert metadata["recovered"] == [{**OPEN, "asked": True, "allowed": allowed}]


def test_a_call_whose_tool_is_gone_is_ended(letta: FakeLetta, client: LettaClient) -> None:
    place, decide = leave_open(client), Decision(True)
    LettaRunnable(client=client, can_use_tool=decide, **place).invoke("Hi.")
    assert decide.asked == []
    assert "its tool is not here any more" in find_answer(letta)["tool_return"]


@pytest.mark.parametrize("face", FACES)
def test_a_question_that_is_postponed_again_blocks_the_message(
    letta: FakeLetta, client: LettaClient, face: Any
) -> None:
    place = leave_open(client)
    fields: Any = {"client": client, "tools": [launch_of_langchain], **place}
    with pytest.raises(PendingApprovalError, match=r"launch \(call_1\)") as caught:
        face(LettaRunnable(can_use_tool=lambda *_: Postpone(), **fields))
    assert caught.value.tool_call_ids == ("call_1",)
    assert letta.said == ["Launch it."]
    # It waits still.
    decide = Decision(False)
    face(LettaRunnable(can_use_tool=decide, **fields))
    assert len(decide.asked) == 1


def launch_of_langchain(where: str) -> str:
    """Launch it."""
    raise AssertionError("nobody has allowed it")


launch_of_langchain.__name__ = "launch"


def test_a_call_that_meets_no_open_question_names_none(client: LettaClient) -> None:
    agent = client.create_agent(name="free")
    assert (
        "recovered" not in ChatLetta(client=client, agent_id=agent).invoke("Hi.").response_metadata
    )
