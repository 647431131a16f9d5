"""``stateless=True``: what the model is shown, and what becomes of the agent's memory."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, InvalidInputError, Sleeptime, UnsupportedOptionError
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import MODEL, AppServer


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def reflections(model: ScriptedModel) -> int:
    """How often the model was asked to be an agent's reflection."""
    return sum("reflection subagent" in system(request) for request in model.requests)


def system(request: ModelRequest) -> str:
    return str(request.messages[0]["content"])


def names(request: ModelRequest) -> set[str]:
    return {str(tool["function"]["name"]) for tool in request.tools}


async def reflected(model: ScriptedModel, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not reflections(model):
        await asyncio.sleep(0.1)
    return reflections(model) > 0


def commits(server: AppServer, agent: str) -> str:
    (repository,) = Path(server.home).rglob(f"memfs/{agent}/memory")
    command = ["git", "-C", str(repository), "log", "--format=%H"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def test_memory_is_read_and_left_alone(
    client: AsyncLettaClient, model: ScriptedModel, server: AppServer
) -> None:
    agent = await client.create_agent(
        model=MODEL,
        system_prompt="You are a test.",
        persona="I like tea.",
        sleeptime=Sleeptime(trigger="step-count", step_count=1),
        permission_mode="unrestricted",
    )
    before = commits(server, agent)
    model.script(Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2}, id="add-stateless")]), "Three.")
    async with client.create_session(agent, stateless=True, tools=[add]) as session:
        assert (await session.initialize()).tools == ("add",)
        assert (await session.run_turn("1 + 2?")).result == "Three."
    for request in model.requests:
        assert "I like tea." in system(request)
        assert names(request) == {"add"}
    assert not await reflected(model, 4)
    assert commits(server, agent) == before

    # The same conversation without: all tools, and a reflection on what was said.
    model.script("Hello.", "Nothing to remember.")
    where = {"agent_id": agent, "conversation_id": session.conversation_id}
    async with client.resume_session(**where) as session:
        await session.run_turn("and now?")
    assert names(model.requests[2]) >= {"Bash", "Memory"}
    assert await reflected(model, 20)


async def test_it_stays_so_after_a_change_of_state(
    client: AsyncLettaClient, model: ScriptedModel
) -> None:
    agent = await client.create_agent(model=MODEL, system_prompt="You are a test.")
    model.script("One.", "Two.")
    async with client.create_session(agent, stateless=True) as session:
        await session.run_turn("one")
        await session.change_device_state(permission_mode="strict")
        await session.run_turn("two")
        with pytest.raises(InvalidInputError, match=r"stateless: .* cwd"):
            await session.change_device_state(cwd="/")
    assert [request.tools for request in model.requests] == [[], []]


@pytest.mark.parametrize(
    "more",
    [
        {"toolset": "default"},
        {"allowed_tools": ["Bash"]},
        {"cwd": "/"},
        {"sleeptime": {"trigger": "off"}},
        {"agent_free": True},
    ],
)
async def test_what_it_excludes_is_refused_before_any_io(more: dict[str, Any]) -> None:
    async with AsyncLettaClient("local") as client:
        (name,) = more
        with pytest.raises(InvalidInputError, match=f"stateless: .* {name}"):
            client.create_session("agent-1", stateless=True, **more)


async def test_over_a_letta_api_it_is_refused_by_name(
    connect: Callable[..., AsyncLettaClient], server: AppServer
) -> None:
    async with connect(server, on_api=True) as client:
        with pytest.raises(UnsupportedOptionError, match=r"stateless.* Letta API"):
            await client.create_session(stateless=True).initialize()


async def test_another_server_refuses_it_by_name(
    connect: Callable[..., AsyncLettaClient], server: AppServer
) -> None:
    async with connect(server, name="remote") as client:
        with pytest.raises(UnsupportedOptionError, match="stateless") as caught:
            await client.create_session(stateless=True).initialize()
    assert caught.value.supported_by == ("local",)
