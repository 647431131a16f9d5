"""The spans of our turns below those of OpenInference's tracer for LangChain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import START, MessagesState, StateGraph

from letta_adapters import LettaClient, tracing
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests._spans import Tree, one_tree

oi = pytest.importorskip(
    "openinference.instrumentation.langchain", reason="OpenInference is not installed"
)

TURN = "ChatLetta > invoke_agent > chat"


@pytest.fixture
def tree() -> Iterator[Tree]:
    with one_tree(oi.LangChainInstrumentor) as tree:
        yield tree


@pytest.fixture
def client(letta_fake: FakeLetta) -> Iterator[LettaClient]:
    with letta_fake.client() as client:
        yield client


def note(text: str) -> str:
    """Write a line."""
    return "noted"


async def read(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def read_events(step: Any) -> Any:
    return await (await step.astream_events("a", version="v3")).output


FACES: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda step: step.invoke("a"),
    "ainvoke": lambda step: asyncio.run(step.ainvoke("a")),
    "stream": lambda step: list(step.stream("a")),
    "astream": lambda step: asyncio.run(read(step.astream("a"))),
    "batch": lambda step: step.batch(["a"]),
    "astream_events": lambda step: asyncio.run(read(step.astream_events("a", version="v2"))),
    "stream_events v3": lambda step: step.stream_events("a", version="v3").output,
    "astream_events v3": lambda step: asyncio.run(read_events(step)),
}
faces = pytest.mark.parametrize("face", FACES.values(), ids=FACES)


@faces
@pytest.mark.filterwarnings("ignore:.*is in beta")
def test_the_turn_of_a_call_is_part_of_it(tree: Tree, client: LettaClient, face: Any) -> None:
    face(ChatLetta(client=client))
    assert tree.paths() == [TURN]
    # Whoever adds the tokens up finds them once.
    assert "gen_ai.usage.input_tokens" not in tree.attributes("invoke_agent")[0]


@pytest.mark.parametrize("face", ["invoke", "ainvoke", "stream", "astream"])
def test_a_chain_is_one_tree(tree: Tree, client: LettaClient, face: str) -> None:
    prompt = ChatPromptTemplate.from_messages([("user", "{a}")])
    FACES[face](prompt | ChatLetta(client=client))
    chain = "RunnableSequence"
    assert tree.paths() == [f"{chain} > ChatPromptTemplate", f"{chain} > {TURN}"]


@faces
@pytest.mark.filterwarnings("ignore:.*is in beta")
def test_a_whole_agent_is_one_tree(
    tree: Tree, letta_fake: FakeLetta, client: LettaClient, face: Any
) -> None:
    letta_fake.script(Reply(tool_calls=[ToolUse("note", {"text": "x"}, id="n")]), "Done.")
    face(LettaRunnable(client=client, tools=[note]))
    run = "LettaRunnable"
    # The tool is there once, by LangChain's run of it.
    assert tree.paths() == [f"{run} > {TURN}", f"{run} > note", f"{run} > {TURN}"]


def test_a_node_of_a_graph_is_one_tree(tree: Tree, client: LettaClient) -> None:
    """LangGraph's stream of messages lets `invoke` stream."""
    model = ChatLetta(client=client)
    builder = StateGraph(MessagesState)
    builder.add_node("chat", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph = builder.add_edge(START, "chat").compile()
    list(graph.stream({"messages": "a"}, stream_mode="messages"))
    assert tree.paths() == [f"LangGraph > chat > {TURN}"]


def test_without_that_tracer_a_turn_is_a_trace_of_its_own(client: LettaClient) -> None:
    tree = Tree()
    tracing.instrument(tracer_provider=tree.provider)
    try:
        list(ChatLetta(client=client).stream("a"))
    finally:
        tracing.uninstrument()
    assert tree.paths() == ["invoke_agent > chat"]


def test_a_tool_that_the_agent_runs_is_shown_once(tree: Tree, embedded_turn: Any) -> None:
    """LangChain shows it as a child run; as a span of the turn it would be there twice."""
    embedded_turn()
    assert [path.split(" > ")[-1] for path in tree.paths()].count("TaskCreate") == 1
    assert not any("execute_tool" in path for path in tree.paths())


@pytest.fixture
def embedded_turn(embedded: LettaClient, embedded_agent: str, embedded_model: Any) -> Any:
    def run() -> None:
        plan = ToolUse("TaskCreate", {"subject": "A", "description": "B"}, id="t1")
        embedded_model.clear()
        embedded_model.script(Reply(tool_calls=[plan]), "Done.")
        agent = LettaRunnable(client=embedded, agent_id=embedded_agent, output="text")
        assert str(agent.invoke("go")).endswith("Done.")

    return run
