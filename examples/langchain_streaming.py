"""Stream tokens to a terminal, thoughts and the agent's own tools included.

python examples/langchain_streaming.py
"""

from __future__ import annotations

from _agent import connected, find_or_create, heard, is_letta_code

from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse

QUESTION = "Which files are here? Look, and tell me how many there are."


def stand_in(request: ModelRequest, _asked: str) -> Reply:
    listing = heard(request)
    if listing is None:
        look = ToolUse("Bash", {"command": "ls", "description": "List the files"})
        return Reply(reasoning="I have to look first.", tool_calls=[look], token_delay=0.02)
    count = len(listing.split())
    return Reply(f"I looked: there are {count} names in the listing.", token_delay=0.02)


def main() -> None:
    with connected(stand_in) as client:
        agent_id = find_or_create(client, "librarian", "I know my way around files.")
        # A shell runs only where that was said; nobody is asked here.
        allowed = {"allowed_tools": ["Bash"]} if is_letta_code(client) else {}
        model = ChatLetta(agent_id=agent_id, client=client, session_options=allowed)
        for chunk in model.stream(QUESTION):
            for block in chunk.content_blocks:
                if block["type"] == "text":
                    print(block["text"], end="", flush=True)
                elif block["type"] == "reasoning":
                    print(block["reasoning"], end="", flush=True)
                elif block["type"] == "server_tool_call":
                    print(f"\n* {block['name']} {block['args']}", flush=True)
                elif block["type"] == "server_tool_result":
                    print(f"  -> {len(str(block['output']).split())} words", flush=True)
        print()


if __name__ == "__main__":
    main()
