"""Run a LangGraph graph with memory, a tool of yours, and a person who approves the agent's tools.

python examples/langgraph_agent.py          # asks you
python examples/langgraph_agent.py --yes    # approves by itself
"""

from __future__ import annotations

import sys
import tempfile

from _agent import agrees, connected, find_or_create, heard, is_letta_code
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from letta_adapters.langchain import LettaRunnable
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"It is sunny in {city}."


def stand_in(request: ModelRequest, asked: str) -> Reply:
    result = heard(request)
    if "weather" in asked:
        if result is None:
            return Reply(tool_calls=[ToolUse("get_weather", {"city": "Paris"}, id="weather-1")])
        return Reply(result)
    if result is None:
        write = {"command": "echo sunny > note.txt", "description": "Write the note"}
        return Reply(tool_calls=[ToolUse("Bash", write, id="note-1")])
    denied = "denied" in result.lower()
    return Reply("As you like: I wrote nothing." if denied else "I wrote the note, for Paris.")


def main(approve: bool) -> None:
    with connected(stand_in) as client, tempfile.TemporaryDirectory() as workplace:
        agent_id = find_or_create(client, "reporter", "I report the weather, and take notes.")
        agent = LettaRunnable(
            agent_id=agent_id,
            client=client,
            tools=[get_weather],
            session_options={"cwd": workplace} if is_letta_code(client) else {},
        )
        builder = StateGraph(MessagesState)
        builder.add_node("agent", agent)
        builder.add_edge(START, "agent")
        graph = builder.compile(checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "weather"}}

        state = graph.invoke({"messages": "How is the weather in Paris?"}, config)
        print(state["messages"][-1].text)
        state = graph.invoke({"messages": "Write that into note.txt."}, config)
        while state.get("__interrupt__"):
            question = state["__interrupt__"][0].value
            print(f"May it run {question['tool_name']} {question['tool_input']}?")
            answer = approve or agrees("y/n ")
            state = graph.invoke(Command(resume=answer), config)
        print(state["messages"][-1].text)


if __name__ == "__main__":
    main("--yes" in sys.argv)
