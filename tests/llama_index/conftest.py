"""Worlds: an agent of a real backend, and a model behind it that can be told what to say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, LettaClient, Rest
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.messages import content_text
from letta_adapters.sync.bridge import get_bridge
from letta_adapters.testing import FakeLetta, LettaCassette
from letta_adapters.testing.scripted_model import ScriptedModel
from tests.backends.rest.conftest import MODEL
from tests.live._rig import rig_script, rig_server

_USER = "user_message"


@dataclass
class World:
    """What a case may use; ``sync`` and ``client`` are of the same backend."""

    sync: LettaClient
    client: Any
    agent_id: str
    script: Callable[..., None]

    def llm(self, **fields: Any) -> LettaLLM:
        """For asynchronous calls."""
        return LettaLLM(agent_id=self.agent_id, client=self.client, **fields)

    def sync_llm(self, **fields: Any) -> LettaLLM:
        """For synchronous calls."""
        return LettaLLM(agent_id=self.agent_id, client=self.sync, **fields)

    def agent(self, **fields: Any) -> LettaAgent:
        """An agent; the one called ``two`` is another one on the server as well."""
        agent_id = self.another("two") if fields.get("name") == "two" else self.agent_id
        return LettaAgent(agent_id=agent_id, client=self.client, **fields)

    def another(self, name: str) -> str:
        """One more agent."""
        return self.sync.create_agent(**_about(name, self))

    async def allow_parallel_calls(self) -> None:
        """The Letta API asks the model for one call at a time, unless it is told otherwise."""
        if self.sync.backend_name == "rest":
            settings = {"provider_type": "openai", "parallel_tool_calls": True}
            await self.client.agents.update(self.agent_id, model_settings=settings)

    async def client_create(self) -> str:
        """A conversation of the agent."""
        made = await get_bridge().acall(self.sync._core.conversations.create(self.agent_id))
        return str(made["id"])

    async def said(self, conversation_id: str) -> list[str]:
        """The user's messages that a conversation holds."""
        stored = await self._stored(conversation_id)
        texts = [content_text(m["content"]) for m in stored if m["message_type"] == _USER]
        return [text for text in texts if not text.startswith("{")]

    async def said_anywhere(self) -> list[list[str]]:
        """The user's messages of all the agent's conversations that hold any."""
        core = self.sync._core
        listed = await get_bridge().acall(core.conversations.list(self.agent_id))
        said = [await self.said(str(one["id"])) for one in listed if not one.get("archived")]
        return [texts for texts in said if texts]

    async def told(self, conversation_id: str) -> str:
        """All that a conversation was told, by anyone but the agent."""
        stored = await self._stored(conversation_id)
        kinds = (_USER, "system_message")
        return "\n".join(content_text(m["content"]) for m in stored if m["message_type"] in kinds)

    async def _stored(self, conversation_id: str) -> list[dict[str, Any]]:
        page = await get_bridge().acall(
            self.sync._core.list_messages(self.agent_id, conversation_id, order="asc", limit=50)
        )
        return [dict(item) for item in page.raw]


def _about(name: str, world: World) -> dict[str, Any]:
    about: dict[str, Any] = {"model": MODEL, "base_tools": False}
    if world.sync.backend_name != "rest":
        about = {"model": "lmstudio/scripted"}
    # Letta's own prompt would make every recording longer.
    return {"name": name, "persona": "I am a test.", "system_prompt": "You are a test.", **about}


_REST = pytest.param("rest", marks=pytest.mark.letta_cassette)
_LIVE = pytest.param("live", marks=pytest.mark.live)
_EMBEDDED = pytest.param("embedded", marks=pytest.mark.slow)


async def live() -> AsyncIterator[World]:
    """An agent of the rig's Letta API."""
    sync = LettaClient(rig_server())
    async with AsyncLettaClient(rig_server()) as client_here:
        made = World(sync, client_here, "", rig_script())
        made.agent_id = made.another("llama")
        yield made
    sync.close()


@pytest.fixture(params=[_REST, _EMBEDDED, _LIVE])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """The Letta API (recorded from a real server), and the real embedded runtime."""
    if request.param == "embedded":
        model: ScriptedModel = request.getfixturevalue("embedded_model")
        client: LettaClient = request.getfixturevalue("embedded")
        model.clear()
        yield World(client, client, request.getfixturevalue("embedded_agent"), model.script)
        return
    if request.param == "live":
        async for made in live():
            yield made
        return
    async for made in recorded(request.getfixturevalue("letta_cassette")):
        yield made


async def recorded(cassette: LettaCassette) -> AsyncIterator[World]:
    """An agent of the Letta API that the recording is of."""
    rest = Rest(base_url=cassette.base_url, api_key=cassette.api_key or "")
    async with cassette.http_client() as http_client:
        own = cassette.http_client()
        sync = LettaClient(rest, http_client=own)
        async with AsyncLettaClient(rest, http_client=http_client) as client_here:
            made = World(sync, client_here, "", cassette.script)
            made.agent_id = made.another("llama")
            yield made
        sync.close()
        await get_bridge().acall(own.aclose())


@pytest.fixture(params=["fake", _REST, _EMBEDDED, _LIVE])
async def own_world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A world with an agent of its own: in memory, recorded, and on the real embedded runtime."""
    if request.param == "fake":
        fake: FakeLetta = request.getfixturevalue("letta_fake")
        client = fake.client()
        yield World(client, client, client.create_agent(name="llama"), fake.script)
        client.close()
        return
    if request.param == "embedded":
        model: ScriptedModel = request.getfixturevalue("embedded_model")
        embedded: LettaClient = request.getfixturevalue("embedded")
        model.clear()
        made = World(embedded, embedded, "", model.script)
        made.agent_id = made.another("llama")
        yield made
        return
    if request.param == "live":
        async for made in live():
            yield made
        return
    async for world in recorded(request.getfixturevalue("letta_cassette")):
        yield world
