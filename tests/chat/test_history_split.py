"""The history rule, without any I/O."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from letta_adapters import InvalidInputError
from letta_adapters.chat import HistoryMessage, Marker
from letta_adapters.chat.history import (
    KEPT,
    digest_inputs,
    encode_call,
    make_call_key,
    split_history,
)
from letta_adapters.chat.request import Place
from letta_adapters.engine.otids import get_call_part, make_otid
from letta_adapters.messages import PendingToolCall
from tests.chat.builders import AGENT, CALL, answer, asking, marked, result, user


def answered(
    text: str, before: list[HistoryMessage], previous: Marker | None = None
) -> HistoryMessage:
    """The agent's answer to what stands between it and its previous answer."""
    inputs, earlier = digest_inputs(before)
    key = previous.key if previous else None
    marker = Marker("rest", AGENT, "conv-1", (f"otid of {text}",), inputs, earlier, key)
    return HistoryMessage("assistant", text, marker=marker)


def two_turns() -> list[HistoryMessage]:
    one, two = user("one"), user("two")
    first = answered("First.", [one])
    second = answered("Second.", [two], first.marker)
    return [one, first, two, second]


def test_what_follows_the_newest_answer_is_new() -> None:
    history = [*two_turns(), user("three")]
    plan = split_history(history, AGENT)
    assert plan.mismatch == ""
    assert plan.marker == history[3].marker
    assert [entry.text for entry in plan.new] == ["three"]


@pytest.mark.parametrize("dropped", [1, 2, 3])
def test_a_history_may_be_trimmed_at_its_front(dropped: int) -> None:
    assert split_history([*two_turns()[dropped:], user("three")], AGENT).mismatch == ""


@pytest.mark.parametrize("changed", [0, 2])
def test_an_edit_is_noticed_wherever_it_is(changed: int) -> None:
    history = [*two_turns(), user("three")]
    history[changed] = user("something else")
    assert "no longer what it was" in split_history(history, AGENT).mismatch


def test_a_message_put_in_between_is_noticed() -> None:
    one, first, two, second = two_turns()
    plan = split_history([user("zero"), one, first, two, second, user("three")], AGENT)
    assert "not given" in plan.mismatch
    plan = split_history([one, first, user("extra"), two, second, user("three")], AGENT)
    assert "not given" in plan.mismatch


def test_system_messages_take_no_part() -> None:
    history = [HistoryMessage("system", "Today is Monday."), *two_turns(), user("three")]
    plan = split_history(history, AGENT)
    assert (plan.mismatch, plan.system) == ("", "Today is Monday.")


def test_answers_of_other_agents_are_no_markers() -> None:
    plan = split_history([*two_turns(), user("three")], "agent-2")
    assert plan.marker is None
    assert len(plan.whole) == 5
    assert [entry.text for entry in plan.last_turn] == ["three"]


def test_an_empty_history_is_no_call() -> None:
    with pytest.raises(InvalidInputError):
        split_history([], AGENT)


def test_calls_without_their_results_are_no_end_of_a_history() -> None:
    asked = replace(answered("", [user("one")]), tool_calls=(CALL,))
    assert asked.marker is not None
    waiting = replace(asked, marker=replace(asked.marker, pending=(("call-1", "add"),)))
    with pytest.raises(InvalidInputError, match="results"):
        split_history([user("one"), waiting], AGENT)


def test_a_history_need_not_end_with_a_user() -> None:
    plan = split_history(two_turns(), AGENT)
    assert (plan.mismatch, plan.new) == ("", ())
    assert plan.marker is not None
    plan = split_history([HistoryMessage("system", "x")], AGENT)
    assert (plan.whole, plan.system) == ((), "x")
    plan = split_history([*two_turns(), HistoryMessage("assistant", "Somebody else's.")], AGENT)
    assert [entry.text for entry in plan.new] == ["Somebody else's."]


def test_a_long_history_is_kept_in_part() -> None:
    many = [user(str(n)) for n in range(KEPT + 10)]
    answer = answered("Ok.", many)
    assert answer.marker is not None
    assert len(answer.marker.inputs) == KEPT
    assert answer.marker.earlier
    assert split_history([*many, answer, user("more")], AGENT).mismatch == ""


def test_a_repeated_call_has_the_same_key() -> None:
    assert make_call_key([user("x", id="1")], ()) == make_call_key([user("x", id="1")], ())
    assert make_call_key([user("x", id="1")], ()) != make_call_key([user("y", id="1")], ())
    assert make_call_key([user("x", id="1")], ("a",)) != make_call_key([user("x", id="1")], ("b",))
    assert make_call_key([user("x")], ()) is None
    assert make_call_key([HistoryMessage("tool", "3", tool_call_id="call-1")], ()) is not None


