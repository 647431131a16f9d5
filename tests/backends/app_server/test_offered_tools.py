"""What a session offers its model: exactly the tools it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import (
    AsyncLettaClient,
    InvalidInputError,
    LettaClient,
    Rest,
    UnsupportedOptionError,
)
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import AppServer


def lookup(word: str) -> str:
    """Look a word up.

    Args:
        word: The word.
    """
    return f"{word} means something."


def tools_of(model: ScriptedModel) -> set[str]:
    return {tool["function"]["name"] for tool in model.requests[-1].body.get("tools") or ()}


@pytest.mark.parametrize(
    ("options", "offered"),
    [
        ({"offered_tools": ["Read", "lookup"]}, {"Read", "lookup"}),
        ({"offered_tools": []}, set()),
        # Whatever the set of tools is.
        ({"offered_tools": ["exec_command"], "toolset": "none"}, {"exec_command"}),
        ({"offered_tools": ["Read", "Write"], "disallowed_tools": ["Write"]}, {"Read"}),
    ],
)
async def test_the_model_is_offered_exactly_these(
    client: AsyncLettaClient,
    agent: str,
    model: ScriptedModel,
    options: dict[str, Any],
    offered: set[str],
) -> None:
    async with client.create_session(agent, tools=[lookup], **options) as session:
        await session.run_turn("hi")
        assert tools_of(model) == offered
        here = session.conversation_id
    assert here is not None
    async with client.resume_session(here, **{"tools": [lookup], **options}) as session:
        await session.run_turn("again")
        assert tools_of(model) == offered
    # It is the session's, and not the conversation's.
    async with client.resume_session(here, toolset="default") as session:
        await session.run_turn("once more")
        assert {"Bash", "Read", "Write"} <= tools_of(model)


async def test_another_tool_does_not_run_even_if_it_is_called(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, tmp_path: Path
) -> None:
    call = ToolUse("Bash", {"command": f"touch {tmp_path / 'trace'}", "description": "a test"})
    options: Any = {"offered_tools": ["Read"], "permission_mode": "unrestricted"}
    asked: list[str] = []
    async with client.create_session(agent, cwd=tmp_path, **options) as session:
        model.script(Reply(tool_calls=[call]), "Done.")
        await session.run_turn("one")
    options["can_use_tool"] = lambda name, *_: asked.append(name) or True
    async with client.create_session(agent, cwd=tmp_path, **options) as session:
        model.script(Reply(tool_calls=[call]), "Done.")
        await session.run_turn("two")
    assert list(tmp_path.iterdir()) == []
    assert asked == []


async def test_a_name_that_no_tool_has_is_refused_before_anything_is_sent(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    asked = len(model.requests)
    async with client.create_session(agent, offered_tools=["read"]) as session:
        with pytest.raises(InvalidInputError, match="no tool 'read'") as caught:
            await session.run_turn("hi")
    assert "'Read'" in caught.value.hint
    assert len(model.requests) == asked


async def test_over_a_letta_api_it_is_refused_by_name(
    connect: Callable[..., AsyncLettaClient], server: AppServer
) -> None:
    async with connect(server, on_api=True) as client:
        with pytest.raises(UnsupportedOptionError, match=r"offered_tools.* Letta API"):
            await client.create_session(offered_tools=["Read"]).initialize()


@pytest.mark.parametrize("names", [[], ["Read"]])
def test_the_letta_api_refuses_it_by_name(names: list[str]) -> None:
    with LettaClient(Rest(base_url="http://127.0.0.1:9", api_key="")) as client:
        with pytest.raises(UnsupportedOptionError, match="offered_tools") as caught:
            client.create_session("agent-1", offered_tools=names)
        assert caught.value.supported_by == ("local", "remote")


@pytest.mark.parametrize("more", [{"agent_free": True}, {"stateless": True}])
async def test_a_session_without_tools_of_the_agent_offers_none(more: dict[str, Any]) -> None:
    async with AsyncLettaClient("local") as client:
        with pytest.raises(InvalidInputError, match="offered_tools"):
            client.create_session("agent-1", offered_tools=["Read"], **more)
