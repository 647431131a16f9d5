"""Give an agent the tools of an MCP server, which runs beside your program.

    python examples/mcp_tools.py

The server is this file, too: started with ``serve`` it offers two tools over stdio. Take the
command of any other server in its place. Needs ``letta-adapters[mcp]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from _agent import connected, find_or_create, heard

from letta_adapters import PermissionContext
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse

NOTES = {"monday": "Water the plants.", "friday": "Call the harbour master."}


def serve() -> None:
    """Offer the notes to whoever started this process."""
    try:
        from mcp.server.mcpserver import MCPServer
    except ImportError:  # mcp 1
        from mcp.server.fastmcp import FastMCP as MCPServer

    server = MCPServer("notes")

    @server.tool()
    def read_note(day: str) -> str:
        """Read the note of a day of the week."""
        return NOTES.get(day.lower(), "Nothing is noted.")

    @server.tool()
    def erase_note(day: str) -> str:
        """Erase the note of a day of the week."""
        NOTES.pop(day.lower(), None)
        return "Erased."

    server.run("stdio")


def stand_in(request: ModelRequest, asked: str) -> Reply:
    found = heard(request)
    if found is None:
        name = "erase_note" if "Erase" in asked else "read_note"
        return Reply(tool_calls=[ToolUse(f"mcp__notes__{name}", {"day": "Friday"})])
    if "Call" in found:
        return Reply("On Friday you call the harbour master.")
    return Reply("I may not erase notes, so it is still there.")


def can_use_tool(name: str, tool_input: dict, _context: PermissionContext) -> bool:
    """Let the agent read; nothing is erased."""
    allowed = name.endswith("read_note")
    print(f"  * {name} {tool_input}: {'allowed' if allowed else 'denied'}")
    return allowed


def main() -> None:
    servers = {"notes": {"command": sys.executable, "args": [str(Path(__file__)), "serve"]}}
    with connected(stand_in) as client:
        agent_id = find_or_create(client, "secretary", "I look after the notes.")
        with client.create_session(
            agent_id, mcp_servers=servers, can_use_tool=can_use_tool
        ) as session:
            for question in ("What is on Friday?", "Erase Friday's note."):
                print(f"> {question}")
                print(session.run_turn(question).raise_for_status().result)
            for problem in session.mcp_problems:
                print(problem)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
