"""Fragments → complete messages.

The rules: docs/protocol.md ("Which ids are unique, and across what").
"""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.engine.assembler import (
    Assembler,
    join_text,
    list_dicts,
    read_arguments,
)
from letta_adapters.messages import AssistantMessage, ReasoningMessage, ToolCallMessage
from tests.engine._events import (
    CITY,
    RUN,
    approval_delta,
    approvals,
    assistant,
    call,
    call_delta,
    calls,
    hidden,
    otid,
    reasoning,
    step_id,
    texts,
    types,
)

TEXT = {"assistant_message", "reasoning_message", "hidden_reasoning_message"}


def fresh() -> tuple[Assembler, list[Any]]:
    return Assembler(), []


def assemble(*events: dict[str, Any], flush: bool = True) -> list[Any]:
    """The messages of these events; flushed at the end unless told otherwise."""
    assembler, out = fresh()
    take(assembler, out, *events)
    if flush:
        assembler.flush(out)
    return out


def take(assembler: Assembler, out: list[Any], *events: dict[str, Any]) -> None:
    for event in events:
        if event["message_type"] in TEXT:
            assembler.text(event, out)
        else:
            approval = event["message_type"] == "approval_request_message"
            assembler.call(event, out, approval=approval)


# -- texts ------------------------------------------------------------------------------------


def test_text_is_merged_by_otid() -> None:
    assert assemble(assistant("You "), assistant("said"), assistant(": hello")) == [
        AssistantMessage("You said: hello", step_id(1), otid(1, 2), None, RUN)
    ]


def test_parts_of_a_step_share_the_id_and_are_still_told_apart() -> None:
    out = assemble(
        reasoning("I "), reasoning("think"), hidden("c3Vt"), assistant("So"), assistant(".")
    )
    assert [(m.type, m.content, m.id, m.otid) for m in out] == [
        ("reasoning", "I think", step_id(1), otid(1, 0)),
        ("reasoning", "c3Vt", step_id(1), otid(1, 1)),
        ("assistant", "So.", step_id(1), otid(1, 2)),
    ]


def test_an_otid_that_comes_back_within_its_step_is_one_message() -> None:
    out = assemble(reasoning("a"), assistant("x"), reasoning("b"), assistant("y"))
    assert texts(out) == ["ab", "xy"]


def test_without_an_otid_the_id_takes_its_place() -> None:
    out = assemble(
        assistant("a", otid=None),
        assistant("b", otid=None),
        assistant("c", step=2, otid=None),
    )
    assert texts(out) == ["ab", "c"]


def test_another_step_completes_the_last_one() -> None:
    assembler, out = fresh()
    take(assembler, out, reasoning("a"), assistant("b"))
    assert out == []
    take(assembler, out, reasoning("c", step=2))
    assert texts(out) == ["a", "b"]


def test_text_under_an_otid_that_was_handed_out_is_neither_dropped_nor_repeated() -> None:
    out = assemble(assistant("a"), calls(call("call_1")), assistant("b"))
    assert types(out) == ["assistant", "tool_call", "assistant"]
    assert [m.content for m in out if m.type == "assistant"] == ["a", "b"]
    assert out[0].otid == out[2].otid


def test_a_whole_message_is_one_big_delta() -> None:
    whole = reasoning("I think", signature="c2ln", source="non_reasoner_model", seq_id=3)
    assert assemble(whole) == [
        ReasoningMessage(
            "I think",
            step_id(1),
            otid(1, 0),
            3,
            RUN,
            signature="c2ln",
            source="non_reasoner_model",
        )
    ]


def test_content_may_be_a_list_of_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": None}, 5]
    assert texts(assemble(assistant(parts), assistant([{"type": "text", "text": "b"}]))) == ["ab"]


def test_hidden_reasoning_is_redacted_reasoning() -> None:
    assert assemble(hidden("opaque")) == [
        ReasoningMessage("opaque", step_id(1), otid(1, 1), None, RUN, redacted=True)
    ]
    omitted = assemble(hidden(None, state="omitted"))
    assert [(m.content, m.redacted) for m in omitted] == [("", True)]


def test_the_first_delta_of_the_responses_api_is_empty_and_has_no_step() -> None:
    out = assemble(reasoning("", step_id=None), reasoning("sum"), reasoning("mary"))
    assert texts(out) == ["summary"]


def test_a_signature_stays_when_later_deltas_have_none() -> None:
    out = assemble(reasoning("a", signature="c2ln"), reasoning("b"))
    assert [(m.content, m.signature) for m in out] == [("ab", "c2ln")]


