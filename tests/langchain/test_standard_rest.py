"""``langchain-tests`` over the Letta API, from recordings of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel

from letta_adapters import AsyncLettaClient, LettaClient, Rest
from letta_adapters.langchain import ChatLetta
from letta_adapters.sync.bridge import get_bridge
from letta_adapters.testing import LettaCassette
from tests.backends.rest.conftest import MODEL
from tests.langchain._standard import MEDIA, Standard


class TestChatLettaRest(Standard):
    @property
    def model_override_value(self) -> str | None:
        return "openai-proxy/scripted-two"

    @pytest.fixture
    def vcr(self) -> Any:
        """Its place is taken by our own cassettes, which hold streams as they came."""
        return SimpleNamespace(responses=["recorded"])

    @pytest.fixture
    def benchmark(self, benchmark: Any) -> Any:
        """A recording is played once."""
        benchmark.disabled = True
        return benchmark

    @pytest.fixture
    async def model(self, request: pytest.FixtureRequest) -> AsyncIterator[BaseChatModel]:
        """Asynchronous tests use a client of their own loop, as a user's would."""
        if request.function.__name__ in MEDIA:
            yield ChatLetta(base_url="http://letta.test", api_key="")
            return
        cassette: LettaCassette = request.getfixturevalue("letta_cassette")
        rest = Rest(base_url=cassette.base_url, api_key=cassette.api_key or "")
        http_client = cassette.http_client()
        client = LettaClient(rest, http_client=http_client)
        agent_id = client.create_agent(
            name="standard",
            model=MODEL,
            persona="I am a test.",
            system_prompt="You are a test.",
            base_tools=False,
        )
        own_http_client = cassette.http_client()
        asynchronous = AsyncLettaClient(rest, http_client=own_http_client)
        asynchronous.handles.note(agent_id, MODEL)  # as the client that made it knows
        used = asynchronous if asyncio.iscoroutinefunction(request.function) else client
        type(self).params = {"agent_id": agent_id, "client": used}
        yield ChatLetta(**self.params)
        await asynchronous.close()
        await own_http_client.aclose()
        client.close()
        await get_bridge().acall(http_client.aclose())
