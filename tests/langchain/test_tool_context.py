"""A ``ToolContext`` in the tools of a ``LettaRunnable``: LangChain hears of it as custom events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from letta_adapters import (
    InvalidInputError,
    PermissionContext,
    Postpone,
    ToolContext,
    TurnDetachedError,
)
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

EVENT = "letta_tool_progress"


def work(name: str, context: ToolContext, *, times: int = 2) -> str:
    """Work.

    Args:
        name: A name.
        context: The call.
        times: How often.
    """
    for number in range(1, times + 1):
        context.report(f"{name} {number}", progress=number, total=times)
    return f"{name} in {context.tool_call_id} of {context.tool_name}"


async def awork(name: str, context: ToolContext, times: int = 2) -> str:
    """Work."""
    await asyncio.sleep(0)
    return work(name, context, times=times)


class Heard(BaseCallbackHandler):
    """Keeps the custom events, with the runs they are of."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.tools: set[Any] = set()
        self.runs: set[Any] = set()

    def on_tool_start(self, *_: Any, run_id: Any, **__: Any) -> None:
        self.tools.add(run_id)

    def on_custom_event(self, name: str, data: Any, *, run_id: Any, **_: Any) -> None:
        self.events.append((name, data))
        self.runs.add(run_id)


@pytest.fixture
def letta() -> FakeLetta:
    return FakeLetta()


@pytest.fixture(params=[work, awork], ids=["function", "coroutine"])
def agent(letta: FakeLetta, request: pytest.FixtureRequest) -> Iterator[LettaRunnable]:
    name = request.param.__name__
    call = Reply(tool_calls=[ToolUse(name, {"name": "x"}, id="call_1")])
    letta.script(call, Reply("Done."))
    with letta.client() as client:
        yield LettaRunnable(client=client, tools=[request.param])


def told(heard: Heard) -> list[tuple[str, float, int]]:
    data = [data for name, data in heard.events if name == EVENT]
    assert {item["tool_call_id"] for item in data} == {"call_1"}
    return [(item["content"], item["progress"], item["number"]) for item in data]


def test_the_agent_is_not_asked_for_it(agent: LettaRunnable, letta: FakeLetta) -> None:
    output = agent.invoke("Go")
    (sent,) = letta.requests[0]["client_tools"]
    assert set(sent["parameters"]["properties"]) == {"name", "times"}
    (name,) = [tool.name for tool in agent.tools]
    assert output["messages"][1].content == f"x in call_1 of {name}"


def test_reports_are_custom_events(agent: LettaRunnable) -> None:
    heard = Heard()
    agent.invoke("Go", {"callbacks": [heard]})
    assert told(heard) == [("x 1", 1, 1), ("x 2", 2, 2)]
    # Of the run of the tool, so that a trace shows them there.
    assert heard.runs <= heard.tools


async def test_reports_are_custom_events_in_asynchronous_code(agent: LettaRunnable) -> None:
    heard = Heard()
    await agent.ainvoke("Go", {"callbacks": [heard]})
    assert told(heard) == [("x 1", 1, 1), ("x 2", 2, 2)]


async def test_reports_are_seen_by_who_watches_the_events(agent: LettaRunnable) -> None:
    events = [event async for event in agent.astream_events("Go", version="v2")]
    seen = [e["data"]["content"] for e in events if e["name"] == EVENT]
    assert seen == ["x 1", "x 2"]
    kinds = [e["event"] for e in events if "tool" in e["event"] or e["name"] == EVENT]
    assert kinds == ["on_tool_start", "on_custom_event", "on_custom_event", "on_tool_end"]


def test_the_events_of_version_3_are_not_disturbed(agent: LettaRunnable) -> None:
    with agent.stream_events("Go", version="v3") as turn:
        texts = ["".join(message.text) for message in turn.messages]
    assert texts[-1] == "Done."


