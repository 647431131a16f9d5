"""Several agents in one graph: a supervisor, hand-offs, graphs in graphs, helpers of an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.tools import InjectedToolCallId
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import create_react_agent
from langgraph.types import Command
from langgraph_supervisor import create_supervisor
from typing_extensions import TypedDict

from tests.tutorials.control import calls, line
from tests.tutorials.langchain.conftest import WITH_RECORDING, Performed

THREAD: Any = {"configurable": {"thread_id": "1"}}


def ask(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


def counted(ran: list[str], function: Callable[..., str]) -> Any:
    """Return a tool that notes when it runs."""
    made = tool(function)
    inner = made.func
    assert inner is not None
    made.func = lambda **given: (ran.append(made.name), inner(**given))[1]
    return made


def refund(order: str) -> str:
    """Pay an order back."""
    return f"Order {order} was paid back."


def track(order: str) -> str:
    """Say where an order is."""
    return f"Order {order} is in Oslo."


def customer_support(model: Any) -> Any:
    """Let a supervisor choose who helps a customer, over two turns."""
    ran: list[str] = []
    billing = create_agent(
        model, [counted(ran, refund)], system_prompt="You are billing.", name="billing"
    )
    shipping = create_agent(
        model, [counted(ran, track)], system_prompt="You are shipping.", name="shipping"
    )
    team = create_supervisor([billing, shipping], model=model, prompt="You lead the support.")
    app = team.compile(checkpointer=InMemorySaver())
    app.invoke(ask("Where is order 7?"), THREAD)
    return [app.invoke(ask("Then I want my money back."), THREAD), ran]


# langgraph-supervisor still uses what LangGraph 1 deprecates.
@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_customer_support(performed: Performed) -> None:
    script = [
        line("Where is order 7?", calls("transfer_to_shipping"), knows="You lead the support."),
        line("", calls("track", order="7"), knows=["You are shipping.", "Where is order 7?"]),
        line("in Oslo", "It is in Oslo."),
        line("", "Order 7 is in Oslo.", knows="It is in Oslo."),
        line("my money back", calls("transfer_to_billing"), knows="Order 7 is in Oslo."),
        line("", calls("refund", order="7"), knows=["You are billing.", "my money back"]),
        line("paid back", "Refunded."),
        line("", "You have your money.", knows="Refunded."),
    ]
    state, ran = performed.same(customer_support, script)
    assert ran == ["track", "refund"]
    assert state["messages"][-1] == {"ai": "You have your money.", "name": "supervisor"}


def handoffs(model: Any) -> Any:
    """Let agents hand the conversation over by tools that return commands."""
    ran: list[str] = []

    def handoff_to(name: str) -> Any:
        @tool(f"to_{name}", description=f"Let {name} go on.")
        def handoff(call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
            ran.append(f"to_{name}")
            told = ToolMessage(f"Now {name} speaks.", name=f"to_{name}", tool_call_id=call_id)
            return Command(graph=Command.PARENT, goto=name, update={"messages": [told]})

        return handoff

    class State(MessagesState, total=False):
        active: str

    def node(name: str, other: str, prompt: str) -> Any:
        agent = create_agent(model, [handoff_to(other)], system_prompt=prompt, name=name)

        def run(state: State) -> Any:
            return {**agent.invoke({"messages": state["messages"]}), "active": name}

        return run

    graph = StateGraph(State)
    graph.add_node("flights", node("flights", "hotels", "You book flights."))
    graph.add_node("hotels", node("hotels", "flights", "You book hotels."))
    graph.add_conditional_edges(
        START, lambda state: state.get("active", "flights"), ["flights", "hotels"]
    )
    app = graph.compile(checkpointer=InMemorySaver())
    app.invoke(ask("A flight to Rome, and a bed."), THREAD)
    return [app.invoke(ask("Which bed was it?"), THREAD), ran]


@WITH_RECORDING
def test_handoffs(performed: Performed) -> None:
    script = [
        line("A flight to Rome", calls("to_hotels"), knows="You book flights."),
        line("", "The Ritz is booked.", knows=["You book hotels.", "A flight to Rome"]),
        line("Which bed was it?", "The Ritz.", knows="The Ritz is booked."),
    ]
    state, ran = performed.same(handoffs, script)
    assert ran == ["to_hotels"]
    assert state["active"] == "hotels"
    assert state["messages"][-1]["ai"] == "The Ritz."


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_a_worker_and_its_supervisor_by_hand(performed: Performed) -> None:
    """The supervisor speaks last, after a history that ends with its worker's answer."""

    def tutorial(model: Any) -> Any:
        ran: list[str] = []
        worker = create_react_agent(model, [counted(ran, track)], prompt="You work.", name="worker")
        boss = create_react_agent(model, [], prompt="You check the work.", name="boss")
        graph = StateGraph(MessagesState).add_node(worker).add_node(boss)
        graph.add_edge(START, "worker").add_edge("worker", "boss")
        return [graph.compile().invoke(ask("Where is order 7?")), ran]

    script = [
        line("Where is order 7?", calls("track", order="7"), knows="You work."),
        line("in Oslo", "It is in Oslo."),
        line("", "Checked: Oslo.", knows=["You check the work.", "It is in Oslo."]),
    ]
    state, ran = performed.same(tutorial, script)
    assert ran == ["track"]
    assert [m["name"] for m in state["messages"][1:]] == [
        *["worker"] * 1,
        "track",
        "worker",
        "boss",
    ]


