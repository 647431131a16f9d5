"""A person behind a ``LettaAgent``: calls that were left open, and a limit for every question."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.workflow import Context, JsonSerializer

from letta_adapters import Deny, InvalidInputError, LettaClient, Postpone, TurnCancelledError
from letta_adapters.llama_index import ApprovalRequiredEvent, ApprovalResponseEvent, LettaAgent
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

OPEN = {"tool_call_id": "call_1", "tool_name": "launch"}


def launch_call(id: str = "call_1") -> Reply:
    return Reply(tool_calls=[ToolUse("launch", {"n": 1}, id=id)])


def answers(letta: FakeLetta) -> list[Any]:
    sent = [m for request in letta.requests for m in request.get("messages", [])]
    return [a for m in sent if m.get("type") == "approval" for a in m["approvals"]]


def leave_open(letta: FakeLetta, client: LettaClient, *, of_the_agents: bool) -> dict[str, str]:
    """Return the place of a conversation in which a call waits."""
    letta.script(launch_call())
    agent = client.create_agent(name="left")
    conversation = client.conversations.create(agent)["id"]
    place = {"agent_id": agent, "conversation_id": conversation}
    with client.resume_session(conversation, can_use_tool=lambda *_: Postpone()) as session:
        assert session.run_turn("Launch it.").error_code == "detached"
    if of_the_agents:
        letta._agents[agent]["tools"] = [{"name": "launch"}]
    return place


async def run(agent: LettaAgent, ctx: Context | None, approve: bool) -> tuple[Any, list[Any]]:
    handler = agent.run("Hi.", ctx=ctx)
    events = []
    async for event in handler.stream_events():
        events.append(event)
        if isinstance(event, ApprovalRequiredEvent):
            answer = ApprovalResponseEvent(tool_id=event.tool_id, approve=approve, reason="No.")
            handler.ctx.send_event(answer)
    return await handler, events


def questions(events: list[Any]) -> list[Any]:
    asked = [event for event in events if isinstance(event, ApprovalRequiredEvent)]
    return [(event.tool_name, event.tool_kwargs, event.recovered) for event in asked]


@pytest.mark.parametrize("approve", [True, False])
async def test_a_tool_of_the_agents_own_that_was_left_open_is_asked_about(
    letta_fake: FakeLetta, approve: bool
) -> None:
    client = letta_fake.client()
    place = leave_open(letta_fake, client, of_the_agents=True)
    letta_fake.script("Hello.", "Again.")
    agent = LettaAgent(client=client, **place)
    ctx = Context(agent)
    response, events = await run(agent, ctx, approve)
    assert response.response.content == "Hello."
    assert questions(events) == [("launch", {"n": 1}, True)]
    (told,) = answers(letta_fake)
    assert (told["type"], told["approve"]) == ("approval", approve)
    assert response.raw["recovered"] == [{**OPEN, "asked": True, "allowed": approve}]
    assert letta_fake.said == ["Launch it.", "Hi."]
    # It is over: the next run meets nothing.
    response, events = await run(agent, ctx, approve)
    assert (response.response.content, questions(events)) == ("Again.", [])


@pytest.mark.parametrize("approve", [True, False])
async def test_a_tool_of_yours_that_was_left_open_runs_once_and_only_if_allowed(
    letta_fake: FakeLetta, approve: bool
) -> None:
    client, ran = letta_fake.client(), []

    def launch(n: int) -> str:
        """Launch it."""
        ran.append(n)
        return "launched"

    place = leave_open(letta_fake, client, of_the_agents=False)
    letta_fake.script("Hello.")
    response, events = await run(LettaAgent(client=client, tools=[launch], **place), None, approve)
    assert response.response.content == "Hello."
    assert questions(events) == [("launch", {"n": 1}, True)]
    assert ran == ([1] if approve else [])
    (told,) = answers(letta_fake)
    assert told["tool_return"] == ("launched" if approve else "No.")


async def test_a_question_about_a_call_left_open_waits_in_a_stored_context(
    letta_fake: FakeLetta,
) -> None:
    client, ran = letta_fake.client(), []

    def launch(n: int) -> str:
        """Launch it."""
        ran.append(n)
        return "launched"

    place = leave_open(letta_fake, client, of_the_agents=False)
    letta_fake.script("Hello.")
    agent = LettaAgent(client=client, tools=[launch], **place)
    handler = agent.run("Hi.")
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequiredEvent):
            break
    stored = handler.ctx.to_dict(serializer=JsonSerializer())
    await handler.cancel_run()
    again = LettaAgent(client=client, tools=[launch], **place)
    ctx = Context.from_dict(again, stored, serializer=JsonSerializer())
    handler = again.run(ctx=ctx)
    handler.ctx.send_event(ApprovalResponseEvent(tool_id="call_1", approve=True))
    assert (await handler).response.content == "Hello."
    assert ran == [1]


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (True, ("approval", True, None)),
        (Deny("Ask me tomorrow."), ("approval", False, "Ask me tomorrow.")),
        (Deny(), ("tool", None, "Nobody has answered within 0.05 seconds.")),
    ],
)
async def test_a_question_that_nobody_answers_in_time(
    letta_fake: FakeLetta, answer: Any, sent: Any
) -> None:
    client = letta_fake.client()
    letta_fake.script(launch_call("a"), launch_call("b"), "Done.")
    agent = LettaAgent(
        client=client,
        agent_id=client.create_agent(name="a"),
        ask_timeout=0.05,
        ask_timeout_answer=answer,
    )
    response = await agent.run("Go.")
    assert response.response.content == "Done."
    for told in answers(letta_fake):
        text = told.get("tool_return") or told.get("reason")
        assert (told["type"], told.get("approve"), text) == sent
    assert len(answers(letta_fake)) == 2


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (Deny("Late.", interrupt=True), ("approval", "Late.")),
        (Deny(interrupt=True), ("tool", "Nobody has answered within 0.05 seconds.")),
    ],
)
async def test_an_answer_that_ends_the_turn_ends_the_run(
    letta_fake: FakeLetta, answer: Deny, sent: Any
) -> None:
    client = letta_fake.client()
    letta_fake.script(launch_call("a"), "Done.")
    limit: Any = {"ask_timeout": 0.05, "ask_timeout_answer": answer}
    agent = LettaAgent(client=client, agent_id=client.create_agent(name="a"), **limit)
    ctx = Context(agent)
    with pytest.raises(TurnCancelledError, match=sent[1]):
        await agent.run("Go.", ctx=ctx)
    (told,) = answers(letta_fake)
    assert (told["type"], told.get("tool_return") or told.get("reason")) == sent
    assert letta_fake.said == ["Go."]
    letta_fake.script("Again.")
    assert str(await agent.run("And now?", ctx=ctx))
    assert len(answers(letta_fake)) == 1


async def test_a_call_left_open_is_ended_by_such_an_answer(letta_fake: FakeLetta) -> None:
    client, ran = letta_fake.client(), []

    def launch(n: int) -> str:
        """Launch it."""
        ran.append(n)
        return "launched"

    place: Any = leave_open(letta_fake, client, of_the_agents=False)
    limit: Any = {"ask_timeout": 0.05, "ask_timeout_answer": Deny("Late.", interrupt=True)}
    agent = LettaAgent(client=client, tools=[launch], **limit, **place)
    with pytest.raises(TurnCancelledError, match="Late"):
        await agent.run("Hi.")
    assert (ran, letta_fake.said) == ([], ["Launch it."])
    assert [told["tool_call_id"] for told in answers(letta_fake)] == ["call_1"]


async def test_an_answer_in_time_counts(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    letta_fake.script(launch_call(), "Done.")
    limit: Any = {"ask_timeout": 60, "ask_timeout_answer": Deny("Late.")}
    agent = LettaAgent(client=client, agent_id=client.create_agent(name="a"), **limit)
    response, _ = await run(agent, None, True)
    assert response.response.content == "Done."
    assert [told["approve"] for told in answers(letta_fake)] == [True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ask_timeout": 1.0},
        {"ask_timeout_answer": Deny()},
        {"ask_timeout": 0, "ask_timeout_answer": Deny()},
        {"ask_timeout": 1.0, "ask_timeout_answer": "later"},
        {"ask_timeout": 1.0, "ask_timeout_answer": Postpone()},
    ],
)
def test_limits_that_have_no_meaning_are_refused(letta_fake: FakeLetta, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="ask_timeout"):
        LettaAgent(client=letta_fake.client(), **wrong)


def test_a_copy_and_a_dump_keep_the_limit(letta_fake: FakeLetta) -> None:
    limit: Any = {"ask_timeout": 5.0, "ask_timeout_answer": Deny("Late.")}
    agent = LettaAgent(client=letta_fake.client(), **limit)
    assert agent.model_copy().ask_timeout_answer == Deny("Late.")
    dump = agent.model_dump(include={"ask_timeout", "ask_timeout_answer"})
    assert LettaAgent(client=letta_fake.client(), **dump).ask_timeout_answer == Deny("Late.")
