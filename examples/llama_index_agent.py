"""Run an agent with two tools of yours, which remembers across processes.

    python examples/llama_index_agent.py

The first part runs in a process of its own, stores its context, and ends; the second resumes it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from _agent import connected, find_or_create, heard
from llama_index.core.workflow import Context, JsonSerializer

from letta_adapters import LettaClient
from letta_adapters.llama_index import LettaAgent
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def stand_in(request: ModelRequest, asked: str) -> Reply:
    if "again" in asked:
        results = [m for m in request.messages if m.get("role") == "tool"]
        found = ModelRequest({"messages": [{**results[-1], "role": "user"}]}).last_user_text
        return Reply(f"It was {found}.")
    if heard(request) is None:
        plus = ToolUse("add", {"a": 2, "b": 3}, id="call-1")
        times = ToolUse("multiply", {"a": 4, "b": 5}, id="call-2")
        return Reply(tool_calls=[plus, times])
    return Reply("2 + 3 is 5, and 4 * 5 is 20.")


def make(client: LettaClient) -> LettaAgent:
    agent_id = find_or_create(client, "calculator", "I calculate, and remember the results.")
    return LettaAgent(name="calculator", agent_id=agent_id, client=client, tools=[add, multiply])


async def first(client: LettaClient) -> str:
    agent = make(client)
    context = Context(agent)
    print(await agent.run("What is 2 + 3, and 4 * 5?", ctx=context))
    return json.dumps(context.to_dict(serializer=JsonSerializer()))


async def second(client: LettaClient, stored: str) -> None:
    agent = make(client)
    context = Context.from_dict(agent, json.loads(stored), serializer=JsonSerializer())
    print(await agent.run("What was the product again?", ctx=context))


def main() -> None:
    if len(sys.argv) > 1:
        part, home = sys.argv[1], Path(sys.argv[2])
        with connected(stand_in, home / "letta") as client:
            if part == "first":
                (home / "context.json").write_text(asyncio.run(first(client)))
            else:
                asyncio.run(second(client, (home / "context.json").read_text()))
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        for part in ("first", "second"):
            subprocess.run([sys.executable, __file__, part, home], check=True)


if __name__ == "__main__":
    main()
