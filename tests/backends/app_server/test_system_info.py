"""``system_info_reminder=False``: seen in what the model gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from letta_adapters import AsyncLettaClient, LettaClient, UnsupportedOptionError
from letta_adapters.backends.app_server.switches import SystemInfo
from letta_adapters.backends.base import Conversation
from letta_adapters.testing.scripted_model import ScriptedModel
from tests.backends.app_server._server import MODEL, AppServer

DEVICE, AGENT = "Device", "Agent ID"


@pytest.fixture
def model(embedded_model: ScriptedModel) -> ScriptedModel:
    return embedded_model


def told(model: ScriptedModel, message: str) -> str:
    """What the model was given with ``message``."""
    (given,) = [
        str(m["content"])
        for m in model.requests[-1].messages
        if m["role"] == "user" and message in str(m["content"])
    ]
    return given


def test_one_conversation_is_not_told_and_others_are(
    embedded: LettaClient, embedded_agent: str, model: ScriptedModel
) -> None:
    with (
        embedded.create_session(embedded_agent, system_info_reminder=False) as quiet,
        embedded.create_session(embedded_agent) as usual,
    ):
        for word in ("first", "second"):
            quiet.run_turn(f"quiet {word}")
            given = told(model, f"quiet {word}")
            assert (DEVICE in given, AGENT in given) == (False, False)
        usual.run_turn("usual first")
        assert AGENT in told(model, "usual first")
        assert DEVICE in told(model, "usual first")
        where = {"agent_id": embedded_agent, "conversation_id": quiet.conversation_id}
    with embedded.resume_session(**where) as session:
        session.run_turn("told after all")
    assert AGENT in told(model, "told after all")


def test_an_agent_can_have_it_for_all_its_sessions(
    embedded: LettaClient, model: ScriptedModel
) -> None:
    agent = embedded.create_agent(model=MODEL, system_prompt="t", system_info_reminder=False)
    embedded.prompt("by the agent", agent)
    assert AGENT not in told(model, "by the agent")
    with embedded.create_session(agent, system_info_reminder=True) as session:
        session.run_turn("by the session")
    assert AGENT in told(model, "by the session")
    embedded.agents.delete(agent)


async def test_another_server_refuses_it_by_name(
    connect: Callable[..., AsyncLettaClient], server: AppServer
) -> None:
    async with connect(server, name="remote") as client:
        with pytest.raises(UnsupportedOptionError, match="system_info_reminder") as caught:
            await client.create_session(system_info_reminder=False).initialize()
    assert caught.value.supported_by == ("local",)


def test_a_version_without_the_switch_refuses_it_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match="this version of Letta Code"):
        SystemInfo(tmp_path / "none").choose(Conversation("agent-1", "conv-1"), False)
