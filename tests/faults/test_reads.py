"""Reads are retried while that can help; nothing else ever is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    ConnectionFailedError,
    LettaError,
    NotFoundError,
    ProtocolError,
    ServerError,
)
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import (
    Wire,
    broken,
    status,
)

MakeRest = Callable[..., Rest]


async def test_reads_are_retried(server: Server, rest: MakeRest) -> None:
    server.override("GET", "/v1/agents/", broken(reset=True), 1)
    server.override("GET", "/v1/agents/", status(503, {"detail": "later"}), 1)
    async with AsyncLettaClient(rest()) as client:
        assert (await client.agents.retrieve(ev.AGENT))["id"] == ev.AGENT
    assert server.count("GET", "/v1/agents/") == 3


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (status(500, {"detail": "An unknown error occurred"}), ServerError),
        (status(429, {"detail": "slow down"}), LettaError),
        (broken(), ConnectionFailedError),
    ],
)
async def test_reads_give_up_after_three_attempts(
    server: Server, rest: MakeRest, play: Any, error: type[LettaError]
) -> None:
    server.override("GET", "/v1/agents/", play, 99)
    async with AsyncLettaClient(rest()) as client:
        with pytest.raises(error):
            await client.agents.retrieve(ev.AGENT)
    assert server.count("GET", "/v1/agents/") == 3


async def test_reads_that_cannot_succeed_are_not_retried(server: Server, rest: MakeRest) -> None:
    async with AsyncLettaClient(rest()) as client:
        with pytest.raises(NotFoundError):
            await client.agents.retrieve("agent-00000000-0000-4000-8000-00000000000f")
    assert server.count("GET", "/v1/agents/") == 1


@pytest.mark.parametrize("play", [broken(), status(500, {"detail": "?"}), status(503, {})])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT"])
async def test_writes_are_never_retried(
    server: Server, rest: MakeRest, play: Any, method: str
) -> None:
    server.override(method, "/v1/", play, 99)
    async with AsyncLettaClient(rest()) as client:
        with pytest.raises(LettaError):
            await client.request(method, "/v1/tools/", body={"name": "x"})
    assert len(server.requests) == 1


async def test_a_conversation_is_created_once(server: Server, rest: MakeRest) -> None:
    server.override("POST", "/v1/conversations/", broken(), 1)
    async with AsyncLettaClient(rest()) as client:
        session = client.create_session(ev.AGENT)
        with pytest.raises(ConnectionFailedError):
            await session.initialize()
        assert server.count("POST", "/v1/conversations/") == 1
        assert (await session.run_turn("again")).success


async def test_a_read_whose_body_is_cut_or_no_json(server: Server, rest: MakeRest) -> None:
    def cut(wire: Wire) -> None:
        wire.head(200, "application/json", content_length="100")
        wire.raw(b'{"id": ')
        wire.drop()

    server.override("GET", "/v1/agents/", cut, 1)
    async with AsyncLettaClient(rest()) as client:
        assert (await client.agents.retrieve(ev.AGENT))["id"] == ev.AGENT
        server.override("GET", "/v1/agents/", status(200, b"<html>"), 1)
        with pytest.raises(ProtocolError, match="no JSON"):
            await client.agents.retrieve(ev.AGENT)
        server.override("DELETE", "/v1/agents/", status(200, b""), 1)
        assert await client.request("DELETE", f"/v1/agents/{ev.AGENT}") is None
