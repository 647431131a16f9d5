"""The agent that is used when none is named, and conversations that do not open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import Rest
from letta_adapters.backends import default_agent
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    ConfigurationError,
    LettaError,
    NotFoundError,
    ProtocolError,
)
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import Wire, status

MakeRest = Callable[..., Rest]


# -- opening --------------------------------------------------------------------------------------


async def test_a_conversation_of_another_agent(server: Server, client: AsyncLettaClient) -> None:
    other = "agent-00000000-0000-4000-8000-0000000000ff"
    session = client.resume_session(
        agent_id=other, conversation_id=ev.CONV, can_use_tool=lambda *_: True
    )
    with pytest.raises(NotFoundError, match="not a conversation of"):
        await session.initialize()


@pytest.mark.parametrize("answer", [{}, [], {"id": "banana"}, "text", None])
async def test_an_answer_without_an_id(
    server: Server, client: AsyncLettaClient, answer: Any
) -> None:
    server.override("POST", "/v1/", status(200, answer), 2)
    with pytest.raises(ProtocolError):
        await client.create_session(ev.AGENT).initialize()
    with pytest.raises(ProtocolError):
        await client.create_agent(model="x/y")
    assert server.count("POST", "/v1/") == 2


async def test_opening_fails_and_works_later(server: Server, rest: MakeRest, face: Any) -> None:
    server.override("POST", "/v1/conversations/", status(500, {"detail": "?"}), 1)
    async with face(rest()) as client:
        session = client.create_session(ev.AGENT)
        with pytest.raises(LettaError):
            await session.send("hello")
        assert session.conversation_id is None
        assert (await session.run_turn("hello")).success
        assert session.conversation_id.startswith("conv-")
    assert server.texts() == ["hello"]


async def test_sends_at_once_open_the_session_once(
    server: Server, client: AsyncLettaClient
) -> None:
    session = client.create_session(ev.AGENT)
    await asyncio.gather(*(session.run_turn(str(n)) for n in range(4)))
    assert server.count("POST", "/v1/conversations/$") == 1
    assert server.count("POST", "/messages$") == 4


async def test_a_server_without_models(server: Server, client: AsyncLettaClient) -> None:
    server.override("GET", "/v1/models/", status(200, []), 1)
    with pytest.raises(ConfigurationError, match="no chat model"):
        await client.create_agent()
    assert await client.create_agent()


# -- the default agent ----------------------------------------------------------------------------


def defaults(server: Server) -> list[str]:
    tag = default_agent.DEFAULT_AGENT_TAG
    return [agent_id for agent_id, agent in server.agents.items() if tag in agent["tags"]]


async def test_the_default_agent_is_made_once(
    server: Server, rest: MakeRest, face: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_agent, "RACE_SECONDS", 0.05)
    async with face(rest()) as client:
        assert (await client.prompt("hello")).success
        assert (await client.prompt("again")).success
    assert len(defaults(server)) == 1
    assert server.count("POST", "/v1/agents/") == 1


async def test_two_clients_race_to_make_the_default_agent(
    server: Server, rest: MakeRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see none and make one: the older becomes it, the maker of the other takes it back."""
    monkeypatch.setattr(default_agent, "RACE_SECONDS", 0.2)
    both_looked = threading.Barrier(2)

    def none_yet(wire: Wire) -> None:
        wire.answer(200, [])
        both_looked.wait(20)

    # Each looks before and after it has its lock.
    server.override("GET", "/v1/agents/$", status(200, []), 2)
    server.override("GET", "/v1/agents/$", none_yet, 2)
    async with AsyncLettaClient(rest()) as one, AsyncLettaClient(rest()) as two:
        sessions = [one.create_session(), two.create_session()]
        await asyncio.gather(*(session.initialize() for session in sessions))
        assert sessions[0].agent_id == sessions[1].agent_id
        assert (await sessions[1].run_turn("hello")).success
    assert server.count("POST", "/v1/agents/") == 2
    assert server.count("DELETE", "/v1/agents/") == 1
    assert defaults(server) == [sessions[0].agent_id]
    assert len([a for a in server.agents.values() if a.get("name") == "default"]) == 1


async def test_a_default_agent_that_cannot_be_finished_is_taken_back(
    server: Server, rest: MakeRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_agent, "RACE_SECONDS", 0.01)
    server.override("PATCH", "/v1/agents/", status(500, {"detail": "?"}), 1)
    async with AsyncLettaClient(rest()) as client:
        with pytest.raises(LettaError):
            await client.prompt("hello")
        assert [a["id"] for a in server.agents.values()] == [ev.AGENT]
        assert (await client.prompt("hello")).success
    assert len(defaults(server)) == 1


async def test_the_users_tags_do_not_cost_the_default_agent(
    server: Server, rest: MakeRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_agent, "RACE_SECONDS", 0.01)
    async with AsyncLettaClient(rest()) as client:
        agent_id = (await client.prompt("hello")).agent_id
        await client.agents.update(agent_id, tags=["mine"])
        assert server.agents[agent_id]["tags"] == ["mine", default_agent.DEFAULT_AGENT_TAG]
        assert (await client.prompt("hello")).agent_id == agent_id


async def test_two_sessions_of_one_client_make_the_default_agent_once(
    server: Server, client: AsyncLettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_agent, "RACE_SECONDS", 0.2)
    results = await asyncio.gather(*(client.prompt(str(n)) for n in range(3)))
    assert len({result.agent_id for result in results}) == 1
    assert len(defaults(server)) == 1
    assert server.count("POST", "/v1/agents/") == 1
