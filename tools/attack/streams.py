"""Make a turn of either protocol as a well-behaved server sends it, for the attacks to distort."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from tools.fake_app_server import HERE

ANSWER: Final = "The answer is forty-two, and that is all."
PIECES: Final = ("The answer ", "is forty-two, ", "and that ", "is all.")
RUN: Final = "run-00000000-0000-4000-8000-000000000001"
_BASE: Final = {
    "date": "2026-11-23T17:18:27+00:00",
    "name": None,
    "sender_id": None,
    "step_id": "step-1",
    "is_err": None,
    "run_id": RUN,
}
_USAGE: Final = {
    "message_type": "usage_statistics",
    "completion_tokens": 20,
    "prompt_tokens": 100,
    "total_tokens": 120,
    "step_count": 1,
}
_STOP: Final = {"message_type": "stop_reason", "stop_reason": "end_turn"}


def rest_events() -> list[dict[str, Any]]:
    """Return the events of a turn with a tool that the server runs, numbered as in background."""
    call = {"name": "add", "arguments": '{"a": 40, "b": 2}', "tool_call_id": "call_1"}
    said = [
        {"message_type": "ping", "id": "ping-1", "otid": None},
        {"message_type": "reasoning_message", "id": "message-1", "otid": "o1", "reasoning": "Hm."},
        {"message_type": "tool_call_message", "id": "message-1", "otid": "o2", "tool_call": call},
        {
            "message_type": "tool_return_message",
            "id": "message-2",
            "otid": "o3",
            "tool_call_id": "call_1",
            "tool_return": "42",
            "status": "success",
        },
        *(
            {"message_type": "assistant_message", "id": "message-3", "otid": "o4", "content": piece}
            for piece in PIECES
        ),
    ]
    numbered = [{**_BASE, **event, "seq_id": n} for n, event in enumerate(said, 1)]
    return [*numbered, dict(_STOP), dict(_USAGE)]


def sse(events: Sequence[Any]) -> bytes:
    """Return events (objects, or bytes as they stand) as a stream of server-sent events."""
    blocks = (e if isinstance(e, bytes) else json.dumps(e).encode() for e in events)
    return b"".join(b"data: " + block + b"\n\n" for block in blocks)


REST_TURN: Final = sse([*rest_events(), b"[DONE]"])


def app_frames(message_id: str) -> list[dict[str, Any]]:
    """Return the frames of a turn of Letta Code, from the accepted message to its end."""
    run, runtime = "local-run-1", HERE
    loop = {
        "status": "PROCESSING_API_RESPONSE",
        "active_run_ids": [run],
        "client_message_ids_by_run_id": {run: [message_id]},
        "executing_tool_call_ids": [],
    }
    deltas: list[dict[str, Any]] = [
        {
            "message_type": "reasoning_message",
            "id": "ui-msg-2:reasoning:0",
            "reasoning": "Hm.",
        },
        *(
            {
                "message_type": "assistant_message",
                "id": "ui-msg-2:assistant:1",
                "content": [{"type": "text", "text": piece}],
            }
            for piece in PIECES
        ),
        {**_USAGE, "id": "letta-msg-28"},
        dict(_STOP),
    ]
    frames: list[dict[str, Any]] = [{"type": "update_loop_status", "loop_status": loop}]
    frames += (
        {"type": "stream_delta", "delta": {**delta, "run_id": run, "seq_id": n, "type": "message"}}
        for n, delta in enumerate(deltas, 1)
    )
    idle = {**loop, "status": "WAITING_ON_INPUT", "active_run_ids": []}
    frames += [
        {"type": "update_loop_status", "loop_status": idle},
        {"type": "turn_finished", "turn_id": "turn-1", "stop_reason": "end_turn", "run_id": run},
    ]
    return [
        {
            **frame,
            "runtime": runtime,
            "event_seq": n,
            "idempotency_key": f"{frame['type']}:{n}:{message_id}",
        }
        for n, frame in enumerate(frames, 1)
    ]
