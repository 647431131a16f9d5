"""Replays of a real Letta API server (``python -m tools.rig record`` makes them anew)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.live.faces import make_sync_client
from tests._replayed import open_clients

MODEL = "openai-proxy/scripted"


@pytest.fixture(params=["async", "sync"])
async def new_client(
    request: pytest.FixtureRequest, letta_cassette: LettaCassette
) -> AsyncIterator[Callable[..., Any]]:
    """Makes clients on the test's cassette: the async face, or the sync one in its clothes."""
    cls = AsyncLettaClient if request.param == "async" else make_sync_client
    async with open_clients(letta_cassette, cls) as make:
        yield partial(make, settle_timeout=5.0)


@pytest.fixture
def client(new_client: Callable[..., Any]) -> Any:
    """One client on the test's cassette."""
    return new_client()


@pytest.fixture
async def agent(client: Any, request: pytest.FixtureRequest) -> str:
    """A bare agent (none of Letta's own tools), named after the test."""
    agent_id: str = await client.create_agent(
        name=f"test {request.node.originalname}",
        model=MODEL,
        # One block: the server lists several in any order, which would show in the recordings.
        system_prompt="You are a test agent.",
        persona="I am a test agent.",
        base_tools=False,
    )
    return agent_id
