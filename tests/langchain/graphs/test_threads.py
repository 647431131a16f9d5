"""A thread's conversation is one, whoever starts it; and those of earlier versions go on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from letta_adapters._locks import process_lock
from letta_adapters.calls import memo, places
from letta_adapters.langchain import ChatLetta
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
    made = places.make
    theirs: list[str] = []

    async def make(client: Any, call: Any, agent_id: str, *args: Any) -> Any:
        if not theirs:
            other = await client.conversations.create(agent_id=agent_id, summary=name)
            theirs.append(other["id"])
        return await made(client, call, agent_id, *args)

    monkeypatch.setattr(places, "make", make)
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
    memo.recent._calls.clear()
    graph = StateGraph(MessagesState)
    model = world.model(scope="thread")
    graph.add_node("chat", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "chat")
    app = graph.compile(checkpointer=InMemorySaver())
    app.invoke({"messages": [HumanMessage("two")]}, world.config())
    assert world.holds() == {"T": ["one", "two"]}
