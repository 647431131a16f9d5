"""Tell a known event that cannot be read: guessing would make a shorter answer of it.

Unknown kinds of event and unknown fields are no fault. A field that is missing or null counts as
not sent. Field types: letta 0.16.8 (the API) and letta 0.34.12 (the App Server), which share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_Event = Mapping[str, Any]

_IDS = ("id", "otid", "run_id")
_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "context_tokens",
    "step_count",
)


def misshapen(event: _Event) -> str | None:
    """Return the name of a field that holds what it cannot hold; ``None`` if all is well."""
    for name in _IDS:
        value = event.get(name)
        if value is not None and type(value) is not str:
            return name
    number = event.get("seq_id")
    if number is not None and type(number) is not int:
        return "seq_id"
    look = _LOOKS.get(event["message_type"])
    return None if look is None else look(event)


def _content(field: str) -> Callable[[_Event], str | None]:
    def look(event: _Event) -> str | None:
        return None if is_content(event.get(field)) else field

    return look


def is_content(value: Any) -> bool:
    """Return whether it is text, parts of which each is an object, or nothing."""
    if value is None or type(value) is str:
        return True
    if type(value) is not list:
        return False
    return all(type(part) is dict and _is_part(part) for part in value)


def _is_part(part: _Event) -> bool:
    kind, text = part.get("type"), part.get("text")
    if type(kind) is not str:
        return False
    return type(text) is str if kind == "text" else text is None or type(text) is str


def _calls(event: _Event) -> str | None:
    for field in ("tool_calls", "tool_call"):
        value = event.get(field)
        calls = value if type(value) is list else [value] if value is not None else []
        if not all(type(call) is dict and _is_call(call) for call in calls):
            return field
    return None


def _is_call(call: _Event) -> bool:
    texts = all(type(call.get(n)) in (str, type(None)) for n in ("tool_call_id", "name"))
    return texts and type(call.get("arguments")) in (str, dict, type(None))


def _returns(event: _Event) -> str | None:
    listed = event.get("tool_returns")
    if listed is not None and type(listed) not in (list, dict):
        return "tool_returns"
    items = listed if type(listed) is list else [listed] if type(listed) is dict else []
    for item in items or [event]:
        if type(item) is not dict or type(item.get("tool_call_id")) is not str:
            return "tool_call_id"
        if not is_content(item.get("tool_return")):
            return "tool_return"
    return None


def _stop(event: _Event) -> str | None:
    return None if type(event.get("stop_reason")) in (str, type(None)) else "stop_reason"


def _usage(event: _Event) -> str | None:
    for name in _COUNTS:
        value = event.get(name)
        if value is not None and type(value) is not int:
            return name
    return None


_LOOKS: Mapping[Any, Callable[[_Event], str | None]] = {
    "assistant_message": _content("content"),
    "reasoning_message": _content("reasoning"),
    "hidden_reasoning_message": _content("hidden_reasoning"),
    "tool_call_message": _calls,
    "approval_request_message": _calls,
    "tool_return_message": _returns,
    "stop_reason": _stop,
    "usage_statistics": _usage,
}
