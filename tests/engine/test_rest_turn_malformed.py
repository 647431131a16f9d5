"""What the protocol does not allow, and what the transport does to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from letta_adapters.engine import assembler
from letta_adapters.engine.rest import RestTurn
from letta_adapters.engine.stop_reasons import Failure
from letta_adapters.errors import StreamTruncatedError, TurnFailedError
from letta_adapters.messages import ErrorMessage, ToolCallMessage, UnknownMessage
from tests.engine._events import (
    DONE,
    RUN,
    Fed,
    approvals,
    assistant,
    call,
    call_delta,
    calls,
    ended,
    error,
    frame,
    hidden,
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


@pytest.mark.parametrize(
    "data",
    [
        b'{"message_type": ',
        b"<html>502 Bad Gateway</html>",
        b"[1, 2]",
        b'"text"',
        b"null",
        b"17",
        b'{"content": "\xe2\x82"}',
        b"[" * 5000,
        b"[DONE] ",
    ],
    ids=["cut", "html", "list", "string", "null", "number", "cut UTF-8", "too deep", "odd DONE"],
)
def test_an_event_that_is_no_json_object_fails_the_turn(data: bytes) -> None:
    after = wire(assistant("ghost", step=9), stop(), DONE)
    fed = Fed(wire(ping(), reasoning("whole"), assistant("a fragm"), b"data: " + data + b"\n\n"))
    assert texts(fed.messages) == ["whole"]
    assert fed.code == "protocol_error"
    shown = repr(data[:80].decode("utf-8", "replace"))
    assert fed.result.error_detail == f"The server sent an event that is no JSON object: {shown}"
    assert fed.turn.segment_over
    assert fed.turn.feed(after) == []


@pytest.mark.parametrize("line", [b'data[ {"id"', b"{}", b'data {"a": 1}', b"\xff\xff: x"])
def test_a_line_that_is_no_field_fails_the_turn(line: bytes) -> None:
    fed = Fed(ended(assistant("Hi"), line + b"\n\n"))
    assert (fed.result.success, fed.code) == (False, "protocol_error")


@pytest.mark.parametrize("line", [b": comment", b"retry: 5", b"id", b"x-new: 5", b"foo"])
def test_a_field_of_another_name_fails_nothing(line: bytes) -> None:
    assert Fed(ended(assistant("Hi"), line + b"\n\n")).result.result == "Hi"


@pytest.mark.parametrize("kind", [5, True, ["assistant_message"], {}])
def test_an_event_whose_kind_cannot_be_read_fails_the_turn(kind: Any) -> None:
    odd = assistant("mean") | {"message_type": kind}
    fed = Fed(ended(assistant("Hi", step=5), odd))
    assert UnknownMessage(odd) in fed.messages
    assert (fed.result.success, fed.code) == (False, "protocol_error")


def test_an_event_without_data_says_nothing() -> None:
    fed = Fed(wire(ping(), b"data:\n\n", assistant("Hi"), b"data\n\n", stop(), DONE))
    assert (texts(fed.messages), fed.result.success) == (["Hi"], True)


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", "protocol_error", "The server sent an event that is no JSON object: ''"),
        (b"boom", "protocol_error", "The server sent an event that is no JSON object: 'boom'"),
        (b"{}", "internal_error", "The server reported an error."),
        (b'{"error": "boom", "code": "INTERNAL_SERVER_ERROR"}', "internal_error", "boom"),
    ],
)
def test_any_error_event_fails_the_turn(data: bytes, code: str, message: str) -> None:
    fed = Fed(wire(ping(), b"event: error\ndata: " + data + b"\n\n", stop(), DONE))
    assert (fed.code, fed.result.error_detail) == (code, message)


def test_an_error_message_without_its_event_name_is_an_error_too() -> None:
    unnamed = error("boom").removeprefix(b"event: error\n")
    fed = Fed(wire(ping(), unnamed, assistant("ghost"), stop(), DONE))
    assert (fed.code, fed.messages) == ("internal_error", [])


def test_an_error_names_its_run() -> None:
    fed = Fed(wire(error("boom")))
    assert fed.result.run_ids == (RUN,)
    assert [m.run_id for m in fed.closing if isinstance(m, ErrorMessage)] == [RUN]
    assert Fed(wire(error("boom", run_id=None))).result.run_ids == ()


def test_other_event_names_do_not_change_what_an_event_is() -> None:
    named = b"event: message\n" + frame(assistant("Hi"))
    unknown = {"message_type": "news", "a": 1}
    fed = Fed(ended(named, b"event: news\n" + frame(unknown)))
    assert UnknownMessage(unknown) in fed.messages
    assert texts(fed.messages) == ["Hi"]


def test_lone_surrogates_are_valid_json_and_break_nothing() -> None:
    fed = Fed(ended(assistant("a\ud83d"), assistant("\ude00 b \udc00")))
    assert texts(fed.messages) == ["a😀 b \ufffd"]
    assert fed.result.result == "a😀 b \ufffd"
    returns = Fed(ended(tool_return(returned("call_1", "\ud800"))))
    assert texts(returns.messages) == ["\ufffd"]


def test_raw_line_separators_inside_json_do_not_cut_it() -> None:
    event = json.dumps(assistant("a\u2028b\x85c"), ensure_ascii=False).encode()
    assert texts(Fed(ended(b"data: " + event + b"\n\n")).messages) == ["a\u2028b\x85c"]


ODD: list[Any] = [None, True, 5, 2.5, "text", "", [], ["x"], [None], {}, {"a": {}}, [[{}]], [{}]]
SHAPES = {
    "assistant": assistant("t"),
    "reasoning": reasoning("t"),
    "hidden": hidden("t"),
    "delta": call_delta("call_2", name="f", arguments="{}"),
    "calls": calls(call("call_3")),
    "approvals": approvals(call("call_4")),
    "return": tool_return(returned("call_3")),
    "stop": stop(),
    "usage": usage(),
    "ping": ping(seq_id=3),
    "error": {"message_type": "error_message", "run_id": RUN, "message": "m"},
}


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_type_of_any_field_breaks_the_engine(shape: str, partial: bool) -> None:
    for field in SHAPES[shape]:
        for value in ODD:
            body = wire(ping(seq_id=1), SHAPES[shape] | {field: value}, assistant("Hi", step=5))
            fed = Fed(body + wire(stop(), DONE), partial=partial)
            result = fed.result
            assert isinstance(result.success, bool), (field, value)
            hash(result.run_ids)
            json.dumps([m.content for m in fed.messages if m.type == "assistant"])


@pytest.mark.parametrize("entry", ["tool_call_id", "name", "arguments", "index"])
def test_no_type_of_a_field_of_a_call_breaks_the_engine(entry: str) -> None:
    for value in ODD:
        odd = call("call_1") | {entry: value}
        fed = Fed(wire(approvals(odd), calls(odd, step=2), stop("requires_approval"), DONE))
        for shown in [*fed.turn.paused, *fed.messages]:
            if isinstance(shown, UnknownMessage):
                assert fed.code == "protocol_error"
                continue
            assert isinstance(shown, ToolCallMessage)
            assert isinstance(shown.tool_call_id, str)
            assert isinstance(shown.raw_arguments, str)


@pytest.mark.parametrize(
    "odd",
    [
        assistant("x", otid={"not": "hashable"}),
        assistant("x", id=["a"]),
        assistant("x", run_id={"a": 1}),
        assistant("x", seq_id="4"),
        assistant("x", seq_id=True),
        assistant(5),
        assistant(["x"]),
        assistant([{"type": "text", "text": 5}]),
        assistant([{"type": "text"}]),
        assistant([{}]),
        assistant([{"type": 5, "text": "x"}]),
        assistant({"text": "x"}),
        reasoning(2.5),
        call_delta({"a": 1}, name="f", arguments="{}"),
        call_delta("call_1", name=["f"], arguments="{}"),
        call_delta("call_1", name="f", arguments=5),
        call_delta("call_1", name="f", arguments="{}", index=[1]),
        calls("call_1"),
        tool_return(returned("call_1")) | {"tool_returns": 5},
        tool_return({"tool_call_id": 5, "tool_return": "x"}),
        tool_return({"tool_call_id": "call_1", "tool_return": 5}),
        usage() | {"prompt_tokens": "7"},
        usage() | {"completion_tokens": 1.5},
        stop() | {"stop_reason": ["end_turn"]},
    ],
    ids=repr,
)
def test_a_known_event_that_cannot_be_read_is_kept_whole_and_fails_the_turn(odd: Any) -> None:
    fed = Fed(ended(odd, assistant("Hi", step=5)))
    assert UnknownMessage(odd) in fed.messages
    assert (fed.result.success, fed.code) == (False, "protocol_error")
    assert str(odd["message_type"]) in str(fed.result.error_detail)


def test_an_unknown_field_or_kind_of_event_fails_nothing() -> None:
    new = {"message_type": "news", "id": 5, "seq_id": "x", "run_id": {}}
    fed = Fed(ended(assistant("Hi", mood={"a": [1]}), new))
    assert (fed.result.success, texts(fed.messages)) == (True, ["Hi"])
    assert UnknownMessage(new) in fed.messages


# -- what this side adds ----------------------------------------------------------------------


def test_the_first_reason_of_a_failure_stays() -> None:
    turn = RestTurn()
    turn.fail(Failure("first", "1"))
    turn.fail_with(StreamTruncatedError("2"))
    turn.end_segment()
    assert turn.failure == Failure("first", "1")


def test_an_error_of_the_transport_is_the_reason() -> None:
    turn = RestTurn()
    turn.feed(wire(ping(), assistant("a fragm")))
    turn.fail_with(StreamTruncatedError("The connection was reset."))
    assert turn.end_segment() == []
    first, result = turn.finish(duration_ms=3, agent_id="agent-1", conversation_id="conv-1")
    assert first == ErrorMessage(
        "The connection was reset.", "stream_truncated", None, "error", None, RUN
    )
    assert result.type == "result"
    assert (result.agent_id, result.conversation_id, result.duration_ms) == (
        "agent-1",
        "conv-1",
        3,
    )


def test_what_was_found_out_later_is_added_to_the_failure() -> None:
    turn = RestTurn()
    turn.explain("Nothing to explain.")
    assert turn.failure is None
    turn.fail(Failure("stream_truncated", "Cut."))
    turn.explain("It is stored.")
    assert turn.failure == Failure("stream_truncated", "Cut. It is stored.")


def test_the_failure_as_an_exception() -> None:
    turn = RestTurn()
    unknown = turn.error()
    assert (type(unknown), unknown.code) == (TurnFailedError, "turn_failed")
    turn.feed(wire(ping()))
    turn.end_segment()
    raised = turn.error()
    assert (type(raised), raised.code, raised.run_id) == (
        StreamTruncatedError,
        "stream_truncated",
        RUN,
    )


def test_whether_the_input_is_stored_is_passed_on() -> None:
    turn = RestTurn()
    turn.input_stored = False
    turn.end_segment()
    result = turn.finish(duration_ms=0)[-1]
    assert result.type == "result"
    assert result.input_stored is False


def test_detail_is_not_repeated_when_the_message_has_it() -> None:
    fed = Fed(wire(error("boom", message="It went boom.")))
    assert fed.result.error_detail == "It went boom."
    assert types(fed.closing) == ["error", "result"]


def test_no_run_of_an_error_event_breaks_the_engine() -> None:
    for run in ODD:
        fed = Fed(wire(ping(), b"event: error\n" + frame({"message": "m", "run_id": run})))
        assert (fed.code, fed.result.error_detail) == ("internal_error", "m")
        assert fed.result.run_ids == ((RUN, run) if run and isinstance(run, str) else (RUN,))


def test_an_event_too_deep_to_be_written_again_fails_the_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(_: object) -> str:
        raise RecursionError("maximum recursion depth exceeded")

    odd = call_delta("call_1", name="f", arguments={"a": {}})
    body = ended(odd, assistant("Hi", step=5))
    # How deep that is differs by the version of Python.
    monkeypatch.setattr(assembler.json, "dumps", write)
    fed = Fed(body)
    assert UnknownMessage(odd) in fed.messages
    assert (fed.result.success, fed.code) == (False, "protocol_error")


@pytest.mark.parametrize("shape", ["assistant", "reasoning", "hidden", "delta", "calls", "return"])
def test_no_type_of_any_field_of_a_stored_answer_breaks_the_engine(shape: str) -> None:
    for field in SHAPES[shape]:
        for value in ODD:
            turn = RestTurn()
            turn.feed(wire(stop(), DONE))
            turn.end_segment()
            said = turn.take_stored([SHAPES[shape] | {field: value}, assistant("Hi", step=5)])
            assert "Hi" in [m.content for m in said if m.type == "assistant"], (field, value)


def test_a_stored_answer_that_cannot_be_read_fails_the_turn() -> None:
    turn = RestTurn()
    turn.feed(wire(stop(), DONE))
    turn.end_segment()
    broken = assistant([{"type": "text", "text": 5}])
    assert turn.take_stored([broken, assistant("Hi", step=5)])[0] == UnknownMessage(broken)
    assert turn.failure is not None
    assert turn.failure.code == "protocol_error"
