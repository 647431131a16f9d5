"""Internal: what a client may ask for, read from what it has sent; nothing of it is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from letta_adapters.errors import InvalidInputError
from letta_adapters.web.access import Viewer
from letta_adapters.web.approvals import read_decision
from letta_adapters.web.rooms import Hubs

#: The fields of each request.
MESSAGE = frozenset({"text", "key"})
STOP = frozenset({"id"})
ANSWER = frozenset({"tool_call_id", "allow", "input", "message"})


async def send_message(hubs: Hubs, viewer: Viewer, data: Mapping[str, Any]) -> dict[str, Any]:
    """Send the message of a client.

    Args:
        hubs: The rooms.
        viewer: The viewer.
        data: ``text``, and perhaps ``key``.
    """
    hub = hubs.get(viewer.room)
    return await hub.send(viewer, data.get("text", ""), key=data.get("key"))


async def stop_turn(hubs: Hubs, viewer: Viewer, data: Mapping[str, Any]) -> dict[str, Any]:
    """Stop what a client wants to be stopped.

    Args:
        hubs: The rooms.
        viewer: The viewer.
        data: Perhaps ``id``, of a message.
    """
    id_ = check_id(data.get("id"))
    return {"stopped": await hubs.get(viewer.room).stop(viewer, message_id=id_)}


def parse_object(text: str | bytes, names: frozenset[str]) -> dict[str, Any]:
    """Return a JSON object of a client's.

    Args:
        text: What was sent.
        names: The fields that it may have.

    Raises:
        InvalidInputError: It is no JSON object, or has other fields: nothing is ignored.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        # Brackets that are nested deeply enough exhaust the parser's stack.
        raise InvalidInputError("The body is no JSON.") from None
    if not isinstance(data, dict):
        raise InvalidInputError("The body must be a JSON object.")
    unknown = sorted(data.keys() - names)
    if unknown:
        raise InvalidInputError(
            f"{unknown[0][:100]!r} is not known.", hint=f"Known are: {', '.join(sorted(names))}."
        )
    return data


async def answer_call(hubs: Hubs, viewer: Viewer, data: Mapping[str, Any]) -> dict[str, Any]:
    """Give a client's answer to the call that it names.

    Args:
        hubs: The rooms.
        viewer: The viewer.
        data: ``tool_call_id``, ``allow`` and perhaps ``input`` or ``message``.
    """
    id_ = check_id(data.get("tool_call_id"))
    if id_ is None:
        raise InvalidInputError("`tool_call_id` is missing.")
    decision = read_decision(data, hubs.options.max_message_characters)
    await hubs.get(viewer.room).answer(viewer, id_, decision)
    return {"answered": True}


def check_id(id_: object) -> str | None:
    """Return an id that a client names, or ``None``.

    Args:
        id_: What was sent.

    Raises:
        InvalidInputError: It is no short text.
    """
    if id_ is not None and (not isinstance(id_, str) or len(id_) > 500):
        raise InvalidInputError("An id must be a short text.")
    return id_
