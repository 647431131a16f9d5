"""One response body → messages: what is said, and every way a stream ends.

The rules: docs/protocol.md ("What ends a turn")
and docs/protocol.md ("The order of events").
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from letta_adapters.engine.rest import RestTurn
from letta_adapters.messages import (
    AssistantMessage,
    ErrorMessage,
    ReasoningMessage,
    ResultMessage,
    StreamEvent,
    UnknownMessage,
    Usage,
)
from tests.engine._events import (
    CANCELLED,
    DONE,
    RUN,
    RUN_2,
    Fed,
    assistant,
    base,
    call,
    calls,
    ended,
    error,
    hidden,
    otid,
    ping,
    reasoning,
    returned,
    step_id,
    stop,
    texts,
    tool_return,
    types,
    usage,
    wire,
)

# -- what is said -----------------------------------------------------------------------------


def test_step_mode_gives_whole_messages_and_a_result() -> None:
    fed = Fed(ended(reasoning("They greet."), assistant("You said: hello")))
    assert fed.messages == [
        ReasoningMessage("They greet.", step_id(1), otid(1, 0), None, RUN, source="reasoner_model"),
        AssistantMessage("You said: hello", step_id(1), otid(1, 2), None, RUN),
    ]
    assert fed.closing == [
        ResultMessage(
            True,
            "You said: hello",
            "end_turn",
            Usage(100, 20, 120, context_tokens=120, step_count=1),
            7,
            run_ids=(RUN,),
        )
    ]


def test_token_mode_gives_the_messages_of_step_mode() -> None:
    whole = ended(reasoning("They greet."), assistant("You said: hello"))
    deltas = [reasoning("They "), reasoning("greet."), assistant("You "), assistant("said: hello")]
    assert Fed(ended(*deltas)).messages == Fed(whole).messages
    assert Fed(ended(*deltas)).closing == Fed(whole).closing


def test_fragments_are_the_wires_own_objects_and_come_before_what_they_complete() -> None:
    deltas = [reasoning("They "), assistant("You "), assistant("said.")]
    fed = Fed(ended(*deltas), partial=True)
    assert [m.event for m in fed.messages if isinstance(m, StreamEvent)] == deltas
    assert types(fed.messages) == ["stream_event"] * 3 + ["reasoning", "assistant"]


def test_a_fragment_of_the_next_step_follows_the_complete_messages_of_the_last() -> None:
    fed = Fed(ended(assistant("a", step=1), assistant("b", step=2)), partial=True)
    assert types(fed.messages) == ["stream_event", "assistant", "stream_event", "assistant"]


def test_the_order_inside_a_step_is_kept() -> None:
    fed = Fed(ended(reasoning("r"), hidden("h"), assistant("t"), calls(call("call_1"))))
    assert types(fed.messages) == ["reasoning", "reasoning", "assistant", "tool_call"]


def test_the_result_is_the_text_of_the_last_step() -> None:
    fed = Fed(
        ended(
            assistant("Let me add.", step=1),
            calls(call("call_1", "add"), step=1),
            tool_return(returned("call_1", "3"), step=2),
            assistant("It is ", step=3, part=0),
            assistant("three.", step=3, part=1),
        )
    )
    assert fed.result.result == "It is three."


def test_pings_say_nothing_but_the_run() -> None:
    fed = Fed(wire(ping(), assistant("a"), ping(), assistant("b"), stop(), DONE), partial=True)
    assert texts(fed.messages) == ["ab"]
    assert fed.turn.run_id == RUN


def test_without_pings_the_run_is_known_from_the_first_message() -> None:
    fed = Fed(wire(assistant("a"), stop(), usage(), DONE))
    assert fed.result.run_ids == (RUN,)


def test_a_compaction_user_message_is_unknown_and_no_answer() -> None:
    alert = {"type": "system_alert", "message": "Note: prior messages", "time": "…"}
    compaction = base("user_message", step=2, content=json.dumps(alert))
    fed = Fed(ended(assistant("before", step=1), compaction, assistant("after", step=3)))
    assert UnknownMessage(compaction) in fed.messages
    assert texts(fed.messages) == ["before", "after"]
    assert fed.result.result == "after"


@pytest.mark.parametrize("kind", ["summary_message", "event_message", "from_the_future", None, 7])
def test_events_the_engine_does_not_know_are_kept_whole(kind: Any) -> None:
    event = base(kind, payload={"deep": [1]})
    (message, answer) = Fed(ended(event, assistant("x"))).messages
    assert message == UnknownMessage(event)
    assert answer.type == "assistant"


# -- how a stream ends ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tail",
    [
        wire(stop(), usage(), DONE),
        wire(stop(), usage()),
        wire(stop(), DONE),
        wire(stop()),
    ],
    ids=["all", "no DONE", "no usage", "stop only"],
)
def test_a_stop_reason_ends_the_turn(tail: bytes) -> None:
    fed = Fed(wire(ping(), assistant("Hi")) + tail)
    assert (fed.result.success, fed.result.result, fed.result.stop_reason) == (
        True,
        "Hi",
        "end_turn",
    )


@pytest.mark.parametrize("tail", [wire(usage(), DONE), DONE], ids=["no stop", "DONE only"])
def test_a_stream_that_does_not_say_why_it_stopped_is_a_failure(tail: bytes) -> None:
    fed = Fed(wire(ping(), assistant("Hi")) + tail)
    assert (fed.result.success, fed.code, fed.result.result) == (False, "protocol_error", None)


@pytest.mark.parametrize("partial", [False, True])
def test_a_stream_without_a_stop_reason_or_error_was_cut(partial: bool) -> None:
    fed = Fed(wire(ping(), reasoning("whole"), assistant("a fragm")), partial=partial)
    assert [m.content for m in fed.messages if m.type != "stream_event"] == ["whole"]
    assert fed.closing == [
        ErrorMessage(
            "The stream ended before the turn was finished.",
            "stream_truncated",
            None,
            "error",
            None,
            RUN,
        ),
        ResultMessage(
            False,
            None,
            "error",
            Usage(),
            7,
            run_ids=(RUN,),
            error_code="stream_truncated",
            error_detail="The stream ended before the turn was finished.",
        ),
    ]


def test_an_event_without_its_blank_line_was_cut() -> None:
    cut = wire(ping(), assistant("Hi"), stop())[:-1]
    assert Fed(cut).code == "stream_truncated"


def test_an_empty_body_was_cut() -> None:
    assert Fed(b"").code == "stream_truncated"
    assert Fed(b"").result.run_ids == ()


def test_a_stream_that_only_pings_was_cut() -> None:
    assert Fed(wire(ping(), ping())).code == "stream_truncated"


def test_nothing_counts_after_done() -> None:
    after = wire(assistant("ghost", step=9), stop("error"), error("late"), usage())
    fed = Fed(ended(assistant("Hi")) + after)
    assert texts(fed.messages) == ["Hi"]
    assert (fed.result.success, fed.result.usage.completion_tokens) == (True, 20)
    assert fed.turn.feed(after) == []


def test_nothing_counts_after_an_error_event() -> None:
    after = wire(assistant("ghost", step=9), error("second"), stop("end_turn"), usage(), DONE)
    fed = Fed(wire(ping(), stop("llm_api_error"), error("first")) + after)
    assert fed.messages == []
    assert fed.result.error_detail == "An error occurred during agent execution. (first)"
    assert fed.result.usage == Usage()
    assert fed.turn.segment_over


def test_max_tokens_exceeded_is_no_success_but_its_text_is_handed_out() -> None:
    fed = Fed(ended(assistant("An answer that is cut o"), reason="max_tokens_exceeded"))
    assert texts(fed.messages) == ["An answer that is cut o"]
    assert (fed.result.success, fed.result.result) == (False, None)
    assert fed.result.error_code == fed.result.stop_reason == "max_tokens_exceeded"


@pytest.mark.parametrize("reason", ["max_steps", "no_tool_call", "solar_flare"])
@pytest.mark.parametrize("tail", [wire(usage(), DONE), b""], ids=["all", "closed"])
def test_other_failing_stop_reasons_hand_out_all_texts(reason: str, tail: bytes) -> None:
    fed = Fed(wire(ping(), assistant("so far"), stop(reason)) + tail)
    assert texts(fed.messages) == ["so far"]
    assert (fed.result.success, fed.result.error_code, fed.result.stop_reason) == (
        False,
        reason,
        reason,
    )


@pytest.mark.parametrize("reason", ["end_turn", "tool_rule"])
def test_end_turn_and_tool_rule_are_successes(reason: str) -> None:
    fed = Fed(ended(assistant("done"), reason=reason))
    assert (fed.result.success, fed.result.result, fed.result.stop_reason) == (True, "done", reason)


def test_an_empty_model_answer_is_an_empty_result() -> None:
    fed = Fed(ended())
    assert fed.messages == []
    assert (fed.result.success, fed.result.result, fed.result.stop_reason) == (True, "", "end_turn")


def test_an_error_before_any_message_has_its_own_error_type() -> None:
    body = wire(
        ping(),
        stop("llm_api_error"),
        error("RATE_LIMIT_EXCEEDED: Rate limited by OpenAI", "llm_rate_limit", "Rate limit."),
        DONE,
    )
    fed = Fed(body)
    assert fed.messages == []
    assert fed.closing[0] == ErrorMessage(
        "Rate limit.",
        "provider_rate_limit",
        "llm_rate_limit",
        "llm_api_error",
        "RATE_LIMIT_EXCEEDED: Rate limited by OpenAI",
        RUN,
    )
    assert fed.result.error_detail == "Rate limit. (RATE_LIMIT_EXCEEDED: Rate limited by OpenAI)"
    assert Fed(body.removesuffix(DONE)).closing == fed.closing, "background: no DONE"


@pytest.mark.parametrize("two", [True, False], ids=["error, llm_api_error", "llm_api_error"])
def test_an_error_after_a_message_needs_no_done(two: bool) -> None:
    reasons = [stop("error"), stop("llm_api_error")] if two else [stop("llm_api_error")]
    fed = Fed(wire(ping(), reasoning("whole"), assistant("a fragm"), *reasons, error("boom")))
    assert texts(fed.messages) == ["whole"]
    assert (fed.code, fed.result.success, fed.result.result) == ("provider_error", False, None)
    assert fed.result.stop_reason == ("error" if two else "llm_api_error")


def test_what_follows_a_bare_error_explains_it_without_an_error_event_too() -> None:
    fed = Fed(wire(ping(), stop("error"), stop("llm_api_error")))
    assert (fed.code, fed.result.stop_reason) == ("provider_error", "error")


def test_a_cancelled_stream_needs_no_done() -> None:
    fed = Fed(wire(ping(), assistant("a fragm")) + CANCELLED)
    assert fed.messages == []
    assert (fed.code, fed.result.stop_reason, fed.result.usage) == (
        "cancelled",
        "cancelled",
        Usage(),
    )


@pytest.mark.parametrize(
    "tail",
    [
        wire(assistant("ent", step=1)),
        wire(stop("end_turn")),
        wire(assistant("ent"), stop("end_turn"), usage(), DONE),
        b'event: cancelled\ndata: {"message": "Run was cancelled"}\n\n',
        error("Stream was terminated"),
        DONE,
    ],
    ids=["a delta", "end_turn", "all", "event: cancelled", "an error", "DONE (background)"],
)
def test_once_cancelled_it_stays_cancelled(tail: bytes) -> None:
    fed = Fed(wire(ping(), assistant("a fragm")) + CANCELLED + tail)
    assert (fed.code, fed.result.success, fed.result.stop_reason) == (
        "cancelled",
        False,
        "cancelled",
    )


@pytest.mark.parametrize("data", [b"{}", b'{"message": "Run was cancelled"}', b"cancelled"])
def test_an_event_named_cancelled_is_a_cancel(data: bytes) -> None:
    fed = Fed(wire(ping(), assistant("x")) + b"event: cancelled\ndata: " + data + b"\n\n")
    assert (fed.code, fed.messages) == ("cancelled", [])


def test_an_error_after_a_successful_stop_reason_is_a_failure_that_does_not_look_like_success() -> (
    None
):
    fed = Fed(wire(ping(), assistant("Hi"), stop("end_turn"), error("x", "cleanup_error")))
    assert (fed.code, fed.result.success) == ("internal_error", False)
    assert fed.result.stop_reason == "error"
    assert [m.stop_reason for m in fed.closing] == ["error", "error"]


def test_a_stop_reason_without_a_value_is_no_stop_reason() -> None:
    assert Fed(wire(ping(), stop(""), {"message_type": "stop_reason"})).code == "stream_truncated"


# -- usage and runs ---------------------------------------------------------------------------


def test_usage_is_taken_as_the_server_sums_it() -> None:
    counted = usage(
        20,
        100,
        step_count=2,
        cached_input_tokens=64,
        cache_write_tokens=0,
        reasoning_tokens=5,
        context_tokens=130,
    )
    fed = Fed(wire(ping(), stop(), counted, DONE))
    assert fed.result.usage == Usage(100, 20, 120, 64, 0, 5, 130, 2)


def test_null_in_usage_means_not_reported() -> None:
    fed = Fed(wire(ping(), stop(), usage(prompt_tokens=None, total_tokens=None), DONE))
    assert fed.result.usage == Usage(0, 20, 0, None, None, None, 120, 1)


def test_no_usage_event_is_no_usage() -> None:
    assert Fed(wire(ping(), stop(), DONE)).result.usage == Usage()


def test_run_ids_of_sleeptime_runs_follow_the_turns_own() -> None:
    fed = Fed(wire(ping(), stop(), usage(run_ids=[RUN_2]), DONE))
    assert fed.result.run_ids == (RUN, RUN_2)
    assert fed.turn.run_id == RUN


def test_what_a_silent_run_stored_is_taken() -> None:
    turn = RestTurn(include_partial_messages=True)
    turn.begin_segment()
    turn.feed(ended())
    turn.end_segment()
    assert turn.silent
    stored = [
        {"message_type": "user_message", "content": "hi", "otid": "o0", "run_id": RUN},
        {"message_type": "assistant_message", "content": "Hello.", "otid": "o1", "run_id": RUN},
        {"message_type": "approval_request_message", "tool_calls": [], "run_id": RUN},
    ]
    assert [m.type for m in turn.take_stored(stored)] == ["stream_event", "assistant"]
    assert not turn.silent
    assert turn.finish(duration_ms=1)[-1].result == "Hello."


def test_a_run_that_said_something_is_not_silent() -> None:
    turn = RestTurn()
    turn.begin_segment()
    turn.feed(ended(assistant("done")))
    turn.end_segment()
    assert not turn.silent
