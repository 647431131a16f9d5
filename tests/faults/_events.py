"""The bytes a real Letta API server sends: shapes recorded from letta 0.16.8, ids made readable."""

from __future__ import annotations

import json
from typing import Any

AGENT = "agent-00000000-0000-4000-8000-000000000001"
CONV = "conv-00000000-0000-4000-8000-000000000001"
DONE = b"data: [DONE]\n\n"
# The server writes this one by hand, with spaces, and neither usage nor [DONE] follows.
CANCELLED = b'data: {"message_type": "stop_reason", "stop_reason": "cancelled"}\n\n'

_DATE = "2026-11-23T17:18:27+00:00"


def run_id(number: int) -> str:
    """The id of the ``number``-th run of a test."""
    return f"run-00000000-0000-4000-8000-{number:012d}"


def message_id(number: int, tail: str = "15") -> str:
    """A stored message's id; ``tail`` tells the parts of one step apart."""
    return f"message-00000000-0000-4000-8000-{number:010d}{tail}"


def frame(event: dict[str, Any], name: str | None = None) -> bytes:
    """One server-sent event, spelt like the server does."""
    data = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


def base(kind: str, run: int = 1, step: int = 1, **fields: Any) -> dict[str, Any]:
    """What all message events have in common."""
    return {
        "id": message_id(step),
        "date": _DATE,
        "name": None,
        "message_type": kind,
        "otid": message_id(step, "00").removeprefix("message-"),
        "sender_id": None,
        "step_id": f"step-00000000-0000-4000-8000-{step:012d}",
        "is_err": None,
        "seq_id": None,
        "run_id": run_id(run),
        **fields,
    }


def ping(run: int = 1, seq: int | None = None) -> bytes:
    """The first event of every stream, and what comes after 20 s of silence."""
    return frame(base("ping", run, otid=None, step_id=None, id="ping-1", seq_id=seq))


def text(content: str, run: int = 1, step: int = 1, seq: int | None = None) -> bytes:
    """An assistant message, or a delta of it."""
    return frame(base("assistant_message", run, step, content=content, seq_id=seq))


def reasoning(content: str, run: int = 1, step: int = 1) -> bytes:
    """A thought, or a delta of it."""
    fields = {"source": "reasoner_model", "reasoning": content, "signature": None}
    return frame(base("reasoning_message", run, step, **fields))


def call(
    name: str = "get_weather", call_id: str = "call_1", arguments: str = '{"city": "Paris"}'
) -> dict[str, Any]:
    """A tool call as it stands in a message."""
    return {"name": name, "arguments": arguments, "tool_call_id": call_id}


def approval(*calls: dict[str, Any], run: int = 1, step: int = 1) -> dict[str, Any]:
    """An approval request: of client-side tools, or of server tools that ask."""
    fields = {"tool_call": calls[0], "tool_calls": list(calls)}
    return base("approval_request_message", run, step, otid=message_id(step), **fields)


def tool_return(
    value: str, call_id: str = "call_1", status: str = "success", run: int = 1, step: int = 1
) -> bytes:
    """What a tool returned."""
    one = {"tool_return": value, "status": status, "tool_call_id": call_id}
    one |= {"stdout": None, "stderr": None}
    fields = {**one, "tool_returns": [{"type": "tool", **one}]}
    return frame(base("tool_return_message", run, step, **fields))


def stop(reason: str = "end_turn") -> bytes:
    """Why the stream ends."""
    return frame({"message_type": "stop_reason", "stop_reason": reason})


def usage(prompt: int = 100, completion: int = 20) -> bytes:
    """Tokens of one request."""
    fields = {"completion_tokens": completion, "prompt_tokens": prompt}
    fields |= {"total_tokens": prompt + completion, "step_count": 1, "run_ids": None}
    fields |= {"cached_input_tokens": 64, "cache_write_tokens": None, "reasoning_tokens": 5}
    return frame({"message_type": "usage_statistics", **fields, "context_tokens": 120})


def error(error_type: str, message: str, detail: str = "", run: int = 1) -> bytes:
    """The only named event of the protocol."""
    fields = {"run_id": run_id(run), "error_type": error_type, "message": message}
    body = {"message_type": "error_message", **fields, "detail": detail, "seq_id": None}
    return frame(body, "error")


def ending(reason: str = "end_turn") -> bytes:
    """The tail of a stream that ends in order."""
    return stop(reason) + usage() + DONE


PENDING = (
    "CONFLICT: Cannot send a new message: The agent is waiting for approval on a tool call. "
    "Please approve or deny the pending request before continuing."
)
BUSY = (
    "CONFLICT: Cannot send a new message: Another request (run_id={run}) is currently being "
    "processed for this conversation. Please wait for it to complete."
)
NO_REDIS = (
    "INTERNAL_SERVER_ERROR: Background streaming requires Redis to be running. Please ensure Redis "
    "is properly configured. LETTA_REDIS_HOST: None, LETTA_REDIS_PORT: 6379"
)
NOTHING_PENDING = (
    "Cannot process approval response: No tool call is currently awaiting approval. "
    "If the approval request was already processed, send a new message instead."
)


def internal_error(detail: str, message: str = "", run: int = 1) -> bytes:
    """What a stream holds when the server refuses a message after it has answered 200."""
    return stop("error") + error("internal_error", message or detail, detail, run) + DONE
