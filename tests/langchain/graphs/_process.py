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
from langgraph.types import Command

from letta_adapters import LettaClient, Local, Rest
from letta_adapters.langchain import ChatLetta, LettaRunnable


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


def approve(model: ChatLetta, saver: Any, given: Any) -> Any:
    """One node whose agent asks before its own tools run; a tool of ours notes that it ran."""

    def note(text: str) -> str:
        """Write a line.

        Args:
            text: The line.
        """
        with Path(given["notes"]).open("a") as notes:
            notes.write(f"{text}\n")
        return "noted"

    agent = LettaRunnable(model=model, tools=[note])
    graph = StateGraph(MessagesState).add_node("agent", agent).add_edge(START, "agent")
    return graph.compile(checkpointer=saver)


def connect(given: Any) -> LettaClient:
    """Return a client of the server that the test named."""
    if "url" in given:
        return LettaClient(Rest(base_url=given["url"], api_key=""))
    endpoint: Any = {"base_url": given["model"]}
    options: Any = {"data_dir": Path(given["data_dir"]), "openai_compatible": endpoint}
    return LettaClient(Local(**options))


def main() -> None:
    """Do it once."""
    given = json.loads(sys.stdin.read())
    config: Any = {"configurable": {"thread_id": given["thread"]}}
    asked = [HumanMessage(given["text"], id=given.get("id"))] if given["text"] else None
    asks: list[Any] = []
    with connect(given) as client:
        model = ChatLetta(agent_id=given["agent"], client=client)
        if given["what"] == "call":
            answer = model.invoke(asked or [], config)
        else:
            connection = sqlite3.connect(given["database"], check_same_thread=False)
            make = {"chat": chat, "team": team, "approve": approve}[given["what"]]
            app = make(model, SqliteSaver(connection), given)
            new: Any = {"messages": asked} if asked else None
            state = app.invoke(
                Command(resume=given["resume"]) if "resume" in given else new, config
            )
            asks = [question.value for question in state.get("__interrupt__", ())]
            answer = state["messages"][-1]
            connection.close()
    replayed = bool(answer.response_metadata.get("replayed"))
    print(json.dumps({"text": answer.text, "replayed": replayed, "asks": asks}))


if __name__ == "__main__":
    main()
