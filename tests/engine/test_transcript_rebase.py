"""Stored history becomes the truth, and what is not stored yet stays.

The rules: docs/protocol.md ("Which ids are unique, and across what")
and docs/protocol.md ("Pages of stored messages").
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from letta_adapters.engine.transcript import Row, Transcript
from letta_adapters.messages import (
    AssistantMessage,
    ErrorMessage,
    Message,
    MessagePage,
    ResultMessage,
    StreamEvent,
    ToolCallMessage,
    ToolResultMessage,
    UnknownMessage,
    Usage,
)
from tests.engine._events import (
    CITY,
    RUN,
    RUN_2,
    approvals,
    assistant,
    base,
    call,
    calls,
    hidden,
    reasoning,
    returned,
    tool_return,
)

Item = dict[str, Any]


def user(content: Any, key: str = "u-1", **fields: Any) -> Item:
    return base("user_message", content=content, otid=key, id=f"message-{key}") | fields


def answer(text: str, key: str, run_id: str | None = RUN) -> Item:
    return assistant(text, otid=key, id=f"message-{key}", run_id=run_id)


def answered(*entries: Item, key: str = "r-1") -> Item:
    event = base("approval_response_message", otid=key, id=f"message-{key}")
    return event | {"approvals": list(entries)}


def newest_first(*oldest_first: Item) -> list[Item]:
    return list(reversed(oldest_first))


def rows_of(history: Sequence[Item] | MessagePage, *live: Message) -> tuple[Row, ...]:
    transcript = Transcript()
    for message in live:
        transcript.apply(message)
    transcript.rebase(history)
    return transcript.rows


def shown(rows: Sequence[Row]) -> list[str]:
    return [row.text for row in rows]


def said(text: str, key: str, run_id: str | None = RUN) -> AssistantMessage:
    return AssistantMessage(text, "streamed-id", key, None, run_id)


def delta(text: str, key: str, run_id: str | None = RUN) -> StreamEvent:
    return StreamEvent(assistant(text, otid=key, run_id=run_id))


FAILED = ResultMessage(False, None, "error", Usage(), 0)


# -- what stored messages say -----------------------------------------------------------------


def test_a_conversation_newest_first_becomes_rows_oldest_first() -> None:
    history = newest_first(
        base("system_message", content="You are …", otid="s"),
        user("What is the weather?"),
        approvals(call("call_1"), step=2),
        answered({"type": "tool", "tool_call_id": "call_1", "tool_return": "sunny 22C"}),
        tool_return(returned("call_1", "sunny 22C"), name="get_weather", step=3),
        answer("Sunny.", "a-1"),
    )
    expected = (
        Row("user", "u-1", "What is the weather?", run_id=RUN),
        Row(
            "tool",
            "call_1",
            CITY,
            "get_weather",
            {"city": "Paris"},
            "sunny 22C",
            run_id=RUN,
        ),
        Row("assistant", "a-1", "Sunny.", run_id=RUN),
    )
    assert rows_of(history) == expected
    assert rows_of(MessagePage((), history, next_before="message-u-1", has_more=True)) == expected


def test_the_parts_of_one_stored_message_keep_their_order() -> None:
    # Newest first, and inside a stored message still: reasoning, then text, then calls.
    history = [
        reasoning("r2", step=2),
        assistant("t2", step=2),
        calls(call("call_1"), step=2),
        reasoning("r1", step=1),
        hidden("opaque", step=1),
        assistant("t1", step=1),
    ]
    assert shown(rows_of(history)) == ["r1", "", "t1", "r2", "t2", CITY]


def test_stored_tool_calls_in_lists_and_alone_are_rows() -> None:
    one = calls(call("call_1"), call("call_2"), step=1)
    old = calls(call("call_3"), step=2) | {"tool_calls": None}
    rows = rows_of(newest_first(one, old))
    assert [(r.key, r.tool_name, r.tool_input, r.status) for r in rows] == [
        (f"call_{n}", "get_weather", {"city": "Paris"}, "streaming") for n in (1, 2, 3)
    ]


def test_several_stored_tool_returns_and_the_legacy_form_are_rows() -> None:
    both = tool_return(returned("call_1", "1"), returned("call_2", "2", "error"), step=2)
    old = tool_return(returned("call_3", "3"), name="add", step=3) | {"tool_returns": None}
    rows = rows_of(newest_first(both, old))
    assert [(r.key, r.tool_name, r.tool_output, r.is_error) for r in rows] == [
        ("call_1", None, "1", False),
        ("call_2", None, "2", True),
        ("call_3", "add", "3", False),
    ]


def test_a_denial_is_part_of_the_calls_row() -> None:
    denial = answered(
        {"type": "approval", "tool_call_id": "call_1", "approve": False, "reason": "no"}
    )
    asked = approvals(call("call_1"))
    (row,) = rows_of(newest_first(asked, denial))
    assert (row.tool_output, row.is_error, row.status) == ("no", True, "complete")
    text = "Error: request to call tool denied. User reason: no"
    stored = tool_return(returned("call_1", text, "error"), step=3)
    (row,) = rows_of(newest_first(asked, denial, stored))
    assert (row.tool_output, row.is_error) == (text, True)


def test_an_approval_alone_is_no_result() -> None:
    yes = answered({"type": "approval", "tool_call_id": "call_1", "approve": True})
    (row,) = rows_of(newest_first(approvals(call("call_1")), yes))
    assert (row.tool_output, row.status) == (None, "streaming")
    legacy = base("approval_response_message", step=4, approve=False, approvals=None)
    assert rows_of([legacy]) == ()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        ([{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}], "Hi there"),
        ("<system-reminder>cwd: /x</system-reminder>\n\nHi", "Hi"),
        (
            [
                {"type": "text", "text": "<system-reminder>a\nb</system-reminder>"},
                {"type": "text", "text": "<system-reminder>c</system-reminder>\nHi"},
            ],
            "Hi",
        ),
        ("<system-reminder>a</system-reminder> <system-reminder>b</system-reminder>Hi", "Hi"),
        ("Why <system-reminder>x</system-reminder>?", "Why <system-reminder>x</system-reminder>?"),
        ("<system-reminder>never closed", "<system-reminder>never closed"),
        ([{"type": "image", "source": {}}], ""),
        (
            [{"type": "text", "text": "<system-reminder>a</system-reminder>"}, {"type": "image"}],
            "",
        ),
        ("", ""),
        ('{"system_alert": "mine"}', '{"system_alert": "mine"}'),
        (None, ""),
    ],
)
def test_a_user_row_is_what_was_said_without_what_was_injected(content: Any, text: str) -> None:
    assert rows_of([user(content)]) == (Row("user", "u-1", text, run_id=RUN),)


def test_a_user_message_that_was_all_injected_is_no_row() -> None:
    reminder = "<system-reminder>The time is now.</system-reminder>"
    assert rows_of([user(reminder), user([{"type": "text", "text": reminder}], "u-2")]) == ()


def test_what_the_server_says_as_the_user_is_an_event() -> None:
    summary = {"type": "system_alert", "message": "Note: a summary", "time": "…"}
    ping = "<system-alert>Automated keep-alive ping. Ignore this message.</system-alert>"
    rows = rows_of(newest_first(user(json.dumps(summary), "u-1"), user(ping, "u-2")))
    assert [(r.kind, r.text) for r in rows] == [
        ("event", "Note: a summary"),
        ("event", "Automated keep-alive ping. Ignore this message."),
    ]


def test_a_compaction_seen_in_the_stream_and_in_history_is_one_row() -> None:
    note = user(json.dumps({"type": "system_alert", "message": "Note"}))
    assert [(r.kind, r.text) for r in rows_of([note], UnknownMessage(note))] == [("event", "Note")]


def test_an_event_with_a_null_otid_is_keyed_by_its_id() -> None:
    event = base("event_message", otid=None, id="uuid-1", event_type="compaction")
    assert rows_of([event]) == (Row("event", "uuid-1", "compaction", run_id=RUN),)


# -- history and stream together --------------------------------------------------------------


def test_streamed_and_stored_are_joined_on_otid_not_on_id() -> None:
    rows = rows_of([answer("Sunny.", "a-1")], said("Sunny.", "a-1"))
    assert rows == (Row("assistant", "a-1", "Sunny.", run_id=RUN),)


def test_tools_are_joined_on_tool_call_id() -> None:
    stored = [approvals(call("call_1"))]
    live = ToolCallMessage("call_1", "get_weather", {"city": "Paris"}, CITY, id="x", otid="y")
    assert len(rows_of(stored, live)) == 1


def test_what_is_stored_is_the_truth() -> None:
    rows = rows_of([answer("as stored", "a-1")], said("as streamed", "a-1"))
    assert shown(rows) == ["as stored"]


def test_a_cut_text_is_completed_by_its_stored_form() -> None:
    rows = rows_of([answer("It is sunny.", "a-1")], delta("It is", "a-1"), FAILED)
    assert [(r.text, r.status) for r in rows] == [("It is sunny.", "complete")]


def test_a_streaming_text_shows_its_stored_form_and_is_not_doubled_by_late_fragments() -> None:
    transcript = Transcript()
    transcript.apply(delta("It is", "a-1"))
    transcript.rebase([answer("It is sunny.", "a-1")])
    assert [(r.text, r.status) for r in transcript.rows] == [("It is sunny.", "streaming")]
    transcript.apply(delta(" sunny.", "a-1"))
    assert [(r.text, r.status) for r in transcript.rows] == [("It is sunny.", "streaming")]
    transcript.apply(said("It is sunny.", "a-1"))
    assert [(r.text, r.status) for r in transcript.rows] == [("It is sunny.", "complete")]


def test_a_stored_text_that_is_ahead_of_the_stream_does_not_stop_it() -> None:
    transcript = Transcript()
    transcript.apply(delta("one ", "a-1"))
    transcript.rebase([answer("one two ", "a-1")])
    for word in ("two ", "three ", "four"):
        transcript.apply(delta(word, "a-1"))
    assert [(r.text, r.status) for r in transcript.rows] == [("one two three four", "streaming")]


def test_a_streaming_text_that_something_follows_is_over() -> None:
    transcript = Transcript()
    transcript.apply(delta("It is", "a-1"))
    transcript.rebase(newest_first(answer("It is sunny.", "a-1"), user("Thanks")))
    assert [r.status for r in transcript.rows] == ["complete", "complete"]


def test_a_text_whose_stream_was_left_is_over_when_it_is_listed_twice_without_news() -> None:
    transcript = Transcript()
    transcript.apply(delta("It is", "a-1"))
    page = [answer("It is sunny.", "a-1")]
    transcript.rebase(page)
    transcript.rebase(page)
    assert [(r.text, r.status) for r in transcript.rows] == [("It is sunny.", "complete")]


def test_a_page_knows_its_order() -> None:
    oldest = [user("Hi"), answer("Hello", "a-1"), answer("There", "a-2")]
    for page in (
        MessagePage((), oldest, order="asc"),
        MessagePage((), newest_first(*oldest)),
    ):
        transcript = Transcript()
        transcript.rebase(page)
        assert shown(transcript.rows) == ["Hi", "Hello", "There"]


def test_a_partial_stored_text_does_not_stop_the_one_that_streams() -> None:
    # The App Server lists the unfinished message during a turn.
    transcript = Transcript()
    transcript.apply(delta("It is sun", "a-1"))
    transcript.rebase([answer("It is", "a-1")])
    assert [(r.text, r.status) for r in transcript.rows] == [("It is sun", "streaming")]
    transcript.apply(delta("ny.", "a-1"))
    assert shown(transcript.rows) == ["It is sunny."]
    transcript.rebase([])
    assert shown(transcript.rows) == ["It is sunny."], "not stored yet, so it stays"


def test_a_result_that_is_not_stored_yet_stays() -> None:
    live = ToolResultMessage("call_1", "sunny", is_error=True)
    (row,) = rows_of([approvals(call("call_1"))], live)
    assert (row.tool_name, row.tool_output, row.is_error, row.status) == (
        "get_weather",
        "sunny",
        True,
        "complete",
    )


def test_a_call_that_is_outside_the_page_stays_with_its_stored_result() -> None:
    live = ToolCallMessage("call_1", "get_weather", {"city": "Paris"}, CITY, run_id=RUN_2)
    stored = tool_return(returned("call_1", "sunny"), name=None) | {"run_id": None}
    assert rows_of([stored], live) == (
        Row(
            "tool",
            "call_1",
            CITY,
            "get_weather",
            {"city": "Paris"},
            "sunny",
            run_id=RUN_2,
        ),
    )


def test_a_failed_call_without_a_stored_result_stays_failed() -> None:
    live = ToolCallMessage("call_1", "get_weather", {}, "{}")
    (row,) = rows_of([approvals(call("call_1"))], live, FAILED)
    assert row.status == "failed"


def test_live_rows_come_after_history() -> None:
    history = newest_first(user("Hi"), answer("Hello", "a-1"))
    rows = rows_of(history, delta("And", "a-2"))
    assert shown(rows) == ["Hi", "Hello", "And"]


def test_live_rows_stay_between_the_stored_rows_they_were_between() -> None:
    history = newest_first(
        user("1"), answer("one", "a-1"), user("3", "u-3"), answer("three", "a-3")
    )
    live: list[Message] = [
        said("one", "a-1"),
        ErrorMessage("Cut.", "x", run_id=RUN_2),
        said("three", "a-3"),
    ]
    assert shown(rows_of(history, *live)) == ["1", "one", "Cut.", "3", "three"]


def test_live_rows_of_an_earlier_turn_come_before_the_next_question() -> None:
    history = newest_first(
        answer("zero", "a-0", "run-0"),
        user("2", "u-2", run_id=RUN),
        reasoning("thinking", otid="r-2", id="r"),
        answer("two", "a-2"),
    )
    live: list[Message] = [ErrorMessage("Cut.", "x", run_id=RUN_2), said("two", "a-2")]
    assert shown(rows_of(history, *live)) == ["zero", "Cut.", "2", "thinking", "two"]
    question = user("2", run_id=None)
    first = rows_of(newest_first(question, answer("two", "a-2", None)), *live)
    assert shown(first) == ["Cut.", "2", "two"]


def test_live_rows_of_the_same_run_stay_in_it() -> None:
    history = newest_first(user("Hi"), answer("Hello", "a-1"))
    live: list[Message] = [StreamEvent(reasoning("lost", otid="r-1", id="r")), said("Hello", "a-1")]
    assert shown(rows_of(history, *live)) == ["Hi", "lost", "Hello"]


def test_rows_of_an_earlier_rebase_are_gone_if_history_no_longer_has_them() -> None:
    transcript = Transcript()
    transcript.rebase(newest_first(user("1"), answer("one", "a-1")))
    transcript.apply(said("two", "a-2"))
    transcript.rebase([answer("one", "a-1")])
    assert shown(transcript.rows) == ["one", "two"]


def test_more_history_can_be_put_in_front() -> None:
    transcript = Transcript()
    newest = newest_first(user("2", "u-2"), answer("two", "a-2"))
    transcript.rebase(newest)
    transcript.apply(delta("thr", "a-3"))
    transcript.rebase([*newest, *newest_first(user("1"), answer("one", "a-1"))])
    assert shown(transcript.rows) == ["1", "one", "2", "two", "thr"]


def test_rebasing_twice_and_overlapping_pages_change_nothing() -> None:
    transcript = Transcript()
    page = newest_first(user("1"), answer("one", "a-1"))
    transcript.apply(delta("tw", "a-2"))
    transcript.rebase(page)
    before = transcript.rows
    transcript.rebase(page)
    assert transcript.rows == before
    transcript.rebase([*page, *page])
    assert transcript.rows == before


def test_an_empty_history_leaves_the_stream() -> None:
    assert shown(rows_of([], said("Hi", "a-1"))) == ["Hi"]
    assert Transcript().rows == ()


def test_stored_messages_without_any_id() -> None:
    bare = {"message_type": "assistant_message", "content": "Hi"}
    rows = rows_of([bare])
    assert shown(rows) == ["Hi"]
    assert rows[0].key


@pytest.mark.parametrize(
    "broken",
    [
        answer("x", "a-2") | {"message_type": ["assistant_message"]},
        answer("x", "a-2") | {"otid": {"a": 1}},
        assistant([{"type": "text", "text": 5}], otid="a-2"),
        calls(call([1])),
        calls(call("call_9") | {"index": [1]}),
        answered({"type": "tool", "tool_call_id": "c", "tool_return": [{"text": 5}]}),
    ],
    ids=lambda item: str(item["message_type"]),
)
def test_a_broken_stored_message_makes_no_row_and_hides_no_other(broken: Item) -> None:
    transcript = Transcript()
    transcript.rebase(newest_first(user("Hi."), broken, answer("Hello.", "a-1")))
    assert [(row.kind, row.text) for row in transcript.rows] == [
        ("user", "Hi."),
        ("assistant", "Hello."),
    ]
    transcript.apply(UnknownMessage(broken))
    assert len(transcript.rows) == 2


@pytest.mark.parametrize("kind", ["event_message", None])
def test_an_event_is_shown_by_the_field_that_can_be_read(kind: Any) -> None:
    event = base("", id="message-e", content=[{"text": 5}], message="It rains.")
    transcript = Transcript()
    transcript.rebase([event | {"message_type": kind}])
    assert [row.text for row in transcript.rows] == ["It rains."]
