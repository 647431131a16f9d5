"""Tool calls that wait in a conversation of the Letta API, and the answers to them.

The rules: docs/protocol.md ("Approvals and client-side tools").

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from letta_adapters.backends.base import Conversation, ToolAnswer
from letta_adapters.backends.rest import recovery
from letta_adapters.backends.rest.http import STREAM_ERRORS, Http
from letta_adapters.engine.rest import RestTurn
from letta_adapters.messages import PendingToolCall


def approval_of(answer: ToolAnswer) -> dict[str, Any]:
    """Return one answer as the API takes it."""
    if answer.returned is not None:
        return {
            "type": "tool",
            "tool_call_id": answer.tool_call_id,
            "tool_return": answer.returned,
            "status": "error" if answer.is_error else "success",
        }
    item: dict[str, Any] = {
        "type": "approval",
        "tool_call_id": answer.tool_call_id,
        "approve": answer.approve,
    }
    if not answer.approve or answer.reason:
        item["reason"] = answer.reason
    return item


async def pending_calls(http: Http, conversation: Conversation) -> tuple[PendingToolCall, ...]:
    """Return the calls that wait: those of the newest stored message, if it asks for approval."""
    params = {"order": "desc", "limit": 1, **recovery.agent_param(conversation)}
    newest = await http.read(recovery.conversation_path(conversation, "/messages"), params)
    calls: list[Mapping[str, Any]] = []
    for message in newest:
        if message.get("message_type") == "approval_request_message":
            # Several calls are a list, a single one is an object of its own.
            calls += message.get("tool_calls") or [message.get("tool_call") or {}]
    return tuple(
        PendingToolCall(c["tool_call_id"], c.get("name") or "", c.get("arguments") or "")
        for c in calls
        if c.get("tool_call_id")
    )


async def deny(
    http: Http, conversation: Conversation, calls: Sequence[PendingToolCall], reason: str
) -> None:
    """Deny pending calls at no model cost: with ``max_steps: 1`` the turn ends at the denial.

    Raises:
        LettaError: The server refused the denial.
    """
    answers = [ToolAnswer(c.tool_call_id, c.tool_name, reason=reason) for c in calls]
    body = {
        "messages": [{"type": "approval", "approvals": [approval_of(a) for a in answers]}],
        "streaming": True,
        "max_steps": 1,
        **recovery.agent_param(conversation),
    }
    stream = await http.stream(recovery.conversation_path(conversation, "/messages"), body)
    state = RestTurn()
    try:
        while not state.segment_over:
            state.feed(await stream.next_chunk())
        await stream.drain()
    except StopAsyncIteration:
        pass
    except STREAM_ERRORS as cause:
        raise stream.error(cause) from cause
    finally:
        await stream.aclose()
    # The end of the steps is expected, and a call that nobody waits for any more needs no denial.
    state.end_segment()
    failure = state.failure
    if failure is not None and failure.code not in ("max_steps", "no_pending_approval"):
        raise state.error()