async def test_a_function_sees_that_its_run_was_cancelled(letta: FakeLetta) -> None:
    began, ended = threading.Event(), threading.Event()

    def slow(context: ToolContext) -> str:
        """Wait."""
        began.set()
        while not context.stopped:
            threading.Event().wait(0.01)
        ended.set()
        return ""

    letta.script(Reply(tool_calls=[ToolUse("slow", {})]))
    with letta.client() as client:
        run = asyncio.ensure_future(LettaRunnable(client=client, tools=[slow]).ainvoke("Go"))
        assert await asyncio.to_thread(began.wait, 20)
        run.cancel()
        await asyncio.wait({run})
        assert await asyncio.to_thread(ended.wait, 20)


def test_where_nobody_would_fill_it_is_said(letta: FakeLetta) -> None:
    with letta.client() as client:
        model = ChatLetta(client=client)
        with pytest.raises(InvalidInputError, match="A ToolContext is filled by a session"):
            model.bind_tools([work])


def test_a_context_in_two_parameters_is_refused(letta: FakeLetta) -> None:
    def two(a: ToolContext, b: ToolContext) -> None:
        """Take two."""

    with (
        letta.client() as client,
        pytest.raises(InvalidInputError, match="in one parameter, by its name"),
    ):
        LettaRunnable(client=client, tools=[two])


def name_place(context: ToolContext) -> str:
    """Name the place."""
    return f"{context.agent_id} {context.conversation_id}"


async def aname_place(context: ToolContext) -> str:
    """Name the place."""
    await asyncio.sleep(0)
    return name_place(context)


def place_of(output: Any) -> tuple[str, str]:
    """Return the agent and the conversation that the answer was made in."""
    about = output["messages"][0].response_metadata
    return about["agent_id"], about["conversation_id"]


@pytest.mark.parametrize("named", [True, False], ids=["named", "default"])
@pytest.mark.parametrize("function", [name_place, aname_place])
async def test_it_knows_the_agent_and_the_conversation(
    letta: FakeLetta, function: Any, named: bool
) -> None:
    name = function.__name__
    call = Reply(tool_calls=[ToolUse(name, {}), ToolUse(name, {})])
    letta.script(call, Reply("Done."), call, Reply("Done."))
    with letta.client() as client:
        fields = {"agent_id": client.create_agent()} if named else {}
        agent = LettaRunnable(client=client, tools=[function], **fields)
        outputs = [agent.invoke("Go"), await agent.ainvoke("Go once more")]
    for output in outputs:
        about = place_of(output)
        assert all(about)
        assert [m.content for m in output["messages"][1:3]] == [" ".join(about)] * 2
    if named:
        assert {place_of(output)[0] for output in outputs} == set(fields.values())


@pytest.mark.parametrize("function", [name_place, aname_place])
async def test_it_knows_where_an_earlier_turn_has_left_its_call_open(
    letta: FakeLetta, function: Any
) -> None:
    def ask(name: str, tool_input: Any, context: PermissionContext) -> Any:
        return context.recovered or Postpone()

    call = Reply(tool_calls=[ToolUse(function.__name__, {}, id="call_1")])
    places = []
    with letta.client() as client:
        for goes_on in ("in a thread", "on a loop"):
            agent_id = client.create_agent()
            places.append((agent_id, str(client.conversations.create(agent_id)["id"])))
            place: Any = dict(zip(("agent_id", "conversation_id"), places[-1], strict=True))
            agent = LettaRunnable(client=client, tools=[function], can_use_tool=ask, **place)
            letta.script(call, Reply("Done."), Reply("Done."))
            with pytest.raises(TurnDetachedError):
                agent.invoke("Go")
            await agent.ainvoke("Hello") if goes_on == "on a loop" else agent.invoke("Hello")
    sent = [message for request in letta.requests for message in request.get("messages", [])]
    returned = [a["tool_return"] for m in sent for a in m.get("approvals", [])]
    assert returned == [" ".join(place) for place in places]


def test_a_tool_that_another_tool_calls_is_not_in_the_outer_call(letta: FakeLetta) -> None:
    """A tool of the runnable that is called by itself answers no call of the agent."""

    async def outer(context: ToolContext) -> str:
        """Call the other."""
        inner = agent.tools[1]
        call = {"name": inner.name, "args": {}, "id": "call_of_mine", "type": "tool_call"}
        return str((await inner.ainvoke(call)).content)

    letta.script(Reply(tool_calls=[ToolUse("outer", {}, id="call_1")]), Reply("Done."))
    with letta.client() as client:
        agent = LettaRunnable(client=client, tools=[outer, name_place])
        assert agent.invoke("Go")["messages"][1].content == "None None"


