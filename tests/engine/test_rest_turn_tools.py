"""Tools and approvals in a turn.

The rules: docs/protocol.md ("Approvals and client-side tools").
"""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.messages import ToolCallMessage, ToolResultMessage
from tests.engine._events import (
    CITY,
    DONE,
    RUN,
    Fed,
    approval_delta,
    approvals,
    assistant,
    base,
    call,
    call_delta,
    calls,
    ended,
    otid,
    returned,
    step_id,
    stop,
    texts,
    tool_return,
    types,
    wire,
)

# -- tools the server runs --------------------------------------------------------------------


def test_a_server_tool_in_step_mode_is_a_call_and_its_result() -> None:
    fed = Fed(
        ended(
            calls(call("call_1", "add", '{"a": 1, "b": 2}')),
            tool_return(returned("call_1", "3", stdout=["adding\n"], stderr=[])),
            assistant("Three.", step=3),
        )
    )
    assert fed.messages[:2] == [
        ToolCallMessage(
            "call_1",
            "add",
            {"a": 1, "b": 2},
            '{"a": 1, "b": 2}',
            False,
            step_id(1),
            otid(1, 3),
            None,
            RUN,
        ),
        ToolResultMessage(
            "call_1", "3", False, "add", ("adding\n",), (), step_id(2), otid(2, 0), None, RUN
        ),
    ]
    assert texts(fed.messages[2:]) == ["Three."]


def test_a_failed_server_tool_is_an_error_result_with_its_stderr() -> None:
    failed = returned("call_1", "Error executing function f", "error", stderr=["Traceback"])
    (message,) = Fed(ended(tool_return(failed, name="f"))).messages
    assert isinstance(message, ToolResultMessage)
    assert (message.is_error, message.content, message.stderr) == (
        True,
        "Error executing function f",
        ("Traceback",),
    )


def test_token_mode_shows_a_server_call_as_soon_as_its_json_closes() -> None:
    fed = Fed(partial=True)
    feed = fed.turn.feed
    assert types(feed(wire(call_delta("call_1", name="add")))) == ["stream_event"]
    assert types(feed(wire(call_delta("call_1", arguments='{"a": 1')))) == ["stream_event"]
    last = feed(wire(call_delta("call_1", arguments="}")))
    assert types(last) == ["stream_event", "tool_call"]
    assert types(feed(wire(call_delta("call_1", arguments="")))) == ["stream_event"]


def test_the_text_before_a_call_is_complete_when_the_call_begins() -> None:
    fed = Fed(partial=True)
    fed.turn.feed(wire(assistant("Let me see.")))
    out = fed.turn.feed(wire(call_delta("call_1", name="add", arguments="{}")))
    assert types(out) == ["assistant", "stream_event", "tool_call"]


def test_several_tool_returns_in_one_event_are_several_results() -> None:
    event = tool_return(returned("call_1", "1"), returned("call_2", "2", "error"), name="add")
    fed = Fed(ended(calls(call("call_1", "add"), call("call_2", "sub")), event))
    results = [m for m in fed.messages if isinstance(m, ToolResultMessage)]
    assert [(m.tool_call_id, m.content, m.is_error, m.tool_name) for m in results] == [
        ("call_1", "1", False, "add"),
        ("call_2", "2", True, "sub"),
    ]


def test_the_legacy_fields_of_a_tool_return_are_enough() -> None:
    for legacy in ([], None):
        event = tool_return(returned("call_1", "3")) | {"tool_returns": legacy}
        assert [m.content for m in Fed(ended(event)).messages if m.type == "tool_result"] == ["3"]


def test_a_tool_return_may_be_a_single_object() -> None:
    event = tool_return(returned("call_1", "3")) | {"tool_returns": returned("call_1", "4")}
    (message,) = Fed(ended(event)).messages
    assert texts([message]) == ["4"]


def test_a_tool_return_may_be_a_list_of_parts() -> None:
    parts: Any = [{"type": "text", "text": "sunny"}, {"type": "image"}]
    entry = returned("call_1", parts, stdout="one line", stderr=None)
    (message,) = Fed(ended(tool_return(entry))).messages
    assert isinstance(message, ToolResultMessage)
    assert (message.content, message.stdout, message.stderr) == ("sunny", ("one line",), ())


