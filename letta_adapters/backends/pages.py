"""The order of messages on a Letta API's pages, put right.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any


def newest_first(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a page that was asked for newest first in that order, whatever order it came in."""
    return _reversed(messages) if _is_oldest_first(messages) else messages


def _is_oldest_first(messages: list[dict[str, Any]]) -> bool:
    """Return whether a page is in the wrong order.

    letta 0.16.8 lists a page of the *default* conversation oldest first whatever was asked. Dates
    decide; they have seconds only, so a page of one second is told by a message that cannot come
    later: the input of the same run, or else the system message (one may also be stored later).
    """
    if len(messages) < 2:
        return False
    # The two ends of the page tell, unless both are of the same second.
    first, last = messages[0], messages[-1]
    if first.get("date") != last.get("date"):
        return str(first.get("date")) < str(last.get("date"))
    by_run = _input_comes_first(messages)
    return first.get("message_type") == "system_message" if by_run is None else by_run


def _input_comes_first(messages: list[dict[str, Any]]) -> bool | None:
    """Return whether a run's input stands before its answer; ``None`` if no run shows both."""
    seen: dict[Any, Any] = {}
    for message in messages:
        run = message.get("run_id")
        earlier = seen.setdefault(run, message.get("message_type"))
        if run is not None and earlier != message.get("message_type"):
            return bool(earlier == "user_message")
    return None


def _reversed(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reverse by stored message; the items of one stay in the order they were said."""

    def stored(message: Mapping[str, Any]) -> Any:
        return message.get("id")

    groups = [list(items) for _, items in groupby(messages, key=stored)]
    return [item for group in reversed(groups) for item in group]
