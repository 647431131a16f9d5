"""A thread's conversation is one, whoever starts it; and those of earlier versions go on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from letta_adapters._utils.locks import process_lock
from letta_adapters.chat import cache, conversations
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.fakes import FakeLetta
from tests.langchain.graphs.conftest import World, asynchronous_nodes


async def test_ten_calls_that_start_a_thread_at_once_share_it(world: World) -> None:
    model = world.model()
    texts = [f"same {n}" for n in range(10)]
    answers = await asyncio.gather(*(model.ainvoke(text, world.config()) for text in texts))
    assert len({a.response_metadata["conversation_id"] for a in answers}) == 1
    held = world.holds()
    assert list(held) == ["T"]
    assert sorted(held["T"]) == texts


@asynchronous_nodes
async def test_ten_runs_of_a_graph_that_start_its_thread_at_once(fake_world: World) -> None:
    world = fake_world
    model = world.model()

    async def chat(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(f"{state['messages'][-1].text}!")]}

    graph = StateGraph(MessagesState).add_node("chat", chat).add_edge(START, "chat")
    app = graph.compile(checkpointer=InMemorySaver())
    runs = (app.ainvoke({"messages": [HumanMessage(str(n))]}, world.config()) for n in range(10))
    await asyncio.gather(*runs)
    assert list(world.holds()) == ["T/chat"]


def test_threads_of_this_process_share_it_too(fake_world: World) -> None:
    model = fake_world.model()
    workers = [
        threading.Thread(target=model.invoke, args=(str(n), fake_world.config())) for n in range(10)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(fake_world.holds()["T"]) == sorted(map(str, range(10)))


def test_of_two_processes_the_later_one_puts_its_conversation_away(
    fake_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes one of that name between our look and our own."""
    world = fake_world
    name = f"thread:{world.thread}"
    made = conversations.make
    theirs: list[str] = []

    async def make(client: Any, call: Any, agent_id: str, *args: Any) -> Any:
        if not theirs:
            other = await client.conversations.create(agent_id=agent_id, summary=name)
            theirs.append(other["id"])
        return await made(client, call, agent_id, *args)

    monkeypatch.setattr(conversations, "make", make)
    answer = world.model().invoke("one", world.config())
    assert answer.response_metadata["conversation_id"] == theirs[0]
    assert world.holds() == {"T": ["one"]}


async def test_a_lock_is_handed_on_past_those_who_left() -> None:
    order: list[int] = []

    async def work(n: int, gate: asyncio.Event) -> None:
        async with process_lock("a name"):
            await gate.wait()
            order.append(n)

    gate = asyncio.Event()
    tasks = [asyncio.ensure_future(work(n, gate)) for n in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 3]
    async with process_lock("a name"):
        order.append(4)
    assert order == [0, 3, 4]


# An answer as version 0.1 stored it in a checkpoint, and what the server holds of it.
AGENT = "agent-00000001-0000-4000-a000-000000000000"
CONVERSATION = "conv-00000002-0000-4000-a000-000000000000"
RUN = "run-00000003-0000-4000-a000-000000000000"
QUESTION = "message-00000004-0000-4000-a000-000000000000"
ANSWER = "message-00000005-0000-4000-a000-000000000000"
STORED = {
    "content": "First.",
    "id": "letta-15d0aa95a11b",
    "response_metadata": {
        "model_provider": "letta",
        "model_name": AGENT,
        "stop_reason": "end_turn",
        "agent_id": AGENT,
        "conversation_id": CONVERSATION,
        "run_ids": [RUN],
        "letta": {
            "v": 1,
            "backend": "rest",
            "agent_id": AGENT,
            "conversation_id": CONVERSATION,
            "head": [ANSWER, ANSWER],
            "inputs": ["1ed1e29c0c22"],
            "earlier": False,
            "previous": None,
            "run_id": RUN,
            "pending": [],
            "system": None,
            "settings": None,
        },
    },
}
HELD = [
    {"id": QUESTION, "message_type": "user_message", "content": "one"},
    {"id": ANSWER, "message_type": "assistant_message", "content": "First."},
]
OTIDS = {QUESTION: "00000000-0671-5af4-be53-efbb15275781", ANSWER: ANSWER}


