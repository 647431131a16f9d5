"""The cases, over the Letta API (recorded from a real server) and the real embedded runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage

from letta_adapters import AsyncLettaClient, LettaClient, Rest
from letta_adapters.langchain import ChatLetta
from letta_adapters.messages import content_text
from letta_adapters.testing.plugin import LettaCassette
from letta_adapters.testing.scripted_model import ScriptedModel
from tests.langchain.cases import CASES, Case
from tests.rest.conftest import MODEL


class LettaWorld:
    """An agent of a real backend."""

    def __init__(self, client: Any, agent_id: str, script: Any) -> None:
        self.script = script
        self._client = client
        self._agent_id = agent_id

    def model(self, **fields: Any) -> ChatLetta:
        return ChatLetta(agent_id=self._agent_id, client=self._client, **fields)

    async def _stored(self, message: AIMessage) -> list[dict[str, Any]]:
        page = self._client.list_messages(
            self._agent_id, message.response_metadata["conversation_id"], order="asc", limit=50
        )
        page = page if isinstance(self._client, LettaClient) else await page
        return [dict(item) for item in page.messages]

    async def said(self, message: AIMessage) -> list[str]:
        stored = await self._stored(message)
        texts = [content_text(m["content"]) for m in stored if m["message_type"] == "user_message"]
        return [text for text in texts if not text.startswith("{")]

    async def told(self, message: AIMessage) -> str:
        """All that the conversation was told, by anyone but the agent."""
        stored = await self._stored(message)
        kinds = ("user_message", "system_message")
        return "\n".join(content_text(m["content"]) for m in stored if m["message_type"] in kinds)


class DeafWorld:
    """A model that answers as it was scripted and never looks at its input."""

    def __init__(self) -> None:
        self._replies: list[str] = []

    def script(self, *replies: Any) -> None:
        self._replies += [getattr(reply, "text", reply) for reply in replies]

    def model(self, **_: Any) -> BaseChatModel:
        return FakeListChatModel(responses=self._replies)

    async def said(self, message: AIMessage) -> list[str]:
        return []


@pytest.fixture
def embedded_world(
    embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel
) -> LettaWorld:
    embedded_model.clear()
    return LettaWorld(embedded, embedded_agent, embedded_model.script)


@pytest.fixture
async def rest_world(letta_cassette: LettaCassette) -> AsyncIterator[LettaWorld]:
    rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
    async with letta_cassette.http_client() as http_client:
        async with AsyncLettaClient(rest, http_client=http_client) as client:
            agent_id = await client.create_agent(
                name="history", model=MODEL, persona="I am a test.", base_tools=False
            )
            yield LettaWorld(client, agent_id, letta_cassette.script)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_embedded(case: Case, embedded_world: LettaWorld) -> None:
    await case(embedded_world)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_rest(case: Case, rest_world: LettaWorld) -> None:
    await case(rest_world)


async def test_a_model_that_ignores_its_input_fails_most_of_them() -> None:
    passed = [case.__name__ for case in CASES if await _passes(case)]
    assert len(passed) <= 0.2 * len(CASES), passed


async def _passes(case: Case) -> bool:
    try:
        await case(DeafWorld())
    except BaseException as error:  # pytest.raises() that saw nothing is no Exception
        assert not isinstance(error, KeyboardInterrupt)
        return False
    return True