def test_a_call_without_arguments_comes_before_its_result() -> None:
    fed = Fed(ended(call_delta("call_1", name="now"), tool_return(returned("call_1"), name="now")))
    assert types(fed.messages) == ["tool_call", "tool_result"]


def test_tool_results_are_handed_out_once_per_call() -> None:
    once = tool_return(returned("call_1", "3"))
    fed = Fed(ended(calls(call("call_1")), once, once, tool_return(returned("call_1", "4"))))
    assert types(fed.messages) == ["tool_call", "tool_result"]


def test_the_servers_repetition_of_this_sides_result_is_swallowed() -> None:
    # The server repeats client-side results in step mode, and not in token mode.
    fed = Fed(wire(approvals(call("call_1")), stop("requires_approval"), DONE))
    fed.turn.confirm_pending(["call_1"])
    mine = ToolResultMessage("call_1", "sunny")
    assert fed.turn.tool_result(mine) is True
    fed.turn.begin_segment()
    out = fed.turn.feed(ended(tool_return(returned("call_1", "sunny"), name=None)))
    assert out == []


def test_a_call_id_used_again_in_a_later_step_has_its_own_result() -> None:
    fed = Fed(
        ended(
            calls(call("call_0", "f"), step=1),
            tool_return(returned("call_0", "1"), step=2),
            calls(call("call_0", "g"), step=3),
            tool_return(returned("call_0", "2"), name="g", step=4),
        )
    )
    assert types(fed.messages) == ["tool_call", "tool_result"] * 2
    assert texts(fed.messages) == ["1", "2"]


# -- calls that wait for this client ----------------------------------------------------------


@pytest.mark.parametrize("token_mode", [False, True])
def test_requires_approval_pauses_the_turn(token_mode: bool) -> None:
    shown: list[Any] = [approvals(call("call_1"))]
    if token_mode:
        shown = [approval_delta("call_1", "get_weather"), approval_delta("call_1", None, CITY)]
    fed = Fed(ended(assistant("Let me see."), *shown, reason="requires_approval"))
    pending = ToolCallMessage(
        "call_1",
        "get_weather",
        {"city": "Paris"},
        CITY,
        True,
        step_id(1),
        step_id(1),
        None,
        RUN,
    )
    assert types(fed.messages) == ["assistant"], "not handed out before the server confirms them"
    assert fed.turn.paused == [pending]
    assert fed.turn.pending == ()
    assert fed.turn.confirm_pending(["call_1"]) == [pending]
    assert fed.turn.pending == (pending,)
    assert fed.turn.paused == []
    assert fed.turn.failure is None


def test_only_the_calls_the_server_kept_are_pending() -> None:
    fed = Fed(ended(approvals(call("call_1"), call("call_2")), reason="requires_approval"))
    assert [c.tool_call_id for c in fed.turn.paused] == ["call_1", "call_2"]
    handed_out = fed.turn.confirm_pending(iter(["call_2", "call_of_another_turn"]))
    assert [m.tool_call_id for m in handed_out if isinstance(m, ToolCallMessage)] == ["call_2"]


def test_calls_that_someone_else_answered_are_a_failure_not_an_empty_answer() -> None:
    fed = Fed(ended(approvals(call("call_1")), reason="requires_approval"))
    assert fed.turn.confirm_pending([]) == []
    assert (fed.code, fed.result.success) == ("no_pending_approval", False)
    assert fed.result.stop_reason == "requires_approval"


def test_an_approval_that_the_stream_hid_is_a_failure_not_an_empty_answer() -> None:
    # `include_return_message_types` hides the request while the turn still waits for it.
    fed = Fed(ended(assistant("Let me see."), reason="requires_approval"))
    assert texts(fed.messages) == ["Let me see."]
    assert (fed.turn.paused, fed.code) == ([], "protocol_error")
    assert (fed.result.success, fed.result.stop_reason) == (False, "requires_approval")