@pytest.mark.parametrize("field", [None, 5, {"a": 1}])
def test_a_text_field_of_another_type_is_no_text(field: Any) -> None:
    assert texts(assemble(assistant("a"), assistant(field))) == ["a"]


def test_the_halves_of_an_emoji_in_two_fragments_are_one_character() -> None:
    assert texts(assemble(assistant("a\ud83d"), assistant("\ude00b"))) == ["a😀b"]


def test_lone_surrogates_never_leave_the_engine() -> None:
    assert join_text(["\ud83d"]) == "\ufffd"
    assert join_text(["a\ude00", "b\ud83d", "é"]) == "a\ufffdb\ufffdé"
    assert join_text(["é", "ü"]) == "éü"
    out = assemble(call_delta("call_1", name="f", arguments='{"a":"\ud83d'), flush=True)
    assert out[0].raw_arguments == '{"a":"\ufffd'


# -- calls ------------------------------------------------------------------------------------


def test_tool_call_deltas_are_objects_in_token_mode() -> None:
    out = assemble(
        call_delta("call_1", name="add"),
        call_delta("call_1", arguments='{"a": 1, "b"'),
        call_delta("call_1", arguments=": 2}"),
        flush=False,
    )
    assert out == [
        ToolCallMessage(
            "call_1", "add", {"a": 1, "b": 2}, '{"a": 1, "b": 2}', False, step_id(1), otid(1, 3),
            None, RUN,
        )
    ]  # fmt: skip


def test_tool_calls_are_a_list_in_step_mode() -> None:
    out = assemble(calls(call("call_1"), call("call_2", "add", '{"a":1}')), flush=False)
    assert [(m.tool_call_id, m.tool_name, m.tool_input) for m in out] == [
        ("call_1", "get_weather", {"city": "Paris"}),
        ("call_2", "add", {"a": 1}),
    ]


def test_the_field_tool_call_alone_is_enough() -> None:
    for empty in (None, []):
        event = call_delta("call_1", name="add", arguments="{}") | {"tool_calls": empty}
        assert [m.tool_name for m in assemble(event, flush=False)] == ["add"]
    no_call = call_delta("call_1") | {"tool_calls": None, "tool_call": None}
    assert assemble(no_call) == []


def test_anthropic_repeats_the_name_in_every_delta() -> None:
    pieces = ["", '{"city"', ': "Paris"', "}"]
    out = assemble(*(call_delta("toolu_1", name="get_weather", arguments=p) for p in pieces))
    assert [(m.tool_name, m.raw_arguments) for m in out] == [("get_weather", CITY)]


def test_null_keys_in_approval_deltas_change_nothing() -> None:
    assembler, out = fresh()
    take(
        assembler,
        out,
        approval_delta("call_1", name="get_weather"),
        approval_delta("call_1", arguments='{"city": "Pa'),
        approval_delta("call_1", arguments='ris"}'),
    )
    assert out == []
    assert assembler.open_calls() == [
        ToolCallMessage(
            "call_1", "get_weather", {"city": "Paris"}, CITY, True, step_id(1), step_id(1),
            None, RUN,
        )
    ]  # fmt: skip


def test_parallel_calls_interleave_under_one_message_id() -> None:
    assembler, out = fresh()
    take(
        assembler,
        out,
        approval_delta("call_a", name="f"),
        approval_delta("call_b", name="g"),
        approval_delta("call_a", arguments='{"x":'),
        approval_delta("call_b", arguments='{"y":'),
        approval_delta("call_a", arguments="1}"),
        approval_delta("call_b", arguments="2}"),
    )
    assert [(c.tool_call_id, c.tool_name, c.tool_input) for c in assembler.open_calls()] == [
        ("call_a", "f", {"x": 1}),
        ("call_b", "g", {"y": 2}),
    ]


def test_arguments_of_client_tools_may_be_no_json() -> None:
    assembler, out = fresh()
    take(assembler, out, approvals(call("call_1", arguments='{"city": ')))
    (shown,) = assembler.open_calls()
    assert (shown.tool_input, shown.raw_arguments) == ({}, '{"city": ')


def test_a_server_call_is_handed_out_when_its_json_closes() -> None:
    assembler, out = fresh()
    take(assembler, out, call_delta("call_1", name="add"), call_delta("call_1", arguments='{"a'))
    assert out == []
    take(assembler, out, call_delta("call_1", arguments='":1}'))
    assert [m.tool_call_id for m in out] == ["call_1"]


def test_interleaved_server_calls_are_handed_out_as_each_closes() -> None:
    out = assemble(
        call_delta("call_a", name="f", arguments='{"x":'),
        call_delta("call_b", name="g", arguments='{"y":2}'),
        call_delta("call_a", arguments="1}"),
        flush=False,
    )
    assert [(m.tool_call_id, m.tool_input) for m in out] == [
        ("call_b", {"y": 2}),
        ("call_a", {"x": 1}),
    ]


