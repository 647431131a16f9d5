"""MCP servers on a session: their tools are client-side tools like any other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the mcp package is not installed (extra: mcp)")

from letta_adapters import Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import ConnectionFailedError, InvalidInputError
from letta_adapters.tools.client_side import tool
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import asks
from tests.faults.conftest import resume

EVERYTHING = str(Path(__file__).parents[1] / "mcp_fixtures" / "everything.py")
SERVERS = {
    "e": {"command": sys.executable, "args": [EVERYTHING, "stdio"]},
    "broken": {"command": "no-such-command-anywhere"},
}


@pytest.mark.slow
async def test_an_agent_calls_the_tool_of_an_mcp_server(
    server: Server, rest: Callable[..., Rest], face: Any
) -> None:
    server.script(asks(ev.call(name="mcp__e__add", arguments='{"a": 1, "b": 2}')))
    async with face(rest()) as client:
        session = resume(client, mcp_servers=SERVERS)
        result = await session.run_turn("hello")
        assert result.success
        assert set(session.mcp_problems) == {"broken"}
        assert isinstance(session.mcp_problems["broken"], ConnectionFailedError)
    first, second = server.sent()
    offered = {item["name"] for item in first.body["client_tools"]}
    assert {"mcp__e__add", "mcp__e__picture"} <= offered
    assert second.messages[0]["approvals"][0]["tool_return"] == "3"
    assert second.messages[0]["approvals"][0]["status"] == "success"


@pytest.mark.slow
async def test_what_an_mcp_server_reports_is_in_the_stream(
    server: Server, rest: Callable[..., Rest], face: Any
) -> None:
    server.script(asks(ev.call(name="mcp__e__count", arguments='{"steps": 2}')))
    async with face(rest()) as client:
        session = resume(client, mcp_servers=SERVERS)
        await session.send("hello")
        seen = [message async for message in session.stream()]
    told = [m for m in seen if m.type == "tool_progress"]
    assert [(m.content, m.progress, m.total) for m in told] == [("step 1", 1, 2), ("", 2, 2)]
    kinds = [m.type for m in seen]
    assert kinds.index("tool_call") < kinds.index("tool_progress") < kinds.index("tool_result")


@pytest.mark.slow
async def test_a_function_of_the_same_name_goes_first(client: AsyncLettaClient) -> None:
    own = tool(lambda: "mine", name="mcp__e__rows")
    async with resume(client, tools=[own], mcp_servers=SERVERS) as session:
        assert session._tools["mcp__e__rows"].handler() == "mine"


@pytest.mark.slow
async def test_closing_the_session_or_the_client_ends_the_servers(
    rest: Callable[..., Rest],
) -> None:
    async with AsyncLettaClient(rest()) as client:
        sessions = [resume(client, mcp_servers=SERVERS) for _ in range(2)]
        owners = []
        for session in sessions:
            await session.initialize()
            owners.append(session._mcp._connections["e"].owner)
        await sessions[0].close()
        assert [owner.done() for owner in owners] == [True, False]
    assert owners[1].done()


def test_a_mistake_is_found_before_any_io(client: AsyncLettaClient) -> None:
    with pytest.raises(InvalidInputError, match=r"mcp_servers: .*'e'.*command"):
        client.create_session(mcp_servers={"e": {"args": ["x"]}})
