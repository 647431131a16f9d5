"""A process of its own: one step of an application, with its checkpoints in a file.

Reads what to do as JSON from its input, and prints what came out.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import warnings
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

from letta_adapters import LettaClient, Local
from letta_adapters.langchain import ChatLetta


def chat(model: ChatLetta, saver: Any, given: Any) -> Any:
    """One node, which may die when the agent has answered."""

    def answer(state: MessagesState) -> Any:
        said = model.invoke(state["messages"])
        if given.get("dies"):
            sys.stdout.flush()
            os._exit(9)
        return {"messages": [said]}

    graph = StateGraph(MessagesState).add_node("chat", answer).add_edge(START, "chat")
    return graph.compile(checkpointer=saver)


def team(model: ChatLetta, saver: Any, given: Any) -> Any:
    """A supervisor and a worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what LangGraph 1 deprecates
        from langgraph_supervisor import create_supervisor

        worker = create_agent(model, [], name="math")
        supervisor = create_supervisor([worker], model=model, prompt="You lead.")
        return supervisor.compile(checkpointer=saver)


def main() -> None:
    """Do it once."""
    given = json.loads(sys.stdin.read())
    endpoint: Any = {"base_url": given["model"]}
    spec = Local(data_dir=Path(given["data_dir"]), openai_compatible=endpoint)
    config: Any = {"configurable": {"thread_id": given["thread"]}}
    asked = [HumanMessage(given["text"], id=given.get("id"))] if given["text"] else None
    with LettaClient(spec) as client:
        model = ChatLetta(agent_id=given["agent"], client=client)
        if given["what"] == "call":
            answer = model.invoke(asked or [], config)
        else:
            connection = sqlite3.connect(given["database"], check_same_thread=False)
            app = {"chat": chat, "team": team}[given["what"]](model, SqliteSaver(connection), given)
            state = app.invoke({"messages": asked} if asked else None, config)
            answer = state["messages"][-1]
            connection.close()
    metadata = answer.response_metadata
    print(json.dumps({"text": answer.text, "replayed": bool(metadata.get("replayed"))}))


if __name__ == "__main__":
    main()
