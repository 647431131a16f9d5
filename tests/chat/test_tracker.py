"""What the first and the last event of a call report, and the marker that the answer gets."""

from __future__ import annotations

from typing import Any

from letta_adapters.chat import HistoryMessage, ResponseCompleted
from letta_adapters.chat.cache import known_answers
from letta_adapters.chat.history import split_history
from letta_adapters.chat.request import Place
from letta_adapters.chat.tracker import ResponseTracker
from letta_adapters.errors import TurnFailedError
from letta_adapters.messages import (
    AssistantMessage,
    ErrorMessage,
    InitMessage,
    Message,
    ResultMessage,
    ToolResultMessage,
    Usage,
)
from tests.chat.builders import (
    AGENT,
    CALL,
    TOOL,
    answer,
    asking,
    call_message,
    on_the_way,
    result,
    user,
)

QUESTION = user("one", id="message-1")
SAID = AssistantMessage("First.", id="message-9", otid="otid-9", run_id="run-1")
# The digests of "Be brief." and "Call one tool at a time.".
BRIEF, ONE_BY_ONE = "b1cc2ec6cf9f", "a839a4c77b16"


def tracker(*history: HistoryMessage, used: Usage | None = None, **fields: Any) -> ResponseTracker:
    """A tracker of the call with this history, of an agent whose model is known."""
    models = {AGENT: "openai/gpt-4o-mini"}
    return ResponseTracker(on_the_way(history, **fields), models.get, used=used)


def ending(made: ResponseTracker, *messages: Message) -> ResponseCompleted:
    for message in messages:
        made.takes(message)
    return made.end()


def done(**fields: Any) -> ResultMessage:
    known: dict[str, Any] = {"success": True, "result": "First.", "stop_reason": "end_turn"}
    known |= {"usage": Usage(10, 5, 15), "duration_ms": 7, **fields}
    return ResultMessage(**known)


# -- events -------------------------------------------------------------------------------------


def test_the_first_event_tells_where_the_call_goes() -> None:
    start = tracker(QUESTION).start()
    assert (start.agent_id, start.conversation_id) == (AGENT, "conv-1")
    assert (start.backend, start.model) == ("rest", "openai/gpt-4o-mini")
    assert (start.replayed, start.forked) == (False, "")


def test_a_call_with_a_model_of_its_own_names_that() -> None:
    made = tracker(QUESTION, model="openai/gpt-4o")
    assert made.start().model == made.end().model == "openai/gpt-4o"


def test_the_same_call_again_has_an_answer_of_the_same_id() -> None:
    assert tracker(QUESTION).start().id == tracker(QUESTION).start().id
    # Without an id of its message a call cannot be known again.
    assert tracker(user("one")).start().id != tracker(user("one")).start().id


def test_a_fork_is_reported_with_its_reason() -> None:
    history = [user("zero"), user("one"), answer("First.", [user("one")]), user("two")]
    assert tracker(*history).start().forked == (
        "there are messages before the agent's answer that it was not given"
    )


def test_only_messages_of_the_answer_go_to_the_caller() -> None:
    made = tracker(QUESTION)
    assert made.takes(SAID)
    assert made.takes(call_message())
    assert made.takes(ToolResultMessage("call-1", "3"))
    assert not made.takes(InitMessage(AGENT, "conv-1", "session-1", "rest"))
    assert not made.takes(ErrorMessage("It broke.", "turn_failed"))
    assert not made.takes(done())
    assert [message.type for message in made.seen] == ["assistant", "tool_call", "tool_result"]


def test_the_last_event_reports_how_the_turn_ended() -> None:
    end = ending(tracker(QUESTION), SAID, done(run_ids=("run-1", "run-2")))
    assert (end.stop_reason, end.pending) == ("end_turn", ())
    assert end.run_ids == ("run-1", "run-2")
    assert end.usage == Usage(10, 5, 15)
    assert not end.replayed


def test_a_turn_that_stopped_early_says_so() -> None:
    assert ending(tracker(QUESTION), done(stop_reason="max_steps")).stop_reason == "max_steps"


def test_a_resumed_turn_counts_the_tokens_since_it_was_resumed() -> None:
    assert ending(tracker(QUESTION, used=Usage(4, 1, 5)), done()).usage == Usage(6, 4, 10)


def test_a_failed_turn_is_kept_as_its_error() -> None:
    made = tracker(QUESTION)
    made.takes(done(success=False, error_code="turn_failed", error_detail="It broke."))
    assert isinstance(made.failure, TurnFailedError)
    assert "It broke." in str(made.failure)
    assert made.result is None


