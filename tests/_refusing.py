"""A Letta in memory some of whose requests fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters.testing import FakeLetta

Refuse = Callable[[httpx.Request], httpx.Response | None]


class Refusing(httpx.AsyncBaseTransport):
    """Ask a function about each request; what it returns is the answer, without the server."""

    def __init__(self, inner: Any, refuse: Refuse) -> None:
        self._inner = inner
        self._refuse = refuse

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        refused = self._refuse(request)
        return await self._inner.handle_async_request(request) if refused is None else refused


def client_of(letta: FakeLetta, refuse: Refuse) -> LettaClient:
    """A client of the fake, some of whose requests fail."""
    url = "http://letta.fake"
    transport = Refusing(letta.http_client()._transport, refuse)
    client = httpx.AsyncClient(base_url=url, transport=transport)
    return LettaClient(Rest(base_url=url, api_key=""), http_client=client)


def sends(request: httpx.Request) -> bool:
    """Return whether it is a message to the agent."""
    return request.method == "POST" and request.url.path.endswith("/messages")


def refuse_messages(times: int) -> Refuse:
    """Refuse the first messages for a rate limit."""
    left = iter(range(times))

    def refuse(request: httpx.Request) -> httpx.Response | None:
        if not sends(request) or next(left, None) is None:
            return None
        return httpx.Response(429, json={"detail": "slow down"}, headers={"retry-after": "0"})

    return refuse


def call_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a refused call again without a pause."""
    monkeypatch.setattr("letta_adapters.chat.runner.random.uniform", lambda *_: 0.0)


def count_conversations(letta: FakeLetta, client: LettaClient) -> int:
    """Close the client, and return how many conversations are left on the server."""
    client.close()  # waits for what is cleaned up in the background
    agent = next(iter(letta._agents))
    _, listed = letta._list_conversations((), {"agent_id": agent}, {})
    return len(listed)
