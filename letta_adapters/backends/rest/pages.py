"""Pages of stored messages, with the corners of the API rounded off."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from letta_adapters.backends.base import Conversation, Order
from letta_adapters.backends.rest.http import Http
from letta_adapters.backends.rest.runs import agent_param, conversation_path
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
    """One page. ``limit`` counts stored messages; one can be several items of the page."""
    cursors = {"before": before, "after": after}
    for name, cursor in cursors.items():
        # The server answers an unknown cursor with the first page, which would loop for ever.
        if cursor is not None and not cursor.startswith("message-"):
            raise InvalidInputError(f"{name}={cursor!r} is not a message id.")
    params = {"order": order, "limit": limit, **cursors, **agent_param(conversation)}
    path = conversation_path(conversation, "/messages")
    messages = await http.read(path, params)
    if order == "desc" and _is_oldest_first(messages):
        messages = _newest_first(messages)
    ids = [message["id"] for message in messages]
    if (before or after) in ids:
        raise ProtocolError("The server returned the page's own cursor: paging would loop.")
    last = ids[-1] if ids else None
    forward = order == "asc"
    more = False
    if len(set(ids)) >= limit:
        cursor = "after" if forward else "before"
        probe = params | {"limit": 1, "before": None, "after": None, cursor: last}
        more = bool(await http.read(path, probe))
    return MessagePage(messages, None if forward else last, more, last if forward else None)


def _is_oldest_first(messages: list[dict[str, Any]]) -> bool:
    """letta 0.16.8 lists a page of the *default* conversation oldest first whatever was asked.

    Dates decide; they have seconds only, so a page of one second is told by what cannot come
    later: the system message, or the input of the same run.
    """
    if len(messages) < 2:
        return False
    first, last = messages[0], messages[-1]
    if first.get("date") != last.get("date"):
        return str(first.get("date")) < str(last.get("date"))
    if "system_message" in (first["message_type"], last["message_type"]):
        return bool(first["message_type"] == "system_message")
    return _input_comes_first(messages)


def _input_comes_first(messages: list[dict[str, Any]]) -> bool:
    seen: dict[Any, str] = {}
    for message in messages:
        run = message.get("run_id")
        earlier = seen.setdefault(run, message["message_type"])
        if run is not None and earlier != message["message_type"]:
            return earlier == "user_message"
    return False


def _newest_first(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reverse by stored message; the items of one stay in the order they were said."""

    def stored(message: Mapping[str, Any]) -> Any:
        return message["id"]

    groups = [list(items) for _, items in groupby(messages, key=stored)]
    return [item for group in reversed(groups) for item in group]
