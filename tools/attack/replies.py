"""Send replies of the wrong shape to every call: an error of ours, and never a wrong answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx

from letta_adapters import AsyncLettaClient, Rest
from tools.attack.judge import Tally, nothing_left
from tools.attack.mutations import hurried
from tools.fake_app_server import HERE, Frame, fake_app_server, reply

Call = Callable[[AsyncLettaClient], Awaitable[Any]]

CALLS: Final[dict[str, Call]] = {
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
    "pending": lambda c: c.resume_session(**HERE).recover_pending_approvals(),
    "bootstrap": lambda c: c.resume_session(**HERE).bootstrap_state(),
    "abort": lambda c: c.resume_session(**HERE).abort(),
}
DEEP: Final = "[" * 100_000 + "]" * 100_000
# What no call of these is answered with.
ODD: Final[dict[str, str | bytes]] = {
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
# In place of what an App Server's answer holds.
ODD_FIELDS: Final[tuple[Any, ...]] = (
    None,
    5,
    "x",
    True,
    [],
    {},
    [5],
    [None],
    [{}],
    {"id": 5},
    {"id": {"a": 1}},
    [{"id": []}],
)
_FIELDS: Final = (
    "agent",
    "agents",
    "conversation",
    "conversations",
    "messages",
    "entries",
    "runtime",
)


async def _opened(session: Any) -> Any:
    async with session:
        return session.conversation_id


def is_sound(found: Any) -> bool:
    """Return whether the result of a call contains nothing odd."""
    for item in found if isinstance(found, list) else [found]:
        if isinstance(item, dict):
            if not isinstance(item.get("id", item.get("handle")), str):
                return False
        elif (isinstance(item, int | float) and not isinstance(item, bool)) or item == "x":
            return False
    return True


def answering_api(odd: str | bytes) -> httpx.MockTransport:
    """Return a Letta API that answers everything with ``odd``."""
    data = odd if isinstance(odd, bytes) else odd.encode()

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=data, headers={"content-type": "application/json"})

    return httpx.MockTransport(answer)


def answering_app_server(odd: Any) -> Any:
    """Return a client of an App Server whose every answer has ``odd`` in place of its content."""

    def play(frame: Frame) -> list[Any]:
        known = frame["type"] == "app_server_info"
        return [reply(frame) if known else reply(frame, **dict.fromkeys(_FIELDS, odd))]

    return fake_app_server(play, settle_timeout=0, request_timeout=1)


async def odd_replies(*, every: int = 1) -> Tally:
    """Make each call of each server with each of the odd replies (one in ``every``)."""
    tally = Tally("odd replies to calls")
    attempts = [(kind, call) for call in CALLS for kind in (*ODD, *ODD_FIELDS)]
    with hurried():
        for kind, call in attempts[::every]:
            # By identity: ``1 == True`` would take one for the other.
            if isinstance(kind, str) and kind in ODD:
                await _over_rest(tally, call, kind)
            else:
                await _over_app_server(tally, call, kind)
    await nothing_left(tally)
    return tally


async def _over_rest(tally: Tally, call: str, kind: str) -> None:
    async with httpx.AsyncClient(transport=answering_api(ODD[kind])) as http:
        place = Rest(base_url="http://letta.test", api_key="", settle_timeout=0)
        async with AsyncLettaClient(place, http_client=http) as client:
            await tally.judge(f"{call}, {kind}", _made(CALLS[call], client), is_sound)


async def _over_app_server(tally: Tally, call: str, odd: Any) -> None:
    async with answering_app_server(odd) as client:
        await tally.judge(f"{call}, {json.dumps(odd)}", _made(CALLS[call], client), is_sound)


async def _made(call: Call, client: AsyncLettaClient) -> Any:
    return await call(client)