def test_a_server_call_whose_json_never_closes_is_handed_out_with_the_step() -> None:
    out = assemble(call_delta("call_1", name="now"), assistant("x", step=2))
    assert [(m.type, getattr(m, "raw_arguments", None)) for m in out] == [
        ("tool_call", ""),
        ("assistant", None),
    ]


def test_what_comes_for_a_call_that_was_handed_out_is_not_a_second_call() -> None:
    done = call_delta("toolu_1", name="f", arguments="{}")
    late = call_delta("toolu_1", name="f", arguments="")
    assert len(assemble(done, late, calls(call("toolu_1")))) == 1


def test_a_call_id_that_is_used_again_in_a_later_step_is_a_new_call() -> None:
    # Some models count their calls from 0 in each step.
    out = assemble(
        call_delta("call_0", step=1, name="f", arguments="{}"),
        call_delta("call_0", step=2, name="g", arguments="{}"),
    )
    assert [m.tool_name for m in out] == ["f", "g"]


def test_an_approval_is_never_swallowed_as_late() -> None:
    assembler, out = fresh()
    take(assembler, out, call_delta("call_1", name="f", arguments="{}"))
    take(assembler, out, approvals(call("call_1", "f", "{}")))
    assert [c.tool_call_id for c in assembler.open_calls()] == ["call_1"]


def test_an_open_call_that_turns_out_to_need_approval_waits() -> None:
    assembler, out = fresh()
    take(assembler, out, call_delta("call_1", name="f", arguments="{"))
    take(assembler, out, approval_delta("call_1", arguments="}"))
    take(assembler, out, call_delta("call_1", arguments=""))
    assembler.flush(out)
    assert out == []
    assert [c.raw_arguments for c in assembler.open_calls()] == ["{}"]


def test_of_a_server_call_and_a_client_call_in_one_step_only_the_clients_waits() -> None:
    assembler, out = fresh()
    take(assembler, out, assistant("Let me see."), calls(call("call_s", "add", "{}")))
    take(assembler, out, approvals(call("call_c")))
    assembler.flush(out)
    assert types(out) == ["assistant", "tool_call"]
    assert [c.tool_call_id for c in assembler.open_calls()] == ["call_c"]


def test_a_request_for_approval_does_not_complete_a_server_call_that_is_being_written() -> None:
    out = assemble(
        call_delta("call_s", name="add", arguments='{"a":'),
        approvals(call("call_c")),
        call_delta("call_s", arguments="1}"),
    )
    assert [(m.tool_call_id, m.raw_arguments) for m in out] == [("call_s", '{"a":1}')]


def test_the_calls_the_server_did_not_keep_are_forgotten() -> None:
    assembler, out = fresh()
    take(assembler, out, approvals(call("call_1"), call("call_2")))
    assert [c.tool_call_id for c in assembler.take_calls(frozenset({"call_1"}))] == ["call_1"]
    assert assembler.open_calls() == []
    take(assembler, out, call_delta("call_1", arguments="x"))
    assembler.flush(out)
    assert out == []


def test_arguments_as_an_object_are_written_as_json() -> None:
    (message,) = assemble(calls(call("call_1") | {"arguments": {"a": 1}}))
    assert (message.raw_arguments, message.tool_input) == ('{"a": 1}', {"a": 1})
    assert read_arguments({"arguments": None}) == ""


def test_entries_that_are_no_objects_are_skipped() -> None:
    assert list_dicts([1, {"a": 1}, None]) == [{"a": 1}]
    assert list_dicts({"a": 1}) == [{"a": 1}]
    assert list_dicts("x") == list_dicts(None) == []


def test_broken_stream_does_not_hand_out_the_fragment_that_was_being_written() -> None:
    assembler, out = fresh()
    take(assembler, out, reasoning("whole"), assistant("a fragm"))
    assembler.flush_broken(out)
    assert texts(out) == ["whole"]


def test_broken_stream_text_after_a_call_is_a_fragment_too() -> None:
    assembler, out = fresh()
    take(assembler, out, approval_delta("call_1", name="f"), assistant("a fragm"))
    assembler.flush_broken(out)
    assert out == []
    assert assembler.open_calls() == []


def test_broken_stream_text_before_a_call_is_complete() -> None:
    assembler, out = fresh()
    take(assembler, out, assistant("whole"), call_delta("call_1", name="f", arguments='{"a'))
    assembler.flush_broken(out)
    assert types(out) == ["assistant"]