def test_a_call_has_another_name_in_every_conversation() -> None:
    # A Letta API with Redis answers a second request of one name with the first's run.
    key = make_call_key([user("x", id="1")], ())
    assert key is not None
    places = [("agent-1", "conv-1"), ("agent-1", "conv-2"), ("agent-2", "conv-1")]
    names = {make_otid(key, *place) for place in places}
    assert len(names) == 3
    assert all(len(name) == len(key) == 36 for name in names)
    assert {get_call_part(name) for name in names} == {get_call_part(key)}
    assert get_call_part("message-1") == "message-1"
    assert make_otid(key, *places[0]) == make_otid(key, "agent-1", "conv-1")


# -- whose answers count ------------------------------------------------------------------------


def test_an_answer_of_another_agent_in_between_belongs_to_the_new_messages() -> None:
    foreign = HistoryMessage("assistant", "Theirs.", marker=replace(marked(), agent_id="agent-2"))
    plan = split_history([*two_turns(), user("three"), foreign, user("four")], AGENT)
    assert plan.mismatch == ""
    assert [entry.text for entry in plan.new] == ["three", "Theirs.", "four"]
    assert [entry.text for entry in plan.last_turn] == ["four"]


def test_an_answer_given_at_another_node_does_not_count_at_this_one() -> None:
    one, two = user("one"), user("two")
    here = answer("Here.", [one], node="writer", thread="t")
    there = answer("There.", [two], node="critic", thread="t", head=("otid-2",))
    plan = split_history([one, here, two, there, user("three")], AGENT, Place("t", "writer"))
    assert plan.marker == here.marker
    assert [entry.text for entry in plan.new] == ["two", "There.", "three"]


def test_an_answer_given_in_another_thread_does_not_count_in_this_one() -> None:
    before = answer("There.", [user("one")], node="writer", thread="t-1")
    plan = split_history([user("one"), before, user("two")], AGENT, Place("t-2", "writer"))
    assert plan.marker is None
    assert [entry.text for entry in plan.new] == ["one", "There.", "two"]


def test_an_answer_that_does_not_tell_its_place_counts_at_every_one() -> None:
    silent = answer("Somewhere.", [user("one")])
    plan = split_history([user("one"), silent, user("two")], AGENT, Place("t", "writer"))
    assert plan.marker == silent.marker


def test_an_answer_that_does_not_tell_its_place_is_not_taken_over_one_of_another_place() -> None:
    one, two = user("one"), user("two")
    silent = answer("Somewhere.", [one])
    there = answer("There.", [two], node="critic", thread="t", head=("otid-2",))
    plan = split_history([one, silent, two, there, user("three")], AGENT, Place("t", "writer"))
    assert plan.marker is None


def test_outside_of_graphs_every_answer_of_the_agent_counts() -> None:
    before = answer("From a graph.", [user("one")], node="writer", thread="t")
    assert (
        split_history([user("one"), before, user("two")], AGENT, Place("t")).marker == before.marker
    )


# -- what does not fit --------------------------------------------------------------------------


def test_an_answer_taken_out_of_the_middle_is_noticed() -> None:
    one, _, two, second = two_turns()
    plan = split_history([one, two, second, user("three")], AGENT)
    assert plan.mismatch == "there are messages before the agent's answer that it was not given"


def test_an_answer_whose_question_was_taken_out_is_noticed() -> None:
    one, first, _, second = two_turns()
    assert split_history([one, first, second, user("three")], AGENT).mismatch == (
        "a message that the agent has answered is no longer what it was"
    )


def test_answers_in_another_order_are_noticed() -> None:
    one, first, two, second = two_turns()
    assert split_history([two, second, one, first, user("three")], AGENT).mismatch != ""


def test_two_answers_of_different_conversations_do_not_fit_together() -> None:
    one, two = user("one"), user("two")
    first = answer("First.", [one], conversation_id="conv-1")
    second = answer("Second.", [two], conversation_id="conv-2", previous="conv-2#otid-0")
    assert "not given" in split_history([one, first, two, second, user("three")], AGENT).mismatch


def test_an_edited_answer_of_the_agents_own_still_fits() -> None:
    # The application may shorten what it shows; the agent remembers its own words.
    one, first, two, second = two_turns()
    history = [one, replace(first, content="F."), two, second, user("three")]
    assert split_history(history, AGENT).mismatch == ""


def test_an_edit_after_the_newest_answer_is_just_new() -> None:
    plan = split_history([*two_turns(), user("three, edited")], AGENT)
    assert (plan.mismatch, [entry.text for entry in plan.new]) == ("", ["three, edited"])


