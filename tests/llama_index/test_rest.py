"""What only the Letta API can: an approval that outlives the process, in a stored context."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from llama_index.core.workflow import Context, JsonSerializer

from letta_adapters import AsyncLettaClient
from letta_adapters.llama_index import ApprovalRequiredEvent, ApprovalResponseEvent, LettaAgent
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests._replayed import open_other_processes
from tests.backends.rest._server_tool import attach
from tests.backends.rest.conftest import MODEL

NewClient = Callable[[], AsyncLettaClient]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
async def new_client(letta_cassette: LettaCassette) -> AsyncIterator[NewClient]:
    """Makes a client that knows nothing of the ones before it, as in another process."""
    async with open_other_processes(letta_cassette) as make:
        yield make


@pytest.mark.parametrize("approve", [True, False])
async def test_an_approval_survives_in_a_stored_context(
    new_client: NewClient, letta_cassette: LettaCassette, approve: bool
) -> None:
    client = new_client()
    agent_id = await client.create_agent(
        name="approvals",
        model=MODEL,
        persona="I am a test.",
        system_prompt="You are a test.",
        base_tools=False,
    )
    await attach(client, agent_id, asks=True)
    letta_cassette.script(
        Reply(tool_calls=[ToolUse("multiply", {"a": 6, "b": 7}, id="sum-1")]), "So be it."
    )
    handler = LettaAgent(name="sums", agent_id=agent_id, client=client).run("6 times 7?")
    asked: Any = None
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequiredEvent):
            asked = event
            break
    assert (asked.tool_name, asked.tool_kwargs) == ("multiply", {"a": 6, "b": 7})
    stored = json.dumps(handler.ctx.to_dict(serializer=JsonSerializer()))
    await handler.cancel_run()
    with pytest.raises(BaseException):  # noqa: B017  # the workflow's own, by version
        await asyncio.wait_for(handler, 30)

    again = LettaAgent(name="sums", agent_id=agent_id, client=new_client())
    ctx = Context.from_dict(again, json.loads(stored), serializer=JsonSerializer())
    handler = again.run(ctx=ctx)
    answer = ApprovalResponseEvent(tool_id="sum-1", approve=approve, reason="Not today.")
    handler.ctx.send_event(answer)
    output = await asyncio.wait_for(handler, 30)
    assert str(output) == "So be it."
    place = output.raw["conversation_id"]
    page = await client.list_messages(agent_id, place, order="asc", limit=50)
    kinds = [item["message_type"] for item in page.raw]
    assert kinds.count("user_message") == 1
    (returned,) = [m for m in page.raw if m["message_type"] == "tool_return_message"]
    assert ("42" in returned["tool_return"]) is approve
