"""Every kind of stream, cut at every byte offset, gives the same messages."""

from __future__ import annotations

import json

import pytest

from letta_adapters.engine.sse import SSEDecoder
from tests.engine._events import (
    CANCELLED,
    DONE,
    approval_delta,
    approvals,
    assistant,
    base,
    call,
    call_delta,
    calls,
    ended,
    error,
    hidden,
    ping,
    reasoning,
    returned,
    stop,
    tool_return,
    wire,
)
from tests.engine._recut import assert_recut_invariant

RAW = b"data: " + json.dumps(assistant("é\u2028\x85😀"), ensure_ascii=False).encode() + b"\n\n"
STREAMS = {
    "step mode": ended(reasoning("Hm."), assistant("Hi"), ping()),
    "token mode": ended(reasoning("H"), reasoning("m."), hidden("x"), assistant("H"), RAW),
    "server tool": ended(
        call_delta("call_1", name="add"),
        call_delta("call_1", arguments='{"a": "}'),
        call_delta("call_1", arguments='\\""}'),
        tool_return(returned("call_1", "3")),
        assistant("Three.", step=3),
    ),
    "parallel approvals": ended(
        assistant("Let me see."),
        approval_delta("call_a", "f"),
        approval_delta("call_b", "g"),
        approval_delta("call_a", None, "{}"),
        approval_delta("call_b", None, "{}"),
        reason="requires_approval",
    ),
    "mixed calls": ended(calls(call("s")), approvals(call("c")), reason="requires_approval"),
    "error": wire(ping(), assistant("Hi"), stop("error"), stop("llm_api_error"), error("boom")),
    "cancelled": wire(ping(), assistant("Hi")) + CANCELLED + wire(assistant("!")),
    "cut short": wire(ping(), assistant("Hi"), assistant(" the"))[:-9],
    "malformed": wire(ping(), reasoning("Hm."), b"data: {oops\n\n", DONE),
    "unknown": ended(base("user_message", content="{}"), base("news"), b": comment\n\n"),
    "CRLF": ended(assistant("Hi")).replace(b"\n", b"\r\n"),
    "CR": ended(assistant("Hi"), error("boom")).replace(b"\n", b"\r"),
    "lone surrogates": ended(assistant("\ud83d"), assistant("\ude00")),
    "empty": b"",
}


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_re_cut_at_every_byte_offset(name: str) -> None:
    assert_recut_invariant(STREAMS[name])


def test_a_large_stream_is_cut_at_random_offsets() -> None:
    large = ended(*(assistant("x" * 3000, step=1 + n % 2) for n in range(12)))
    assert len(large) > 32 * 1024
    assert_recut_invariant(large)


class Forgetful(SSEDecoder):
    """What a reader that treats each chunk as whole lines does."""

    def feed(self, chunk: bytes) -> list[tuple[str | None, bytes]]:
        self._partial = []
        return super().feed(chunk)


def test_the_check_notices_a_reader_that_depends_on_the_cuts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("letta_adapters.engine.rest.SSEDecoder", Forgetful)
    with pytest.raises(AssertionError):
        assert_recut_invariant(STREAMS["step mode"])
