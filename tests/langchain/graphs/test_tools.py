"""What calls the agent from inside one of its own tools: the tool's answer reaches it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from letta_adapters.errors import WaitsForItselfError
from letta_adapters.langchain import ChatLetta, LettaRunnable
from tests.langchain.graphs.conftest import World, asynchronous_nodes, calls


def ask(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


def texts(state: Any) -> list[str]:
    return [str(message.text) for message in state["messages"]]


def asking(model: Any) -> Any:
    """A tool that asks a model, as deepagents' ``task`` does."""

    @tool
    def helper(question: str) -> str:
        """Ask a helper."""
        answer = model.invoke(question)
        last = answer["messages"][-1] if isinstance(answer, dict) else answer
        return str(last.text).upper()

    return helper


@pytest.mark.parametrize("kind", ["model", "runnable", "agent"])
def test_a_tool_may_ask_the_very_agent(world: World, saver: InMemorySaver, kind: str) -> None:
    model = world.model()
    inner: Any = model
    if kind == "runnable":
        inner = LettaRunnable(model=model)
    elif kind == "agent":
        helping = create_agent(model, [])
        inner = asking_agent(helping)
    agent = create_agent(model, [asking(inner)], checkpointer=saver)
    for turn in ("one", "two"):
        world.script(calls("helper", question=f"{turn}?"), f"inner {turn}", f"final {turn}")
        state = agent.invoke(ask(turn), world.config())
        assert texts(state)[-2:] == [f"INNER {turn.upper()}", f"final {turn}"]
    assert world.holds() == {"T/model": ["one", "two"], "?": ["one?"], "??": ["two?"]}
    results = world.results(world.id_of("T/model"))
    assert [("INNER ONE" in results[0]), ("INNER TWO" in results[1])] == [True, True]


def asking_agent(agent: Any) -> Any:
    class Asked:
        def invoke(self, question: str) -> Any:
            return agent.invoke(ask(question))

    return Asked()


def test_a_tool_may_hand_its_configuration_on(world: World, saver: InMemorySaver) -> None:
    model = world.model()

    @tool
    def helper(question: str, config: RunnableConfig) -> str:
        """Ask a helper."""
        return str(model.invoke(question, config).text)

    agent = create_agent(model, [helper], checkpointer=saver)
    world.script(calls("helper", question="inner?"), "inner", "final")
    assert texts(agent.invoke(ask("one"), world.config()))[-2:] == ["inner", "final"]
    assert world.holds() == {"T/model": ["one"], "?": ["inner?"]}


@asynchronous_nodes
async def test_asynchronous_tools_too(world: World, saver: InMemorySaver) -> None:
    model = world.model()

    @tool
    async def helper(question: str, config: RunnableConfig) -> str:
        """Ask a helper."""
        return str((await model.ainvoke(question, config)).text)

    agent = create_agent(model, [helper], checkpointer=saver)
    world.script(calls("helper", question="inner?"), "inner", "final")
    state = await agent.ainvoke(ask("one"), world.config())
    assert texts(state)[-2:] == ["inner", "final"]
    assert world.holds() == {"T/model": ["one"], "?": ["inner?"]}


def test_a_hand_made_tool_node_is_no_place_for_a_conversation(
    world: World, saver: InMemorySaver
) -> None:
    """Its tools share one task of the graph, and are reached by an edge."""
    model = world.model()
    tools = [asking(model)]
    bound = model.bind_tools(tools)
    graph = StateGraph(MessagesState)
    graph.add_node("chat", lambda state: {"messages": [bound.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "chat")
    graph.add_conditional_edges(
        "chat", lambda s: "tools" if s["messages"][-1].tool_calls else "__end__"
    )
    graph.add_edge("tools", "chat")
    app = graph.compile(checkpointer=saver)
    for turn in ("one", "two"):
        world.script(calls("helper", question=f"{turn}?"), f"inner {turn}", f"final {turn}")
        state = app.invoke(ask(turn), world.config())
        assert texts(state)[-1] == f"final {turn}"
    assert world.holds() == {"T/chat": ["one", "two"], "?": ["one?"], "??": ["two?"]}


def test_a_tool_that_talks_on_goes_on_by_its_own_markers(
    world: World, saver: InMemorySaver
) -> None:
    model = world.model()

    @tool
    def helper(question: str) -> str:
        """Ask a helper twice."""
        history: list[Any] = [HumanMessage(question)]
        history.append(model.invoke(history))
        history.append(HumanMessage("And?"))
        return str(model.invoke(history).text)

    agent = create_agent(model, [helper], checkpointer=saver)
    world.script(calls("helper", question="inner?"), "inner 1", "inner 2", "final")
    assert texts(agent.invoke(ask("one"), world.config()))[-2:] == ["inner 2", "final"]
    assert world.holds() == {"T/model": ["one"], "?": ["inner?", "And?"]}


def test_outside_of_a_graph_a_tool_inherits_no_conversation(world: World) -> None:
    model = world.model()
    runnable = LettaRunnable(model=model, tools=[asking(model)])
    world.script(calls("helper", question="inner?"), "inner", "final")
    state = runnable.invoke("one", world.config())
    assert texts(state)[-2:] == ["INNER", "final"]
    assert world.holds() == {"T": ["one"], "?": ["inner?"]}


@pytest.mark.parametrize("named", ["thread", "conversation", "scope"])
def test_a_tool_that_names_the_conversation_that_waits_for_it_is_told_at_once(
    world: World, saver: InMemorySaver, named: str
) -> None:
    model = world.model(scope="thread", max_retries=5)
    errors: list[Exception] = []

    @tool
    def helper(config: RunnableConfig) -> str:
        """Ask."""
        inner: ChatLetta = model if named == "scope" else world.model(max_retries=5)
        given: dict[str, Any] = {}
        if named == "thread":
            given = {"thread_id": world.thread}
        elif named == "conversation":
            given = {"conversation_id": world.id_of("T")}
        try:
            return str(inner.invoke("inner?", **given).text)
        except Exception as error:
            errors.append(error)
            return "cannot"

    agent = create_agent(model, [helper], checkpointer=saver)
    world.script(calls("helper"), "final")
    assert texts(agent.invoke(ask("one"), world.config()))[-2:] == ["cannot", "final"]
    assert isinstance(errors[0], WaitsForItselfError)
    assert world.holds() == {"T": ["one"]}
    assert world.results(world.id_of("T")) != []


@asynchronous_nodes
async def test_nobody_denies_a_call_that_is_being_answered(
    world: World, saver: InMemorySaver
) -> None:
    """A second message in the thread while a tool of the first one is at work."""
    model = world.model()
    begun, done = asyncio.Event(), asyncio.Event()

    @tool
    async def slow() -> str:
        """Take a while."""
        begun.set()
        await done.wait()
        return "worked"

    agent = create_agent(model, [slow], checkpointer=saver)
    world.script(calls("slow"), "in between", "final")
    first = asyncio.ensure_future(agent.ainvoke(ask("one"), world.config()))
    await begun.wait()
    asked = (await agent.aget_state(world.config())).values["messages"]
    between = await model.bind_tools([slow]).ainvoke([*asked, HumanMessage("two")], world.config())
    assert between.text == "in between"
    assert between.response_metadata["forked"]
    done.set()
    state = await first
    assert texts(state)[-2:] == ["worked", "final"]
    assert any("worked" in result for result in world.results(world.id_of("T/model")))
