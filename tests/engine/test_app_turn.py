"""Recorded turns, and the rules one by one.

The rules: docs/protocol.md ("What ends a turn").
"""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import (
    AssistantMessage,
    LoopStatusMessage,
    QueueUpdateMessage,
    ReasoningMessage,
    ResultMessage,
    RetryMessage,
    StreamEvent,
    ToolCallMessage,
    ToolResultMessage,
    UnknownMessage,
)
from letta_adapters.engine.app_server import AppTurn, Verdict
from tests.engine._frames import OTID, call, delta, finished, play, recorded, said, turn


def of(kind: type, messages: list[Any]) -> list[Any]:
    return [m for m in messages if isinstance(m, kind)]


def result_of(state: AppTurn) -> ResultMessage:
    last = state.finish(duration_ms=1)[-1]
    assert isinstance(last, ResultMessage)
    return last


def test_a_text_turn() -> None:
    state = turn(include_partial_messages=True)
    messages = play(state, recorded("text"))
    assert [m.content for m in of(ReasoningMessage, messages)] == ["Think a bit."]
    answer = of(AssistantMessage, messages)
    assert [m.content for m in answer] == ["Hello there my friend."]
    assert answer[0].otid == answer[0].id != of(ReasoningMessage, messages)[0].otid
    assert len(of(StreamEvent, messages)) == 7
    result = result_of(state)
    assert (result.success, result.result) == (True, "Hello there my friend.")
    usage = result.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 20, 120)
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.step_count) == (64, 0, 1)
    assert result.run_ids == ("local-run-1",)
    assert state.over
    assert state.input_stored


def test_queue_and_loop_are_messages_on_request_only() -> None:
    kinds = {m.event_type for m in of(UnknownMessage, play(turn(), recorded("queued")))}
    assert kinds.isdisjoint({"update_queue", "update_loop_status", "update_device_status"})
    messages = play(turn(include_status_messages=True), recorded("queued"))
    queues = of(QueueUpdateMessage, messages)
    assert any(queue.items for queue in queues)
    assert "PROCESSING_API_RESPONSE" in [m.status for m in of(LoopStatusMessage, messages)]
    waiting = play(turn(queued=True, include_status_messages=True), recorded("queued")[:3])
    assert not of(AssistantMessage, waiting)


def test_a_client_side_tool() -> None:
    state = turn(client_tools=["add"])
    out: list[Any] = []
    seen: list[Any] = []
    for frame in recorded("external"):
        out += state.feed(frame)
        if state.pending:
            seen += state.pending
            assert list(state.external) == ["call_1"]
            state.resolve(["call_1"])
    assert [(c.tool_name, c.tool_input, c.requires_approval) for c in seen] == [
        ("add", {"a": 1}, True)
    ]
    assert of(ToolCallMessage, out) == seen
    assert [(r.content, r.is_error, r.tool_name) for r in of(ToolResultMessage, out)] == [
        ("result of call_1", False, "add")
    ]
    assert state.grants == ["perm-call_1"]
    result = result_of(state)
    assert (result.result, result.usage.step_count, len(result.run_ids)) == ("done", 2, 2)


def test_all_client_tools_of_a_step_are_pending_at_once() -> None:
    state = turn(client_tools=["add", "sub"])
    pendings: list[list[str]] = []
    for frame in recorded("parallel"):
        state.feed(frame)
        if state.pending:
            pendings.append([c.tool_call_id for c in state.pending])
            state.resolve(pendings[-1])
    # The server asks for the shell command, and for both of ours, one by one.
    assert pendings == [["call_3"], ["call_1", "call_2"]]
    assert state.grants == ["perm-call_1", "perm-call_2"]
    assert result_of(state).success


def test_a_permission_question_carries_what_the_user_needs() -> None:
    state = turn()
    asked: list[ToolCallMessage] = []
    out: list[Any] = []
    for frame in recorded("edit"):
        out += state.feed(frame)
        asked += state.pending
        state.resolve([c.tool_call_id for c in state.pending])
    assert [(c.tool_name, c.requires_approval) for c in of(ToolCallMessage, out)] == [
        ("Read", False),
        ("Edit", True),
    ]
    assert [c.tool_name for c in asked] == ["Edit"]
    details = state.details["call_2"]
    assert details["diffs"][0]["fileName"] == "f.txt"
    assert details["suggestions"][0]["id"] == "save-default"
    assert details["blocked_path"] is None