class Notes(TypedDict):
    """What the inner graph keeps for itself."""

    notes: str
    summary: str


def subgraphs(model: Any) -> Any:
    """Use a graph as a node, with a state of its own and with the shared one; over two turns."""

    def note(state: Notes) -> Any:
        return {"summary": str(model.invoke(f"Sum up: {state['notes']}").text)}

    inner = StateGraph(Notes).add_node(note).add_edge(START, "note").compile()

    def sum_up(state: MessagesState) -> Any:
        text = str(state["messages"][-1].text)
        made = inner.invoke({"notes": text, "summary": ""})
        return {"messages": [HumanMessage(f"Discuss: {made['summary']}")]}

    def speak(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    shared = StateGraph(MessagesState).add_node(speak).add_edge(START, "speak").compile()
    graph = StateGraph(MessagesState).add_node(sum_up).add_node("discuss", shared)
    graph.add_edge(START, "sum_up").add_edge("sum_up", "discuss")
    app = graph.compile(checkpointer=InMemorySaver())
    steps = [
        (len(place), list(update))
        for place, update in app.stream(
            ask("Long notes on bees."), THREAD, stream_mode="updates", subgraphs=True
        )
    ]
    return [app.invoke(ask("Long notes on ants."), THREAD), steps]


@WITH_RECORDING
def test_graphs_in_graphs(performed: Performed) -> None:
    script = [
        line("Sum up: Long notes on bees.", "Bees hum."),
        line("Discuss: Bees hum.", "They do."),
        line("Sum up: Long notes on ants.", "Ants walk."),
        line("Discuss: Ants walk.", "So they do.", knows="They do."),
    ]
    state, steps = performed.same(subgraphs, script)
    assert len(state["messages"]) == 6
    assert steps == [[1, ["note"]], [0, ["sum_up"]], [1, ["speak"]], [0, ["discuss"]]]


def test_deep_agents(performed: Performed) -> None:
    """A helper that does a part of the work, and a file."""
    # Not a dependency of the suite below Python 3.11, which it needs.
    deepagents = pytest.importorskip("deepagents", reason="deepagents needs Python 3.11")

    def tutorial(model: Any) -> Any:
        ran: list[str] = []
        writer = {
            "name": "writer",
            "description": "Writes.",
            "system_prompt": "You write.",
            "tools": [counted(ran, track)],
        }
        agent = deepagents.create_deep_agent(
            model=model, tools=[], subagents=[writer], system_prompt="You lead."
        )
        state = agent.invoke(ask("Report on order 7."))
        return [state["messages"], state["files"]["/report.md"]["content"], ran]

    task = calls("task", description="Where is 7?", subagent_type="writer")
    script = [
        line("Report on order 7.", task, knows="You lead."),
        line("Where is 7?", calls("track", order="7"), knows="You write."),
        line("in Oslo", "Seven is in Oslo."),
        line("Seven is in Oslo.", calls("write_file", file_path="/report.md", content="Oslo.")),
        line("/report.md", "It is in the report."),
    ]
    messages, content, ran = performed.same(tutorial, script)
    assert messages[-1] == {"ai": "It is in the report."}
    assert "Oslo." in content
    assert ran == ["track"]
