"""A marker goes into a stored history and comes back, also from an earlier version's history."""

from __future__ import annotations

import json
from typing import Any

import pytest

from letta_adapters.chat import HistoryMessage, Marker
from letta_adapters.chat.history import split_history
from letta_adapters.messages import PendingToolCall
from tests.chat.builders import AGENT, marked, result, user

# As it stands in histories that applications have stored: not to be changed with the code.
TODAY = """
{"v": 1, "backend": "rest", "agent_id": "agent-1", "conversation_id": "conv-1", "head": ["call-1"],
 "inputs": ["234698c54981"], "earlier": false, "previous": null, "run_id": "run-1",
 "pending": [["call-1", "weather"]], "questions": [], "system": "b1cc2ec6cf9f", "settings": null,
 "arguments": ["f7b422dd4c7c"], "standing": "a839a4c77b16", "thread": "thread-1", "node": "model",
 "agent": "", "within": ""}
"""
# Before markers told the place of a call, its questions, its arguments and its instructions.
FIRST_FORM = """
{"v": 1, "backend": "rest", "agent_id": "agent-1", "conversation_id": "conv-1", "head": ["call-1"],
 "inputs": ["234698c54981"], "earlier": false, "previous": null, "run_id": "run-1",
 "pending": [["call-1", "weather"]], "system": "b1cc2ec6cf9f", "settings": null}
"""
# Between the two: with the questions, without the place.
SECOND_FORM = """
{"v": 1, "backend": "rest", "agent_id": "agent-1", "conversation_id": "conv-1", "head": ["call-1"],
 "inputs": ["234698c54981"], "earlier": false, "previous": null, "run_id": "run-1",
 "pending": [["call-1", "weather"]], "questions": ["call-1"], "system": "b1cc2ec6cf9f",
 "settings": null}
"""
FORMS = pytest.mark.parametrize("stored", [TODAY, FIRST_FORM, SECOND_FORM])


def stored_history(
    stored: str, asked: str = "What is the weather in Bern?"
) -> list[HistoryMessage]:
    weather = PendingToolCall("call-1", "weather", '{"city":"Bern"}')
    marker = Marker.from_dict(json.loads(stored))
    return [
        HistoryMessage("system", "Be brief."),
        user(asked),
        HistoryMessage("assistant", "", marker=marker, tool_calls=(weather,)),
        result("Sunny."),
    ]


@FORMS
def test_a_stored_history_goes_on_where_it_was(stored: str) -> None:
    plan = split_history(stored_history(stored), AGENT)
    assert plan.mismatch == ""
    assert plan.marker is not None
    assert plan.marker.conversation_id == "conv-1"
    assert plan.marker.pending == (("call-1", "weather"),)
    assert [(entry.role, entry.text) for entry in plan.new] == [("tool", "Sunny.")]
    assert plan.edited == {}


@FORMS
def test_a_stored_history_that_was_edited_is_noticed(stored: str) -> None:
    plan = split_history(stored_history(stored, "What is the weather in Basel?"), AGENT)
    assert plan.mismatch == "a message that the agent has answered is no longer what it was"


def test_a_marker_of_today_is_stored_as_it_was_read() -> None:
    marker = Marker.from_dict(json.loads(TODAY))
    assert marker is not None
    assert marker.to_dict() == json.loads(TODAY)


def test_a_marker_of_the_first_form_does_not_know_what_it_does_not_tell() -> None:
    marker = Marker.from_dict(json.loads(FIRST_FORM))
    assert marker is not None
    assert marker.questions is None
    assert (marker.arguments, marker.standing) == ((), None)
    assert (marker.thread, marker.node, marker.agent, marker.within) == (None, "", "", "")


def test_fields_of_a_later_version_are_passed_over() -> None:
    marker = Marker.from_dict({**json.loads(TODAY), "mood": "good"})
    assert marker == Marker.from_dict(json.loads(TODAY))
    assert marker is not None


def test_a_marker_is_json_both_ways() -> None:
    marker = Marker("rest", AGENT, "conv-1", ("a", "b"), ("x",), True, "k", "run-1", (("c", "t"),))
    assert Marker.from_dict(json.loads(json.dumps(marker.to_dict()))) == marker


@pytest.mark.parametrize(
    "value", [None, "x", {}, {"v": 0}, {"v": 1}, {"v": 1, "agent_id": 3}, {"v": 1, "pending": [1]}]
)
def test_what_is_no_marker(value: Any) -> None:
    assert Marker.from_dict(value) is None


@pytest.mark.parametrize(
    "forged",
    [
        {"v": 2},
        {"conversation_id": "../../v1/agents"},
        {"conversation_id": ""},
        {"conversation_id": None},
        {"agent_id": "agent-1/../agent-2"},
        {"agent_id": 7},
        {"head": "call-1"},
        {"inputs": None},
        {"arguments": {"a": 1}},
        {"pending": [["call-1"]]},
        {"pending": 7},
        {"node": None},
        {"within": ["x"]},
        {"head": [5]},
        {"head": [{"a": 1}]},
        {"questions": 5},
        {"questions": 0},
        {"questions": [{}]},
        {"run_id": {"a": 1}},
        {"thread": ["t"]},
        {"system": 5},
        {"backend": None},
        {"earlier": "no"},
    ],
)
def test_a_forged_marker_is_no_marker(forged: dict[str, Any]) -> None:
    assert Marker.from_dict({**json.loads(TODAY), **forged}) is None


def test_an_answer_without_an_agent_has_a_marker() -> None:
    marker = Marker.from_dict({**json.loads(TODAY), "agent_id": ""})
    assert marker is not None
    assert marker.agent_id == ""


def test_a_marker_is_named_after_its_conversation_and_its_newest_message() -> None:
    assert marked(head=("otid-7", "message-7")).key == "conv-1#otid-7"
    assert marked(head=()).key == "conv-1#"


def test_the_last_of_several_calls_stands_for_all_of_them() -> None:
    first = marked(inputs=("a",), earlier=True, previous="conv-1#otid-0", head=("otid-1",))
    last = marked(inputs=("complaint",), previous="conv-1#otid-1", head=("otid-2",), run_id="run-2")
    both = last.as_span(first)
    assert (both.inputs, both.earlier, both.previous) == (("a",), True, "conv-1#otid-0")
    assert (both.head, both.run_id) == (("otid-2",), "run-2")
