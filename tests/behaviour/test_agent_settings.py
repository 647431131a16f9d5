"""What restricts an agent travels with it, wherever Letta Code finds it."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import InvalidInputError
from letta_adapters.testing.scripted_model import Reply
from tests.behaviour._world import FACES, World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Letta Code only, over its own agents or over those of a Letta API."""
    kind = "on_api" if metafunc.config.getoption("--letta-code-on-api") else "app_server"
    cases = [
        pytest.param((kind, face), id=f"{kind}-{face}", marks=pytest.mark.slow) for face in FACES
    ]
    metafunc.parametrize("world", cases, indirect=True)


async def test_another_client_keeps_to_what_restricts_an_agent(client: Any, world: World) -> None:
    restricted = {
        "permission_mode": "strict",
        "disallowed_tools": ("Write", "apply_patch"),
        "skill_sources": (),
    }
    agent = await client.create_agent(
        name="restricted",
        model=world.model,
        system_prompt="t",
        tags=["mine"],
        **restricted,
    )
    other = world.client()
    found = await other.agents.settings(agent)
    assert {**found, "disallowed_tools": set(found["disallowed_tools"])} == {
        **restricted,
        "disallowed_tools": {"Write", "apply_patch"},
    }
    shown = await other.agents.update(agent, description="changed", metadata={"mine": 1})
    assert "letta_adapters" not in (shown.get("metadata") or {})
    assert await other.agents.settings(agent) == found
    with pytest.raises(InvalidInputError, match="permission_mode"):
        async with other.create_session(agent, permission_mode="unrestricted"):
            pass
    world.script(Reply(text="Hi."))
    assert (await other.prompt("hi", agent)).result == "Hi."
    await other.agents.update(agent, permission_mode=None, disallowed_tools=None)
    assert await client.agents.settings(agent) == {"skill_sources": ()}
    await client.agents.delete(agent)
