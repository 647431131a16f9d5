"""Internal: check that a known event can be read, as guessing would make a shorter answer of it.

Unknown kinds of event and unknown fields are no fault. A field that is missing or null counts as
not sent. Field types: letta 0.16.8 (the API) and letta 0.34.12 (the App Server), which share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_Event = Mapping[str, Any]

_IDS = ("id", "otid", "run_id")
# Compared as exact types: JSON has no others, and `isinstance` takes True for a number.
_TEXT = frozenset({str, type(None)})
_NUMBER = frozenset({int, type(None)})
_INDEX = frozenset({int, str, type(None)})
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


def find_misshapen(event: _Event) -> str | None:
    """Return the name of a field that holds a value of the wrong type; ``None`` if all is well."""
    # Every token passes here, so names are looked up once and functions are called only where
    # needed.
    get, text = event.get, _TEXT
    if not (type(get("id")) in text and type(get("otid")) in text and type(get("run_id")) in text):
        return next(name for name in _IDS if type(get(name)) not in text)
    if type(get("seq_id")) not in _NUMBER:
        return "seq_id"
    kind = event["message_type"]
    field = _CONTENT.get(kind)
    if field is not None:
        return None if is_content(get(field)) else field
    look = _LOOKS.get(kind)
    return None if look is None else look(event)


def is_content(value: Any) -> bool:
    """Return whether it is a text, a list of parts that are objects, or nothing."""
    if type(value) is not list:
        return type(value) in _TEXT
    for part in value:
        if type(part) is not dict:
            return False
        kind, text = part.get("type"), part.get("text")
        if kind == "text":
            if type(text) is not str:
                return False
        elif type(kind) is not str or type(text) not in _TEXT:
            return False
    return True


def _check_calls(event: _Event) -> str | None:
    for field in ("tool_calls", "tool_call"):
        value = event.get(field)
        calls = value if type(value) is list else [value] if value is not None else []
        for call in calls:
            if not (type(call) is dict and _is_call(call)):
                return field
    return None


def _is_call(call: _Event) -> bool:
    # Streamed arguments are text; an API that does not stream may send them as an object.
    texts = type(call.get("tool_call_id")) in _TEXT and type(call.get("name")) in _TEXT
    # The pieces of a call are found by its index.
    found = texts and type(call.get("index")) in _INDEX
    return found and type(call.get("arguments")) in (str, dict, type(None))


def _check_returns(event: _Event) -> str | None:
    # A single result is sent as an object, or with its fields in the event itself.
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


def _check_answers(event: _Event) -> str | None:
    # Of a denial the reason is shown, of a client-side tool's answer its result.
    answers = event.get("approvals")
    for answer in answers if type(answers) is list else ():
        if type(answer) is dict and not (
            is_content(answer.get("reason")) and is_content(answer.get("tool_return"))
        ):
            return "approvals"
    return None


def _check_stop(event: _Event) -> str | None:
    return None if type(event.get("stop_reason")) in _TEXT else "stop_reason"


def _check_usage(event: _Event) -> str | None:
    for name in _COUNTS:
        if type(event.get(name)) not in _NUMBER:
            return name
    return None


_CONTENT: Mapping[Any, str] = {
    "assistant_message": "content",
    "reasoning_message": "reasoning",
    "hidden_reasoning_message": "hidden_reasoning",
    # A stream takes these as they are; they are looked at where stored messages are read.
    "user_message": "content",
    "system_message": "content",
}
_LOOKS: Mapping[Any, Callable[[_Event], str | None]] = {
    "tool_call_message": _check_calls,
    "approval_request_message": _check_calls,
    "tool_return_message": _check_returns,
    # Only stored messages are of this kind.
    "approval_response_message": _check_answers,
    "stop_reason": _check_stop,
    "usage_statistics": _check_usage,
}
