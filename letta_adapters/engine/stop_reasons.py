"""Internal: tell by a stop reason or an error event whether a turn succeeded, or how it failed.

Sources: the Letta API's ``stop_reason`` enum and ``error_message`` events, as observed on letta
0.16.8. After anything was streamed the server calls every failure ``internal_error`` and only the
text tells them apart, so texts are matched (Letta's own clients do the same).

The rules: docs/protocol.md ("Which stop reason counts")
and docs/protocol.md ("What a failure means").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SUCCESS_STOP_REASONS = frozenset({"end_turn", "tool_rule", "requires_approval"})

# Of two stop reasons in one stream the first of these counts: `error` then `llm_api_error`, and
# `cancelled` then `end_turn`, both occur.
DECISIVE_STOP_REASONS = frozenset(
    {
        "error",
        "llm_api_error",
        "invalid_llm_response",
        "invalid_tool_call",
        "cancelled",
        "insufficient_credits",
        "context_window_overflow_in_system_prompt",
    }
)

# The server's own words for what is the matter with a conversation; it has no codes for them.
_BY_SERVER_TEXT = (
    ("waiting for approval", "pending_approval"),
    ("is currently being processed", "conversation_busy"),
    ("invalid tool call ids", "invalid_tool_call_ids"),
    ("no tool call is currently awaiting approval", "no_pending_approval"),
    ("message content is empty or invalid", "invalid_input"),
    ("failed to fetch image", "invalid_input"),
)

# The words of model providers. The first that is found counts, so the exact ones come first.
_BY_PROVIDER_TEXT = (
    ("insufficient_quota", "insufficient_credits"),  # a 429 too, but waiting does not help
    ("rate_limit_exceeded", "provider_rate_limit"),
    ("rate limited by", "provider_rate_limit"),
    ("authentication failed with", "provider_authentication"),
    ("context window", "context_window_overflow"),
    ("context_window_exceeded", "context_window_overflow"),
)

# Error types are codes and no texts for people, so what they say counts first.
BY_ERROR_TYPE = {
    "llm_authentication": "provider_authentication",
    "llm_rate_limit": "provider_rate_limit",
    "llm_timeout": "provider_timeout",
    "llm_error": "provider_error",
    "llm_empty_response": "provider_error",
    "llm_insufficient_credits": "insufficient_credits",
    "context_window_overflow_in_system_prompt": "context_window_overflow",
}

# A provider's HTTP status in the server's words (``Bad request to ...: Error code: 400 - {...}``),
# which stand before anything that the provider quotes.
_PROVIDER_STATUS = re.compile(r"\bError code: (\d{3})\b")
REFUSED_STATUS = frozenset({"400", "404", "413", "422"})

_BY_STOP_REASON = {
    "llm_api_error": "provider_error",
    "invalid_llm_response": "provider_error",
    "context_window_overflow_in_system_prompt": "context_window_overflow",
    "error": "internal_error",
}

_STOP_REASON_TEXT = {
    "cancelled": "The turn was cancelled.",
    "max_steps": "The agent reached its step limit before it finished.",
    "max_tokens_exceeded": "The model reached its output token limit: the answer is cut off.",
    "no_tool_call": "The agent stopped without the tool call it was required to make.",
    "insufficient_credits": "The account has no credits left.",
    "invalid_tool_call": "The server refused the answer to a tool call.",
    "llm_api_error": "The model provider failed.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a turn: a machine code and a text for people."""

    code: str
    message: str
    error_type: str | None = None
    detail: str | None = None
    stop_reason: str | None = None


def classify_text(text: str) -> str | None:
    """Return the machine code that a server text stands for, or ``None``."""
    return _match(_BY_SERVER_TEXT, text) or _match(_BY_PROVIDER_TEXT, text)


def _match(table: tuple[tuple[str, str], ...], text: str) -> str | None:
    low = text.lower()
    return next((code for needle, code in table if needle in low), None)


def failure_from_error_event(event: Mapping[str, Any], stop_reason: str | None) -> Failure:
    """Return the failure that an ``error_message`` event (SSE ``event: error``) describes.

    The texts of a crashed stream, ``{"error": "<text>", "code": "INTERNAL_SERVER_ERROR"}``, and of
    non-streaming routes, ``{"error": {...}}``, are understood too.

    Args:
        event: The event.
        stop_reason: The last stop reason that the stream gave, if any.
    """
    error = event.get("error")
    inner = error if isinstance(error, dict) else {"message": error}
    error_type = _as_text(event.get("error_type") or inner.get("type"))
    message = (
        _as_text(event.get("message") or inner.get("message")) or "The server reported an error."
    )
    detail = _as_text(event.get("detail") or inner.get("detail"))
    # The telling words may stand in either of the two.
    text = f"{message} {detail or ''}"
    code = BY_ERROR_TYPE.get(error_type or "")
    if code is None:
        code = classify_text(text) or _BY_STOP_REASON.get(stop_reason or "") or "internal_error"
    elif code in ("provider_error", "provider_rate_limit"):
        # A provider's words may quote the conversation, so they cannot mean a state of the server.
        code = _match(_BY_PROVIDER_TEXT, text) or _classify_refusal(code, text) or code
    return Failure(code, message, error_type, detail, stop_reason)


def _classify_refusal(code: str, text: str) -> str | None:
    """Return the code of a request that the provider will refuse again, else ``None``."""
    status = _PROVIDER_STATUS.search(text)
    found = status is not None and status[1] in REFUSED_STATUS
    return "provider_refused" if found and code == "provider_error" else None


def _as_text(value: Any) -> str | None:
    return str(value) if value else None


def failure_from_stop_reason(stop_reason: str) -> Failure | None:
    """Return the failure that a bare stop reason means; ``None`` for one that is a success."""
    if stop_reason in SUCCESS_STOP_REASONS:
        return None
    code = _BY_STOP_REASON.get(stop_reason, stop_reason)
    text = _STOP_REASON_TEXT.get(stop_reason, f"The turn stopped: {stop_reason}.")
    return Failure(code, text, stop_reason=stop_reason)


class StopReason:
    """The stop reasons of a stream, folded into the one that counts."""

    __slots__ = ("last", "value")

    def __init__(self) -> None:
        self.value: str | None = None
        self.last: str | None = None

    def see(self, value: str) -> None:
        """Take the next stop reason: the first decisive one stays, else the last."""
        self.last = value
        if self.value not in DECISIVE_STOP_REASONS:
            self.value = value

    @property
    def cause(self) -> str | None:
        """The stop reason that explains most: a bare ``error`` is explained by the one after it."""
        return self.last if self.value == "error" and self.last in _BY_STOP_REASON else self.value
