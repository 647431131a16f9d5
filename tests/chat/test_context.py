"""What a call knows before it is sent: what the agent has to be told, and what it was told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from letta_adapters.chat import HistoryMessage
from tests.chat.builders import OTHER_TOOL, TOOL, answer, on_the_way, user

# The digests of "Be brief." and "Call one tool at a time.", as markers hold them.
BRIEF, ONE_BY_ONE = "b1cc2ec6cf9f", "a839a4c77b16"
BEGUN = [HistoryMessage("system", "Be brief."), user("one", id="message-1")]


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({}, "Be brief.\n\nCall one tool at a time."),
        ({"system": BRIEF}, "Call one tool at a time."),
        ({"system": BRIEF, "standing": ONE_BY_ONE}, ""),
        ({"system": ONE_BY_ONE, "standing": BRIEF}, "Be brief.\n\nCall one tool at a time."),
    ],
)
def test_the_agent_is_told_what_it_was_not_told_before(known: dict[str, str], told: str) -> None:
    reply = answer("First.", [user("one")], **known)
    history = [HistoryMessage("system", "Be brief."), user("one"), reply, user("two")]
    assert on_the_way(history, standing="Call one tool at a time.").instructions() == told


def test_without_a_marker_the_callers_memory_says_what_the_agent_was_told() -> None:
    context = on_the_way(BEGUN)
    assert context.instructions() == "Be brief."
    assert context.instructions((BRIEF, None)) == ""


def test_a_fresh_conversation_without_an_agent_has_the_text_as_its_system_prompt() -> None:
    context = on_the_way(BEGUN, agent_free=True)
    assert context.instructions() == ""
    assert context.take(replace(context.route, fresh=False)).instructions() == "Be brief."


def test_settings_are_those_of_the_conversation_if_its_marker_names_them() -> None:
    # The digest of {"temperature": 0.5}.
    reply = answer("First.", [user("one")], settings="aa6bbd45ab76")
    history = [user("one"), reply, user("two")]
    assert on_the_way(history, settings={"temperature": 0.5}).has_settings
    assert not on_the_way(history, settings={"temperature": 0.7}).has_settings
    assert not on_the_way(BEGUN, settings={"temperature": 0.5}).has_settings


def test_the_callers_tools_are_known_by_their_names() -> None:
    assert on_the_way(BEGUN, tools=[TOOL, OTHER_TOOL]).own_tools == {"add", "find"}


def test_another_route_changes_nothing_else() -> None:
    context = on_the_way(BEGUN)
    lost = context.take(context.route.going_on())
    assert lost.route.lost
    assert replace(lost, route=context.route) == context
