"""Let a supervisor hand the customer's question to whichever of three workers can answer it.

    python examples/supervisor.py

Every worker is an agent of LangChain's ``create_agent`` whose model is the same Letta agent, each
in a conversation of its own. Needs ``langgraph-supervisor``.
"""

from __future__ import annotations

import warnings
from typing import Any

from _agent import connected, find_or_create, heard, offered
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph_supervisor import create_supervisor

from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse

# langgraph-supervisor 0.0.31 still uses a name that LangGraph 1 deprecates.
warnings.filterwarnings("ignore", message="create_react_agent has been moved")


def track(order: str) -> str:
    """Say where an order is.

    Args:
        order: The order's number.
    """
    return f"Order {order} is in Oslo."


def refund(order: str) -> str:
    """Pay an order back.

    Args:
        order: The order's number.
    """
    return f"Order {order} was paid back."


def opening_hours(day: str) -> str:
    """Say when the shop is open.

    Args:
        day: A day of the week.
    """
    return f"On {day} from nine to six."


def stand_in(request: ModelRequest, asked: str) -> Reply:
    """Play all four parts; who has which tools tells which part it is."""
    result, tools = heard(request) or "", offered(request)
    if "transfer_to_shipping" in tools:
        if "Successfully transferred back" in result or "is in Oslo" in asked:
            return Reply("Your order 7 is in Oslo.")
        if "open" in asked:
            return Reply(tool_calls=[ToolUse("transfer_to_shop", {})])
        return Reply(tool_calls=[ToolUse("transfer_to_shipping", {})])
    if result:
        return Reply(result)
    return Reply(tool_calls=[ToolUse("track", {"order": "7"})])


def build(model: ChatLetta) -> Any:
    """Return the graph: a supervisor over shipping, billing and the shop."""
    workers = [
        create_agent(model, [track], name="shipping", system_prompt="You know where orders are."),
        create_agent(model, [refund], name="billing", system_prompt="You pay orders back."),
        create_agent(model, [opening_hours], name="shop", system_prompt="You know the shop."),
    ]
    team = create_supervisor(workers, model=model, prompt="You lead the support. Ask one worker.")
    return team.compile(checkpointer=InMemorySaver())


def main() -> None:
    with connected(stand_in) as client:
        agent_id = find_or_create(client, "support", "I help customers of a small shop.")
        graph = build(ChatLetta(agent_id=agent_id, client=client))
        question = {"messages": [("user", "Where is my order 7?")]}
        thread = {"configurable": {"thread_id": "customer-1"}}
        for step in graph.stream(question, thread, stream_mode="updates"):
            for node, update in step.items():
                last = update["messages"][-1]
                print(f"{node}: {last.text or '(hands over)'}")


if __name__ == "__main__":
    main()
