"""Run deepagents with a Letta agent as its model: a sub-agent, and a report in a file.

    python examples/deep_agent.py

Needs ``deepagents`` (Python 3.11 or later).
"""

from __future__ import annotations

from _agent import connected, find_or_create, heard, offered
from deepagents import create_deep_agent

from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse

FACTS = {"bees": "A bee visits some two thousand flowers a day.", "ants": "Ants nap often."}


def look_up(subject: str) -> str:
    """Look a subject up in the encyclopedia.

    Args:
        subject: One word.
    """
    return FACTS.get(subject, "Nothing is known about it.")


def stand_in(request: ModelRequest, _asked: str) -> Reply:
    """Play the leader, who has the tool ``task``, and the researcher, who has not."""
    result, leads = heard(request), "task" in offered(request)
    if not leads:
        if result is None:
            return Reply(tool_calls=[ToolUse("look_up", {"subject": "bees"})])
        return Reply(result)
    if result is None:
        job = {"description": "Find a fact on bees.", "subagent_type": "researcher"}
        return Reply(tool_calls=[ToolUse("task", job)])
    if "two thousand" in result:
        file = {"file_path": "/report.md", "content": f"# Bees\n\n{result}\n"}
        return Reply(tool_calls=[ToolUse("write_file", file)])
    return Reply("The report is in /report.md.")


def main() -> None:
    with connected(stand_in) as client:
        agent_id = find_or_create(client, "editor", "I delegate, and write reports.")
        agent = create_deep_agent(
            model=ChatLetta(agent_id=agent_id, client=client),
            tools=[],
            system_prompt="Let the researcher look things up.",
            subagents=[
                {
                    "name": "researcher",
                    "description": "Looks facts up.",
                    "system_prompt": "You look facts up.",
                    "tools": [look_up],
                }
            ],
        )
        state = agent.invoke({"messages": [("user", "Write a report on bees.")]})
        for message in state["messages"]:
            for call in getattr(message, "tool_calls", []):
                print(f"* {call['name']}")
        print(state["messages"][-1].text)
        for path, file in state["files"].items():
            print(f"--- {path}\n{file['content']}")


if __name__ == "__main__":
    main()
