"""Messages → rows while they stream."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.engine.transcript import Row, Transcript
from letta_adapters.messages import (
    AssistantMessage,
    ErrorMessage,
    InitMessage,
    ReasoningMessage,
    RetryMessage,
    ToolCallMessage,
    ToolProgressMessage,
    ToolResultMessage,
    UnknownMessage,
)
from tests.engine._events import (
    CITY,
    RUN,
    RUN_2,
    Fed,
    approval_delta,
    assistant,
    base,
    call,
    call_delta,
    calls,
    ended,
    hidden,
    otid,
    ping,
    reasoning,
    step_id,
)
from tests.engine._messages import RETRY, failed, fragment, rows_of, said, success

CALL = ToolCallMessage("call_1", "get_weather", {"city": "Paris"}, CITY, run_id=RUN)
RETURN = ToolResultMessage("call_1", "sunny", tool_name="get_weather", run_id=RUN_2)


# -- texts ------------------------------------------------------------------------------------


def test_fragments_grow_a_streaming_row() -> None:
    transcript = Transcript()
    transcript.apply(fragment(assistant("You ")))
    assert transcript.rows == (
        Row("assistant", otid(1, 2), "You ", status="streaming", run_id=RUN),
    )
    transcript.apply(fragment(assistant("said")))
    assert [(r.text, r.status) for r in transcript.rows] == [("You said", "streaming")]


def test_the_complete_message_replaces_the_text_of_its_fragments() -> None:
    fed = Fed(
        ended(reasoning("H"), reasoning("m."), assistant("You "), assistant("said")), partial=True
    )
    rows = rows_of(*fed.messages)
    assert rows == (
        Row("reasoning", otid(1, 0), "Hm.", run_id=RUN),
        Row("assistant", otid(1, 2), "You said", run_id=RUN),
    )


def test_fragments_after_the_complete_message_add_nothing() -> None:
    rows = rows_of(said("whole", otid(1, 2)), fragment(assistant("late")))
    assert [(r.text, r.status) for r in rows] == [("whole", "complete")]


def test_complete_messages_alone_make_the_same_rows() -> None:
    body = ended(reasoning("Hm."), assistant("Hi"), calls(call("call_1")))
    assert rows_of(*Fed(body, partial=True).messages) == rows_of(*Fed(body).messages)


def test_without_an_otid_the_id_is_the_key() -> None:
    rows = rows_of(fragment(assistant("a", otid=None)), AssistantMessage("ab", step_id(1)))
    assert rows == (Row("assistant", step_id(1), "ab", run_id=RUN),)


def test_with_neither_a_turn_has_one_row_of_a_kind() -> None:
    transcript = Transcript()
    for message in (AssistantMessage("a"), AssistantMessage("b"), success(), AssistantMessage("c")):
        transcript.apply(message)
    assert [(r.key, r.text) for r in transcript.rows] == [("turn-0", "b"), ("turn-1", "c")]


def test_reasoning_and_answer_with_one_key_are_two_rows() -> None:
    rows = rows_of(ReasoningMessage("a", otid="o"), AssistantMessage("b", otid="o"))
    assert [(r.kind, r.text) for r in rows] == [("reasoning", "a"), ("assistant", "b")]


def test_hidden_reasoning_shows_that_there_was_some_and_no_opaque_data() -> None:
    transcript = Transcript()
    transcript.apply(fragment(hidden("b3BhcXVl")))
    assert [(r.kind, r.text, r.status) for r in transcript.rows] == [("reasoning", "", "streaming")]
    transcript.apply(ReasoningMessage("b3BhcXVl", otid=otid(1, 1), redacted=True))
    assert [(r.kind, r.text, r.status) for r in transcript.rows] == [("reasoning", "", "complete")]


def test_the_halves_of_an_emoji_in_two_fragments() -> None:
    transcript = Transcript()
    transcript.apply(fragment(assistant("a\ud83d")))
    assert [r.text for r in transcript.rows] == ["a\ufffd"]
    transcript.apply(fragment(assistant("\ude00")))
    assert [r.text for r in transcript.rows] == ["a😀"]


def test_rows_that_did_not_change_are_the_same_objects() -> None:
    transcript = Transcript()
    transcript.apply(said("a"))
    (before,) = transcript.rows
    transcript.apply(said("b", "o-2"))
    assert transcript.rows[0] is before


# -- tools ------------------------------------------------------------------------------------


def test_call_and_result_are_one_row() -> None:
    transcript = Transcript()
    transcript.apply(CALL)
    assert transcript.rows == (
        Row(
            "tool",
            "call_1",
            CITY,
            "get_weather",
            {"city": "Paris"},
            status="streaming",
            run_id=RUN,
        ),
    )
    transcript.apply(RETURN)
    assert transcript.rows == (
        Row(
            "tool",
            "call_1",
            CITY,
            "get_weather",
            {"city": "Paris"},
            "sunny",
            run_id=RUN,
        ),
    )


def test_a_failed_tool_is_a_complete_row_with_an_error() -> None:
    (row,) = rows_of(CALL, ToolResultMessage("call_1", "ValueError", is_error=True))
    assert (row.tool_output, row.is_error, row.status) == ("ValueError", True, "complete")


def test_fragments_of_parallel_calls_grow_one_row_each() -> None:
    transcript = Transcript()
    for event in (
        approval_delta("call_a", "f"),
        approval_delta("call_b", "g"),
        approval_delta("call_a", None, '{"x"'),
        approval_delta("call_b", None, '{"y"'),
    ):
        transcript.apply(fragment(event))
    assert [(r.key, r.tool_name, r.text, r.tool_input, r.status) for r in transcript.rows] == [
        ("call_a", "f", '{"x"', None, "streaming"),
        ("call_b", "g", '{"y"', None, "streaming"),
    ]
    transcript.apply(ToolCallMessage("call_a", "f", {"x": 1}, '{"x":1}'))
    transcript.apply(fragment(approval_delta("call_a", None, "late")))
    assert [(r.text, r.tool_input) for r in transcript.rows] == [
        ('{"x":1}', {"x": 1}),
        ('{"y"', None),
    ]


def test_whole_calls_as_fragments_and_then_complete_are_not_doubled() -> None:
    fed = Fed(ended(calls(call("call_1"), call("call_2"))), partial=True)
    rows = rows_of(*fed.messages)
    assert [(r.key, r.text) for r in rows] == [("call_1", CITY), ("call_2", CITY)]


def test_a_result_whose_call_was_never_seen_has_a_row() -> None:
    assert rows_of(RETURN) == (
        Row("tool", "call_1", "", "get_weather", None, "sunny", run_id=RUN_2),
    )


# -- ends -------------------------------------------------------------------------------------


def test_a_failed_result_marks_streaming_rows_failed() -> None:
    rows = rows_of(
        said("whole"), fragment(assistant("a fragm")), CALL, fragment(call_delta("c2")), failed(RUN)
    )
    assert [(r.kind, r.status) for r in rows] == [
        ("assistant", "complete"),
        ("assistant", "failed"),
        ("tool", "failed"),
        ("tool", "failed"),
    ]
    assert rows[1].text == "a fragm"


def test_a_successful_result_leaves_nothing_streaming() -> None:
    rows = rows_of(fragment(assistant("no complete message came")), CALL, success())
    assert [r.status for r in rows] == ["complete", "complete"]


def test_a_result_is_about_its_own_runs() -> None:
    transcript = Transcript()
    transcript.apply(fragment(assistant("a", run_id=RUN)))
    transcript.apply(failed(RUN_2))
    assert [r.status for r in transcript.rows] == ["streaming"]
    transcript.apply(failed())
    assert [r.status for r in transcript.rows] == ["failed"]


def test_an_error_is_a_row() -> None:
    assert rows_of(ErrorMessage("Cut.", "stream_truncated", run_id=RUN)) == (
        Row("error", RUN, "Cut.", is_error=True, run_id=RUN),
    )


def test_errors_without_a_run_are_one_row_each() -> None:
    transcript = Transcript()
    for message in (ErrorMessage("a", "x"), failed(), ErrorMessage("a", "x"), failed()):
        transcript.apply(message)
    assert [(r.key, r.text) for r in transcript.rows] == [("turn-0", "a"), ("turn-1", "a")]


def test_init_makes_no_row() -> None:
    assert rows_of(InitMessage("agent-1", "conv-1", "s-1", "rest")) == ()


def test_what_a_tool_reports_makes_no_row_and_changes_none() -> None:
    transcript = Transcript()
    transcript.apply(CALL)
    before = transcript.rows
    assert transcript.apply(ToolProgressMessage("call_1", "get_weather", "half")) == ()
    assert transcript.rows == before


# -- retries ----------------------------------------------------------------------------------


def test_a_retry_takes_back_what_the_failed_attempt_was_saying() -> None:
    transcript = Transcript()
    for message in (
        said("whole", "o-0"),
        CALL,
        fragment(reasoning("Hm", step=2)),
        fragment(call_delta("call_2", name="f", arguments='{"a')),
        fragment(assistant("You sa", step=2)),
    ):
        transcript.apply(message)
    transcript.apply(RETRY)
    assert [(r.key, r.text) for r in transcript.rows] == [("o-0", "whole"), ("call_1", CITY)]
    transcript.apply(fragment(assistant("You said", step=3)))
    transcript.apply(success())
    assert [r.text for r in transcript.rows] == ["whole", CITY, "You said"]


def test_a_new_attempt_under_the_old_key_starts_empty() -> None:
    transcript = Transcript()
    transcript.apply(fragment(assistant("old")))
    transcript.apply(RETRY)
    assert transcript.rows == ()
    transcript.apply(fragment(assistant("new")))
    assert [(r.text, r.status) for r in transcript.rows] == [("new", "streaming")]


def test_a_retry_is_about_its_own_run() -> None:
    rows = rows_of(fragment(assistant("a", run_id=RUN_2)), RETRY)
    assert [r.text for r in rows] == ["a"]
    rows = rows_of(fragment(assistant("a", run_id=RUN_2)), RetryMessage("x", 1, 3, 0))
    assert rows == ()


# -- events -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (base("summary_message", summary="We met."), "We met."),
        (base("event_message", event_type="compaction", event_data={}), "compaction"),
        (base("from_the_future"), "from_the_future"),
        (base(""), ""),
    ],
)
def test_unknown_events_are_rows(raw: dict[str, Any], text: str) -> None:
    assert rows_of(UnknownMessage(raw)) == (Row("event", otid(1, 0), text, run_id=RUN),)


def test_an_event_without_ids_is_told_apart_by_what_it_is() -> None:
    first, second = ({"message_type": "news", "n": n} for n in (1, 2))
    rows = rows_of(*(UnknownMessage(raw) for raw in (first, second, first)))
    assert [(r.kind, r.text) for r in rows] == [("event", "news")] * 2
    assert len({r.key for r in rows}) == 2


def test_a_known_event_that_could_not_be_read_says_nothing() -> None:
    assert rows_of(UnknownMessage(assistant(5)), UnknownMessage(calls(call("c")))) == ()


def test_a_user_message_in_the_stream_is_the_users_row() -> None:
    # The App Server repeats what was sent, with the client's id as its otid.
    raw = base("user_message", content="Hi", otid="client-1")
    assert rows_of(UnknownMessage(raw)) == (Row("user", "client-1", "Hi", run_id=RUN),)


def test_fragments_that_say_nothing_readable_make_no_row() -> None:
    assert rows_of(fragment(ping()), fragment({})) == ()


def test_a_message_says_which_rows_it_changed_and_leaves_all_others() -> None:
    transcript = Transcript()
    for n in range(50):
        transcript.apply(said(f"answer {n}", f"a-{n}"))
    before = transcript.rows
    assert transcript.apply(fragment(assistant("new "))) == transcript.rows[-1:]
    changed = transcript.apply(said("answer 7, again", "a-7"))
    assert [row.text for row in changed] == ["answer 7, again"]
    after = transcript.rows
    same = [old is new for old, new in zip(before, after, strict=False)]
    assert same.count(False) == 1 and not same[7]
    assert transcript.apply(said("answer 7, again", "a-7")) != ()
    assert len(transcript.rows) == 51


def test_rows_that_are_taken_back_and_said_again_keep_their_place() -> None:
    transcript = Transcript()
    transcript.apply(fragment(assistant("first", step=5)))
    transcript.apply(said("second", "a-2"))
    transcript.apply(RETRY)
    assert [row.text for row in transcript.rows] == ["second"]
    transcript.apply(fragment(assistant("first again", step=5)))
    assert [row.text for row in transcript.rows] == ["first again", "second"]
