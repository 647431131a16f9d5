"""Run two agents in one workflow: a hand-off, and a person who approves.

python examples/llama_index_workflow.py          # asks you
python examples/llama_index_workflow.py --yes    # approves by itself
"""

from __future__ import annotations

import asyncio
import sys
import tempfile

from _agent import agrees, connected, find_or_create, heard, is_letta_code
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, ToolCall

from letta_adapters import LettaClient
from letta_adapters.llama_index import ApprovalRequiredEvent, ApprovalResponseEvent, LettaAgent
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse


def stand_in(request: ModelRequest, asked: str) -> Reply:
    result = heard(request)
    if result is None and "handling the request" not in asked:
        reason = "It is about files."
        call = ToolUse("handoff", {"to_agent": "clerk", "reason": reason}, id="handoff-1")
        return Reply(tool_calls=[call])
    if result is None:
        write = {"command": "echo hello > letter.txt", "description": "Write the letter"}
        return Reply(tool_calls=[ToolUse("Bash", write, id="write-1")])
    return Reply("The letter is written.", token_delay=0.02)


async def run(client: LettaClient, approve: bool, workplace: str) -> None:
    desk = LettaAgent(
        name="desk",
        description="Knows who does what.",
        agent_id=find_or_create(client, "desk", "I send people to whoever can help them."),
        client=client,
        can_handoff_to=["clerk"],
    )
    clerk = LettaAgent(
        name="clerk",
        description="Writes files.",
        agent_id=find_or_create(client, "letter-clerk", "I write letters into files."),
        client=client,
        session_options={"cwd": workplace} if is_letta_code(client) else {},
    )
    handler = AgentWorkflow(agents=[desk, clerk], root_agent="desk").run("Write a letter, please.")
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequiredEvent):
            print(f"May {event.agent_name} run {event.tool_name} {event.tool_kwargs}?")
            yes = approve or await asyncio.to_thread(agrees, "y/n ")
            handler.ctx.send_event(ApprovalResponseEvent(tool_id=event.tool_id, approve=yes))
        elif isinstance(event, AgentStream):
            print(event.delta, end="", flush=True)
        elif isinstance(event, ToolCall):
            print(f"* {event.tool_name} {event.tool_kwargs}")
    print()
    await handler


def main() -> None:
    with connected(stand_in) as client, tempfile.TemporaryDirectory() as workplace:
        asyncio.run(run(client, "--yes" in sys.argv, workplace))


if __name__ == "__main__":
    main()