def test_a_turn_that_waits_reports_the_calls_and_what_the_server_said_of_them() -> None:
    made, call = tracker(QUESTION, tools=[TOOL]), call_message()
    details = {"call-1": {"reason": "asks"}, "call-9": {"reason": "another call's"}}
    made.waits([call], details, Usage(10, 5, 15))
    end = ending(made, call)
    assert (end.stop_reason, end.pending) == ("requires_approval", (call,))
    assert end.details == {"call-1": {"reason": "asks"}}
    assert end.usage == Usage(10, 5, 15)


def test_an_answer_given_before_is_reported_as_such() -> None:
    made = tracker(QUESTION).replays([SAID, done()], [])
    assert made.replay == (SAID,)
    assert made.start().replayed
    assert made.end().replayed


# -- the marker ---------------------------------------------------------------------------------


def test_the_marker_tells_what_the_answer_was_given_to() -> None:
    history = [QUESTION, answer("First.", [QUESTION]), user("two")]
    marker = ending(tracker(*history), SAID).marker
    assert (marker.agent_id, marker.conversation_id, marker.backend) == (AGENT, "conv-1", "rest")
    assert len(marker.inputs) == 1
    assert marker.previous == "conv-1#otid-1"
    assert marker.run_id == "run-1"
    # So the same history with this answer at its end fits, and nothing in it is new.
    again = split_history([*history, HistoryMessage("assistant", "Second.", marker=marker)], AGENT)
    assert (again.mismatch, again.new) == ("", ())


def test_the_marker_of_a_fresh_conversation_names_no_answer_before() -> None:
    marker = ending(tracker(QUESTION), SAID).marker
    assert (marker.previous, len(marker.inputs), marker.earlier) == (None, 1, False)


def test_the_marker_names_the_newest_message_of_the_conversation() -> None:
    assert ending(tracker(QUESTION), SAID).marker.head == ("otid-9", "message-9")
    later = ToolResultMessage("call-1", "3")
    assert ending(tracker(QUESTION), SAID, later).marker.head == ("call-1",)


def test_where_nothing_was_said_the_call_itself_is_the_newest_message() -> None:
    made = tracker(QUESTION)
    assert made.key is not None
    assert made.end().marker.head == (made.key,)
    assert tracker(user("one")).end().marker.head == ()


def test_the_marker_tells_results_from_decisions() -> None:
    made = tracker(QUESTION, tools=[TOOL])
    own, question = call_message(), call_message("call-2", "delete_file")
    made.waits([own, question], {}, Usage())
    marker = made.end().marker
    assert marker.pending == (("call-1", "add"), ("call-2", "delete_file"))
    assert marker.head == ("call-1", "call-2")
    assert marker.questions == ("call-2",)
    # The digest of {"a": 1}.
    assert marker.arguments == ("2696610e7875", "2696610e7875")


def test_the_marker_tells_the_place_of_the_call() -> None:
    marker = tracker(QUESTION, place=Place("t", "writer", "team", within="branch")).end().marker
    assert (marker.thread, marker.node) == ("t", "writer")
    assert (marker.agent, marker.within) == ("team", "branch")


def test_the_marker_tells_the_texts_that_the_agent_was_told() -> None:
    marker = (
        tracker(
            HistoryMessage("system", "Be brief."), QUESTION, standing="Call one tool at a time."
        )
        .end()
        .marker
    )
    assert (marker.system, marker.standing) == (BRIEF, ONE_BY_ONE)


def test_a_call_that_brought_results_alone_told_the_agent_nothing_else() -> None:
    asked = asking([QUESTION], CALL, system="told-before", standing="told-once")
    made = tracker(HistoryMessage("system", "Be brief."), QUESTION, asked, result("3"))
    assert made.system == BRIEF
    made.told_nothing()
    marker = made.end().marker
    assert (marker.system, marker.standing) == ("told-before", "told-once")


def test_settings_of_the_conversation_last_until_others_are_given() -> None:
    history = [QUESTION, answer("First.", [QUESTION], settings="before"), user("two")]
    assert tracker(*history).end().marker.settings == "before"
    # The digest of {"temperature": 0.5}.
    changed = tracker(*history, settings={"temperature": 0.5}).end().marker.settings
    assert changed == "aa6bbd45ab76"


def test_an_answer_is_known_by_its_id_where_a_framework_drops_its_marker() -> None:
    made = tracker(user("one", id="message-of-this-test-alone"))
    marker = ending(made, SAID).marker
    assert known_answers.find(AGENT, [made.id]) == marker
