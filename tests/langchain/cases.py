"""What a stateful chat model must do with the histories LangChain gives it, case by case.

Each case is written once and runs against a *world*: a backend, an agent, and a model behind it
that can be told what to say. ``world.said(conversation_id)`` are the user's messages that the
conversation holds. ``world.cut_off()`` takes the network away from the stream that is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda

from letta_adapters import HistoryMismatchError, InvalidInputError
from letta_adapters.testing.scripted_model import Reply, ToolUse


class World(Protocol):
    """What a case may use."""

    def model(self, **fields: Any) -> BaseChatModel: ...
    def script(self, *replies: Any) -> None: ...
    async def said(self, message: AIMessage) -> list[str]: ...
    async def cut_off(self) -> None: ...


Case = Callable[[World], Awaitable[None]]
CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


def place(message: AIMessage) -> str:
    return str(message.response_metadata["conversation_id"])


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@case
async def only_what_is_new_is_sent(world: World) -> None:
    world.script("First.", "Second.")
    model = world.model()
    one: list[Any] = [HumanMessage("one")]
    first = await model.ainvoke(one)
    second = await model.ainvoke([*one, first, HumanMessage("two")])
    assert (first.text, second.text) == ("First.", "Second.")
    assert place(first) == place(second)
    assert await world.said(second) == ["one", "two"]


@case
async def without_a_history_every_call_is_on_its_own(world: World) -> None:
    world.script("First.", "Second.")
    model = world.model()
    first = await model.ainvoke("one")
    second = await model.ainvoke("two")
    assert place(first) != place(second)
    assert await world.said(second) == ["two"]


@case
async def a_history_trimmed_at_its_front_goes_on(world: World) -> None:
    world.script("First.", "Second.", "Third.")
    model = world.model()
    first = await model.ainvoke([HumanMessage("one")])
    second = await model.ainvoke([HumanMessage("one"), first, HumanMessage("two")])
    third = await model.ainvoke([second, HumanMessage("three")])
    assert place(third) == place(first)
    assert await world.said(third) == ["one", "two", "three"]


@case
async def an_edited_turn_starts_a_fresh_conversation(world: World) -> None:
    world.script("First.", "Second.")
    model = world.model()
    first = await model.ainvoke([HumanMessage("one")])
    forked = await model.ainvoke([HumanMessage("ONE"), first, HumanMessage("two")])
    assert place(forked) != place(first)
    assert await world.said(first) == ["one"]
    told = " ".join(await world.said(forked))
    assert "two" in told
    assert forked.response_metadata["forked"]


@case
async def an_edit_further_back_is_noticed_too(world: World) -> None:
    world.script("First.", "Second.", "Third.")
    model = world.model()
    first = await model.ainvoke([HumanMessage("one")])
    second = await model.ainvoke([HumanMessage("one"), first, HumanMessage("two")])
    history = [HumanMessage("ONE"), first, HumanMessage("two"), second, HumanMessage("three")]
    third = await model.ainvoke(history)
    assert place(third) != place(second)


@case
async def a_branch_is_not_appended_to_its_trunk(world: World) -> None:
    world.script("First.", "Trunk.", "Branch.")
    model = world.model()
    first = await model.ainvoke([HumanMessage("one")])
    prefix = [HumanMessage("one"), first]
    trunk = await model.ainvoke([*prefix, HumanMessage("two")])
    branch = await model.ainvoke([*prefix, HumanMessage("TWO")])
    assert place(trunk) == place(first) != place(branch)
    assert await world.said(trunk) == ["one", "two"]


@case
async def a_mismatch_can_be_an_error(world: World) -> None:
    world.script("First.")
    model = world.model(on_mismatch="error")
    first = await model.ainvoke([HumanMessage("one")])
    with pytest.raises(HistoryMismatchError):
        await model.ainvoke([HumanMessage("ONE"), first, HumanMessage("two")])
    assert await world.said(first) == ["one"]


@case
async def a_mismatch_can_be_ignored(world: World) -> None:
    world.script("First.", "Second.", "Third.")
    model = world.model(on_mismatch="continue")
    first = await model.ainvoke([HumanMessage("one")])
    edited: list[Any] = [HumanMessage("ONE"), first, HumanMessage("two")]
    second = await model.ainvoke(edited)
    third = await model.ainvoke([*edited, second, HumanMessage("three")])
    assert place(second) == place(first) == place(third)
    assert await world.said(third) == ["one", "two", "three"]
    assert "forked" not in third.response_metadata


@case
async def the_same_message_again_is_not_sent_twice(world: World) -> None:
    """LangGraph calls a model again with the same input, on retries and when it resumes."""
    world.script("First.", "Second.")
    model = world.model()
    history: list[Any] = [HumanMessage("one", id="message-1")]
    first = await model.ainvoke(history)
    again = await model.ainvoke(history)
    assert (again.text, again.id, place(again)) == ("First.", first.id, place(first))
    assert again.response_metadata["replayed"]
    history += [first, HumanMessage("two", id="message-2")]
    second = await model.ainvoke(history)
    repeated = await model.ainvoke(history)
    assert (repeated.text, repeated.id) == ("Second.", second.id)
    assert await world.said(second) == ["one", "two"]


@case
async def two_equal_questions_without_ids_are_two(world: World) -> None:
    world.script("First.", "Second.")
    model = world.model()
    answers = [await model.ainvoke([HumanMessage("one")]) for _ in range(2)]
    assert [answer.text for answer in answers] == ["First.", "Second."]
    assert place(answers[0]) != place(answers[1])


@case
async def saying_yes_twice_counts_twice(world: World) -> None:
    world.script("First.", "Second.")
    model = world.model()
    history: list[Any] = [HumanMessage("yes")]
    history.append(await model.ainvoke(history))
    history.append(HumanMessage("yes"))
    second = await model.ainvoke(history)
    assert second.text == "Second."
    assert await world.said(second) == ["yes", "yes"]


@case
async def messages_of_another_model_are_told(world: World) -> None:
    world.script("Mine.")
    model = world.model()
    history = [HumanMessage("one"), AIMessage("Somebody else's."), HumanMessage("two")]
    mine = await model.ainvoke(history)
    assert mine.text == "Mine."
    told = await world.said(mine)
    assert "two" in told[-1]
    assert any("one" in text for text in told)


@case
async def a_system_message_is_told_once_and_again_when_it_changes(world: World) -> None:
    world.script("First.", "Second.", "Third.")
    model = world.model()
    first = await model.ainvoke([SystemMessage("Be brief."), HumanMessage("one")])
    turns: list[Any] = [HumanMessage("one"), first, HumanMessage("two")]
    second = await model.ainvoke([SystemMessage("Be brief."), *turns])
    turns += [second, HumanMessage("three")]
    third = await model.ainvoke([SystemMessage("Be long."), *turns])
    assert place(first) == place(second) == place(third)
    told = await world.told(third)
    assert (told.count("Be brief."), told.count("Be long.")) == (1, 1)


@case
async def with_nothing_new_the_agent_goes_on(world: World) -> None:
    world.script("First.", "Second.", "Third.")
    model = world.model()
    first = await model.ainvoke([HumanMessage("one")])
    second = await model.ainvoke([HumanMessage("one"), first])
    assert (second.text, place(second)) == ("Second.", place(first))
    third = await model.ainvoke([SystemMessage("Be brief."), HumanMessage("one"), first, second])
    assert (third.text, place(third)) == ("Third.", place(first))
    said = await world.said(third)
    assert said[0] == "one"
    assert said[1] == "Please go on."
    assert "Be brief." in said[2]


@case
async def system_text_alone_is_a_call(world: World) -> None:
    world.script("Hello.")
    answer = await world.model().ainvoke([SystemMessage("Greet the user.")])
    assert answer.text == "Hello."
    assert "Greet the user." in await world.told(answer)


@case
async def what_others_said_meanwhile_is_told(world: World) -> None:
    world.script("First.", "Second.")
    model = world.model()
    first = await model.ainvoke([HumanMessage("one")])
    theirs = AIMessage("It is 55.", name="bob")
    second = await model.ainvoke([HumanMessage("one"), first, theirs])
    assert (second.text, place(second)) == ("Second.", place(first))
    said = await world.said(second)
    assert said[0] == "one"
    assert "It is 55." in said[-1]


@case
async def calls_without_results_are_an_error(world: World) -> None:
    world.script(Reply(tool_calls=[ToolUse("get_weather", {"city": "Rome"}, id="call-open")]), "No")
    model: Any = world.model().bind_tools([get_weather])
    asked = await model.ainvoke([HumanMessage("Rome?")])
    with pytest.raises(InvalidInputError, match="nothing new"):
        await model.ainvoke([HumanMessage("Rome?"), asked])


@case
async def a_thread_is_found_again(world: World) -> None:
    world.script("First.", "Second.")
    config: Any = {"configurable": {"thread_id": "the-thread"}}
    first = await world.model().ainvoke([HumanMessage("one")], config)
    second = await world.model().ainvoke([HumanMessage("two")], config)
    assert place(first) == place(second)
    assert await world.said(second) == ["one", "two"]


@case
async def a_chain_passes_the_thread_on(world: World) -> None:
    world.script("First.", "Second.")
    chain = RunnableLambda(lambda text: [HumanMessage(text)]) | world.model()
    config: Any = {"configurable": {"thread_id": "of-a-chain"}}
    first = await chain.ainvoke("one", config)
    second = await chain.ainvoke("two", config)
    assert place(first) == place(second)


@case
async def a_named_conversation_wins_over_the_history(world: World) -> None:
    world.script("Elsewhere.", "First.", "Second.")
    model = world.model()
    elsewhere = await model.ainvoke([HumanMessage("zero")])
    first = await model.ainvoke([HumanMessage("one")])
    history = [HumanMessage("one"), first, HumanMessage("two")]
    second = await model.ainvoke(history, conversation_id=place(elsewhere))
    assert place(second) == place(elsewhere)
    assert await world.said(second) == ["zero", "two"]


@case
async def tool_calls_pause_the_turn_and_results_resume_it(world: World) -> None:
    world.script(
        Reply(tool_calls=[ToolUse("get_weather", {"city": "Rome"}, id="call-rome")]),
        "Sunny.",
        "You are welcome.",
    )
    model: Any = world.model().bind_tools([get_weather])
    history: list[Any] = [HumanMessage("Rome?")]
    asked = await model.ainvoke(history)
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Rome"})
    assert asked.response_metadata["stop_reason"] == "requires_approval"
    history += [asked, ToolMessage("sunny in Rome", tool_call_id=call["id"])]
    answered = await model.ainvoke(history)
    assert (answered.text, answered.tool_calls) == ("Sunny.", [])
    history += [answered, HumanMessage("thanks")]
    thanked = await model.ainvoke(history)
    assert thanked.text == "You are welcome."
    assert place(asked) == place(thanked)
    assert await world.said(thanked) == ["Rome?", "thanks"]


@case
async def a_paused_call_that_is_repeated_is_still_paused(world: World) -> None:
    world.script(
        Reply(tool_calls=[ToolUse("get_weather", {"city": "Oslo"}, id="call-oslo")]), "Snow."
    )
    model: Any = world.model().bind_tools([get_weather])
    history: list[Any] = [HumanMessage("Oslo?", id="oslo")]
    asked = await model.ainvoke(history)
    again = await model.ainvoke(history)
    assert again.tool_calls == asked.tool_calls != []
    assert again.id == asked.id
    history += [again, ToolMessage("snow", tool_call_id=again.tool_calls[0]["id"])]
    answered = await model.ainvoke(history)
    repeated = await model.ainvoke(history)
    assert (answered.text, repeated.text) == ("Snow.", "Snow.")
    assert await world.said(answered) == ["Oslo?"]


@case
async def a_call_nobody_answers_does_not_block(world: World) -> None:
    world.script(
        Reply(tool_calls=[ToolUse("get_weather", {"city": "Bern"}, id="call-bern")]), "Never mind."
    )
    model: Any = world.model().bind_tools([get_weather])
    asked = await model.ainvoke([HumanMessage("Bern?")])
    assert asked.tool_calls
    history = [HumanMessage("Bern?"), asked, HumanMessage("forget it")]
    answer = await model.ainvoke(history)
    assert answer.text == "Never mind."


@case
async def a_batch_is_as_many_conversations(world: World) -> None:
    world.script(*[Reply(f"Answer {n}.", when=f"question {n}") for n in range(4)])
    questions = [f"question {n}" for n in range(4)]
    answers = await world.model().abatch(questions)
    assert [answer.text for answer in answers] == [f"Answer {n}." for n in range(4)]
    assert len({place(answer) for answer in answers}) == 4


@case
async def calls_of_one_conversation_take_turns(world: World) -> None:
    world.script(*[Reply(f"Answer {n}.", when=f"question {n}") for n in range(4)])
    model = world.model()
    start = await model.ainvoke([HumanMessage("question 0")])
    more = [
        model.ainvoke([HumanMessage(f"question {n}")], conversation_id=place(start))
        for n in (1, 2, 3)
    ]
    answers = await asyncio.gather(*more)
    assert [answer.text for answer in answers] == ["Answer 1.", "Answer 2.", "Answer 3."]
    said = await world.said(start)
    assert sorted(said) == [f"question {n}" for n in range(4)]


@case
async def a_call_that_was_cut_off_is_made_again_and_not_said_twice(world: World) -> None:
    world.script(Reply(text=["One, ", "two, ", "three."], token_delay=0.2), "All three.", "Four.")
    model = world.model()
    question: list[Any] = [HumanMessage("Count.", id="count")]
    with pytest.raises(ConnectionError) as cut:
        async for chunk in model.astream(question):
            if chunk.content:
                await world.cut_off()
    assert getattr(cut.value, "is_retryable", None) is False  # it was accepted
    answer = await model.ainvoke(question)
    assert answer.text.endswith("three.")  # what came before the cut is not taken for all
    again = await model.ainvoke(question)
    assert again.text.endswith(answer.text)
    more = await model.ainvoke([*question, again, HumanMessage("go on")])
    assert place(more) == place(answer)
    said = await world.said(more)
    assert [said.count(text) for text in ("Count.", "go on")] == [1, 1]


@case
async def a_cache_does_not_come_between(world: World) -> None:
    world.script("First.", "Second.")
    set_llm_cache(InMemoryCache())
    try:
        model = world.model()
        answers = [await model.ainvoke("the same") for _ in range(2)]
    finally:
        set_llm_cache(None)
    assert [answer.text for answer in answers] == ["First.", "Second."]


@case
async def a_stream_says_what_it_is_once(world: World) -> None:
    world.script(Reply("One two three four.", reasoning="Hm hm."))
    chunks = [chunk async for chunk in world.model().astream("count")]
    assert len([c for c in chunks if c.usage_metadata]) == 1
    assert len([c for c in chunks if c.response_metadata.get("model_name")]) == 1
    assert len({c.id for c in chunks}) == 1
    assert [c.chunk_position for c in chunks][-1] == "last"
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.text == "One two three four."
    kinds = [block["type"] for block in whole.content_blocks]
    assert kinds == ["reasoning", "text"]


@case
async def streaming_and_not_streaming_agree(world: World) -> None:
    world.script(Reply("The answer.", reasoning="Why?"), Reply("The answer.", reasoning="Why?"))
    model = world.model()
    whole = await model.ainvoke("question")
    parts = [chunk async for chunk in model.astream("question")]
    total = parts[0]
    for part in parts[1:]:
        total += part
    without_index = [{k: v for k, v in b.items() if k != "index"} for b in total.content_blocks]
    assert whole.content_blocks == without_index
    assert whole.usage_metadata == total.usage_metadata
