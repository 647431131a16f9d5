"""Events of a call become the parts of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from letta_adapters.chat.cache import known_answers
from letta_adapters.chat.response import Answer, AnswerSoFar, Part, ResponseReader, join_parts
from letta_adapters.messages import (
    AssistantMessage,
    InitMessage,
    LoopStatusMessage,
    QueueUpdateMessage,
    ReasoningMessage,
    RetryMessage,
    StreamEvent,
    ToolProgressMessage,
    ToolResultMessage,
    UnknownMessage,
)
from tests.chat.builders import AGENT, call_message, ended, marked, started, text_event

RESULT = ToolResultMessage("call-1", "3", tool_name="add")


def parts(reader: ResponseReader, *events: Any) -> list[Part]:
    return [part for event in events for part in reader.read(event)]


def thought_event(thought: str, otid: str | None = "otid-2") -> StreamEvent:
    return StreamEvent({"message_type": "reasoning_message", "otid": otid, "reasoning": thought})


# -- text and reasoning -------------------------------------------------------------------------


def test_fragments_are_given_out_as_they_come() -> None:
    assert parts(ResponseReader(), thought_event("Hm."), text_event("Hel"), text_event("lo.")) == [
        ("reasoning", "Hm."),
        ("text", "Hel"),
        ("text", "lo."),
    ]


def test_text_that_was_streamed_is_not_given_out_again_when_it_is_whole() -> None:
    reader = ResponseReader()
    parts(reader, text_event("Hello."), thought_event("Hm."))
    assert parts(reader, AssistantMessage("Hello.", otid="otid-1")) == []
    assert parts(reader, ReasoningMessage("Hm.", otid="otid-2")) == []


def test_text_that_was_not_streamed_is_given_out_whole() -> None:
    reader = ResponseReader()
    parts(reader, text_event("Hello."))
    assert parts(reader, AssistantMessage("And more.", otid="otid-9")) == [("text", "And more.")]
    assert parts(ResponseReader(), AssistantMessage("Hello.")) == [("text", "Hello.")]
    assert parts(ResponseReader(), ReasoningMessage("Hm.")) == [("reasoning", "Hm.")]


def test_a_thought_that_the_provider_hides_is_not_shown() -> None:
    assert parts(ResponseReader(), ReasoningMessage("c2VjcmV0", redacted=True)) == []


def test_fragments_of_parts_are_read_as_their_text() -> None:
    content = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]
    event = StreamEvent({"message_type": "assistant_message", "otid": "o", "content": content})
    assert parts(ResponseReader(), event) == [("text", "Hello.")]


@pytest.mark.parametrize(
    "event",
    [
        StreamEvent({"message_type": "assistant_message", "otid": "o", "content": ""}),
        StreamEvent({"message_type": "tool_call_message", "tool_call": {"arguments": "{"}}),
        StreamEvent({}),
        InitMessage(AGENT, "conv-1", "session-1", "rest"),
        UnknownMessage({}),
        UnknownMessage({"message_type": "user_message", "content": "Hello."}),
        UnknownMessage({"message_type": "system_message", "content": "Be brief."}),
    ],
)
def test_what_is_no_part_of_the_answer_is_passed_over(event: Any) -> None:
    assert parts(ResponseReader(), event) == []


def test_events_that_are_not_known_are_handed_on_whole() -> None:
    raw = {"message_type": "summary_message", "summary": "They talked."}
    assert parts(ResponseReader(), UnknownMessage(raw)) == [("other", raw)]


def test_a_repeated_model_call_is_reported() -> None:
    assert parts(ResponseReader(), RetryMessage("overloaded", 2, 5, 1000)) == [
        ("other", {"type": "letta_retry", "reason": "overloaded", "attempt": 2})
    ]


def test_the_state_of_the_run_is_a_note_and_no_part_of_the_message() -> None:
    assert parts(ResponseReader(), QueueUpdateMessage(), LoopStatusMessage("WAITING_ON_INPUT")) == [
        ("note", {"type": "letta_queue", "items": (), "removed": ()}),
        (
            "note",
            {
                "type": "letta_loop_status",
                "status": "WAITING_ON_INPUT",
                "run_ids": (),
                "executing_tool_call_ids": (),
            },
        ),
    ]


def test_what_a_tool_reports_is_a_note() -> None:
    told = ToolProgressMessage("call-1", "add", "half", 1, 2)
    note = {
        "type": "letta_tool_progress",
        "tool_call_id": "call-1",
        "tool_name": "add",
        "content": "half",
        "progress": 1,
        "total": 2,
        "number": 1,
    }
    assert parts(ResponseReader(), told) == [("note", note)]


# -- tools --------------------------------------------------------------------------------------


def test_a_tool_that_the_server_runs_is_no_tool_call_of_the_message() -> None:
    reader, call = ResponseReader(["add"]), call_message(name="web_search")
    found = replace(RESULT, tool_name="web_search")
    assert parts(reader, call, found, ended()) == [("server_call", call), ("server_result", found)]
    assert reader.tool_calls == ()


def test_a_call_that_waits_for_the_caller_is_told_by_the_end_alone() -> None:
    reader, call = ResponseReader(["add"]), call_message(requires_approval=True)
    assert parts(reader, call) == []
    assert reader.tool_calls == ()
    assert parts(reader, ended(call)) == []
    assert reader.tool_calls == (call,)


def test_a_call_that_the_server_ran_after_all_is_given_out_with_its_result() -> None:
    reader, call = ResponseReader(), call_message(requires_approval=True)
    assert parts(reader, call, RESULT, ended()) == [
        ("server_call", call),
        ("server_result", RESULT),
    ]


def test_a_call_that_in_the_end_waits_for_nobody_is_the_servers() -> None:
    reader, call = ResponseReader(), call_message(requires_approval=True)
    assert parts(reader, call, ended()) == [("server_call", call)]


def test_a_result_whose_call_was_never_seen_brings_one() -> None:
    found = parts(ResponseReader(), RESULT)
    assert [kind for kind, _ in found] == ["server_call", "server_result"]
    call = found[0][1]
    assert (call.tool_call_id, call.tool_name, call.tool_input) == ("call-1", "add", {})


def test_a_call_is_given_out_once() -> None:
    reader, call = ResponseReader(), call_message(requires_approval=True)
    given_out = parts(reader, call, RESULT, RESULT, ended())
    assert [kind for kind, _ in given_out] == ["server_call", "server_result", "server_result"]


def test_a_result_that_the_caller_gave_itself_is_not_repeated() -> None:
    assert parts(ResponseReader(["add"], answered=[call_message()]), RESULT) == []


def test_the_result_of_a_server_tool_that_the_caller_allowed_comes_with_its_call() -> None:
    allowed = call_message(name="delete_file")
    found = replace(RESULT, tool_name="delete_file")
    assert parts(ResponseReader(["add"], answered=[allowed]), found) == [
        ("server_call", allowed),
        ("server_result", found),
    ]


def test_of_several_calls_only_those_that_wait_are_the_callers() -> None:
    reader = ResponseReader(["add"])
    waiting = call_message("call-1", requires_approval=True)
    run = call_message("call-2", "web_search", requires_approval=True)
    assert parts(reader, waiting, run, ended(waiting)) == [("server_call", run)]
    assert reader.tool_calls == (waiting,)


# -- stop sequences -----------------------------------------------------------------------------


def stopped(stop: Sequence[str], *texts: str) -> tuple[str, bool]:
    """The whole text of an answer that came in these fragments, and whether it was cut."""
    reader = ResponseReader(stop=stop)
    found = parts(reader, *map(text_event, texts), ended())
    assert {kind for kind, _ in found} <= {"text"}
    assert all(text for _, text in found)
    return "".join(text for _, text in found), reader.stopped


@pytest.mark.parametrize(
    ("fragments", "text", "cut"),
    [
        (("One. END Two.",), "One. ", True),
        (("One. E", "ND Two."), "One. ", True),
        (("One. ", "E", "N", "D"), "One. ", True),
        (("One. E", "NTER"), "One. ENTER", False),
        (("One. EN",), "One. EN", False),
        (("One. EEN", "D!"), "One. E", True),
        (("END",), "", True),
        (("One.", " Two."), "One. Two.", False),
        (("One. END", " Two.", " Three."), "One. ", True),
    ],
)
def test_the_answer_ends_before_a_stop_text(
    fragments: tuple[str, ...], text: str, cut: bool
) -> None:
    assert stopped(["END"], *fragments) == (text, cut)


def test_the_earliest_of_several_stop_texts_counts() -> None:
    assert stopped(["Two", "One"], "Zero. One. Two.") == ("Zero. ", True)
    assert stopped(["ab", "abc"], "xab", "c") == ("x", True)
    # A longer one that may yet come does not hold a shorter one back.
    assert stopped(["bc", "abcd"], "xabce") == ("xa", True)


def test_an_empty_stop_text_stops_nothing() -> None:
    assert stopped(["", "END"], "One. END") == ("One. ", True)
    assert stopped([""], "One.") == ("One.", False)


def test_text_that_may_begin_a_stop_text_is_held_back() -> None:
    reader = ResponseReader(stop=["END"])
    assert parts(reader, text_event("One. EN")) == [("text", "One. ")]
    assert parts(reader, text_event("TER")) == [("text", "ENTER")]


def test_no_stop_text_spans_a_tool_call() -> None:
    reader, call = ResponseReader(stop=["END"]), call_message(name="web_search")
    assert parts(reader, text_event("E"), call, text_event("ND"), ended()) == [
        ("text", "E"),
        ("server_call", call),
        ("text", "ND"),
    ]
    assert not reader.stopped


def test_a_stop_text_is_found_around_a_note() -> None:
    reader, queue = ResponseReader(stop=["END"]), QueueUpdateMessage(({"id": "q-1"},))
    found = parts(reader, started(), text_event("One. E"), queue, text_event("ND Two."), ended())
    assert [value for kind, value in found if kind == "text"] == ["One. "]
    assert [kind for kind, _ in found].count("note") == 1
    assert reader.stopped


def test_nothing_follows_a_stop_text() -> None:
    reader = ResponseReader(stop=["END"])
    events = [text_event("One. END"), call_message(name="web_search"), text_event("Two."), ended()]
    assert parts(reader, *events) == [("text", "One. ")]


def test_a_whole_message_is_cut_too() -> None:
    reader = ResponseReader(stop=["END"])
    assert parts(reader, AssistantMessage("One. END Two."), ended()) == [("text", "One. ")]


def test_calls_that_wait_are_kept_behind_a_stop_text() -> None:
    reader, call = ResponseReader(["add"], stop=["END"]), call_message(requires_approval=True)
    parts(reader, text_event("One. END"), call, ended(call))
    assert reader.tool_calls == (call,)


# -- the answer ---------------------------------------------------------------------------------


def test_the_answer_is_named_after_the_call() -> None:
    reader = ResponseReader()
    assert reader.id is None
    assert parts(reader, started()) == []
    assert reader.id == "letta-answer-1"


def test_the_text_of_an_answer_is_its_text_alone() -> None:
    reader = ResponseReader()
    events = [
        started(),
        thought_event("Hm."),
        text_event("Hel"),
        RESULT,
        text_event("lo."),
        ended(),
    ]
    answer = Answer(reader, tuple(parts(reader, *events)))
    assert answer.text == "Hello."
    assert answer.end.conversation_id == "conv-1"


def test_calls_that_were_given_up_are_still_shown_and_no_longer_waited_for() -> None:
    reader, call = ResponseReader(["add"]), call_message(requires_approval=True)
    waiting = marked(pending=(("call-1", "add"),), run_id="run-settled")
    answer = Answer(reader, tuple(parts(reader, started(), replace(ended(call), marker=waiting))))
    answer.settle(replace(ended(), marker=replace(waiting, pending=())))
    assert answer.end.pending == (call,)
    assert answer.end.marker.pending == ()
    # The framework may drop the message's marker: the answer's id finds the one that holds now.
    found = known_answers.find(AGENT, ["answer-1"])
    assert found is not None
    assert (found.run_id, found.pending) == ("run-settled", ())


# -- what the adapters share --------------------------------------------------------------------


def test_neighbours_of_text_or_of_reasoning_are_joined() -> None:
    call, note = call_message(), {"type": "letta_queue"}
    given: list[Part] = [
        ("text", "Hel"),
        ("text", "lo."),
        ("reasoning", "Hm"),
        ("reasoning", "."),
        ("server_call", call),
        ("server_call", call),
        ("text", "A"),
        ("note", note),
        ("text", "B"),
    ]
    assert join_parts(given) == [
        ("text", "Hello."),
        ("reasoning", "Hm."),
        ("server_call", call),
        ("server_call", call),
        ("text", "A"),
        ("note", note),
        ("text", "B"),
    ]


def test_an_answer_that_is_under_way_adds_up() -> None:
    call = call_message()
    so_far = AnswerSoFar()
    given: list[Part] = [
        ("reasoning", "Hm."),
        ("text", "Hel"),
        ("server_call", call),
        ("server_result", RESULT),
        ("note", {"type": "letta_queue"}),
        ("text", "lo."),
    ]
    for part in given:
        so_far.add(part)
    assert (so_far.text, so_far.reasoning) == ("Hello.", "Hm.")
    assert so_far.server_tools == [("server_call", call), ("server_result", RESULT)]


def test_a_complete_answer_describes_itself() -> None:
    reader = ResponseReader(stop=["STOP"])
    parts(reader, text_event("Go STOP on"), ended(run_ids=("run-1",), model="openai/gpt"))
    assert reader.describe() == {
        "stop_reason": "stop_sequence",
        "agent_id": AGENT,
        "conversation_id": "conv-1",
        "run_ids": ["run-1"],
        "model": "openai/gpt",
    }