def test_a_history_that_says_it_was_summed_up_fits() -> None:
    _, _, two, second = two_turns()
    summary = user("They talked about one.", summary=True)
    assert split_history([summary, two, second, user("three")], AGENT).mismatch == ""


def test_a_summary_may_stand_for_a_part_of_what_an_answer_was_given_to() -> None:
    reply = answer("First.", [user("one"), user("two")])
    summary = user("They talked about one.", summary=True)
    assert split_history([summary, user("two"), reply, user("x")], AGENT).mismatch == ""


def test_ids_and_names_of_messages_may_change() -> None:
    one, first, two, second = two_turns()
    history = [replace(one, id="other", name="ann"), first, two, second, user("three")]
    assert split_history(history, AGENT).mismatch == ""


def test_a_message_that_was_decorated_for_the_agent_is_compared_as_it_is_stored() -> None:
    stored = user("one")
    decorated = user("Remember: blue.\none", kept=stored.digest())
    reply = answer("First.", [decorated])
    assert split_history([stored, reply, user("two")], AGENT).mismatch == ""


def test_what_came_before_the_kept_digests_is_not_compared() -> None:
    late = answer("Ok.", [user("late")], earlier=True)
    assert split_history([user("anything"), user("late"), late, user("x")], AGENT).mismatch == ""


# -- tool calls ---------------------------------------------------------------------------------


def test_results_of_the_agents_calls_are_new() -> None:
    plan = split_history([user("one"), asking([user("one")]), result("3")], AGENT)
    assert plan.mismatch == ""
    assert [(entry.role, entry.text) for entry in plan.new] == [("tool", "3")]
    assert [entry.text for entry in plan.last_turn] == ["3"]


def test_a_call_that_the_application_changed_is_told_with_its_new_arguments() -> None:
    # The digest of {"a": 1}, which the agent wrote.
    asked = asking([user("one")], arguments=("2696610e7875",))
    changed = replace(asked, tool_calls=(PendingToolCall("call-1", "add", '{"a": 2}'),))
    assert split_history([user("one"), asked, result("3")], AGENT).edited == {}
    plan = split_history([user("one"), changed, result("3")], AGENT)
    assert plan.edited == {"call-1": '{"a": 2}'}


def test_a_call_whose_json_is_only_written_otherwise_is_not_changed() -> None:
    asked = asking([user("one")], arguments=("2696610e7875",))
    spaced = replace(asked, tool_calls=(PendingToolCall("call-1", "add", '{ "a":1 }'),))
    assert split_history([user("one"), spaced, result("3")], AGENT).edited == {}


# -- the last turn ------------------------------------------------------------------------------


def test_the_last_turn_is_what_follows_anybodys_newest_answer() -> None:
    history = [user("one"), HistoryMessage("assistant", "Theirs."), user("two"), user("and three")]
    plan = split_history(history, AGENT)
    assert [entry.text for entry in plan.last_turn] == ["two", "and three"]


def test_where_nothing_follows_the_last_turn_begins_with_the_last_user() -> None:
    history = [
        user("one"),
        HistoryMessage("assistant", "A."),
        user("two"),
        HistoryMessage("assistant", "B."),
    ]
    plan = split_history(history, AGENT)
    assert [entry.text for entry in plan.last_turn] == ["two", "B."]


def test_several_system_messages_become_one_text() -> None:
    history = [
        HistoryMessage("system", "A."),
        HistoryMessage("system", " "),
        user("one"),
        HistoryMessage("system", "B."),
    ]
    plan = split_history(history, AGENT)
    assert plan.system == "A.\n\nB."
    assert [entry.text for entry in plan.whole] == ["one"]


# -- the key of a call --------------------------------------------------------------------------


def test_the_key_of_a_call_stays_the_same_for_ever() -> None:
    # Conversations hold messages under these names: not to be changed with the code.
    assert make_call_key([user("Hello.", id="msg-1")], ()) == "00000000-f3b8-5f63-84d6-d9bc79bd438c"
    assert make_call_key([result("3")], ["x"]) == "00000000-6a07-56c9-9b7c-2989bf06e29a"


def test_arguments_compare_alike_in_any_order_and_broken_ones_as_they_are() -> None:
    first = encode_call("call-1", "add", {"a": 1, "b": date(2026, 1, 2)})
    assert first.raw_arguments == '{"a": 1, "b": "2026-01-02"}'
    assert encode_call("call-1", "add", {"b": date(2026, 1, 2), "a": 1}) == first
    assert encode_call(None, "add", "{broken") == PendingToolCall("", "add", "{broken")


def test_a_call_that_sends_nothing_has_no_key() -> None:
    assert make_call_key([], ("context",)) is None
