"""The history rule, without any I/O."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from letta_adapters import Allow, Deny, InvalidInputError
from letta_adapters.chat import Entry, Marker
from letta_adapters.chat.history import KEPT, call_key, inputs_of, make_plan
from letta_adapters.chat.messages import as_messages, as_text
from letta_adapters.chat.payload import answers_to, as_message, as_request
from letta_adapters.engine.otids import of_call, sent_as
from letta_adapters.messages import PendingToolCall

AGENT = "agent-1"
CALL = PendingToolCall("call-1", "add", '{"a": 1}')


def user(text: str, **fields: Any) -> Entry:
    return Entry("user", text, **fields)


def answered(text: str, before: list[Entry], previous: Marker | None = None) -> Entry:
    """The agent's answer to what stands between it and its previous answer."""
    inputs, earlier = inputs_of(before)
    key = previous.key if previous else None
    marker = Marker("rest", AGENT, "conv-1", (f"otid of {text}",), inputs, earlier, key)
    return Entry("assistant", text, marker=marker)


def two_turns() -> list[Entry]:
    one, two = user("one"), user("two")
    first = answered("First.", [one])
    second = answered("Second.", [two], first.marker)
    return [one, first, two, second]


def test_what_follows_the_newest_answer_is_new() -> None:
    history = [*two_turns(), user("three")]
    plan = make_plan(history, AGENT)
    assert plan.mismatch == ""
    assert plan.marker == history[3].marker
    assert [entry.text for entry in plan.new] == ["three"]


@pytest.mark.parametrize("dropped", [1, 2, 3])
def test_a_history_may_be_trimmed_at_its_front(dropped: int) -> None:
    assert make_plan([*two_turns()[dropped:], user("three")], AGENT).mismatch == ""


@pytest.mark.parametrize("changed", [0, 2])
def test_an_edit_is_noticed_wherever_it_is(changed: int) -> None:
    history = [*two_turns(), user("three")]
    history[changed] = user("something else")
    assert "no longer what it was" in make_plan(history, AGENT).mismatch


def test_a_message_put_in_between_is_noticed() -> None:
    one, first, two, second = two_turns()
    plan = make_plan([user("zero"), one, first, two, second, user("three")], AGENT)
    assert "not given" in plan.mismatch
    plan = make_plan([one, first, user("extra"), two, second, user("three")], AGENT)
    assert "not given" in plan.mismatch


def test_system_messages_take_no_part() -> None:
    history = [Entry("system", "Today is Monday."), *two_turns(), user("three")]
    plan = make_plan(history, AGENT)
    assert (plan.mismatch, plan.system) == ("", "Today is Monday.")


def test_answers_of_other_agents_are_no_markers() -> None:
    plan = make_plan([*two_turns(), user("three")], "agent-2")
    assert plan.marker is None
    assert len(plan.whole) == 5
    assert [entry.text for entry in plan.last_turn] == ["three"]


def test_an_empty_history_is_no_call() -> None:
    with pytest.raises(InvalidInputError):
        make_plan([], AGENT)


def test_calls_without_their_results_are_no_end_of_a_history() -> None:
    asked = replace(answered("", [user("one")]), tool_calls=(CALL,))
    assert asked.marker is not None
    waiting = replace(asked, marker=replace(asked.marker, pending=(("call-1", "add"),)))
    with pytest.raises(InvalidInputError, match="results"):
        make_plan([user("one"), waiting], AGENT)


def test_a_history_need_not_end_with_a_user() -> None:
    plan = make_plan(two_turns(), AGENT)
    assert (plan.mismatch, plan.new) == ("", ())
    assert plan.marker is not None
    plan = make_plan([Entry("system", "x")], AGENT)
    assert (plan.whole, plan.system) == ((), "x")
    plan = make_plan([*two_turns(), Entry("assistant", "Somebody else's.")], AGENT)
    assert [entry.text for entry in plan.new] == ["Somebody else's."]


def test_a_long_history_is_kept_in_part() -> None:
    many = [user(str(n)) for n in range(KEPT + 10)]
    answer = answered("Ok.", many)
    assert answer.marker is not None
    assert len(answer.marker.inputs) == KEPT
    assert answer.marker.earlier
    assert make_plan([*many, answer, user("more")], AGENT).mismatch == ""


def test_a_marker_is_json_both_ways() -> None:
    marker = Marker("rest", AGENT, "conv-1", ("a", "b"), ("x",), True, "k", "run-1", (("c", "t"),))
    assert Marker.from_dict(json.loads(json.dumps(marker.to_dict()))) == marker


