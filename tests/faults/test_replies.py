"""Replies of the wrong shape: an error of ours, whatever was asked, and never a wrong answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve

from letta_adapters import AsyncLettaClient, Remote, Rest
from letta_adapters.backends.rest import runs
from letta_adapters.errors import LettaError, ProtocolError

Call = Callable[[AsyncLettaClient], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "create_agent": lambda c: c.create_agent(name="a", model="p/m"),
    "create_agent_default_model": lambda c: c.create_agent(name="a"),
    "agents.list": lambda c: c.agents.list(),
    "agents.retrieve": lambda c: c.agents.retrieve("agent-1"),
    "agents.update": lambda c: c.agents.update("agent-1", name="x"),
    "conversations.create": lambda c: c.conversations.create("agent-1"),
    "conversations.list": lambda c: c.conversations.list("agent-1"),
    "conversations.retrieve": lambda c: c.conversations.retrieve("conv-1"),
    "conversations.update": lambda c: c.conversations.update("conv-1", summary="x"),
    "conversations.fork": lambda c: c.conversations.fork("conv-1"),
    "models.list": lambda c: c.models.list(),
    "list_messages": lambda c: c.list_messages("agent-1", "conv-1"),
    "open_new": lambda c: _opened(c.create_session("agent-1")),
    "open_default_agent": lambda c: _opened(c.create_session()),
    "open_conversation": lambda c: _opened(c.resume_session("conv-1")),
    "open_agent": lambda c: _opened(c.resume_session("agent-1")),
    "pending": lambda c: c.resume_session(
        agent_id="agent-1", conversation_id="conv-1"
    ).recover_pending_approvals(),
    "bootstrap": lambda c: c.resume_session(
        agent_id="agent-1", conversation_id="conv-1"
    ).bootstrap_state(),
    "abort": lambda c: c.resume_session(agent_id="agent-1", conversation_id="conv-1").abort(),
}
DEEP = "[" * 100_000 + "]" * 100_000
# What no call of these is answered with.
ODD = {
    "null": "null",
    "number": "5",
    "text": '"x"',
    "true": "true",
    "list_of_numbers": "[1, 2]",
    "list_of_null": "[null]",
    "list_of_lists": "[[]]",
    "empty_objects": "[{}]",
    "ids_as_objects": '[{"id": {"a": 1}, "message_type": "assistant_message"}]',
    "id_as_object": '{"id": {"a": 1}}',
    "id_as_number": '{"id": 5}',
    "no_json": "<html>",
    "empty": "",
    "deep": DEEP,
    "not_utf8": b"\xff\xfe\x00",
    "fields_of_odd_kinds": '{"id": "agent-1", "agent_id": [1], "tools": 5, "tool_rules": "x"}',
    "rows_of_odd_kinds": '[{"id": "x", "message_type": ["a"], "tool_calls": 5, "content": 3.5}]',
    "calls_of_odd_kinds": (
        '[{"id": "message-1", "message_type": "approval_request_message", '
        '"tool_calls": [5, {"tool_call_id": {}, "name": [], "arguments": 4}]}]'
    ),
}


async def _opened(session: Any) -> Any:
    async with session:
        return session.conversation_id


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("call", CALLS)
async def test_a_reply_of_the_letta_api_is_right_or_an_error_of_ours(call: str, odd: str) -> None:
    text = ODD[odd]
    data = text if isinstance(text, bytes) else text.encode()

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=data, headers={"content-type": "application/json"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        place = Rest(base_url="http://x.test", settle_timeout=0)
        async with AsyncLettaClient(place, http_client=http) as client:
            await _right_or_ours(CALLS[call], client)


async def _right_or_ours(call: Call, client: AsyncLettaClient) -> None:
    try:
        found = await call(client)
    except LettaError:
        return
    # What came back is what its signature says, made of nothing odd.
    for item in found if isinstance(found, list) else [found]:
        if isinstance(item, dict):
            assert isinstance(item.get("id", item.get("handle")), str)
        else:
            assert not isinstance(item, int | float) or isinstance(item, bool)
            assert item != "x"


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

_HERE = {"agent_id": "agent-1", "conversation_id": "conv-1"}
_FIELDS = ("agent", "agents", "conversation", "conversations", "messages", "entries", "runtime")


@asynccontextmanager
async def app_server(odd: Any) -> Any:
    """A client of an App Server whose every answer has ``odd`` in place of its content."""

    async def handle(socket: ServerConnection) -> None:
        async for text in socket:
            frame = json.loads(text)
            answer = {
                "type": f"{frame['type']}_response",
                "request_id": frame["request_id"],
                "success": True,
                "protocol_version": 1,
                "backend": "local",
            }
            if frame["type"] != "app_server_info":
                answer |= dict.fromkeys(_FIELDS, odd)
            await socket.send(json.dumps(answer))

    async with serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        place = Remote(url=f"ws://127.0.0.1:{port}/ws", settle_timeout=0, request_timeout=1)
        async with AsyncLettaClient(place) as client:
            yield client


@pytest.mark.parametrize(
    "odd",
    [None, 5, "x", True, [], {}, [5], [None], [{}], {"id": 5}, {"id": {"a": 1}}, [{"id": []}]],
    ids=json.dumps,
)
@pytest.mark.parametrize("call", CALLS)
async def test_a_reply_of_the_app_server_is_right_or_an_error_of_ours(call: str, odd: Any) -> None:
    async with app_server(odd) as client:
        await _right_or_ours(CALLS[call], client)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What polls does so once."""
    monkeypatch.setattr(runs, "_CANCEL_SECONDS", 0.0)
