"""A misbehaving server, and clients with little patience."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from letta_adapters import Rest
from letta_adapters.backends.rest import recovery, turn
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.testing.live.faces import make_sync_client
from tests.faults import _events as ev
from tests.faults._server import Server


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses between polls, and less patience with a server that says nothing."""
    monkeypatch.setattr(recovery, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(recovery, "_CANCEL_SECONDS", 0.5)
    monkeypatch.setattr(turn, "_CANCEL_PAUSE", 0.02)


@pytest.fixture
def server() -> Iterator[Server]:
    """A Letta API of this test's own."""
    with Server() as running:
        yield running


@pytest.fixture
def rest(server: Server) -> Callable[..., Rest]:
    """The backend options that point at ``server``; give timeouts where they matter."""

    def make(**options: Any) -> Rest:
        given = {"base_url": server.url, "api_key": "", "settle_timeout": 0.2} | options
        return Rest(**given)

    return make


@pytest.fixture
async def client(rest: Callable[..., Rest]) -> AsyncIterator[AsyncLettaClient]:
    """An async client of ``server``."""
    async with AsyncLettaClient(rest()) as made:
        yield made


@pytest.fixture(params=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a client: the async one, or the sync one behind the same signatures."""
    return AsyncLettaClient if request.param == "async" else make_sync_client


def resume(client: Any, **options: Any) -> Any:
    """A session in the conversation that every test talks in."""
    return client.resume_session(agent_id=ev.AGENT, conversation_id=ev.CONV, **options)
