"""Run a support desk whose refunds a person approves, in another process and later.

    python examples/support_desk.py

It runs two processes over one SQLite checkpointer. The first takes the customer's message, finds
that the agent wants to pay money back, stores the question and ends. The second, later, is the
person at the desk: it shows what waits, answers, and lets the graph go on. Needs ``langgraph`` and
``langgraph-checkpoint-sqlite``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _agent import connected, find_or_create, heard
from langchain_core.messages import ToolMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from letta_adapters import LettaClient
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse

THREAD: Any = {"configurable": {"thread_id": "ticket-17"}}


def refund(order: str, euros: int) -> str:
    """Pay an order back.

    Args:
        order: The order's number.
        euros: How much to pay.
    """
    return f"Paid {euros} euros back for order {order}."


def stand_in(request: ModelRequest, asked: str) -> Reply:
    result = heard(request) or asked
    if "Paid" in result:
        return Reply("Done: you have your 40 euros back. Sorry for the trouble!")
    if "refused" in result:
        return Reply("I am sorry, we cannot pay that back.")
    return Reply(tool_calls=[ToolUse("refund", {"order": "7", "euros": 40})])


def build(client: LettaClient) -> StateGraph[Any]:
    """Return the graph: the agent answers, and each refund waits for a person."""
    agent_id = find_or_create(client, "desk", "I help customers, and I am fair about money.")
    model = ChatLetta(agent_id=agent_id, client=client).bind_tools([refund])

    def agent(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    def desk(state: MessagesState) -> Any:
        answers = []
        for call in state["messages"][-1].tool_calls:
            # The graph stops here, and is stored. `interrupt` returns when somebody resumes it.
            yes = interrupt({"tool": call["name"], "arguments": call["args"]})
            text = refund(**call["args"]) if yes else "The desk refused it."
            answers.append(ToolMessage(text, tool_call_id=call["id"]))
        return {"messages": answers}

    def next_step(state: MessagesState) -> str:
        return "desk" if state["messages"][-1].tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_node("desk", desk)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", next_step, ["desk", END])
    graph.add_edge("desk", "agent")
    return graph


def customer(graph: Any) -> None:
    """Write to the desk, in the first process."""
    graph.invoke({"messages": [("user", "Order 7 never came. I want my 40 euros!")]}, THREAD)
    print("customer: Order 7 never came. I want my 40 euros!")
    print("(the first process ends)")


def person(graph: Any) -> None:
    """Look at what waits and answer it, in the second process."""
    (question,) = graph.get_state(THREAD).interrupts
    print(f"desk: may {question.value['tool']} run with {question.value['arguments']}? Yes.")
    state = graph.invoke(Command(resume=True), THREAD)
    print(f"agent: {state['messages'][-1].text}")


def main() -> None:
    if len(sys.argv) > 1:
        part, home = sys.argv[1], Path(sys.argv[2])
        with (
            connected(stand_in, home / "letta") as client,
            SqliteSaver.from_conn_string(str(home / "desk.sqlite")) as checkpointer,
        ):
            graph = build(client).compile(checkpointer=checkpointer)
            {"customer": customer, "person": person}[part](graph)
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        for part in ("customer", "person"):
            subprocess.run([sys.executable, __file__, part, home], check=True)


if __name__ == "__main__":
    main()
