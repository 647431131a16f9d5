"""``can_use_tool`` of a ``LettaRunnable``: how long it may take, and what it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from letta_adapters import (
    Allow,
    AsyncLettaClient,
    Deny,
    InvalidInputError,
    LettaClient,
    Local,
    Postpone,
    TurnDetachedError,
    UnsupportedOptionError,
)
from letta_adapters.langchain import ChatLetta, LettaRunnable, decide
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse


@pytest.fixture
def letta() -> FakeLetta:
    return FakeLetta(Reply(tool_calls=[ToolUse("launch", {"n": 1}, id="call_1")]), "Done.")


@pytest.fixture
def client(letta: FakeLetta) -> Iterator[LettaClient]:
    with letta.client() as client:
        yield client


def launch(n: int) -> str:
    """Launch a rocket."""
    return f"launched {n}"


def invoke(agent: LettaRunnable) -> Any:
    return agent.invoke("Go.")


def ainvoke(agent: LettaRunnable) -> Any:
    return asyncio.run(agent.ainvoke("Go."))


def answers(letta: FakeLetta) -> list[Any]:
    sent = [m for request in letta.requests for m in request.get("messages", [])]
    return [a for m in sent if m.get("type") == "approval" for a in m["approvals"]]


async def forever(*_: Any) -> bool:
    await asyncio.Event().wait()
    return True


def stuck(*_: Any) -> bool:
    threading.Event().wait(20)  # much longer than its time, which a plain function cannot be told
    return True


@pytest.mark.parametrize("face", [invoke, ainvoke])
@pytest.mark.parametrize("ask", [forever, stuck])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Deny("Ask me tomorrow."), "Ask me tomorrow."),
        (Deny(), "Nobody has answered within 0.05 seconds."),
        (True, "launched 1"),
    ],
)
def test_a_callback_that_takes_too_long_is_answered_for(
    letta: FakeLetta, client: LettaClient, face: Any, ask: Any, own: bool, answer: Any, told: str
) -> None:
    tools = [launch] if own else []
    limit: Any = {"ask_timeout": 0.05, "ask_timeout_answer": answer}
    agent = LettaRunnable(client=client, tools=tools, can_use_tool=ask, output="text", **limit)
    assert face(agent) == "Done."
    (sent,) = answers(letta)
    if answer is True and not own:
        assert sent["approve"] is True
    else:
        assert (sent.get("tool_return") or sent["reason"]) == told
    # A silence is nobody's refusal.
    if not own and answer == Deny():
        assert sent["type"] == "tool"


@pytest.mark.parametrize("face", [invoke, ainvoke])
def test_a_question_that_nobody_answers_may_wait(client: LettaClient, face: Any) -> None:
    limit: Any = {"ask_timeout": 0.05, "ask_timeout_answer": Postpone()}
    agent = LettaRunnable(client=client, tools=[launch], can_use_tool=forever, **limit)
    with pytest.raises(TurnDetachedError):
        face(agent)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ask_timeout": 1.0},
        {"ask_timeout_answer": Deny()},
        {"ask_timeout": 0, "ask_timeout_answer": Deny()},
        {"ask_timeout": 1.0, "ask_timeout_answer": "later"},
        {"ask_timeout": 1.0, "ask_timeout_answer": Deny(), "can_use_tool": None},
        {"can_use_tool": lambda: True},
    ],
)
def test_limits_that_have_no_meaning_are_refused(client: LettaClient, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"ask_timeout|can_use_tool"):
        LettaRunnable(client=client, **{"can_use_tool": forever, **wrong})


def test_letta_code_postpones_nothing() -> None:
    with pytest.raises(UnsupportedOptionError, match="ask_timeout_answer"):
        LettaRunnable(
            backend=Local(), can_use_tool=forever, ask_timeout=1, ask_timeout_answer=Postpone()
        )


@pytest.mark.parametrize("face", [invoke, ainvoke])
def test_the_callback_is_told_where_it_is_asked(client: LettaClient, face: Any) -> None:
    seen = []

    def ask(name: str, tool_input: Any, context: Any) -> bool:
        seen.append((context.agent_id, context.conversation_id, context.recovered))
        return True

    metadata = face(LettaRunnable(client=client, tools=[launch], can_use_tool=ask))["messages"][
        -1
    ].response_metadata
    assert seen == [(metadata["agent_id"], metadata["conversation_id"], False)]


def test_changed_arguments_of_the_servers_tool_are_refused(
    letta: FakeLetta, client: LettaClient
) -> None:
    """The server would run it as the model has called it."""
    agent = LettaRunnable(client=client, can_use_tool=lambda *_: Allow({"n": 2}))
    with pytest.raises(UnsupportedOptionError, match="updated_input"):
        agent.invoke("Go.")
    letta.script(Reply(tool_calls=[ToolUse("launch", {"n": 1}, id="call_2")], when="Again."))
    model = ChatLetta(client=client)
    history: list[Any] = [HumanMessage("Again.")]
    history.append(model.invoke(history))
    history.append(decide(history[-1].tool_calls[0], Allow({"n": 2})))
    with pytest.raises(UnsupportedOptionError, match="updated_input"):
        model.invoke(history)
    assert answers(letta) == []


async def test_on_the_clients_own_loop_an_open_call_is_asked_about_there(letta: FakeLetta) -> None:
    loop, seen = asyncio.get_running_loop(), []

    async def ask(name: str, tool_input: Any, context: Any) -> Any:
        seen.append((asyncio.get_running_loop() is loop, context.recovered))
        return Allow() if context.recovered else Postpone()

    client: AsyncLettaClient = letta.async_client()
    async with client:
        agent = await client.create_agent(name="a")
        conversation = (await client.conversations.create(agent))["id"]
        fields: Any = {"client": client, "agent_id": agent, "conversation_id": conversation}
        runnable = LettaRunnable(tools=[launch], can_use_tool=ask, output="text", **fields)
        with pytest.raises(TurnDetachedError):
            await runnable.ainvoke("Go.")
        assert await runnable.ainvoke("And now?") == "Done."
    assert seen == [(True, False), (True, True)]
    assert [answer["tool_return"] for answer in answers(letta)] == ["launched 1"]
