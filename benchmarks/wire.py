"""Make the bytes of the benchmark's streams, in the form a Letta API server (0.16.8) sends them.

A token stream is a ping, one ``assistant_message`` fragment per token with every null field spelled
out, the stop reason, the usage and ``[DONE]``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any

AGENT_ID = "agent-5d3b7c1e-90a4-4c52-8a41-4a9d2c7be010"
_RUN_ID = "run-184d8a52-7a3e-4c11-9c07-35a7c9d0e6f2"
_STEP_ID = "step-d77c0f3a-52f6-4b0e-8d13-3f1c5b7a9e24"
_UUID = "e422b946-1244-4f9b-bc48-3b71b43e21"
_DATE = "2026-11-22T21:53:02+00:00"
_FRAMING_EVENTS = 3  # ping, stop reason, usage


def conversation_id(mode: str, events: int) -> str:
    """Return the id whose turns are streams of ``events`` events, sent as ``mode`` says."""
    return f"conv-{mode}-{events}"


def plan(conversation: str) -> tuple[str, int]:
    """Return the mode and number of events in an id: the opposite of :func:`conversation_id`."""
    _, mode, events = conversation.split("-")
    return mode, int(events)


def tokens(events: int) -> Iterator[str]:
    """Return the fragments of the answer in a stream of ``events`` events, each numbered."""
    return (f" tok{number}" for number in range(events - _FRAMING_EVENTS))


def answer(events: int) -> str:
    """Return the whole answer of a stream of ``events`` events."""
    return "".join(tokens(events))


def _event(identifier: str, message_type: str, **more: Any) -> dict[str, Any]:
    base = {
        "id": identifier,
        "date": _DATE,
        "name": None,
        "message_type": message_type,
        "otid": None,
        "sender_id": None,
        "step_id": None,
        "is_err": None,
        "seq_id": None,
        "run_id": _RUN_ID,
    }
    return {**base, **more}


def _events(events: int) -> Iterator[dict[str, Any]]:
    yield _event(f"ping-{_UUID}6f", "ping")
    for token in tokens(events):
        yield _event(
            f"message-{_UUID}6f",
            "assistant_message",
            otid=f"{_UUID}00",
            step_id=_STEP_ID,
            content=token,
        )
    yield {"message_type": "stop_reason", "stop_reason": "end_turn"}
    yield {
        "message_type": "usage_statistics",
        "completion_tokens": events,
        "prompt_tokens": 100,
        "total_tokens": 100 + events,
        "step_count": 1,
        "run_ids": None,
        "cached_input_tokens": 64,
        "cache_write_tokens": 0,
        "reasoning_tokens": 5,
        "context_tokens": 100 + events,
    }


@functools.lru_cache(maxsize=4)
def chunks(events: int) -> tuple[bytes, ...]:
    """Yield the response body: one HTTP chunk per event, then the last, empty one."""
    return _chunked(_events(events))


@functools.lru_cache(maxsize=4)
def whole(events: int) -> tuple[bytes, ...]:
    """Return the body of the same answer where no tokens were asked for: one message has it all."""
    ping, first, *_, stop, usage = _events(events)
    return _chunked((ping, {**first, "content": answer(events)}, stop, usage))


@functools.lru_cache(maxsize=1)
def stored(messages: int) -> tuple[dict[str, Any], ...]:
    """Return a conversation as a Letta API lists it, oldest first: turns with one tool call each.

    Each item is a stored message of its own.
    """
    said = "A sentence of some twenty words, as people and models write them to each other. " * 2
    call = {"name": "look_up", "arguments": '{"city":"Bern"}', "tool_call_id": "call-1"}
    result: dict[str, Any] = {"tool_return": said, "status": "success", "tool_call_id": "call-1"}
    result |= {"stdout": None, "stderr": None}
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("user_message", {"content": said}),
        ("reasoning_message", {"source": "reasoner_model", "reasoning": said, "signature": None}),
        ("tool_call_message", {"tool_call": call, "tool_calls": [call]}),
        ("tool_return_message", {**result, "tool_returns": [{"type": "tool", **result}]}),
        ("assistant_message", {"content": said}),
    )
    return tuple(
        _event(
            stored_id(n), kinds[n % 5][0], otid=f"{_UUID}00", step_id=_STEP_ID, **kinds[n % 5][1]
        )
        for n in range(messages)
    )


def stored_id(number: int) -> str:
    """Return the id of a stored message by its number, from the oldest on."""
    return f"message-{number:08x}-1244-4f9b-bc48-3b71b43e216f"


def _chunked(events: Iterable[dict[str, Any]]) -> tuple[bytes, ...]:
    datas = [json.dumps(event, separators=(",", ":")) for event in events]
    lines = [f"data: {data}\n\n".encode() for data in (*datas, "[DONE]")]
    return (*(b"%x\r\n%b\r\n" % (len(line), line) for line in lines), b"0\r\n\r\n")


@functools.lru_cache(maxsize=4)
def openai_chunks(events: int) -> tuple[bytes, ...]:
    """Yield the same answer as OpenAI's chat completions stream it, one HTTP chunk per event."""

    def event(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {
            "id": "chatcmpl-benchmark",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "gpt-4.1",
            "choices": [choice],
        }

    made = [event({"role": "assistant", "content": ""})]
    made += [event({"content": token}) for token in tokens(events)]
    made.append(event({}, "stop"))
    datas = [*(json.dumps(item) for item in made), "[DONE]"]
    bodies = [f"data: {data}\n\n".encode() for data in datas]
    return (*(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies), b"0\r\n\r\n")


def openai_whole(events: int) -> dict[str, Any]:
    """Return the same answer as OpenAI's chat completions give it to one who wants no stream."""
    message = {"role": "assistant", "content": answer(events)}
    return {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4.1",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": events,
            "total_tokens": 100 + events,
        },
    }
