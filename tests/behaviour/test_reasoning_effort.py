"""The reasoning effort of an agent and of a conversation, and the refusals of one."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import InvalidInputError, UnsupportedOptionError
from letta_adapters.backends.model_settings import read_effort
from tests.behaviour._world import World


async def effort_of(resource: Any, id_: str) -> str | None:
    """The effort that the server shows for an agent or a conversation."""
    return read_effort((await resource.retrieve(id_)).get("model_settings"))


def others(agent: Any) -> dict[str, Any]:
    """What an agent's model is set to beside the effort."""
    return {k: v for k, v in agent["llm_config"].items() if k != "reasoning_effort"}


@pytest.mark.behaviour("effort_of_an_agent", thinking=True)
async def test_an_agent_has_an_effort(client: Any, world: World) -> None:
    plain = await world.agent(client, "test without", model=world.thinking)
    agent = await world.agent(client, "test", model=world.thinking, reasoning_effort="high")
    # Whatever else the model is set to stays: the Letta API replaces all of it.
    after = await client.agents.retrieve(agent)
    settings = others(after)
    assert settings == others(await client.agents.retrieve(plain))
    assert read_effort(after["model_settings"]) == "high"
    world.script("One.", "Two.")
    assert (await client.prompt("Hello", agent)).success
    assert world.effort_sent("high")
    await client.agents.update(agent, reasoning_effort="low", description="Thinks little.")
    changed = await client.agents.retrieve(agent)
    assert (read_effort(changed["model_settings"]), changed["description"]) == (
        "low",
        "Thinks little.",
    )
    assert others(changed) == settings
    async with client.resume_session(agent) as session:
        assert (await session.run_turn("Again")).success
        assert world.effort_sent("low")
        with pytest.raises(UnsupportedOptionError, match="reasoning_effort") as refused:
            await session.update_model(reasoning_effort="high")
    assert "client.agents.update(agent_id, reasoning_effort=...)" in str(refused.value)
    assert await effort_of(client.agents, agent) == "low"


@pytest.mark.behaviour("effort_of_a_conversation", thinking=True)
async def test_a_conversation_has_an_effort_of_its_own(client: Any, world: World) -> None:
    agent = await world.agent(client, "test", model=world.thinking, reasoning_effort="high")
    world.script("One.", "Two.", "Three.", "Four.")
    async with client.create_session(agent, reasoning_effort="low") as session:
        first = await session.initialize()
        assert first.model == world.thinking
        assert (await session.run_turn("one")).success
        assert world.effort_sent("low")
        await session.update_model(reasoning_effort="medium")
        assert (await session.run_turn("two")).success
        assert world.effort_sent("medium")
        here = session.conversation_id
        with pytest.raises(InvalidInputError, match="model=, reasoning_effort="):
            await session.update_model()
        with pytest.raises(InvalidInputError, match="reasoning_effort"):
            await session.update_model(reasoning_effort="enormous")
        # Neither kind of Letta has one for a single turn.
        with pytest.raises(TypeError, match="reasoning_effort"):
            await session.run_turn("x", reasoning_effort="low")
    assert await effort_of(client.conversations, here) == "medium"
    async with client.resume_session(here, reasoning_effort="low") as session:
        assert (await session.run_turn("three")).success
        assert world.effort_sent("low")
        # Another model, or the same again, and the conversation keeps what it was given.
        await session.update_model(world.thinking)
        assert (await session.run_turn("four")).success
        assert world.effort_sent("low")
    assert await effort_of(client.conversations, here) == "low"
    assert await effort_of(client.agents, agent) == "high"


@pytest.mark.behaviour("effort_beside_settings", thinking=True)
async def test_an_effort_leaves_the_other_settings_alone(client: Any, world: World) -> None:
    agent = await world.agent(client, "test", model=world.thinking)
    found = await client.agents.retrieve(agent)
    settings = found["model_settings"] | {"temperature": 0.25}
    await client.agents.update(agent, model_settings=settings)
    world.script("One.")
    async with client.create_session(agent, reasoning_effort="low") as session:
        assert (await session.run_turn("one")).success
        conversation = await client.conversations.retrieve(session.conversation_id)
    await client.agents.update(agent, reasoning_effort="high")
    after = (await client.agents.retrieve(agent))["model_settings"]
    assert (read_effort(after), after["temperature"]) == ("high", 0.25)
    own = conversation["model_settings"]
    assert read_effort(own) == "low"
    # Letta Code lays a conversation's settings over its agent's.
    assert own.get("temperature", after["temperature"]) == 0.25
