"""An answer is known again although a framework dropped, or edited, what it said of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    convert_to_messages,
    message_to_dict,
)

from tests.langchain.graphs.conftest import World, calls


def weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


def as_dict(message: AIMessage) -> BaseMessage:
    """What the "review tool calls" how-to puts into the state: role, calls, and the same id."""
    made = {
        "role": "assistant",
        "content": message.content,
        "tool_calls": [dict(call) for call in message.tool_calls],
        "id": message.id,
    }
    return convert_to_messages([json.loads(json.dumps(made))])[0]


def without_metadata(message: AIMessage) -> BaseMessage:
    """What a user interface keeps."""
    return AIMessage(message.content, id=message.id, tool_calls=message.tool_calls)


def without_id(message: AIMessage) -> BaseMessage:
    """What a message store for OpenAI's format keeps: the calls alone."""
    return AIMessage(message.content, tool_calls=message.tool_calls)


DROPS = [as_dict, without_metadata, without_id]


@pytest.mark.parametrize("drop", DROPS, ids=lambda drop: drop.__name__)
def test_a_result_finds_its_call_by_the_call_s_id(world: World, drop: Any) -> None:
    world.script(calls("weather", city="Rome"), "Sunny.", "Never.")
    model = world.model().bind_tools([weather])
    asked = model.invoke([HumanMessage("Rome?", id=f"u-{world.thread}")])
    (call,) = asked.tool_calls
    result = ToolMessage("sunny", tool_call_id=call["id"], id="t1")
    answer = model.invoke([HumanMessage("Rome?", id=f"u-{world.thread}"), drop(asked), result])
    assert answer.text == "Sunny."
    place = answer.response_metadata["conversation_id"]
    assert place == asked.response_metadata["conversation_id"]
    assert world.said(place) == ["Rome?"]
    assert [("sunny" in text) for text in world.results(place)] == [True]


@pytest.mark.parametrize("drop", DROPS[:2], ids=lambda drop: drop.__name__)
def test_an_answer_is_known_by_its_id(world: World, drop: Any) -> None:
    world.script("First.", "Second.")
    model = world.model()
    first = model.invoke([HumanMessage("one")])
    second = model.invoke([HumanMessage("one"), drop(first), HumanMessage("two")])
    place = second.response_metadata["conversation_id"]
    assert place == first.response_metadata["conversation_id"]
    assert world.said(place) == ["one", "two"]


def test_in_another_process_a_thread_s_results_still_find_their_calls(fake_world: World) -> None:
    """The server says which calls wait there."""
    world = fake_world
    world.script(calls("weather", city="Rome"), "Sunny.")
    model: Any = world.model().bind_tools([weather])
    asked = model.invoke([HumanMessage("Rome?", id=f"u-{world.thread}")], world.config())
    (call,) = asked.tool_calls
    world.as_another_process()
    result = ToolMessage("sunny", tool_call_id=call["id"], id="t1")
    history = [HumanMessage("Rome?", id=f"u-{world.thread}"), without_id(asked), result]
    assert model.invoke(history, world.config()).text == "Sunny."
    assert world.holds() == {"T": ["Rome?"]}
    assert world.results(world.id_of("T")) == ["sunny"]


def said_after_a_tool(world: World, drop: Any) -> list[Any]:
    """A history of a question, a call, its result and an answer, as it was kept elsewhere."""
    model = world.model().bind_tools([weather])
    question = HumanMessage("Rome?")
    asked = model.invoke([question])
    result = ToolMessage("sunny", tool_call_id=asked.tool_calls[0]["id"])
    answer = model.invoke([question, drop(asked), result])
    return [question, drop(asked), result, drop(answer)]


def test_an_answer_is_known_by_what_it_says_and_follows(world: World) -> None:
    world.script(calls("weather", city="Rome"), "Sunny.", "Twenty.", "Tomorrow too.")
    model = world.model().bind_tools([weather])
    history = said_after_a_tool(world, without_id)
    for text in ("How warm?", "And tomorrow?"):
        history += [HumanMessage(text), without_id(model.invoke([*history, HumanMessage(text)]))]
    assert [message.text for message in history[4:]] == [
        *("How warm?", "Twenty.", "And tomorrow?", "Tomorrow too.")
    ]
    (place,) = [name for name, said in world.holds().items() if said]
    assert world.holds()[place] == ["Rome?", "How warm?", "And tomorrow?"]


