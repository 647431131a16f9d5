"""Wire events in the exact shapes of letta 0.16.8, and a turn that is fed with them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from letta_adapters.engine.rest import RestTurn
from letta_adapters.messages import Message, ResultMessage

Event = dict[str, Any]

RUN = "run-184d2f5c-6a06-4d5c-9f3e-0d6a5a0c1b11"
RUN_2 = "run-2c1e9b7a-93b0-4a55-8f0e-77f1a2f9d022"
DATE = "2026-11-22T21:53:02+00:00"
DONE = b"data: [DONE]\n\n"
# What the server writes by itself when it cancels a foreground stream: JSON with spaces.
CANCELLED = b'data: {"message_type": "stop_reason", "stop_reason": "cancelled"}\n\n'
CITY = '{"city": "Paris"}'


def step_id(step: int) -> str:
    """The ``id`` which all parts of an LLM step share."""
    return f"message-e422b946-1244-4f9b-bc48-3b71b43e{step:02d}1f"


def otid(step: int, part: int) -> str:
    """The message uuid with its last byte replaced by the part's index."""
    return f"e422b946-1244-4f9b-bc48-3b71b43e{step:02d}8{part}"


def base(message_type: str, step: int = 1, part: int = 0, **fields: Any) -> Event:
    """The common base of all message events: every key is always there."""
    event: Event = {
        "id": step_id(step),
        "date": DATE,
        "name": None,
        "message_type": message_type,
        "otid": otid(step, part),
        "sender_id": None,
        "step_id": f"step-{step}",
        "is_err": None,
        "seq_id": None,
        "run_id": RUN,
    }
    return event | fields


def ping(run_id: str = RUN, seq_id: int | None = None) -> Event:
    """The first event of a stream, and its keep-alive."""
    ids: Event = {"id": "ping-9d0c", "otid": None, "step_id": None}
    return base("ping", run_id=run_id, seq_id=seq_id, **ids)


def assistant(text: Any, step: int = 1, part: int = 2, **fields: Any) -> Event:
    """Answer text: whole in step mode, a delta in token mode."""
    return base("assistant_message", step, part, content=text) | fields


def reasoning(text: Any, step: int = 1, part: int = 0, **fields: Any) -> Event:
    """A thought: whole or a delta."""
    event = base("reasoning_message", step, part)
    return event | {"source": "reasoner_model", "reasoning": text, "signature": None} | fields


def hidden(text: Any, step: int = 1, part: int = 1, **fields: Any) -> Event:
    """Anthropic's redacted thinking (token mode only)."""
    event = base("hidden_reasoning_message", step, part)
    return event | {"state": "redacted", "hidden_reasoning": text} | fields


def call_delta(call_id: str, step: int = 1, **fields: Any) -> Event:
    """A fragment of a call the server will run: unset keys are absent."""
    call = {**fields, "tool_call_id": call_id}
    return base("tool_call_message", step, 3, tool_call=call, tool_calls=call)


def approval_delta(
    call_id: str, name: str | None = None, arguments: str | None = None, step: int = 1
) -> Event:
    """A fragment of a call that waits for the client: unset keys are null, otid is the id."""
    call = {"name": name, "arguments": arguments, "tool_call_id": call_id}
    event = base("approval_request_message", step, tool_call=call, tool_calls=call)
    return event | {"otid": step_id(step)}


def call(call_id: str, name: str = "get_weather", arguments: str = CITY) -> Event:
    """One entry of a ``tool_calls`` list."""
    return {"name": name, "arguments": arguments, "tool_call_id": call_id}


def calls(*entries: Event, step: int = 1, **fields: Any) -> Event:
    """Whole calls the server will run (step mode)."""
    event = base("tool_call_message", step, 3, tool_call=entries[0], tool_calls=list(entries))
    return event | fields


def approvals(*entries: Event, step: int = 1) -> Event:
    """Whole calls that wait for the client (step mode)."""
    event = base("approval_request_message", step, tool_call=entries[0], tool_calls=list(entries))
    return event | {"otid": step_id(step)}


def returned(call_id: str, value: str = "3", status: str = "success", **fields: Any) -> Event:
    """One entry of a ``tool_returns`` list."""
    entry = {"type": "tool", "tool_return": value, "status": status, "tool_call_id": call_id}
    return entry | {"stdout": None, "stderr": None} | fields


def tool_return(*entries: Event, name: str | None = "add", step: int = 2) -> Event:
    """What the server says tools returned; the legacy fields repeat the first."""
    event = base("tool_return_message", step, name=name)
    return event | entries[0] | {"id": step_id(step), "tool_returns": list(entries)}


def stop(reason: str = "end_turn") -> Event:
    """A stop reason: no id, no run_id."""
    return {"message_type": "stop_reason", "stop_reason": reason}


def usage(completion: int = 20, prompt: int = 100, **fields: Any) -> Event:
    """The sum over the steps of one request."""
    event: Event = {
        "message_type": "usage_statistics",
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": completion + prompt,
        "step_count": 1,
        "run_ids": None,
        "cached_input_tokens": None,
        "cache_write_tokens": None,
        "reasoning_tokens": None,
        "context_tokens": completion + prompt,
    }
    return event | fields


def error(
    detail: str | None = None,
    error_type: str = "internal_error",
    message: str = "An error occurred during agent execution.",
    **fields: Any,
) -> bytes:
    """The only named event."""
    event = {
        "message_type": "error_message",
        "run_id": RUN,
        "error_type": error_type,
        "message": message,
        "detail": detail,
        "seq_id": None,
    }
    return b"event: error\n" + frame(event | fields)


def frame(event: Event | bytes) -> bytes:
    """One event as the server writes it; bytes are passed through."""
    if isinstance(event, bytes):
        return event
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def wire(*events: Event | bytes) -> bytes:
    """A response body."""
    return b"".join(map(frame, events))


def ended(*events: Event | bytes, reason: str = "end_turn") -> bytes:
    """A response body with the orderly end: stop reason, usage, ``[DONE]``."""
    return wire(ping(), *events, stop(reason), usage(), DONE)


class Fed:
    """A turn after one response body; ``messages`` are those before the closing ones."""

    def __init__(self, *bodies: bytes, partial: bool = False) -> None:
        self.turn = RestTurn(include_partial_messages=partial)
        self.messages: list[Message] = []
        for number, body in enumerate(bodies):
            if number:
                self.turn.begin_segment()
            self.messages += self.turn.feed(body)
            self.messages += self.turn.end_segment()

    @property
    def closing(self) -> list[Message]:
        """What ends the turn."""
        return self.turn.finish(duration_ms=7)

    @property
    def result(self) -> ResultMessage:
        """The terminal result."""
        last = self.closing[-1]
        assert isinstance(last, ResultMessage)
        return last

    @property
    def code(self) -> str | None:
        """The machine code of the failure."""
        return self.turn.failure.code if self.turn.failure else None


def types(messages: Iterable[Message]) -> list[str]:
    """The tags of messages, in order."""
    return [message.type for message in messages]


def texts(messages: Iterable[Message]) -> list[str]:
    """The contents of the complete texts and tool results, in order."""
    return [m.content for m in messages if hasattr(m, "content")]