def test_a_denial_is_reported_by_the_server_alone() -> None:
    state = turn()
    messages = play(state, recorded("deny"))
    assert [(r.content, r.is_error) for r in of(ToolResultMessage, messages)] == [
        ("no thanks", True)
    ]
    assert not state.tool_result(ToolResultMessage("call_1", "what this side would say", True))


def test_a_call_allowed_beforehand_is_not_pending() -> None:
    judged: list[Any] = []

    def judge(name: str, tool_input: Any) -> Verdict:
        judged.append((name, tool_input))
        return Verdict(granted=True)

    state = turn(judge=judge)
    shown = []
    for frame in recorded("deny"):
        shown += state.feed(frame)
        assert not state.pending
    assert state.grants == ["perm-call_1"]
    assert judged[-1] == ("Bash", {"command": "touch x", "description": "d"})
    assert [call.requires_approval for call in of(ToolCallMessage, shown)] == [False]


def test_a_call_refused_beforehand_is_not_pending() -> None:
    state = turn(judge=lambda *_: Verdict(refused="never"))
    for frame in recorded("deny"):
        state.feed(frame)
        assert not state.pending
    assert state.refusals == [("perm-call_1", "never")]


def test_the_question_is_about_the_arguments_that_would_run() -> None:
    state = turn()
    for frame in recorded("deny"):
        if frame["type"] == "control_request":
            frame["request"]["input"] = {"command": "rm -rf other", "description": "d"}
        state.feed(frame)
        if state.pending:
            break
    assert state.pending[0].tool_input["command"] == "rm -rf other"


def test_a_tool_that_runs_unasked_is_noticed() -> None:
    state = turn(client_tools=["add"])
    for frame in recorded("edit"):
        state.feed(frame)
        if state.pending:
            state.resolve([state.pending[0].tool_call_id])
    assert state.unasked == ("Read",)


@pytest.mark.parametrize(
    "name", ["abort_stream", "abort_external", "abort_permission", "abort_early"]
)
def test_a_cancelled_turn(name: str) -> None:
    state = turn(client_tools=["add"])
    messages = play(state, recorded(name))
    result = result_of(state)
    assert (result.success, result.error_code, result.stop_reason) == (
        False,
        "cancelled",
        "cancelled",
    )
    assert not of(AssistantMessage, messages)


def test_a_failed_attempt_is_void() -> None:
    state = turn()
    messages = play(state, recorded("retry_cut"))
    retries = of(RetryMessage, messages)
    assert [(r.attempt, r.max_attempts, r.delay_ms) for r in retries] == [(1, 3, 1000)]
    assert [m.content for m in of(AssistantMessage, messages)] == ["whole answer"]
    assert result_of(state).result == "whole answer"


def test_a_retry_below_the_loop_is_shown_too() -> None:
    messages = play(turn(), recorded("retry_429"))
    assert "Rate limit reached" in of(RetryMessage, messages)[0].reason
    assert of(AssistantMessage, messages)[0].content == "fine"


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("error_401", "provider_authentication", "Incorrect API key provided (HTTP 401)"),
        ("error_quota", "insufficient_credits", "You exceeded your current quota (HTTP 429)"),
        ("error_context", "context_window_overflow", "maximum context length"),
    ],
)
def test_a_model_that_refuses(name: str, code: str, text: str) -> None:
    state = turn()
    play(state, recorded(name))
    result = result_of(state)
    assert (result.success, result.error_code) == (False, code)
    assert text in (result.error_detail or "")
    assert result.input_stored


def test_arguments_that_are_no_json() -> None:
    messages = play(turn(client_tools=["add"]), recorded("bad_arguments"))
    assert of(ToolCallMessage, messages)[0].tool_input == {}


def test_a_queued_message_waits_for_its_own_turn() -> None:
    frames = recorded("queued")
    second = next(i for i, f in enumerate(frames) if f.get("disposition") == "queued")
    state = turn(queued=True, otid="cm-2")
    messages = play(state, frames[second + 1 :])
    assert [m.content for m in of(AssistantMessage, messages)] == ["second"]
    assert result_of(state).run_ids == ("local-run-19",)
    assert state.input_stored
    first = turn(otid="cm-1")
    assert of(AssistantMessage, play(first, frames))[0].content == "first " * 5


