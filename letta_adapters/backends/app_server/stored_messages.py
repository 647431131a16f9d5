"""Pages of stored messages, without text that Letta Code wrote into them itself.

The rules: docs/protocol.md ("Pages of stored messages").

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.base import DEFAULT, Conversation, Order
from letta_adapters.engine.otids import same_call
from letta_adapters.engine.stored import newest_first, without_reminders
from letta_adapters.errors import InvalidInputError, ProtocolError
from letta_adapters.messages import MessagePage

_NEWEST: Final = 50


async def fetch_page(
    connection: Connection,
    conversation: Conversation,
    *,
    before: str | None,
    after: str | None,
    order: Order,
    limit: int,
) -> MessagePage:
    """Return one page; ``limit`` counts stored messages, each of which can be several items.

    The server's own ``next_before`` and ``has_more`` are wrong in ascending order (``letta``
    0.34.12), so both are worked out here, by asking for one message more than is wanted.
    """
    # Only this request tells that there is no such conversation; the list would just be empty.
    if not conversation.agent_id:
        id_ = conversation.conversation_id
        await connection.request({"type": "conversation_retrieve", "conversation_id": id_})
    given = {"before": before, "after": after, "order": order, "limit": limit + 1}
    if connection.on_api and order == "desc":
        # Over the Letta API the server means "after" in the order of the list, whatever that is.
        given |= {"before": None, "after": before}
    messages = await _list(connection, conversation, given)
    ids = [str(message.get("id")) for message in messages]
    if (before or after) in ids:
        raise ProtocolError("The server returned the page's own cursor: paging would loop.")
    cursor = before if order == "desc" else after
    if cursor is not None and ids:
        # The server answers an unknown cursor with the first page, and paging would never end.
        first = await _list(connection, conversation, {"order": order, "limit": 1})
        if first and first[0].get("id") == ids[0]:
            raise InvalidInputError(f"{cursor!r} is no message of this conversation.")
    # One more than wanted was asked for, which tells whether there is another page.
    more = len(ids) > limit
    shown = messages[:limit]
    last = ids[len(shown) - 1] if shown else None
    forward = order == "asc"
    return MessagePage(
        [cleaned for cleaned in map(without_reminders, shown) if cleaned is not None],
        None if forward else last,
        more,
        last if forward else None,
        order,
    )


async def _list(
    connection: Connection, conversation: Conversation, query: Mapping[str, Any]
) -> list[dict[str, Any]]:
    wanted = {k: v for k, v in query.items() if v is not None}
    if conversation.agent_id:
        wanted["agent_id"] = conversation.agent_id
    answer = await connection.request(
        {
            "type": "conversation_messages_list",
            "conversation_id": conversation.conversation_id or DEFAULT,
            "query": wanted,
        }
    )
    found = answer.get("messages")
    if not isinstance(found, list):
        raise ProtocolError("The server's answer holds no list of messages.")
    messages = [message for message in found if isinstance(message, dict)]
    on_api = connection.on_api and query.get("order") == "desc"
    return newest_first(messages) if on_api else messages


async def since(
    connection: Connection, conversation: Conversation, client_message_id: str
) -> list[dict[str, Any]] | None:
    """Return the messages stored after this one, oldest first; ``None`` if it is not stored."""
    newest = await _list(connection, conversation, {"order": "desc", "limit": _NEWEST})
    for at, message in enumerate(newest):
        if same_call(message.get("otid"), client_message_id):
            return newest[:at][::-1]
    return None


async def is_stored(
    connection: Connection, conversation: Conversation, client_message_id: str
) -> tuple[bool, bool]:
    """Return whether the conversation holds this message, and whether an answer follows it."""
    query = {"order": "desc", "limit": _NEWEST}
    newest = await _list(connection, conversation, query)
    answered = False
    for message in newest:
        if same_call(message.get("otid"), client_message_id):
            return True, answered
        answered = answered or message.get("message_type") == "assistant_message"
    return False, False