def test_a_turn_that_goes_on_does_not_pause() -> None:
    fed = Fed(ended(assistant("x")))
    assert fed.turn.paused == []
    assert fed.turn.confirm_pending([]) == []
    assert fed.result.success
    failed = Fed(wire(approvals(call("call_1")), stop("requires_approval"), stop("error")))
    assert failed.turn.paused == []


def test_requires_approval_without_usage_and_done_still_pauses() -> None:
    fed = Fed(wire(approvals(call("call_1")), stop("requires_approval")))
    assert [c.tool_call_id for c in fed.turn.paused] == ["call_1"]


def test_a_server_call_and_a_client_call_in_one_step_have_one_result_each() -> None:
    # The server tool runs only after the client has answered; then both returns come in one event.
    fed = Fed(
        ended(
            calls(call("call_s", "add", "{}")),
            approvals(call("call_c")),
            reason="requires_approval",
        )
    )
    assert [m.tool_call_id for m in fed.messages if isinstance(m, ToolCallMessage)] == ["call_s"]
    fed.turn.confirm_pending(["call_c"])
    assert fed.turn.tool_result(ToolResultMessage("call_c", "sunny"))
    fed.turn.begin_segment()
    both = tool_return(returned("call_c", "sunny"), returned("call_s", "3"), name=None)
    out = fed.turn.feed(ended(both, assistant("Done.", step=3))) + fed.turn.end_segment()
    assert [(m.type, m.content) for m in out if not isinstance(m, ToolCallMessage)] == [
        ("tool_result", "3"),
        ("assistant", "Done."),
    ]
    assert [m.tool_name for m in out if isinstance(m, ToolResultMessage)] == ["add"]


def test_the_id_of_the_approval_may_differ_from_that_of_its_text() -> None:
    text = assistant("Let me see.", id="message-267")
    request = approvals(call("call_1")) | {"id": "message-266", "otid": "message-266"}
    fed = Fed(ended(text, request, reason="requires_approval"))
    assert [(m.type, m.id) for m in fed.messages if m.type == "assistant"] == [
        ("assistant", "message-267")
    ]
    assert [c.id for c in fed.turn.paused] == ["message-266"]


def test_a_refused_answer_to_a_tool_call_is_a_failure() -> None:
    fed = Fed(ended(reason="invalid_tool_call"))
    assert fed.code == "invalid_tool_call"
    assert fed.result.error_detail == "The server refused the answer to a tool call."


def test_recording_a_denial_ends_at_the_step_limit_with_nothing_said() -> None:
    fed = Fed(ended(reason="max_steps"))
    assert (fed.messages, fed.code) == ([], "max_steps")


def test_an_approval_response_is_kept_as_unknown() -> None:
    event = base("approval_response_message", approvals=[])
    assert types(Fed(ended(event)).messages) == ["unknown"]


def test_pieces_of_a_call_may_have_its_index_only() -> None:
    first = call_delta("call_1", name="f", arguments='{"a"')
    second = call_delta("call_2", name="g", arguments="{")
    first["tool_call"]["index"], second["tool_call"]["index"] = 0, 1
    rest = []
    for index, piece in ((1, '"b": 2'), (0, ": 1"), (0, "}"), (1, "}")):
        event = call_delta("", name=None, arguments=piece)
        event["tool_call"] = event["tool_calls"] = {"index": index, "arguments": piece}
        rest.append(event)
    made = [m for m in Fed(ended(first, second, *rest)).messages if isinstance(m, ToolCallMessage)]
    assert {m.tool_call_id: m.tool_input for m in made} == {"call_1": {"a": 1}, "call_2": {"b": 2}}


def test_pieces_of_a_call_may_have_nothing_but_their_message() -> None:
    first = call_delta("call_1", name="f", arguments='{"a"')
    piece = {"arguments": ": 1}"}
    rest = call_delta("") | {"tool_call": piece, "tool_calls": piece}
    (made,) = [m for m in Fed(ended(first, rest)).messages if isinstance(m, ToolCallMessage)]
    assert (made.tool_call_id, made.tool_name, made.tool_input) == ("call_1", "f", {"a": 1})
