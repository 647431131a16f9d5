"""Internal: the conversations of the Letta API: pages of stored messages, and calls that wait.

The odd behaviour of the API's pages is evened out here. The rules: docs/protocol.md ("Pages of
stored messages", and "Approvals and client-side tools").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from letta_adapters._utils.checks import check_id
from letta_adapters.backends.base import (
    DEFAULT,
    MAX_PAGE,
    Conversation,
    PageQuery,
    ToolCallResponse,
)
from letta_adapters.backends.rest.http import STREAM_ERRORS, Http
from letta_adapters.engine.rest import RestTurn
from letta_adapters.engine.stored import (
    StoredPage,
    check_cursor,
    keep_first,
    list_calls,
    newest_first,
    refuse_cursor,
    shows_its_order,
)
from letta_adapters.messages import PendingToolCall


def conversation_path(conversation: Conversation, tail: str = "") -> str:
    """Return ``/v1/conversations/{id}{tail}``; raise InvalidInputError if the id is none."""
    id_ = check_id(conversation.conversation_id, "a conversation id")
    return f"/v1/conversations/{id_}{tail}"


def agent_param(conversation: Conversation) -> dict[str, str]:
    """Return the agent's id where the path does not imply it: for the default conversation."""
    return {"agent_id": conversation.agent_id} if conversation.conversation_id == DEFAULT else {}


async def fetch_page(http: Http, conversation: Conversation, query: PageQuery) -> StoredPage:
    """Return one page; ``limit`` counts stored messages, each of which can be several items."""
    # The API ignores a cursor that it cannot read, and would send the first page.
    if query.cursor is not None and not query.cursor.startswith("message-"):
        raise refuse_cursor(query.cursor)
    items, more = await _fetch_items(http, conversation, query)
    ids = [item["id"] for item in items]
    check_cursor(query.cursor, ids)
    last = ids[-1] if ids else None
    # The longest page leaves no room for one message more, so that one is asked for by itself.
    if more is None:
        on = PageQuery(1, after=last, order="asc") if query.order == "asc" else PageQuery(1, last)
        more = bool(await _read(http, conversation, on.ask_for(1)))
    return StoredPage(items, query.order, last, more)


async def _fetch_items(
    http: Http, conversation: Conversation, query: PageQuery
) -> tuple[list[dict[str, Any]], bool | None]:
    """Return the items of a page in its order, and whether there is more (``None``: unknown).

    The API does not say whether there is more: one message more than is wanted tells it, and costs
    no request of its own.
    """
    limit = query.limit
    asked = min(limit + query.count_on, MAX_PAGE)
    listed = await _read(http, conversation, query.ask_for(asked))
    found = len({item["id"] for item in listed})
    if found <= limit:
        full = query.count_on and asked == limit == found
        return _sort(listed, query), None if full else False
    if query.order == "asc" or conversation.conversation_id != DEFAULT:
        return _sort(keep_first(listed, limit), query), True
    # A page of the default conversation comes the wrong way round, so the message too many stands
    # in front. Where the page does not show that, leaving one out might lose the newest message.
    if shows_its_order(listed):
        return keep_first(newest_first(listed), limit), True
    return _sort(await _read(http, conversation, query.ask_for(limit)), query), True


def _sort(items: list[dict[str, Any]], query: PageQuery) -> list[dict[str, Any]]:
    return newest_first(items) if query.order == "desc" else items


async def _read(
    http: Http, conversation: Conversation, params: dict[str, Any]
) -> list[dict[str, Any]]:
    path = conversation_path(conversation, "/messages")
    found: list[dict[str, Any]] = await http.read(path, params | agent_param(conversation))
    return found


def encode_approval(answer: ToolCallResponse) -> dict[str, Any]:
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
    params = {"order": "desc", "limit": 1, **agent_param(conversation)}
    newest = await http.read(conversation_path(conversation, "/messages"), params)
    return tuple(
        PendingToolCall(
            call["tool_call_id"],
            call.get("name") or "",
            call.get("arguments") or "",
            message.get("id"),
            message.get("run_id"),
        )
        for message in newest
        if message.get("message_type") == "approval_request_message"
        for call in list_calls(message)
        if call.get("tool_call_id")
    )


async def clear(
    http: Http,
    conversation: Conversation,
    calls: Sequence[PendingToolCall],
    why: str,
    answers: Sequence[ToolCallResponse],
) -> None:
    """Answer all pending calls at no model cost: with ``max_steps: 1`` the turn ends there.

    Args:
        http: The server.
        conversation: The conversation.
        calls: The calls that wait in it.
        why: The reason for which those get no answer that nobody has decided about.
        answers: The decisions about the others.

    Raises:
        LettaError: The server refused the answers.
    """
    given = {answer.tool_call_id: answer for answer in answers}
    last = [given.get(c.tool_call_id) or ToolCallResponse.make_unanswered(c, why) for c in calls]
    body = {
        "messages": [{"type": "approval", "approvals": [encode_approval(a) for a in last]}],
        "streaming": True,
        "max_steps": 1,
        **agent_param(conversation),
    }
    stream = await http.stream(conversation_path(conversation, "/messages"), body)
    state = RestTurn()
    try:
        while not state.segment_over:
            state.feed(await stream.next_chunk())
        await stream.drain()
    except StopAsyncIteration:
        # Whether the end came too early is for end_segment() to say.
        pass
    except STREAM_ERRORS as cause:
        raise stream.error(cause) from cause
    finally:
        await stream.aclose()
    # The end of the steps is expected, and a call that nobody waits for any more needs no answer.
    state.end_segment()
    failure = state.failure
    if failure is not None and failure.code not in ("max_steps", "no_pending_approval"):
        raise state.error()
