"""Names of prompt presets: Letta's own is meant by two of them, no other is stored as text."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, InvalidInputError, Rest
from letta_adapters.options import AgentOptions, SessionOptions
from letta_adapters.testing.fakes import FakeLetta

OTHERS = [
    "letta-claude", "letta-codex", "letta-gemini", "claude", "codex", "gemini",
    "source-claude", "source-codex", "source-gemini", " letta-claude\n",
]  # fmt: skip
OBJECT = {"type": "preset", "preset": "letta-claude", "append": "Be brief."}


@pytest.mark.parametrize("name", ["default", "letta"])
def test_letta_s_own_prompt(name: str) -> None:
    assert AgentOptions(system_prompt=name).system_prompt is None


@pytest.mark.parametrize("name", [*OTHERS, OBJECT])
def test_a_preset_that_has_no_text_here(name: Any) -> None:
    with pytest.raises(InvalidInputError, match="preset"):
        AgentOptions(system_prompt=name)


@pytest.mark.parametrize("name", [*OTHERS, "default", "letta", OBJECT])
def test_no_preset_stands_for_a_text(name: Any) -> None:
    with pytest.raises(InvalidInputError, match="preset"):
        SessionOptions(agent_free=True, system_prompt=name)


@pytest.mark.parametrize("text", ["", "You are Claude.", "defaults", "letta-claude says hi"])
def test_a_text_is_taken_as_it_is(text: str) -> None:
    assert AgentOptions(system_prompt=text).system_prompt == text


async def test_refused_before_any_request() -> None:
    async with AsyncLettaClient(Rest(base_url="http://127.0.0.1:9", api_key="")) as client:
        with pytest.raises(InvalidInputError, match="letta-claude"):
            await client.create_agent(system_prompt="letta-claude")
        with pytest.raises(InvalidInputError, match="letta-claude"):
            await client.agents.update("agent-1", system="letta-claude")
    with FakeLetta().client() as sync, pytest.raises(InvalidInputError, match="letta-claude"):
        sync.create_agent(system_prompt="letta-claude")
