"""One node of a graph that asks its agent the same thing more than once."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

from letta_adapters import LettaError
from letta_adapters.langchain import LettaRunnable
from letta_adapters.testing import FakeLetta
from tests._refusing import client_of, refuse_messages

THREAD: Any = {"configurable": {"thread_id": "t"}}
ASKED: Any = {"messages": [HumanMessage("Go.", id="m1")]}


def graph_of(node: Any, saver: Any = None, **about: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("node", node, **about)
    graph.add_edge(START, "node")
    return graph.compile(checkpointer=saver)


def say(*texts: str) -> dict[str, Any]:
    return {"messages": [AIMessage(" ".join(texts))]}


def last(state: Any) -> str:
    return str(state["messages"][-1].text)


@pytest.mark.parametrize("saver", [None, InMemorySaver()])
def test_the_same_question_asked_twice_is_answered_twice(saver: Any) -> None:
    letta = FakeLetta("One.", "Two.")
    agent = LettaRunnable(client=letta.client(), output="text")
    graph = graph_of(lambda _: say(agent.invoke("Roll."), agent.invoke("Roll.")), saver)
    assert last(graph.invoke(ASKED, THREAD)) == "One. Two."
    assert letta.said == ["Roll.", "Roll."]


async def test_the_same_question_streamed_twice_is_answered_twice() -> None:
    letta = FakeLetta("One.", "Two.")
    agent = LettaRunnable(client=letta.client(), output="text")

    async def node(_: Any, config: RunnableConfig) -> Any:
        texts = [text async for text in agent.astream("Roll.", config)]
        texts += [" ", *[text async for text in agent.astream("Roll.", config)]]
        return say("".join(texts))

    assert last(await graph_of(node).ainvoke(ASKED)) == "One. Two."


def test_a_batch_of_one_question_is_answered_by_as_many() -> None:
    letta = FakeLetta("One.", "Two.", "Three.")
    agent = LettaRunnable(client=letta.client(), output="text")
    graph = graph_of(lambda _: say(*sorted(agent.batch(["Roll."] * 3))))
    assert last(graph.invoke(ASKED)) == "One. Three. Two."


def test_a_node_that_is_resumed_asks_nothing_twice() -> None:
    letta = FakeLetta("One.", "Two.")
    agent = LettaRunnable(client=letta.client(), output="text")

    def node(_: Any) -> Any:
        first = agent.invoke("Roll.")
        word = interrupt("Go on?")
        return say(first, word, agent.invoke("Roll."))

    graph = graph_of(node, InMemorySaver())
    graph.invoke(ASKED, THREAD)
    assert last(graph.invoke(Command(resume="yes"), THREAD)) == "One. yes Two."
    assert letta.said == ["Roll.", "Roll."]


def test_a_node_that_is_tried_again_asks_nothing_twice() -> None:
    letta = FakeLetta("One.", "Two.")
    agent = LettaRunnable(client=letta.client(), output="text")
    failures = iter([True])

    def node(_: Any) -> Any:
        texts = agent.invoke("Roll."), agent.invoke("Roll.")
        if next(failures, False):
            raise ValueError("not yet")
        return say(*texts)

    policy = RetryPolicy(retry_on=ValueError, initial_interval=0.0, jitter=False)
    graph = graph_of(node, InMemorySaver(), retry_policy=policy)
    assert last(graph.invoke(ASKED, THREAD)) == "One. Two."
    assert letta.said == ["Roll.", "Roll."]


def test_a_question_that_failed_is_the_same_when_it_is_asked_again() -> None:
    letta = FakeLetta("One.", "Two.")
    client = client_of(letta, refuse_messages(1))
    agent = LettaRunnable(client=client, max_retries=0, output="text")
    ids: list[Any] = []

    def node(_: Any) -> Any:
        with pytest.raises(LettaError, match="slow down"):
            agent.invoke("Roll.")
        texts = agent.invoke("Roll."), agent.invoke("Roll.")
        ids.extend(request["messages"][-1]["otid"] for request in letta.requests)
        return say(*texts)

    assert last(graph_of(node).invoke(ASKED)) == "One. Two."
    assert len(set(ids)) == 2