def test_a_queued_message_may_start_with_the_queue() -> None:
    state = turn(queued=True)
    assert state.feed(said("theirs")) == []
    assert state.feed({"type": "update_queue", "queue": [], "removed": []}) == []
    assert state.queued
    removed = [{"client_message_id": "cm-1", "disposition": "dequeued"}]
    state.feed({"type": "update_queue", "queue": [], "removed": removed})
    assert not state.queued
    play(state, [said("ours", "ui-msg-2"), finished()])
    assert result_of(state).result == "ours"


def test_a_queued_message_that_is_taken_out_ends_its_turn() -> None:
    state = turn(queued=True)
    removed = [{"client_message_id": "cm-1", "disposition": "cancelled"}]
    state.feed({"type": "update_queue", "queue": [], "removed": removed})
    assert (state.over, state.input_stored) == (True, False)
    assert result_of(state).error_code == "cancelled"


def test_the_server_reports_a_result_and_this_side_only_what_was_raised() -> None:
    state = turn()
    mine = ToolResultMessage("c-1", "boom", is_error=True, id=None, traceback="Traceback: boom")
    assert not state.tool_result(mine)


def test_the_late_end_of_an_earlier_turn_ends_nothing() -> None:
    state = turn()
    runs = {"local-run-1": ["cm-0"]}
    loop = {"status": "PROCESSING_API_RESPONSE", "client_message_ids_by_run_id": runs}
    state.feed({"type": "update_loop_status", "loop_status": loop})
    assert state.feed(finished("cancelled")) == []
    assert not state.over


def test_a_run_that_is_named_by_its_end_only() -> None:
    state = turn()
    play(state, [finished()])
    assert result_of(state).run_ids == ("local-run-1",)
    assert state.feed(said("too late")) == []


def test_an_answer_after_tools_is_only_the_last_text() -> None:
    state = turn()
    play(state, [said("I look."), call(), said("Found.", "ui-msg-2"), finished()])
    assert result_of(state).result == "Found."


def test_a_call_is_handed_out_before_whatever_follows_it() -> None:
    state = turn()
    messages = play(state, [call(), said("And?")])
    assert [type(m) for m in messages] == [ToolCallMessage]
    assert not messages[0].requires_approval


def test_calls_in_fragments_are_joined() -> None:
    state = turn(include_partial_messages=True)
    pieces = ('{"command"', ': "ls"}')
    first, second = (
        delta(
            "approval_request_message",
            id="letta-msg-1",
            tool_call={"tool_call_id": "call_1", "name": "Bash", "arguments": piece},
        )
        for piece in pieces
    )
    messages = play(state, [first, second, delta("approval_classification_end")])
    assert of(ToolCallMessage, messages)[0].tool_input == {"command": "ls"}
    assert len(of(StreamEvent, messages)) == 2


def test_a_question_about_a_call_that_was_not_shown() -> None:
    state = turn()
    request = {"tool_name": "Bash", "tool_call_id": "call_9", "input": {"command": "ls"}}
    state.feed({"type": "control_request", "request_id": "perm-call_9", "request": request})
    assert [(c.tool_name, c.tool_input, c.raw_arguments) for c in state.pending] == [
        ("Bash", {"command": "ls"}, '{"command": "ls"}')
    ]


def test_a_result_that_is_known_is_not_asked_for_again() -> None:
    state = turn(client_tools=["add"])
    state.resolve(["call_1"])
    frame = {
        "type": "external_tool_call_request",
        "request_id": "external-1",
        "tool_call_id": "call_1",
        "tool_name": "add",
        "input": "no object",
    }
    state.feed(frame)
    assert (state.pending, state.external) == ((), {"call_1": "external-1"})
    # The same id in a later step is another call.
    play(state, [call("call_1", "add"), delta("approval_classification_end")])
    state.feed(frame)
    assert len(state.pending) == 1


def test_progress_of_a_command_is_a_fragment_only() -> None:
    frame = delta(
        "tool_return_message",
        id="synthetic-tool-return-stream-call_1",
        tool_call_id="call_1",
        tool_return="half",
    )
    assert turn().feed(frame) == []
    assert [type(m) for m in turn(include_partial_messages=True).feed(frame)] == [StreamEvent]


def test_a_result_comes_once() -> None:
    frame = delta(
        "tool_return_message", id="r", tool_call_id="call_1", tool_return="x", status="success"
    )
    assert len(play(turn(), [frame, frame])) == 1


