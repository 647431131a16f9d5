"""Chat with one agent in a terminal: its memory to see and to change, its tools to approve.

    python examples/terminal_chat.py

``/memory`` shows what the agent keeps in mind, ``/memory persona I speak French.`` changes it,
``/quit`` ends. It is short on purpose; ``letta-adapters chat`` is the same made comfortable.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from _agent import connected, find_or_create, heard, is_letta_code

from letta_adapters import (
    Deny,
    LettaClient,
    LettaError,
    PermissionContext,
    Session,
    extract_stream_text_delta,
)
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse


def can_use_tool(name: str, tool_input: Any, context: PermissionContext) -> Any:
    """Ask about what is not allowed by default; the end of the input is no."""
    if not isinstance(context.default, Deny):
        return context.default
    print(f"\n  May it run {name} with {dict(tool_input)}? (y/n)", flush=True)
    return sys.stdin.readline().strip().lower() == "y" or Deny("The user said no.")


def show_or_change(client: LettaClient, agent_id: str, words: list[str]) -> None:
    """Print the agent's memory, or give one part of it another text."""
    memory = client.agents.memory
    if not words:
        for item in memory.list(agent_id):
            print(f"  {item.label}: {item.value}")
        return
    label, text = words[0], " ".join(words[1:])
    # Refused if the agent itself has changed it since it was read.
    memory.write(agent_id, label, text, if_match=memory.read(agent_id, label).version)
    print(f"  {label} is changed.")


def answer(session: Session, text: str) -> None:
    """Send a message and print the answer as it is written."""
    session.send(text)
    for message in session.stream():
        delta = extract_stream_text_delta(message)
        if delta is not None and delta.kind == "assistant":
            print(delta.text, end="", flush=True)
        elif message.type == "tool_call":
            print(f"\n  * {message.tool_name}", flush=True)
        elif message.type == "result" and not message.success:
            print(f"\n  ! {message.error_detail}", end="")
    print()


def chat(client: LettaClient, agent_id: str, workplace: str) -> None:
    """Read lines until the input ends."""
    options: dict[str, Any] = {"cwd": workplace} if is_letta_code(client) else {}
    with client.resume_session(
        agent_id, can_use_tool=can_use_tool, include_partial_messages=True, **options
    ) as session:
        while True:
            print("> ", end="", flush=True)
            line = sys.stdin.readline()
            command, *words = line.split() or [""]
            if not line or command == "/quit":
                return
            try:
                if command == "/memory":
                    show_or_change(client, agent_id, words)
                elif command.startswith("/"):
                    print("  Known are /memory and /quit.")
                elif command:
                    answer(session, line.strip())
            except LettaError as error:
                print(f"  ! {error}")


def stand_in(request: ModelRequest, asked: str) -> Reply:
    result = heard(request)
    if result is not None:
        return Reply("I did not." if "no." in result else "It is noted.", token_delay=0.02)
    if "note" in asked:
        write = {"command": "echo tea > note.txt", "description": "Write the note"}
        return Reply(tool_calls=[ToolUse("Bash", write)])
    french = "French" in str(request.messages[0])
    return Reply("Bonjour !" if french else "Hello!", token_delay=0.02)


def main() -> None:
    with connected(stand_in) as client, tempfile.TemporaryDirectory() as workplace:
        agent_id = find_or_create(client, "companion", "I am a kind companion.")
        chat(client, agent_id, workplace)


if __name__ == "__main__":
    main()