def graph_of(agent: LettaRunnable, *, inside: bool = False) -> Any:
    """Return a graph that is the agent, or one whose node calls it."""

    def call(state: MessagesState, config: RunnableConfig) -> Any:
        return agent.invoke(state, config)

    async def acall(state: MessagesState, config: RunnableConfig) -> Any:
        return await agent.ainvoke(state, config)

    graph = StateGraph(MessagesState)
    graph.add_node("agent", RunnableLambda(call, acall) if inside else agent)
    graph.add_edge(START, "agent")
    return graph.compile()


GO: Any = {"messages": "Go"}


@pytest.mark.parametrize("inside", [False, True], ids=["node", "inside"])
def test_reports_are_in_the_custom_stream_of_a_graph(agent: LettaRunnable, inside: bool) -> None:
    heard = Heard()
    graph = graph_of(agent, inside=inside)
    parts = list(graph.stream(GO, {"callbacks": [heard]}, stream_mode="custom"))
    assert told(heard) == [("x 1", 1, 1), ("x 2", 2, 2)]
    assert parts == [data for _, data in heard.events]
    assert parts[0]["type"] == "tool_progress"


@pytest.mark.parametrize("inside", [False, True], ids=["node", "inside"])
async def test_reports_are_in_the_custom_stream_of_an_asynchronous_graph(
    agent: LettaRunnable, inside: bool
) -> None:
    heard = Heard()
    graph = graph_of(agent, inside=inside)
    stream = graph.astream(GO, {"callbacks": [heard]}, stream_mode="custom")
    parts = [part async for part in stream]
    assert told(heard) == [("x 1", 1, 1), ("x 2", 2, 2)]
    assert parts == [data for _, data in heard.events]


def test_reports_of_a_thread_that_the_tool_started_are_in_the_custom_stream(
    letta: FakeLetta,
) -> None:
    def start(context: ToolContext) -> str:
        """Work in a thread."""
        thread = threading.Thread(target=context.report, args=("from a thread",))
        thread.start()
        thread.join()
        return ""

    letta.script(Reply(tool_calls=[ToolUse("start", {})]), Reply("Done."))
    with letta.client() as client:
        graph = graph_of(LettaRunnable(client=client, tools=[start]))
        parts = list(graph.stream(GO, stream_mode="custom"))
    assert [part["content"] for part in parts] == ["from a thread"]


async def test_reports_of_a_graph_inside_a_graph(agent: LettaRunnable) -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("team", graph_of(agent))
    graph.add_edge(START, "team")
    stream = graph.compile().astream(GO, stream_mode=["custom", "updates"], subgraphs=True)
    parts = [part async for part in stream]
    custom = [(where, data["content"]) for where, mode, data in parts if mode == "custom"]
    assert [content for _, content in custom] == ["x 1", "x 2"]
    # They belong to the graph that the agent is a node of.
    assert {where[0].partition(":")[0] for where, _ in custom} == {"team"}


async def test_without_a_custom_stream_nothing_is_added(agent: LettaRunnable) -> None:
    modes = ["values", "updates", "messages"]
    parts = list(graph_of(agent).stream(GO, stream_mode=modes))
    assert {mode for mode, _ in parts} == {*modes}
    assert "tool_progress" not in repr(parts)


@pytest.mark.parametrize("mode", [None, "custom"])
async def test_who_watches_the_events_of_a_graph_sees_each_report_once(
    agent: LettaRunnable, mode: str | None
) -> None:
    stream = graph_of(agent).astream_events(GO, version="v2", stream_mode=mode)
    seen = [e async for e in stream if e["event"] == "on_custom_event"]
    assert [e["data"]["content"] for e in seen if e["name"] == EVENT] == ["x 1", "x 2"]
    assert len(seen) == 2