def test_other_events_survive() -> None:
    messages = play(
        turn(), [delta("event_message", event_type="compaction"), delta("brand_new", x=1)]
    )
    assert [m.event_type for m in messages] == ["event_message", "brand_new"]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "brand_new"},
        {"type": 5},
        {},
        {"type": "stream_delta", "delta": None},
        {"type": "stream_delta", "delta": {}},
        {"type": "update_loop_status", "loop_status": []},
        {"type": "control_request", "request": {}},
        delta("tool_return_message", id="x"),
        delta("retry", attempt="first"),
    ],
)
def test_frames_of_another_shape_survive(frame: dict[str, Any]) -> None:
    messages = turn().feed(frame)
    assert len(messages) == 1
    assert isinstance(messages[0], UnknownMessage)


def test_answers_to_requests_are_no_messages() -> None:
    for kind in ("input_accepted", "abort_message_response"):
        assert turn().feed({"type": kind, "request_id": "r"}) == []


def test_a_cut_turn_gives_no_half_text() -> None:
    state = turn()
    state.feed(said("half"))
    assert state.cut() == []
    assert state.over
    state = turn()
    state.feed(call())
    assert [type(m) for m in state.cut()] == [ToolCallMessage]


def test_a_turn_the_server_holds_on_to() -> None:
    state = turn()
    play(state, [finished("error", error="Conversation c already has an active run (local-run-1)")])
    result = result_of(state)
    assert (result.error_code, result.input_stored) == ("conversation_busy", False)
    assert "fork" in (result.error_detail or "")


@pytest.mark.parametrize(
    ("reason", "error", "code"),
    [
        ("llm_api_error", None, "provider_error"),
        ("llm_api_error", "Connection error.", "provider_error"),
        ("llm_api_error", "503: overloaded", "provider_error"),
        ("error", "429: slow down", "provider_rate_limit"),
        ("error", '402: {"message": "pay"}', "insufficient_credits"),
        ("error", "403: []", "provider_authentication"),
        ("error", "something else", "internal_error"),
        ("error", "Provider is not configured: openai", "provider_authentication"),
        ("error", '{"error": {"message": "said", "type": "llm_error"}}', "provider_error"),
        ("error", '{"message": "only words"}', "internal_error"),
        ("max_steps", None, "max_steps"),
    ],
)
def test_how_a_failure_is_told(reason: str, error: Any, code: str) -> None:
    state = turn()
    play(state, [finished(reason, error=error)])
    result = result_of(state)
    assert (result.success, result.error_code) == (False, code)


def test_a_loop_error_counts_if_nothing_better_was_said() -> None:
    state = turn()
    text = "Failed to prepare image for model: unsupported image format"
    play(state, [delta("loop_error", message=text, is_terminal=True), finished("error")])
    assert result_of(state).error_code == "invalid_input"


# -- whose frames these are -----------------------------------------------------------------------


def runs(**of: str) -> dict[str, Any]:
    """The server names the messages of every run; underscores stand for the hyphens of its id."""
    named = {run.replace("_", "-"): [message] for run, message in of.items()}
    status = {"status": "PROCESSING_API_RESPONSE", "client_message_ids_by_run_id": named}
    return {"type": "update_loop_status", "loop_status": status}


def of_run(frame: dict[str, Any], run_id: str) -> dict[str, Any]:
    return {**frame, "delta": {**frame["delta"], "run_id": run_id}}


def test_the_late_tail_of_an_earlier_turn_is_not_this_one_s() -> None:
    state = turn()
    frames = [
        runs(local_run_0="cm-0"),
        of_run(said("old text", "ui-msg-0"), "local-run-0"),
        of_run(delta("usage_statistics", completion_tokens=50), "local-run-0"),
        finished(run_id="local-run-0"),
        runs(local_run_0="cm-0", local_run_1=OTID),
        said("new text"),
        finished(),
    ]
    messages = play(state, frames)
    assert [m.content for m in of(AssistantMessage, messages)] == ["new text"]
    result = result_of(state)
    assert (result.result, result.run_ids, result.usage.completion_tokens) == (
        "new text",
        ("local-run-1",),
        0,
    )


