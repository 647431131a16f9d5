"""Markers that a framework dropped are put back, by what it left of the answer."""

from __future__ import annotations

from letta_adapters.chat import HistoryMessage
from letta_adapters.chat.cache import KnownAnswers
from letta_adapters.messages import PendingToolCall
from tests.chat.builders import AGENT, marked, user

FIRST = marked(head=("otid-1",), inputs=(user("one").digest(),))


def known() -> KnownAnswers:
    answers = KnownAnswers()
    answers.put("answer-1", FIRST, "First.")
    return answers


def markers(answers: KnownAnswers, *history: HistoryMessage, agent: str = AGENT) -> list[object]:
    restored = answers.restore_markers(history, agent)
    assert [entry.text for entry in restored] == [entry.text for entry in history]
    return [entry.marker for entry in restored]


def test_an_answer_is_known_by_its_id() -> None:
    reply = HistoryMessage("assistant", "Changed since.", id="letta-answer-1")
    assert markers(known(), user("one"), reply) == [None, FIRST]


def test_an_answer_is_known_by_the_id_of_its_call() -> None:
    asked = marked(pending=(("call-1", "add"),))
    answers = KnownAnswers()
    answers.put("answer-1", asked, "")
    reply = HistoryMessage("assistant", tool_calls=(PendingToolCall("call-1", "add"),))
    assert markers(answers, user("one"), reply) == [None, asked]


def test_an_answer_is_known_by_its_text_and_the_answer_before_it() -> None:
    second = marked(head=("otid-2",), inputs=(user("two").digest(),), previous=FIRST.key)
    answers = known()
    answers.put("answer-2", second, "Second.")
    before = [user("one"), HistoryMessage("assistant", "First.", marker=FIRST)]
    said, other = HistoryMessage("assistant", "Second."), HistoryMessage("assistant", "Other.")
    assert markers(answers, *before, user("two"), said)[-1] == second
    assert markers(answers, *before, user("two"), other)[-1] is None
    # The same text after another question is another answer.
    assert markers(answers, *before, user("three"), said)[-1] is None


def test_a_text_alone_names_no_answer() -> None:
    assert markers(known(), user("one"), HistoryMessage("assistant", "First.")) == [None, None]


def test_another_agents_answer_is_not_taken_for_this_ones() -> None:
    reply = HistoryMessage("assistant", "First.", id="letta-answer-1")
    assert markers(known(), user("one"), reply, agent="agent-2") == [None, None]


def test_a_marker_that_is_there_stays() -> None:
    own = marked(head=("otid-9",))
    reply = HistoryMessage("assistant", "First.", id="letta-answer-1", marker=own)
    assert markers(known(), user("one"), reply) == [None, own]
