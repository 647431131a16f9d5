"""The choice of a call's conversation, and of the messages it takes there, without a look-up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from letta_adapters import HistoryMismatchError
from letta_adapters.backends.base import Conversation
from letta_adapters.chat import ChatRequest, HistoryMessage
from letta_adapters.chat.context import Route
from letta_adapters.chat.history import HistorySplit, split_history
from letta_adapters.chat.request import Place
from letta_adapters.chat.routing import choose_route, resolve_mismatch, retell
from letta_adapters.messages import PendingToolCall
from tests.chat.builders import AGENT, CONVERSATION, TOOL, answer, asking, result, user

FIRST_ID = "message-1"
NOT_GIVEN = "there are messages before the agent's answer that it was not given"


def going_on() -> list[HistoryMessage]:
    """A history that the agent has answered once, and that has one new message."""
    return [user("one"), answer("First.", [user("one")]), user("two", id="message-2")]


def begun() -> list[HistoryMessage]:
    """A history that no agent has answered."""
    return [HistoryMessage("system", "Be brief."), user("one", id=FIRST_ID)]


def unfitting() -> list[HistoryMessage]:
    return [user("zero"), user("one"), answer("First.", [user("one")]), user("two")]


def split(history: list[HistoryMessage], place: Place | None = None) -> HistorySplit:
    return split_history(history, AGENT, place)


def choose(history: list[HistoryMessage], *, first: bool = False, **fields: Any) -> Route:
    call = ChatRequest(entries=history, agent_id=AGENT, **fields)
    return choose_route(call, split(history, call.place), AGENT, first=first)


def sent(route: Route) -> list[str]:
    return [entry.text for entry in route.send]


# -- by the marker ------------------------------------------------------------------------------


def test_a_history_with_a_marker_goes_on_in_its_conversation_with_what_is_new() -> None:
    route = choose(going_on())
    assert route.conversation == CONVERSATION
    assert sent(route) == ["two"]
    assert (route.named, route.forced, route.fresh, route.lost) == (False, False, False, False)
    assert (route.name, route.repeated, route.forked) == ("", False, "")


def test_a_history_without_a_marker_is_told_whole_in_a_conversation_of_its_own() -> None:
    route = choose(begun())
    assert (route.conversation, route.name) == (None, "")
    assert sent(route) == ["one"]
    assert route.marker is None


def test_only_a_conversation_of_its_own_is_looked_for_among_earlier_attempts() -> None:
    assert choose(begun()).repeated
    assert not choose(unfitting()).repeated
    assert not choose(begun(), conversation_id="conv-9").repeated


def test_a_conversation_that_an_earlier_attempt_made_is_used() -> None:
    assert choose(begun(), begun="conv-5").conversation == Conversation(AGENT, "conv-5")


def test_an_ephemeral_call_leaves_the_marker_alone() -> None:
    route = choose(going_on(), ephemeral=True)
    assert route.conversation is None
    assert sent(route) == ["one", "First.", "two"]


def test_an_ephemeral_call_goes_back_to_the_conversation_that_waits_for_its_results() -> None:
    history = [user("one"), asking([user("one")]), result("3")]
    route = choose(history, ephemeral=True)
    assert route.conversation == CONVERSATION
    assert sent(route) == ["3"]
    assert route.result_ids == {"call-1"}


# -- a history that does not fit ----------------------------------------------------------------


def test_a_history_that_does_not_fit_forks() -> None:
    route = choose(unfitting())
    assert (route.conversation, route.marker) == (None, None)
    assert sent(route) == ["zero", "one", "First.", "two"]
    assert route.forked == NOT_GIVEN


def test_a_history_that_does_not_fit_may_be_continued() -> None:
    route = choose(unfitting(), on_mismatch="continue")
    assert route.conversation == CONVERSATION
    assert sent(route) == ["two"]
    assert route.forced
    assert route.forked == NOT_GIVEN


def test_a_history_that_does_not_fit_may_be_refused() -> None:
    with pytest.raises(HistoryMismatchError, match="that it was not given"):
        choose(unfitting(), on_mismatch="error")


def test_an_occupied_conversation_cannot_be_continued() -> None:
    history = going_on()
    call = ChatRequest(entries=history, on_mismatch="continue")
    route = resolve_mismatch(call, split(history), "busy", occupied=True)
    assert (route.conversation, route.forked) == (None, "busy")
    assert sent(route) == ["one", "First.", "two"]


def test_a_fork_has_another_key_than_the_call_it_replaces() -> None:
    history = begun()
    call = ChatRequest(entries=history)
    fork = retell(call, split(history))
    assert fork.key is not None
    assert fork.key != choose(history).key


# -- by the application's word ------------------------------------------------------------------


def test_a_named_conversation_wins_over_the_marker() -> None:
    route = choose(going_on(), conversation_id="conv-9")
    assert route.conversation == Conversation(AGENT, "conv-9")
    assert (route.named, route.forced) == (True, True)
    # The marker is of another conversation, so nothing of its calls or texts holds there.
    assert route.marker is None
    assert sent(route) == ["two"]


def test_a_named_conversation_is_given_the_last_turn_only() -> None:
    history = [user("one"), HistoryMessage("assistant", "Somebody else's."), user("two")]
    assert sent(choose(history, conversation_id="conv-9")) == ["two"]


def test_the_marker_of_the_named_conversation_itself_is_kept() -> None:
    route = choose(going_on(), conversation_id="conv-1")
    assert route.marker == going_on()[1].marker
    assert sent(route) == ["two"]


def test_a_named_conversation_is_not_forked_by_a_history_that_does_not_fit() -> None:
    route = choose(unfitting(), conversation_id="conv-1", on_mismatch="error")
    assert (route.conversation, route.forked) == (CONVERSATION, "")


def test_a_named_conversation_that_holds_it_all_is_only_asked_for_the_answer() -> None:
    route = choose([user("one", known=True)], conversation_id="conv-9")
    assert (route.send, route.lost, route.forced) == ((), True, True)


def test_a_thread_has_a_conversation_of_its_name() -> None:
    route = choose(begun(), thread_id="t")
    assert (route.name, route.named, route.conversation) == ("thread:t", True, None)
    assert sent(route) == ["one"]


def test_a_thread_that_exists_is_given_the_last_turn_only() -> None:
    history = [user("one"), HistoryMessage("assistant", "Somebody else's."), user("two")]
    assert sent(choose(history, thread_id="t")) == ["two"]


def test_a_thread_is_not_told_the_summary_of_what_it_holds() -> None:
    history = [user("They talked.", summary=True), user("two")]
    assert sent(choose(history, thread_id="t")) == ["two"]
    assert sent(choose(history[:1], thread_id="t")) == ["They talked."]


def test_the_marker_wins_over_the_thread() -> None:
    route = choose(going_on(), thread_id="t")
    assert (route.conversation, route.name) == (CONVERSATION, "")


def test_an_ephemeral_call_has_no_thread() -> None:
    route = choose(begun(), thread_id="t", ephemeral=True)
    assert (route.conversation, route.name) == (None, "")


# -- by the place -------------------------------------------------------------------------------


def test_a_thread_of_the_framework_outside_of_graphs_has_one_conversation() -> None:
    route = choose(begun(), place=Place("t"))
    assert (route.name, route.named) == ("thread:t", False)


def test_the_first_call_of_a_nodes_task_has_the_nodes_conversation() -> None:
    assert choose(begun(), place=Place("t", "writer"), first=True).name == "thread:t/writer"


def test_a_further_call_of_a_nodes_task_has_a_conversation_of_its_own() -> None:
    assert choose(begun(), place=Place("t", "writer")).name == ""


def test_a_place_that_keeps_no_history_has_no_conversation() -> None:
    assert choose(begun(), place=Place("t", "writer", keeps=False), first=True).name == ""
    assert choose(begun(), place=Place("t", keeps=False)).name == ""


@pytest.mark.parametrize(
    ("scope", "name", "named"),
    [
        ("thread", "thread:t", True),
        ("node", "thread:t/writer", False),
        ("fresh", "", False),
    ],
)
def test_the_application_may_say_what_a_conversation_belongs_to(
    scope: Any, name: str, named: bool
) -> None:
    route = choose(begun(), place=Place("t", "writer"), scope=scope)
    assert (route.name, route.named) == (name, named)


def test_a_slash_in_a_threads_name_does_not_make_it_another_threads_node() -> None:
    assert choose(begun(), place=Place("t/a", "b"), first=True).name == "thread:t%2Fa/b"
    assert choose(begun(), place=Place("t", "a/b"), first=True).name == "thread:t/a/b"


# -- after a failure ----------------------------------------------------------------------------


def test_messages_that_the_conversation_holds_already_are_not_sent_again() -> None:
    history = [*going_on()[:2], user("two", known=True), user("three")]
    route = choose(history)
    assert route.conversation == CONVERSATION
    assert sent(route) == ["three"]
    assert (route.forced, route.lost) == (True, False)


def test_where_all_is_stored_the_agent_is_only_asked_to_go_on() -> None:
    route = choose([*going_on()[:2], user("two", known=True)])
    assert (route.send, route.lost, route.key) == ((), True, None)
    assert route.waiting == []


def test_results_that_are_stored_answer_their_calls() -> None:
    history = [user("one"), asking([user("one")]), result("3", known=True), user("And?")]
    route = choose(history)
    assert sent(route) == ["And?"]
    assert route.waiting == []


def test_stored_messages_of_a_history_that_does_not_fit_do_not_hold_the_fork_up() -> None:
    route = choose([*unfitting()[:3], user("two", known=True)])
    assert (route.conversation, route.forked) == (None, NOT_GIVEN)


# -- the key ------------------------------------------------------------------------------------


def test_the_same_call_again_has_the_same_key() -> None:
    assert choose(begun()).key == choose(begun()).key is not None
    assert choose(going_on()).key == choose(going_on()).key is not None


@pytest.mark.parametrize(
    "other",
    [
        {"tools": [TOOL]},
        {"note": "Hurry."},
        {"thread_id": "t"},
        {"place": Place(None, "writer")},
    ],
)
def test_a_call_that_differs_has_another_key(other: dict[str, Any]) -> None:
    assert choose(begun(), **other).key not in (None, choose(begun()).key)


def test_another_system_text_makes_another_call() -> None:
    other = [HistoryMessage("system", "Be long."), user("one", id=FIRST_ID)]
    assert choose(other).key not in (None, choose(begun()).key)


def test_a_call_whose_message_has_no_id_has_no_key() -> None:
    # Two equal questions may be meant as two.
    assert choose([user("one")]).key is None


def test_two_calls_to_go_on_after_different_answers_have_different_keys() -> None:
    def key(head: str) -> str | None:
        reply = answer("First.", [user("one")], head=(head,))
        return choose([user("one", id="1"), replace(reply, id="2")]).key

    assert key("otid-1") == key("otid-1") is not None
    assert key("otid-1") != key("otid-2")


# -- what a route tells -------------------------------------------------------------------------


def test_a_route_tells_the_calls_that_wait() -> None:
    history = [user("one"), asking([user("one")]), result("3")]
    assert choose(history).waiting == [PendingToolCall("call-1", "add")]
    assert choose(going_on()).waiting == []


def test_a_route_to_a_conversation_just_made_is_fresh() -> None:
    route = choose(begun()).at(CONVERSATION)
    assert (route.conversation, route.fresh) == (CONVERSATION, True)


def test_an_input_that_is_stored_without_an_answer_is_not_sent_under_its_key() -> None:
    route = choose(begun())
    again = route.going_on()
    assert (again.lost, again.key, again.asked) == (True, None, route.key)
    assert route.key is not None
