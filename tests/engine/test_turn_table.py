"""What comes of a turn, frame by frame: whose frames count, what ends it, what is said twice.

Each row is a thing that clients of Letta Code have to get right. Those marked by design end in
another way in Letta's TypeScript SDK; docs/reliability.md says why they end like this here.
"""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import AssistantMessage, ResultMessage, ToolCallMessage, UnknownMessage
from tests.engine._frames import OTID, call, delta, finished, play, said, turn

Frames = list[dict[str, Any]]


def loop(status: str = "PROCESSING_API_RESPONSE", **runs: str) -> dict[str, Any]:
    named = {run.replace("_", "-"): [message] for run, message in runs.items()}
    state = {"status": status, "client_message_ids_by_run_id": named}
    return {"type": "update_loop_status", "loop_status": state}


def keyed(frame: dict[str, Any], key: str) -> dict[str, Any]:
    return {**frame, "idempotency_key": key}


def of_run(frame: dict[str, Any], run_id: str) -> dict[str, Any]:
    return {**frame, "delta": {**frame["delta"], "run_id": run_id}}


def piece(arguments: str, **fields: Any) -> dict[str, Any]:
    given = {"arguments": arguments, **fields}
    return delta("approval_request_message", id="letta-msg-1", tool_call=given)


IDLE = loop("WAITING_ON_INPUT")
STOP = delta("stop_reason", stop_reason="end_turn")
RETRY = delta("retry", message="again", attempt=1, max_attempts=3, delay_ms=1)
LOOP_ERROR = delta("loop_error", message="broken", is_terminal=True)
PASSING_ERROR = delta("loop_error", message="broken", is_terminal=False)

# What is fed, and then: is it over, the text (or the code of the failure) of its result.
ROWS: dict[str, tuple[Frames, bool, str | None]] = {
    # -- what ends a turn
    "its end": ([said("a"), finished()], True, "a"),
    "its end alone, with nothing said": ([finished()], True, ""),
    "a stop reason is no end": ([said("a"), STOP], False, None),
    "an idle loop before anything is no end": ([IDLE], False, None),
    "what comes after the end is not read": ([said("a"), finished(), said("b")], True, "a"),
    "a second end changes nothing": ([said("a"), finished(), finished("error")], True, "a"),
    "an end without a run": ([said("a"), finished(run_id=None)], True, "a"),
    "an end of a run of a later step": (
        [said("a"), of_run(said("b", "ui-msg-2"), "local-run-2"), finished(run_id="local-run-2")],
        True,
        "b",
    ),
    "the end of another run": ([said("a"), finished(run_id="local-run-9")], False, None),
    "the end of another run, then its own": (
        [said("a"), finished(run_id="local-run-9"), finished()],
        True,
        "a",
    ),
    # -- by design: what is no success
    "by design: an end that waits for an approval": (
        [said("a"), finished("requires_approval")],
        True,
        "protocol_error",
    ),
    "by design: an end without a reason": ([said("a"), finished(None)], True, "protocol_error"),
    "by design: an end for a reason of tomorrow": ([said("a"), finished("zzz")], True, "zzz"),
    "a cancelled end": ([said("a"), finished("cancelled")], True, "cancelled"),
    "an end with an error": ([said("a"), finished("error")], True, "internal_error"),
    "a terminal error, then its end": (
        [said("a"), LOOP_ERROR, finished("error")],
        True,
        "internal_error",
    ),
    "a passing error, then a success": ([PASSING_ERROR, said("a"), finished()], True, "a"),
    # -- whose frames these are
    "the text of another message's run": (
        [
            loop(local_run_0="cm-0", local_run_1=OTID),
            of_run(said("old", "ui-msg-0"), "local-run-0"),
            said("new"),
            finished(),
        ],
        True,
        "new",
    ),
    "the end of another message's run": (
        [loop(local_run_0="cm-0"), finished(run_id="local-run-0")],
        False,
        None,
    ),
    "a run that no message is named for": (
        [loop(local_run_0="cm-0"), said("a"), finished()],
        True,
        "a",
    ),
    # -- what is said twice
    "a frame that comes twice": (
        [keyed(said("a"), "k1"), keyed(said("a"), "k1"), keyed(finished(), "k2")],
        True,
        "a",
    ),
    "an old frame that comes again later": (
        [keyed(said("a"), "k1"), keyed(said("b"), "k2"), keyed(said("a"), "k1"), finished()],
        True,
        "ab",
    ),
    "by design: two frames without keys are two": (
        [said("ha"), said("ha"), finished()],
        True,
        "haha",
    ),
    "by design: the text of an attempt that failed is void": (
        [said("half", "ui-msg-1"), RETRY, said("whole", "ui-msg-2"), finished()],
        True,
        "whole",
    ),
    "by design: the result is what was said after the last tool": (
        [said("I look", "ui-msg-1"), call(), said("Done", "ui-msg-2"), finished()],
        True,
        "Done",
    ),
    "two messages of one step": (
        [said("a", "ui-msg-1"), said("b", "ui-msg-1"), finished()],
        True,
        "ab",
    ),
    # -- pieces of calls
    "pieces with an id each": (
        [
            piece('{"a', tool_call_id="c1", name="f"),
            piece('": 1}', tool_call_id="c1"),
            finished(),
        ],
        True,
        "",
    ),
    "pieces with only an index": (
        [
            piece('{"a', tool_call_id="c1", name="f", index=0),
            piece('": 1}', index=0),
            finished(),
        ],
        True,
        "",
    ),
    "pieces with nothing": (
        [piece('{"a', tool_call_id="c1", name="f"), piece('": 1}'), finished()],
        True,
        "",
    ),
    # -- what is not known
    "by design: an unknown frame survives": (
        [{"type": "of_tomorrow", "x": 1}, said("a"), finished()],
        True,
        "a",
    ),
    "an unknown event survives": (
        [delta("of_tomorrow", x=1), said("a"), finished()],
        True,
        "a",
    ),
    "by design: a known event that cannot be read": (
        [said("a"), delta("assistant_message", id="ui-msg-1", content=5), finished()],
        True,
        "protocol_error",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_comes_of_a_turn(row: str) -> None:
    frames, over, expected = ROWS[row]
    state = turn()
    messages = play(state, frames)
    assert state.over is over
    if over:
        result = state.finish(duration_ms=1)[-1]
        assert isinstance(result, ResultMessage)
        assert (result.result if result.success else result.error_code) == expected
    calls = [m for m in messages if isinstance(m, ToolCallMessage)]
    if row.startswith("pieces"):
        assert [(c.tool_name, c.tool_input) for c in calls] == [("f", {"a": 1})]
    if "survives" in row:
        assert any(isinstance(m, UnknownMessage) and m.raw.get("x") == 1 for m in messages)


def test_by_design_half_a_text_is_no_message() -> None:
    state = turn()
    messages = [*play(state, [said("half")]), *state.cut()]
    assert not [m for m in messages if isinstance(m, AssistantMessage)]


@pytest.mark.parametrize("frame", [loop(), {"type": "update_queue", "queue": []}])
def test_by_design_status_frames_are_messages_on_request_only(frame: dict[str, Any]) -> None:
    assert play(turn(), [frame]) == []
    assert len(play(turn(include_status_messages=True), [frame])) == 1