@pytest.mark.parametrize(
    "value", [None, "x", {}, {"v": 0}, {"v": 1}, {"v": 1, "agent_id": 3}, {"v": 1, "pending": [1]}]
)
def test_what_is_no_marker(value: Any) -> None:
    assert Marker.from_dict(value) is None


def test_a_repeated_call_has_the_same_key() -> None:
    assert call_key([user("x", id="1")], ()) == call_key([user("x", id="1")], ())
    assert call_key([user("x", id="1")], ()) != call_key([user("y", id="1")], ())
    assert call_key([user("x", id="1")], ("a",)) != call_key([user("x", id="1")], ("b",))
    assert call_key([user("x")], ()) is None
    assert call_key([Entry("tool", "3", tool_call_id="call-1")], ()) is not None


# -- what is sent -------------------------------------------------------------------------------


def test_answers_to_pending_calls() -> None:
    own = Entry("tool", "3", tool_call_id="call-1")
    (answer,) = answers_to([CALL], [own], ["add"])
    assert (answer.returned, answer.is_error, answer.approve) == ("3", False, False)
    (answer,) = answers_to([CALL], [], ["add"])
    assert answer.is_error
    (answer,) = answers_to([CALL], [], [])
    assert (answer.returned, answer.approve) == (None, False)
    (answer,) = answers_to([CALL], [own], [])
    assert (answer.reason, answer.approve) == ("3", False)
    for decision, approve in ((Allow({"a": 2}), True), (Deny("No."), False)):
        entry = Entry("tool", tool_call_id="call-1", decision=decision)
        (answer,) = answers_to([CALL], [entry], [])
        assert answer.approve is approve
    parts = Entry("tool", [{"type": "text", "text": "3"}], tool_call_id="call-1")
    (answer,) = answers_to([CALL], [parts], ["add"])
    assert answer.returned == [{"type": "text", "text": "3"}]


HISTORY = [
    user("Add.", name="ann"),
    Entry("assistant", "I add.", tool_calls=(CALL,)),
    Entry("tool", "3", tool_call_id="call-1"),
    Entry("assistant", "It is 3."),
    user("Thanks."),
]


def test_for_the_letta_api() -> None:
    request = as_request(HISTORY, "Be brief.")
    assert request.content == "Thanks."
    roles = [message["role"] for message in request.history]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert "call-1" in request.history[3]["content"]
    alone = as_request(HISTORY[2:3], "")
    assert "Result of the tool call call-1: 3" in str(alone.content)
    answers = answers_to([CALL], HISTORY[2:3], ["add"])
    assert as_request(HISTORY[2:3], "", answers).content is None


def test_for_an_app_server() -> None:
    assert as_message([user("Hello.")], "").content == "Hello."
    content = as_message(HISTORY, "Be brief.").content
    assert isinstance(content, list)
    texts = [part["text"] for part in content]
    assert texts[0] == "<instructions>\nBe brief.\n</instructions>"
    assert "User (ann): Add." in texts[1]
    assert "Assistant called the tool add (call-1)" in texts[1]
    assert texts[2] == "Thanks."
    results = as_message(HISTORY[2:3], "").content
    assert results == [{"type": "text", "text": "Result of the tool call call-1: 3"}]


def test_a_note_goes_last() -> None:
    content = as_message([user("Hello.")], "").noting("Hurry.").content
    assert isinstance(content, list)
    assert [part["text"] for part in content] == [
        "Hello.",
        "<instructions>\nHurry.\n</instructions>",
    ]


def test_images_go_along() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://letta.test/x.png"}}
    entry = user([{"type": "text", "text": "Look."}, image])
    content = as_message([entry, Entry("assistant", "A dot."), user("And?")], "").content
    assert isinstance(content, list)
    assert image in content
    assert as_messages([entry])[0]["content"] == [{"type": "text", "text": "Look."}, image]
    assert as_text([entry]) == "User: Look."


def test_a_call_has_another_name_in_every_conversation() -> None:
    # A Letta API with Redis answers a second request of one name with the first's run.
    key = call_key([user("x", id="1")], ())
    assert key is not None
    places = [("agent-1", "conv-1"), ("agent-1", "conv-2"), ("agent-2", "conv-1")]
    names = {sent_as(key, *place) for place in places}
    assert len(names) == 3
    assert all(len(name) == len(key) == 36 for name in names)
    assert {of_call(name) for name in names} == {of_call(key)}
    assert of_call("message-1") == "message-1"
    assert sent_as(key, *places[0]) == sent_as(key, "agent-1", "conv-1")
