"""Replies of the wrong shape: an error of ours, whatever was asked, and never a wrong answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters.backends.rest import recovery
from letta_adapters.errors import LettaError, ProtocolError
from tools.attack.replies import (
    CALLS,
    DEEP,
    ODD,
    ODD_FIELDS,
    Call,
    answering_api,
    answering_app_server,
    is_sound,
)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("call", CALLS)
async def test_a_reply_of_the_letta_api_is_right_or_an_error_of_ours(call: str, odd: str) -> None:
    async with httpx.AsyncClient(transport=answering_api(ODD[odd])) as http:
        place = Rest(base_url="http://x.test", settle_timeout=0)
        async with AsyncLettaClient(place, http_client=http) as client:
            await _right_or_ours(CALLS[call], client)


async def _right_or_ours(call: Call, client: AsyncLettaClient) -> None:
    try:
        found = await call(client)
    except LettaError:
        return
    assert is_sound(found)  # what came back is what its signature says, made of nothing odd


@pytest.mark.parametrize("odd", ["number", "list_of_numbers", "id_as_object", "deep", "no_json"])
async def test_the_error_says_what_was_asked_and_keeps_its_cause(odd: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=str(ODD[odd]).encode())

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        async with AsyncLettaClient(Rest(base_url="http://x.test"), http_client=http) as client:
            with pytest.raises(ProtocolError, match="/v1/agents/agent-1"):
                await client.agents.retrieve("agent-1")


@pytest.mark.parametrize("status", [200, 307, 400, 404, 409, 422, 500, 503])
@pytest.mark.parametrize(
    "body",
    [b"\xff", DEEP.encode(), b'{"detail": {"message": [1]}}', b'{"error": [1]}', b'{"detail": 5}'],
)
async def test_a_refusal_of_any_shape_is_an_error_of_ours(status: int, body: bytes) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body, headers={"retry-after": "soon"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        async with AsyncLettaClient(Rest(base_url="http://x.test"), http_client=http) as client:
            with pytest.raises(LettaError):
                await client.agents.update("agent-1", name="x")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "nonsense"])
async def test_a_body_that_cannot_be_decoded_is_an_error_of_ours(encoding: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        stream = httpx.ByteStream(b"no such thing")
        return httpx.Response(200, stream=stream, headers={"content-encoding": encoding})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        async with AsyncLettaClient(Rest(base_url="http://x.test"), http_client=http) as client:
            with pytest.raises(LettaError):
                await client.agents.retrieve("agent-1")


# -- the App Server -------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ODD_FIELDS, ids=json.dumps)
@pytest.mark.parametrize("call", CALLS)
async def test_a_reply_of_the_app_server_is_right_or_an_error_of_ours(call: str, odd: Any) -> None:
    async with answering_app_server(odd) as client:
        await _right_or_ours(CALLS[call], client)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What polls does so once."""
    monkeypatch.setattr(recovery, "_CANCEL_SECONDS", 0.0)