@pytest.mark.parametrize("way", ["outside", "node"])
@pytest.mark.parametrize("question", ["one", "edited"])
def test_an_answer_that_an_earlier_version_stored_goes_on(way: str, question: str) -> None:
    letta = FakeLetta("Second.")
    where = {"id": CONVERSATION, "agent_id": AGENT, "summary": "thread:t"}
    letta._agents[AGENT] = {"id": AGENT, "name": "ada", "model": "fake/model", "tags": []}
    letta._conversations[CONVERSATION] = where
    letta._messages[CONVERSATION] = [
        {**item, "otid": OTIDS[item["id"]], "run_id": RUN, "name": None} for item in HELD
    ]
    model = ChatLetta(agent_id=AGENT, client=letta.client())
    history: list[Any] = [HumanMessage(question, id="1"), AIMessage(**STORED)]
    history.append(HumanMessage("two", id="2"))
    if way == "node":
        graph = StateGraph(MessagesState)
        graph.add_node("chat", lambda state: {"messages": [model.invoke(state["messages"])]})
        app = graph.add_edge(START, "chat").compile(checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": "t"}}
        answer = app.invoke({"messages": history}, config)["messages"][-1]
    else:
        answer = model.invoke(history)
    goes_on = answer.response_metadata["conversation_id"] == CONVERSATION
    assert goes_on == (question == "one")
    if goes_on:
        said = [m for m in letta.requests[-1]["messages"] if m.get("role") == "user"]
        assert [message["content"] for message in said] == ["two"]


# As the version before places stored it, in ``response_metadata["letta"]``.
EARLIER: dict[str, Any] = {
    "v": 1,
    "backend": "rest",
    "agent_id": "AGENT",
    "conversation_id": "CONVERSATION",
    "head": ["OTID", "MESSAGE"],
    "inputs": ["DIGEST"],
    "earlier": False,
    "previous": None,
    "run_id": "run-00000004-0000-4000-a000-000000000000",
    "pending": [],
    "system": None,
    "settings": None,
}


def as_earlier(answer: AIMessage) -> AIMessage:
    """The answer, as the version before would have marked it."""
    now = answer.response_metadata["letta"]
    then = {key: now[key] for key in EARLIER}
    metadata = {**answer.response_metadata, "letta": then}
    return answer.model_copy(update={"response_metadata": metadata})


def test_a_thread_of_an_earlier_version_goes_on_by_its_markers(fake_world: World) -> None:
    """``thread:<id>`` held every node's messages then; the history says where it is."""
    world = fake_world
    model: ChatLetta = world.model()
    world.script("First.", "Second.", "Third.")
    first = as_earlier(model.invoke([HumanMessage("one", id="1")], world.config()))
    world.as_another_process()
    graph = StateGraph(MessagesState)
    graph.add_node("chat", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "chat")
    app = graph.compile(checkpointer=InMemorySaver())
    history = [HumanMessage("one", id="1"), first, HumanMessage("two", id="2")]
    app.invoke({"messages": history}, world.config())
    app.invoke({"messages": [HumanMessage("three", id="3")]}, world.config())
    assert world.holds() == {"T": ["one", "two", "three"]}


def test_an_unmarked_history_of_a_whole_thread_goes_on_by_scope(fake_world: World) -> None:
    world = fake_world
    world.model().invoke("one", world.config())
    cache.recent._calls.clear()
    graph = StateGraph(MessagesState)
    model = world.model(scope="thread")
    graph.add_node("chat", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "chat")
    app = graph.compile(checkpointer=InMemorySaver())
    app.invoke({"messages": [HumanMessage("two")]}, world.config())
    assert world.holds() == {"T": ["one", "two"]}
