"""A turn over several responses: tool answers, and a lost response that is resumed.

The rules: docs/protocol.md ("What a lost connection means").
"""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.engine.rest import RestTurn
from letta_adapters.messages import Message, ToolResultMessage, Usage
from tests.engine._events import (
    DONE,
    RUN,
    RUN_2,
    Fed,
    approvals,
    assistant,
    call,
    call_delta,
    ended,
    error,
    frame,
    ping,
    reasoning,
    returned,
    stop,
    texts,
    tool_return,
    types,
    usage,
    wire,
)


def paused_at(call_id: str) -> Fed:
    """A turn that waits for the answer to one client tool."""
    fed = Fed(ended(assistant("Let me see."), approvals(call(call_id)), reason="requires_approval"))
    fed.turn.confirm_pending([call_id])
    fed.turn.tool_result(ToolResultMessage(call_id, "sunny"))
    return fed


def test_a_client_tool_loop_is_one_turn_of_several_runs() -> None:
    fed = paused_at("call_1")
    fed.turn.begin_segment()
    second = wire(
        ping(RUN_2),
        assistant("Sunny.", step=3, run_id=RUN_2),
        stop(),
        usage(7, 130, cached_input_tokens=64, context_tokens=137),
        DONE,
    )
    assert fed.turn.feed(second) == []
    assert texts(fed.turn.end_segment()) == ["Sunny."]
    assert (fed.result.success, fed.result.result) == (True, "Sunny.")
    assert fed.result.run_ids == (RUN, RUN_2)


def test_the_usage_of_the_requests_of_a_turn_is_summed() -> None:
    fed = paused_at("call_1")
    fed.turn.begin_segment()
    counted = usage(7, 130, cached_input_tokens=64, reasoning_tokens=None, context_tokens=137)
    fed.turn.feed(wire(stop(), counted, DONE))
    assert fed.result.usage == Usage(230, 27, 257, 64, None, None, 137, 2)


def test_each_request_has_its_own_stop_reason_and_pending_calls() -> None:
    fed = paused_at("call_1")
    assert fed.turn.pending
    fed.turn.begin_segment()
    assert fed.turn.stop.value is None
    assert fed.turn.pending == ()
    fed.turn.end_segment()
    assert fed.code == "stream_truncated"


def test_a_second_pause_in_one_turn() -> None:
    fed = paused_at("call_1")
    fed.turn.begin_segment()
    fed.turn.feed(ended(approvals(call("call_1", "again"), step=3), reason="requires_approval"))
    fed.turn.end_segment()
    assert [(c.tool_call_id, c.tool_name) for c in fed.turn.paused] == [("call_1", "again")]


def test_a_new_request_does_not_resume_at_the_position_of_the_last_one() -> None:
    # `starting_after` beyond the end gives pings for ever.
    fed = Fed(wire(ping(seq_id=1), assistant("a", seq_id=9), stop(), DONE))
    assert (fed.turn.run_id, fed.turn.last_seq_id) == (RUN, 9)
    fed.turn.begin_segment()
    assert (fed.turn.run_id, fed.turn.last_seq_id) == (None, None)
    fed.turn.feed(wire(ping(RUN_2, seq_id=1)))
    assert (fed.turn.run_id, fed.turn.last_seq_id) == (RUN_2, 1)


def test_the_position_in_a_stream_is_that_of_the_last_numbered_event() -> None:
    turn = RestTurn()
    turn.feed(wire(ping(seq_id=1), assistant("a", seq_id=2)))
    assert turn.last_seq_id == 2
    turn.feed(wire(ping(seq_id=2), stop(), usage()))
    assert turn.last_seq_id == 2, "pings repeat it, stop_reason and usage have none"


# -- a lost response that is resumed ----------------------------------------------------------

EVENTS = [
    ping(seq_id=1),
    reasoning("They ask ", seq_id=2),
    reasoning("for a sum.", seq_id=3),
    call_delta("call_1", name="add") | {"seq_id": 4},
    call_delta("call_1", arguments='{"a": 1, ') | {"seq_id": 5},
    call_delta("call_1", arguments='"b": 2}') | {"seq_id": 6},
    tool_return(returned("call_1", "3")) | {"seq_id": 7},
    assistant("It is ", step=3, seq_id=8),
    assistant("three.", step=3, seq_id=9),
]
STREAM = wire(*EVENTS, stop(), usage(), DONE)
BODY_END = len(wire(*EVENTS))


def run_whole(partial: bool) -> list[Message]:
    turn = RestTurn(include_partial_messages=partial)
    return turn.feed(STREAM) + turn.end_segment() + turn.finish(duration_ms=0)


