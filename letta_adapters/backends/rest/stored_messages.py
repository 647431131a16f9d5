"""Pages of stored messages, with the odd behaviour of the API evened out.

The rules: docs/protocol.md ("Pages of stored messages").

Internal: not part of the public API.
"""

from __future__ import annotations

from letta_adapters.backends.base import Conversation, Order
from letta_adapters.backends.rest.http import Http
from letta_adapters.backends.rest.recovery import agent_param, conversation_path
from letta_adapters.backends.stored_order import newest_first
from letta_adapters.errors import InvalidInputError, ProtocolError
from letta_adapters.messages import MessagePage


async def fetch_page(
    http: Http,
    conversation: Conversation,
    *,
    before: str | None,
    after: str | None,
    order: Order,
    limit: int,
) -> MessagePage:
    """Return one page; ``limit`` counts stored messages, each of which can be several items."""
    cursors = {"before": before, "after": after}
    for name, cursor in cursors.items():
        # The server answers an unknown cursor with the first page, and paging would never end.
        if cursor is not None and not cursor.startswith("message-"):
            raise InvalidInputError(f"{name}={cursor!r} is not a message id.")
    params = {"order": order, "limit": limit, **cursors, **agent_param(conversation)}
    path = conversation_path(conversation, "/messages")
    messages = await http.read(path, params)
    if order == "desc":
        messages = newest_first(messages)
    ids = [message["id"] for message in messages]
    if (before or after) in ids:
        raise ProtocolError("The server returned the page's own cursor: paging would loop.")
    last = ids[-1] if ids else None
    forward = order == "asc"
    more = False
    # The API does not say whether there is more. A full page may be the last, so one more is asked
    # for.
    if len(set(ids)) >= limit:
        cursor = "after" if forward else "before"
        probe = params | {"limit": 1, "before": None, "after": None, cursor: last}
        more = bool(await http.read(path, probe))
    return MessagePage(messages, None if forward else last, more, last if forward else None, order)