def test_another_answer_in_its_place_is_not_taken_for_it(world: World) -> None:
    world.script(calls("weather", city="Rome"), "Sunny.", "Twenty.")
    model = world.model().bind_tools([weather])
    history = said_after_a_tool(world, without_id)
    history[-1] = AIMessage("It rains.")
    answer = model.invoke([*history, HumanMessage("How warm?")])
    assert answer.text == "Twenty."
    assert answer.response_metadata["forked"]


@pytest.mark.parametrize("keeps_call", [True, False])
def test_a_new_question_is_asked_whatever_its_history_lost(world: World, keeps_call: bool) -> None:
    """In another process the answers are not known: the results that are stored answer nothing."""
    world.script(calls("weather", city="Rome"), "Sunny.", "Twenty.")
    model = world.model().bind_tools([weather])
    history = said_after_a_tool(world, lambda message: message)
    history[1] = history[1] if keeps_call else without_id(history[1])
    history[3] = without_id(history[3])
    world.as_another_process()
    assert model.invoke([*history, HumanMessage("How warm?")]).text == "Twenty."


@pytest.mark.parametrize("kept", [False, True])
def test_the_agent_is_told_that_its_call_was_edited(world: World, kept: bool) -> None:
    world.script(calls("weather", city="San Francisco"), "Sunny.")
    model = world.model().bind_tools([weather])
    asked = model.invoke([HumanMessage("sf?", id=f"u-{world.thread}")])
    (call,) = asked.tool_calls
    edited = {**call, "args": {"city": "San Francisco, USA"}}
    metadata = asked.response_metadata if kept else {}
    message = AIMessage("", id=asked.id, tool_calls=[edited], response_metadata=metadata)
    result = ToolMessage("Sunny there.", tool_call_id=call["id"], id="t1")
    answer = model.invoke([HumanMessage("sf?", id=f"u-{world.thread}"), message, result])
    place = answer.response_metadata["conversation_id"]
    assert place == asked.response_metadata["conversation_id"]
    (told,) = world.results(place)
    assert "other arguments" in told
    assert "San Francisco, USA" in told
    assert "Sunny there." in told
    assert world.said(place) == ["sf?"]


def test_a_call_as_the_agent_made_it_is_not_called_edited(fake_world: World) -> None:
    world = fake_world
    world.script(calls("weather", city="Rome"), "Sunny.")
    model = world.model().bind_tools([weather])
    asked = model.invoke([HumanMessage("Rome?")])
    stored = convert_to_messages([json.loads(json.dumps(message_to_dict(asked)["data"]))])[0]
    result = ToolMessage("sunny", tool_call_id=asked.tool_calls[0]["id"])
    answer = model.invoke([HumanMessage("Rome?"), stored, result])
    assert world.results(answer.response_metadata["conversation_id"]) == ["sunny"]


# -- who spoke last ------------------------------------------------------------------------------


def test_one_tool_at_a_time_is_told_once_and_by_nobody(world: World) -> None:
    world.script(calls("weather", city="Rome"), calls("weather", city="Oslo"), "Both.", "Thanks.")
    model = world.model().bind_tools([weather], parallel_tool_calls=False)
    history: list[Any] = [HumanMessage("Rome and Oslo?")]
    for _ in range(2):
        history.append(model.invoke(history))
        (call,) = history[-1].tool_calls
        history.append(ToolMessage("sunny", tool_call_id=call["id"]))
    history.append(model.invoke(history))
    assert history[-1].text == "Both."
    history.append(HumanMessage("thanks"))
    last = model.invoke(history)
    place = last.response_metadata["conversation_id"]
    said = world.said(place)
    assert len(said) == 2
    assert "Rome and Oslo?" in said[0]
    assert said[1] == "thanks"
    everything = " ".join(said) + " ".join(world.told(place))
    assert everything.count("one tool at a time") == 1


def test_what_a_call_demands_after_a_result_is_no_message_of_the_user(fake_world: World) -> None:
    world = fake_world
    world.script(calls("weather", city="Rome"), calls("weather", city="Oslo"))
    model = world.model().bind_tools([weather], tool_choice="any")
    history: list[Any] = [HumanMessage("Rome?")]
    history.append(model.invoke(history))
    (call,) = history[-1].tool_calls
    history.append(ToolMessage("sunny", tool_call_id=call["id"]))
    answer = model.invoke(history)
    assert answer.tool_calls[0]["args"] == {"city": "Oslo"}
    place = answer.response_metadata["conversation_id"]
    assert len(world.said(place)) == 1
    assert "Answer by calling weather" in " ".join(world.told(place))