def resumed_at(cut: int, after: int | None, partial: bool) -> list[Message]:
    """Lose the response after ``cut`` bytes; resume after this number (default: the last seen)."""
    turn = RestTurn(include_partial_messages=partial)
    messages = turn.feed(STREAM[:cut])
    last = (turn.last_seq_id or 0) if after is None else after
    turn.begin_segment(resumed=True)
    rest = [event for event in EVENTS if event["seq_id"] > last]
    messages += turn.feed(wire(ping(seq_id=turn.last_seq_id or 0), *rest, stop(), usage(), DONE))
    return messages + turn.end_segment() + turn.finish(duration_ms=0)


@pytest.mark.parametrize("partial", [False, True])
def test_resumed_after_a_cut_anywhere_nothing_is_lost_or_said_twice(partial: bool) -> None:
    whole = run_whole(partial)
    assert types(m for m in whole if m.type != "stream_event") == [
        "reasoning",
        "tool_call",
        "tool_result",
        "assistant",
        "result",
    ]
    for cut in range(BODY_END + 1):
        assert resumed_at(cut, None, partial) == whole, cut


@pytest.mark.parametrize("partial", [False, True])
def test_a_replay_from_the_beginning_is_not_taken_twice(partial: bool) -> None:
    # What the same `otid` gives with `background: true`, or `starting_after: 0`.
    whole = run_whole(partial)
    for cut in range(0, BODY_END + 1, 7):
        assert resumed_at(cut, 0, partial) == whole, cut


def test_the_stop_reason_and_pending_calls_outlive_a_resume() -> None:
    turn = RestTurn()
    turn.feed(wire(ping(seq_id=1), approvals(call("call_1")) | {"seq_id": 2}))
    turn.feed(wire(stop("requires_approval")))
    turn.begin_segment(resumed=True)
    turn.feed(wire(usage(), DONE))
    turn.end_segment()
    assert [c.tool_call_id for c in turn.paused] == ["call_1"]


def test_an_error_in_background_has_a_number_and_no_done() -> None:
    fed = Fed(
        wire(ping(seq_id=1), assistant("a fragm", seq_id=2), stop("error"), error("x", seq_id=3))
    )
    assert (fed.messages, fed.code) == ([], "internal_error")


def test_equal_numbers_only_matter_once_a_stream_is_resumed() -> None:
    fed = Fed(wire(ping(seq_id=1), assistant("a", seq_id=1), assistant("b", seq_id=1), stop()))
    assert texts(fed.messages) == ["ab"]


def test_a_numbered_event_that_comes_twice_is_taken_once() -> None:
    one, two = assistant("a", seq_id=2), assistant("b", seq_id=3)
    fed = Fed(wire(ping(seq_id=1), one, one, two, one, two, ping(seq_id=3), stop()))
    assert texts(fed.messages) == ["ab"]


def test_only_the_latest_numbers_are_remembered() -> None:
    many = [assistant("a", seq_id=n) for n in range(2, 302)]
    fed = Fed(wire(ping(seq_id=1), *many, many[-1], stop()))
    assert texts(fed.messages) == ["a" * 300]


def test_a_piece_without_a_number_may_be_said_twice() -> None:
    fed = Fed(wire(ping(), assistant("ha"), assistant("ha"), stop()))
    assert texts(fed.messages) == ["haha"]


def test_a_piece_without_an_otid_stays_in_its_place() -> None:
    bare = assistant("b") | {"otid": None}
    assert texts(Fed(wire(ping(), assistant("a"), bare, assistant("c"), stop())).messages) == [
        "abc"
    ]


def test_each_run_counts_its_own_events() -> None:
    turn = RestTurn()
    turn.feed(wire(ping(seq_id=1), stop()))
    turn.feed(wire(ping(seq_id=5)))
    turn.begin_segment(resumed=True)
    turn.feed(wire(assistant("new run", seq_id=2, run_id=RUN_2), stop(), DONE))
    assert texts(turn.end_segment()) == ["new run"]


def test_an_odd_number_is_no_position() -> None:
    odd: Any = assistant("b", seq_id="nine")
    fed = Fed(wire(ping(seq_id=1), assistant("a", seq_id=2), odd, stop(), DONE))
    assert fed.turn.last_seq_id == 2
    assert [m.type for m in fed.messages] == ["unknown", "assistant"]


def test_a_cut_event_of_the_lost_response_does_not_spoil_the_resumed_one() -> None:
    turn = RestTurn()
    turn.feed(wire(assistant("a", seq_id=1)) + frame(assistant("b", seq_id=2))[:40])
    turn.begin_segment(resumed=True)
    turn.feed(wire(assistant("b", seq_id=2), stop(), DONE))
    assert texts(turn.end_segment()) == ["ab"]
