"""Internal: turn an HTTP status and body into a typed error.

Letta's error bodies have four forms (observed on 0.16.8): ``{"detail": "text"}``, ``{"detail":
{"code", "message", ...}}``, ``{"error": {"type", "message", "detail"}}`` for failures of the model
provider, and for 422 a Python repr of the validation errors inside ``detail``. A 401 is about the
Letta API key or about the provider's; a 409 has four meanings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from letta_adapters.engine.stop_reasons import classify_text, failure_from_error_event
from letta_adapters.errors import (
    AuthenticationError,
    ConflictError,
    ConversationBusyError,
    InvalidInputError,
    LettaError,
    NotFoundError,
    PendingApprovalError,
    ProtocolError,
    RateLimitError,
    ServerError,
    error_for_code,
)

BACKGROUND_UNAVAILABLE = "background_unavailable"
NO_ACTIVE_RUN = "no_active_run"
_MAX_TEXT = 600


def error_from_response(status: int, headers: Mapping[str, str], data: bytes) -> LettaError:
    """Return the typed error of an HTTP error response.

    Its ``accepted`` is False, or unknown for a 5xx.
    """
    body = _body(data)
    text = _text(body, data) or f"HTTP {status}"
    fields: dict[str, Any] = {"status_code": status, "accepted": None if status >= 500 else False}
    provider = body.get("error")
    # Before the status: a 401 of the model provider is passed on as the status of the response.
    if isinstance(provider, dict) and provider.get("type"):
        event = {"error_type": provider["type"], "message": text}
        code = failure_from_error_event(event, "llm_api_error").code
        return error_for_code(code, text, **(fields | {"accepted": False}))
    if status in (401, 403):
        return AuthenticationError(f"The Letta API refused the request: {text}.", **fields)
    if status == 404:
        return _not_found(text, fields)
    if status == 409:
        return _conflict(body, text, fields)
    if status == 429:
        return RateLimitError(text, retry_after=_seconds(headers.get("retry-after")), **fields)
    # The server has no Redis to keep a background run in, and has stored nothing.
    if status == 503 and "requires redis" in text.lower():
        return ServerError(text, code=BACKGROUND_UNAVAILABLE, **(fields | {"accepted": False}))
    if status >= 500:
        return ServerError(f"The Letta server failed: {text}.", **fields)
    if status >= 400:
        return InvalidInputError(text, code=classify_text(text) or "invalid_input", **fields)
    return ProtocolError(f"Unexpected answer: HTTP {status}.", **fields)


def _not_found(text: str, fields: dict[str, Any]) -> NotFoundError:
    """Return the error that names the missing thing in plain words.

    The server adds who asked, and calls a model by its handle.
    """
    if re.search(r"\bHandle \S+ not found", text):
        hint = "Check the model's handle: client.models.list() tells which the server has."
        return NotFoundError(text.removeprefix("NOT_FOUND: "), hint=hint, **fields)
    known = re.match(r"(\w+) not found with id='\['?([^'\]]+)'?\]'", text)
    if known is not None:
        return NotFoundError(f"{known[1]} {known[2]} was not found.", **fields)
    return NotFoundError(text, **fields)


def _conflict(body: Mapping[str, Any], text: str, fields: dict[str, Any]) -> LettaError:
    detail = body.get("detail")
    structured = detail.get("code") if isinstance(detail, dict) else None
    code = "pending_approval" if structured == "PENDING_APPROVAL" else classify_text(text)
    if code == "pending_approval":
        return PendingApprovalError(text, **fields)
    if code == "conversation_busy":
        return ConversationBusyError(text, run_id=body.get("run_id"), **fields)
    # There was nothing to cancel, which its caller does not take for a failure.
    if "no active runs" in text.lower():
        return ConflictError(text, code=NO_ACTIVE_RUN, **fields)
    return ConflictError(text, **fields)


def _body(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _text(body: Mapping[str, Any], data: bytes) -> str:
    detail = body.get("detail")
    error = body.get("error")
    text: Any = None
    if isinstance(detail, str):
        text = _validation_text(detail)
    elif isinstance(detail, dict):
        text = detail.get("message")
    elif isinstance(error, dict):
        parts = (error.get("message"), error.get("detail"))
        text = " ".join(str(p) for p in parts if p)
    elif not body:
        # A proxy in between may answer with a whole page of HTML.
        text = data[:_MAX_TEXT].decode("utf-8", "replace")
    return str(text or "").strip().rstrip(".")[:_MAX_TEXT]


def _validation_text(detail: str) -> str:
    """Return where and what is wrong, of the repr of a list of dicts that Letta's 422 holds."""
    if not detail.startswith("[{'type'"):
        return detail
    # The repr is of Python objects and cannot be parsed as JSON.
    found = re.findall(r"'loc': \(([^)]*)\), 'msg': (?:'([^']*)'|\"([^\"]*)\")", detail)
    problems = [f"{loc.replace(chr(39), '')}: {a or b}" for loc, a, b in found]
    return "; ".join(problems) or detail


def _seconds(value: str | None) -> float | None:
    try:
        return float(value) if value else None
    except ValueError:
        # The header may also hold a date, of which no use is made.
        return None
