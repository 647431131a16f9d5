"""A reasoning effort in the shape of each provider, and what has none."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from letta_adapters import AsyncLettaClient, InvalidInputError, NotFoundError, Rest
from letta_adapters.backends.model_settings import (
    of_agent,
    of_conversation,
    read_effort,
    with_effort,
)
from letta_adapters.errors import UnsupportedOptionError
from letta_adapters.testing import fakes
from letta_adapters.testing.fakes import FakeLetta


@pytest.mark.parametrize(
    ("provider", "shape"),
    [
        ("openai", {"reasoning": {"reasoning_effort": "low"}}),
        ("chatgpt_oauth", {"reasoning": {"reasoning_effort": "low"}}),
        ("anthropic", {"effort": "low"}),
        ("zai", {"reasoning_effort": "low"}),
    ],
)
def test_each_provider_has_its_shape(provider: str, shape: dict[str, Any]) -> None:
    settings = {"provider_type": provider, "temperature": 0.1}
    made = with_effort(settings, "low", "a/model", "rest")
    assert made == settings | shape
    assert read_effort(made) == "low"
    assert read_effort(with_effort(made, "high", "a/model", "rest")) == "high"


@pytest.mark.parametrize("provider", ["google_ai", "azure", "groq", "", "a new one"])
def test_other_providers_have_none(provider: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"'g/model' does not take one.*'{provider}'"):
        with_effort({"provider_type": provider}, "low", "g/model", "rest")


@pytest.mark.parametrize("settings", [None, {}, {"reasoning": None}, {"effort": 3}, "text"])
def test_settings_without_an_effort(settings: Any) -> None:
    assert read_effort(settings) is None


def test_what_the_api_shows_is_not_always_what_it_does() -> None:
    settings = {"provider_type": "openai", "parallel_tool_calls": True, "response_format": None}
    used = {"parallel_tool_calls": False, "response_format": {"type": "json_object"}}
    assert of_agent({"model_settings": settings, "llm_config": used}) == settings | used
    # Its default for a limit that was never given, which would be one if it were sent back.
    assert of_conversation({"model_settings": {"max_output_tokens": 4096}}) == {}
    assert of_conversation({"model_settings": {"max_output_tokens": 77}}) == {
        "max_output_tokens": 77
    }


async def test_nothing_is_made_for_a_provider_without_efforts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fakes, "_PROVIDER", "google_ai")
    letta = FakeLetta("Hello.")
    async with letta.async_client() as client:
        before = await client.agents.list()
        with pytest.raises(UnsupportedOptionError, match="'fake/model' does not take one"):
            await client.create_agent(reasoning_effort="low")
        assert await client.agents.list() == before
        agent = await client.create_agent()
        session = client.create_session(agent, reasoning_effort="low")
        with pytest.raises(UnsupportedOptionError, match="google_ai"):
            await session.run_turn("Hello")
        assert await client.conversations.list(agent) == []
        with pytest.raises(UnsupportedOptionError, match="google_ai"):
            await client.agents.update(agent, reasoning_effort="low")
        async with client.create_session(agent) as plain:
            await plain.run_turn("Hello")
            with pytest.raises(UnsupportedOptionError, match="google_ai"):
                await plain.update_model(reasoning_effort="low")


async def test_a_model_that_is_not_listed_is_not_found() -> None:
    async with FakeLetta().async_client() as client:
        with pytest.raises(NotFoundError, match="fake/other"):
            await client.create_agent(model="fake/other", reasoning_effort="low")


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.create_agent(reasoning_effort="enormous"),
        lambda client: client.agents.update("agent-1", reasoning_effort="enormous"),
        lambda client: client.agents.update(
            "agent-1", reasoning_effort="low", model_settings={"temperature": 1}
        ),
        lambda client: client.agents.update("agent-1", reasoning_effort=None),
        lambda client: client.conversations.update("conv-1", reasoning_effort="low"),
        lambda client: client.conversations.create("agent-1", reasoning_effort="low"),
    ],
)
async def test_bad_input_is_refused_before_any_request(call: Any) -> None:
    # Nothing listens there: a request would end in another error.
    async with AsyncLettaClient(Rest(base_url="http://127.0.0.1:9", api_key="")) as client:
        with pytest.raises(InvalidInputError):
            await call(client)


async def test_a_server_that_drops_the_effort_leaves_nothing_behind() -> None:
    """As 0.16.8 does with settings that its version of a provider does not know."""
    requests: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append((request.method, request.url.path))
        listed = {"handle": "openrouter/x", "provider_type": "openrouter", "temperature": 0.5}
        if request.url.path == "/v1/models/":
            return httpx.Response(200, json=[listed])
        body = json.loads(request.content or b"{}")
        settings = body.get("model_settings") or {"provider_type": "openrouter"}
        settings.pop("reasoning", None)
        id_ = "conv-1" if "conversations" in request.url.path else "agent-1"
        made = {"id": id_, "agent_id": "agent-1", "model": "openrouter/x"}
        return httpx.Response(200, json=made | {"model_settings": settings})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    spec = Rest(base_url="http://letta.fake", api_key="")
    async with http, AsyncLettaClient(spec, http_client=http) as client:
        with pytest.raises(UnsupportedOptionError, match="drops it"):
            await client.create_agent(model="openrouter/x", reasoning_effort="low")
        assert requests[-1] == ("DELETE", "/v1/agents/agent-1")
        session = client.create_session("agent-1", reasoning_effort="low")
        with pytest.raises(UnsupportedOptionError, match="drops it"):
            await session.initialize()
        assert requests[-1] == ("DELETE", "/v1/conversations/conv-1")
