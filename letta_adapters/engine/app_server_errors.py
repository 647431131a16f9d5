"""Internal: turn the stop reason and error texts of a failed App Server turn into a machine code.

Letta Code passes on the model provider's words, as ``"401: {...json...}"``, inside up to two more
layers of JSON (observed on ``letta`` 0.34.12).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from letta_adapters.engine.assembler import parse_arguments
from letta_adapters.engine.stop_reasons import (
    BY_ERROR_TYPE,
    REFUSED_STATUS,
    SUCCESS_STOP_REASONS,
    Failure,
    failure_from_error_event,
    failure_from_stop_reason,
)

_STATUS = re.compile(r"\s*(\d{3})\b:?\s*(.*)", re.DOTALL)
# The first that is found in the text decides, so the order matters (a quota error is a 429 as
# well).
_BY_TEXT = (
    ("insufficient_quota", "insufficient_credits"),
    ("context_length_exceeded", "context_window_overflow"),
    ("maximum context length", "context_window_overflow"),
    ("context window", "context_window_overflow"),
    ("prompt is too long", "context_window_overflow"),
    ("invalid_api_key", "provider_authentication"),
    ("provider is not configured", "provider_authentication"),
    ("rate limit", "provider_rate_limit"),
    ("rate_limit", "provider_rate_limit"),
    ("failed to prepare image", "invalid_input"),
    ("enospc: no space", "disk_full"),
    ("edquot:", "disk_full"),
    ("already has an active run", "conversation_busy"),
)
_BY_STATUS = {
    "401": "provider_authentication",
    "403": "provider_authentication",
    "429": "provider_rate_limit",
    "402": "insufficient_credits",
    **dict.fromkeys(REFUSED_STATUS, "provider_refused"),
}
# The local backend does not end a run whose client is gone, so this state stays until a restart.
_WEDGED = (
    "The server still holds an earlier turn of this conversation, whose connection was lost, and "
    "will until it is restarted. The message was not taken. To go on at once, fork the "
    "conversation: client.conversations.fork(conversation_id)."
)
# Letta Code says this of a stop reason that it has no words for, such as ``max_tokens_exceeded``.
_UNEXPECTED = "Unexpected stop reason:"
_MODEL_FAILED = ("llm_error", "local_backend_error")


def find_failure(stop_reason: str, error: Mapping[str, Any], closing: Any) -> Failure | None:
    """Return the failure of a turn that ended with ``stop_reason``; ``None`` if it succeeded.

    Args:
        stop_reason: The reason in ``turn_finished``.
        error: The last error event of the turn, empty if there was none.
        closing: The error text in ``turn_finished`` itself.
    """
    if stop_reason in SUCCESS_STOP_REASONS:
        return None
    # Whatever error came on the way: somebody wanted this end.
    if stop_reason == "cancelled":
        return failure_from_stop_reason(stop_reason)
    event = _find_innermost(error) or _find_innermost({"message": closing})
    if not event or str(event["message"]).startswith(_UNEXPECTED):
        return failure_from_stop_reason(stop_reason)
    error_type = str(event.get("error_type") or event.get("type") or "") or None
    wire = str(event.get("message"))
    text, status = _make_readable(wire)
    # In the wire's own form: a provider's error code may stand outside the words for people.
    low = wire.lower()
    code = next((code for needle, code in _BY_TEXT if needle in low), None)
    code = code or _BY_STATUS.get(status) or BY_ERROR_TYPE.get(error_type or "")
    if code == "conversation_busy":
        text = _WEDGED
    if code is None and (error_type in _MODEL_FAILED or stop_reason == "llm_api_error"):
        code = "provider_error"
    # No code is known, but the Letta API's texts may come through here as well.
    if code is None:
        code = failure_from_error_event({"message": text}, stop_reason).code
    return Failure(code, text, error_type, stop_reason=stop_reason)


def _find_innermost(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object that has the provider's own words; empty if there are none."""
    while event:
        inner: Any = event.get("api_error") or event.get("error")
        message = event.get("message")
        # The words may be JSON once more, as a text.
        if not isinstance(inner, dict) and isinstance(message, str):
            inner = parse_arguments(message)
        if not isinstance(inner, dict) or not inner:
            break
        event = inner
    return event if event.get("message") else {}


def _make_readable(wire: str) -> tuple[str, str]:
    """Return the words and the status of ``'401: {"message": "Incorrect API key"}'``."""
    found = _STATUS.match(wire)
    status, rest = (found[1], found[2]) if found else ("", wire)
    try:
        body = json.loads(rest)
    except (ValueError, RecursionError):  # no JSON, or nested by the thousand
        return wire, status
    said = body.get("message") if isinstance(body, dict) else None
    if not said:
        return wire, status
    return (f"{said} (HTTP {status})" if status else str(said)), status
