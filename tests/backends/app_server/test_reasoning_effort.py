"""An effort in Letta Code: what the model gets of it, and models that get none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from letta_adapters import AsyncLettaClient, LettaClient, Local, UnsupportedOptionError
from letta_adapters.langchain import ChatLetta
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.testing.scripted_model import ScriptedModel
from tests.backends.app_server._server import MODEL, THINKING, AppServer, thinking_models

OTHER = f"{THINKING}-codex"


def effort_of(model: ScriptedModel) -> object:
    """The effort that the model was asked with last."""
    return (model.requests[-1].body.get("reasoning") or {}).get("effort")


@pytest.fixture
async def thinking(
    connect: Callable[..., AsyncLettaClient], thinking_server: AppServer, model: ScriptedModel
) -> AsyncIterator[AsyncLettaClient]:
    async with connect(thinking_server) as client:
        yield client


@pytest.fixture
async def thinker(thinking: AsyncLettaClient) -> str:
    return await thinking.create_agent(
        name="test", model=THINKING, system_prompt="You are a test.", reasoning_effort="low"
    )


async def test_another_model_of_the_conversation_keeps_the_effort(
    thinking: AsyncLettaClient, thinker: str, model: ScriptedModel
) -> None:
    async with thinking.create_session(thinker, reasoning_effort="high") as session:
        await session.run_turn("one")
        await session.update_model(OTHER)
        await session.run_turn("two")
        assert (model.requests[-1].body["model"], effort_of(model)) == (OTHER[11:], "high")
        await session.update_model(THINKING, reasoning_effort="medium")
        await session.run_turn("three")
        assert (model.requests[-1].body["model"], effort_of(model)) == (THINKING[11:], "medium")
        # A model that takes none: the effort waits for one that does.
        await session.update_model(MODEL)
        assert (await session.run_turn("four")).success
        assert effort_of(model) is None


async def test_a_conversation_without_an_agent(
    thinking: AsyncLettaClient, model: ScriptedModel
) -> None:
    options: dict[str, Any] = {"agent_free": True, "model": THINKING}
    async with thinking.create_session(reasoning_effort="high", **options) as session:
        await session.run_turn("one")
        assert effort_of(model) == "high"
        await session.update_model(reasoning_effort="low")
        await session.run_turn("two")
        assert effort_of(model) == "low"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:is_running called")
async def test_the_classes_of_both_frameworks(
    thinking: AsyncLettaClient, thinker: str, model: ScriptedModel
) -> None:
    about: dict[str, Any] = {"agent_id": thinker, "client": thinking}
    chat = ChatLetta(**about, reasoning_effort="high")
    first = await chat.ainvoke("one")
    assert effort_of(model) == "high"
    history = [HumanMessage("one"), first, HumanMessage("two")]
    # Another model for one call, and the conversation's own again: the effort is the object's.
    second = await chat.ainvoke(history, model=OTHER)
    assert (model.requests[-1].body["model"], effort_of(model)) == (OTHER[11:], "high")
    history += [second, HumanMessage("three")]
    await chat.ainvoke(history)
    assert (model.requests[-1].body["model"], effort_of(model)) == (THINKING[11:], "high")
    await ChatLetta(**about).ainvoke("without")
    assert effort_of(model) == "low"
    await LettaLLM(**about, reasoning_effort="medium").acomplete("hi")
    assert effort_of(model) == "medium"
    await LettaAgent(**about, reasoning_effort="xhigh").run("hi")
    assert effort_of(model) == "xhigh"
    assert (await thinking.agents.retrieve(thinker))["llm_config"]["reasoning_effort"] == "low"


def test_on_this_machine(model: ScriptedModel, tmp_path: Path) -> None:
    spec = Local(data_dir=tmp_path, env=thinking_models(model.base_url))
    with LettaClient(spec) as client:
        # Letta's own prompt: the server makes the agent, and it is furnished afterwards.
        agent = client.create_agent(model=THINKING, reasoning_effort="high")
        assert client.prompt("Hello", agent).success
        assert effort_of(model) == "high"
        with client.create_session(agent, reasoning_effort="none") as session:
            assert session.run_turn("Hello").success
            assert effort_of(model) == "none"


async def test_a_model_server_of_ones_own_gets_none(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    refused = pytest.raises(UnsupportedOptionError, match=f"'{MODEL}' does not take one")
    name = "effort-refused"
    with refused:
        await client.create_agent(name=name, model=MODEL, reasoning_effort="low")
    assert await client.agents.list(query=name) == []
    with refused:
        await client.agents.update(agent, reasoning_effort="low", description="changed")
    assert (await client.agents.retrieve(agent)).get("description") != "changed"
    before = await client.conversations.list(agent)
    with refused:
        await client.create_session(agent, reasoning_effort="low").initialize()
    assert await client.conversations.list(agent) == before
    async with client.create_session(agent) as session:
        await session.run_turn("one")
        with refused:
            await session.update_model(reasoning_effort="low")
        with refused:
            await session.update_model(MODEL, reasoning_effort="low")
        assert (await session.run_turn("two")).success
    assert "reasoning" not in model.requests[-1].body
    with refused:
        await client.create_session(agent_free=True, reasoning_effort="low").initialize()