def test_the_end_of_another_run_does_not_end_this_turn() -> None:
    state = turn()
    play(state, [said("half "), finished(run_id="local-run-other")])
    assert not state.over
    play(state, [said("whole"), finished()])
    assert (state.over, result_of(state).result) == (True, "half whole")


def test_a_frame_that_comes_twice_is_taken_once() -> None:
    state = turn(include_partial_messages=True)
    frames = [f for frame in recorded("text") for f in (frame, frame)]
    messages = play(state, frames)
    assert [m.content for m in of(AssistantMessage, messages)] == ["Hello there my friend."]
    assert len(of(StreamEvent, messages)) == 7
    assert result_of(state).usage.total_tokens == 120


def test_a_turn_that_waits_for_an_approval_it_did_not_ask_for_is_no_success() -> None:
    state = turn()
    play(state, [said("I would like to"), finished("requires_approval")])
    result = result_of(state)
    assert (result.success, result.error_code) == (False, "protocol_error")
    assert result.stop_reason == "requires_approval"


def test_a_terminal_error_or_an_idle_server_ends_a_turn_whose_end_does_not_come() -> None:
    idle = {"type": "update_loop_status", "loop_status": {"status": "WAITING_ON_INPUT"}}
    quiet = turn()
    play(quiet, [idle])
    assert not quiet.ending, "it has not begun"
    play(quiet, [said("half"), idle])
    assert quiet.ending
    quiet.end_unsaid()
    assert (quiet.over, result_of(quiet).error_code) == (True, "protocol_error")

    failed = turn()
    error = delta("loop_error", message="insufficient_quota", is_terminal=True)
    play(failed, [said("half"), error])
    assert failed.ending
    failed.end_unsaid()
    assert result_of(failed).error_code == "insufficient_credits"


def test_a_retry_after_an_error_ends_nothing() -> None:
    state = turn()
    retry = delta("retry", message="again", attempt=1, max_attempts=3, delay_ms=1)
    play(state, [delta("loop_error", message="x", is_terminal=True), retry])
    assert not state.ending


def test_a_known_delta_that_cannot_be_read_fails_the_turn() -> None:
    state = turn()
    odd = delta("assistant_message", id="ui-msg-1", content=5)
    messages = play(state, [odd, said("rest"), finished()])
    assert of(UnknownMessage, messages)[0].raw == odd["delta"]
    assert result_of(state).error_code == "protocol_error"


@pytest.mark.parametrize(
    ("named", "unseen", "failed"),
    [
        ({"otids": [OTID], "tool_call_ids": []}, True, True),
        ({"otids": ["cm-0"], "tool_call_ids": ["call_1"]}, False, True),
        ({"otids": ["cm-0"], "tool_call_ids": ["call_0"]}, False, False),
        ({}, False, False),
    ],
)
def test_images_that_were_left_out_are_those_of_the_turn(
    named: dict[str, Any], unseen: bool, failed: bool
) -> None:
    """What the embedded runtime tells: of this turn's message, of its tools, or of neither."""
    state = turn()
    event = delta("event_message", event_type="letta_adapters_images_omitted", event_data=named)
    classified = delta("approval_classification_end", user_input_tool_call_ids=[])
    messages = play(state, [call("call_1"), classified, event])
    assert state.unseen is unseen
    assert not of(UnknownMessage, messages)
    play(state, [said("A cat."), finished()])
    result = result_of(state)
    assert (result.success, result.error_code == "unsupported_image") == (not failed, failed)


def test_a_frame_too_deep_to_be_written_again_fails_the_turn() -> None:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    request = {"tool_name": "Bash", "tool_call_id": "call_1", "input": nested}
    state = turn()
    state.feed({"type": "control_request", "request_id": "r-1", "request": request})
    assert state.pending == ()
    assert result_of(state).error_code == "protocol_error"


def test_a_stored_answer_that_cannot_be_read_fails_the_turn() -> None:
    state = turn()
    play(state, [finished()])
    broken = {"message_type": "assistant_message", "id": "m-1", "content": [{"text": 5}]}
    odd = {"message_type": ["assistant_message"], "id": "m-2", "content": "x"}
    whole = {"message_type": "assistant_message", "id": "m-3", "content": "Hi."}
    messages = state.take_stored([broken, odd, whole])
    assert of(UnknownMessage, messages) == [UnknownMessage(broken)]
    assert [m.content for m in of(AssistantMessage, messages)] == ["Hi."]
    assert result_of(state).error_code == "protocol_error"
