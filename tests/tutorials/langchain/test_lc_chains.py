"""Chains: prompts, parsers, objects, histories."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Any, Literal

import pytest
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    convert_to_openai_messages,
    messages_from_dict,
    messages_to_dict,
    trim_messages,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableBranch, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from tests.tutorials.control import calls, gives, line
from tests.tutorials.langchain.conftest import WITH_RECORDING, Performed


def quickstart(model: Any) -> Any:
    """Call a chat model: with text, with messages, as a stream, with the history it made."""
    asked = [SystemMessage("Translate into Italian."), HumanMessage("Good morning!")]
    answer = model.invoke(asked)
    more = model.invoke([*asked, answer, HumanMessage("And good night?")])
    streamed = "".join(chunk.text for chunk in model.stream("What is the sea called?"))
    return [answer, more, streamed]


@WITH_RECORDING
def test_quickstart(performed: Performed) -> None:
    script = [
        line("Good morning!", "Buongiorno!", knows="Translate into Italian."),
        line("And good night?", "Buonanotte!", knows=["Good morning!", "Buongiorno!"]),
        line("What is the sea called?", "Il mare."),
    ]
    assert performed.same(quickstart, script) == [
        {"ai": "Buongiorno!"},
        {"ai": "Buonanotte!"},
        "Il mare.",
    ]


def translation(model: Any) -> Any:
    """Pipe a prompt template into the model and a parser; one input, and several at once."""
    template = [("system", "Translate into {language}."), ("user", "{text}")]
    chain = ChatPromptTemplate.from_messages(template) | model | StrOutputParser()
    one = chain.invoke({"language": "French", "text": "the moon"})
    words = ["the sun", "the rain", "the wind"]
    return [one, chain.batch([{"language": "French", "text": word} for word in words])]


@WITH_RECORDING
def test_a_prompt_a_model_and_a_parser(performed: Performed) -> None:
    script = [line("the moon", "la lune", knows="into French")]
    said = {"the sun": "le soleil", "the rain": "la pluie", "the wind": "le vent"}
    script += [line(text, word, knows="into French", anytime=True) for text, word in said.items()]
    assert performed.same(translation, script) == ["la lune", ["le soleil", "la pluie", "le vent"]]


class Person(BaseModel):
    """Somebody that a text tells of."""

    name: str
    born: int | None = Field(default=None, description="The year, if it is said.")


class People(BaseModel):
    """All that a text tells of."""

    people: list[Person]


def extraction(model: Any) -> Any:
    """Read data out of texts, with examples in the prompt, and once with the raw message."""
    template = [
        ("system", "Extract what is said, and leave out what is not."),
        MessagesPlaceholder("examples"),
        ("user", "{text}"),
    ]
    prompt = ChatPromptTemplate.from_messages(template)
    examples = [HumanMessage("The sea is blue."), AIMessage("There is nobody in it.")]
    text = "Ada, born in 1815, met Charles."
    found = (prompt | model.with_structured_output(People)).invoke(
        {"text": text, "examples": examples}
    )
    raw = model.with_structured_output(Person, include_raw=True).invoke("Only Grace is left.")
    return [found, raw["parsed"], raw["parsing_error"]]


@WITH_RECORDING
def test_extraction(performed: Performed) -> None:
    ada, charles = {"name": "Ada", "born": 1815}, {"name": "Charles", "born": None}
    grace = {"name": "Grace", "born": None}
    script = [
        gives("Ada, born in 1815", "People", people=[ada, charles], knows=["Extract", "blue"]),
        gives("Only Grace", "Person", **grace),
    ]
    assert performed.same(extraction, script) == [
        {"People": {"people": [{"Person": ada}, {"Person": charles}]}},
        {"Person": grace},
        None,
    ]


class Route(BaseModel):
    """Who should answer."""

    to: Literal["poet", "cook"]


def routing(model: Any) -> Any:
    """Let one call choose the chain that answers."""
    choose = model.with_structured_output(Route)
    poet = ChatPromptTemplate.from_template("In verse: {question}") | model | StrOutputParser()
    cook = ChatPromptTemplate.from_template("As a recipe: {question}") | model | StrOutputParser()
    chain = RunnablePassthrough.assign(route=itemgetter("question") | choose) | RunnableBranch(
        (lambda asked: asked["route"].to == "poet", poet), cook
    )
    return [chain.invoke({"question": text}) for text in ("What is spring?", "What is soup?")]


def test_routing(performed: Performed) -> None:
    script = [
        gives("What is spring?", "Route", to="poet"),
        line("In verse: What is spring?", "A green thought."),
        gives("What is soup?", "Route", to="cook"),
        line("As a recipe: What is soup?", "Boil it."),
    ]
    assert performed.same(routing, script) == ["A green thought.", "Boil it."]


def chat(model: Any) -> Any:
    """Keep the histories of sessions in the program, around a chain."""
    sessions: dict[str, InMemoryChatMessageHistory] = {}
    template = [("system", "You are brief."), ("placeholder", "{past}"), ("user", "{text}")]
    chain = RunnableWithMessageHistory(
        ChatPromptTemplate.from_messages(template) | model,
        lambda session_id: sessions.setdefault(session_id, InMemoryChatMessageHistory()),
        input_messages_key="text",
        history_messages_key="past",
    )
    said = [("a", "I am Ada."), ("b", "Who am I?"), ("a", "What is my name?")]
    answers = [
        chain.invoke({"text": text}, {"configurable": {"session_id": session}})
        for session, text in said
    ]
    return [answers, {name: kept.messages for name, kept in sessions.items()}]


# Both have gone on in LangChain's tutorials since they were deprecated.
@pytest.mark.filterwarnings("ignore:.*MessageHistory.*deprecated")
@WITH_RECORDING
def test_histories_of_sessions(performed: Performed) -> None:
    script = [
        line("I am Ada.", "Hello.", knows="You are brief."),
        line("Who am I?", "No idea."),
        line("What is my name?", "Ada.", knows="I am Ada."),
    ]
    answers, kept = performed.same(chat, script)
    assert answers == [{"ai": "Hello."}, {"ai": "No idea."}, {"ai": "Ada."}]
    assert kept["b"] == [{"human": "Who am I?"}, {"ai": "No idea."}]
    assert len(kept["a"]) == 4


def trimming(model: Any) -> Any:
    """Keep the newest messages only, counted by the model itself, in a chat of several turns."""
    trimmed = trim_messages(
        strategy="last",
        token_counter=len,  # messages
        max_tokens=4,
        include_system=True,
        start_on="human",
    )
    chain = trimmed | model
    history: list[Any] = [SystemMessage("You count.")]
    for text in ("one", "two", "three", "four"):
        history.append(HumanMessage(text))
        history.append(chain.invoke(history))
    return history


@WITH_RECORDING
def test_trimming(performed: Performed) -> None:
    script = [
        line("one", "1"),
        line("two", "2", knows="one"),
        line("three", "3", knows="two"),
        line("four", "4", knows="three"),
    ]
    history = performed.same(trimming, script)
    assert [next(iter(said.values())) for said in history[1:]] == [
        *("one", "1", "two", "2", "three", "3", "four", "4")
    ]


def through_json(history: list[Any]) -> list[Any]:
    """What a message store keeps."""
    return messages_from_dict(json.loads(json.dumps(messages_to_dict(history))))


def as_dicts(history: list[Any]) -> list[Any]:
    """What a graph on another server gives: dicts in the place of messages."""
    return [json.loads(message.model_dump_json()) for message in history]


def as_openai(history: list[Any]) -> list[Any]:
    """What a user interface keeps: roles, texts and calls, without ids of messages."""
    return convert_to_openai_messages(history)


@pytest.mark.parametrize("keep", [through_json, as_dicts, as_openai], ids=lambda f: f.__name__)
def test_histories_that_were_kept_elsewhere(performed: Performed, keep: Any) -> None:
    def tutorial(model: Any) -> Any:
        asked: list[str] = []

        @tool
        def age(name: str) -> str:
            """Look an age up."""
            asked.append(name)
            return "36"

        bound = model.bind_tools([age])
        history: list[Any] = []
        for text in ("How old is Ada?", "And how is that in Roman numerals?"):
            history.append(HumanMessage(text))
            answer = bound.invoke(keep(history))
            while answer.tool_calls:
                history += [answer, *(age.invoke(call) for call in answer.tool_calls)]
                answer = bound.invoke(keep(history))
            history.append(answer)
        return [history, asked]

    script = [
        line("How old is Ada?", calls("age", name="Ada")),
        line("36", "She is 36.", knows="How old is Ada?"),
        line("in Roman numerals?", "XXXVI.", knows=["How old is Ada?", "She is 36."]),
    ]
    history, asked = performed.same(tutorial, script)
    assert asked == ["Ada"]
    assert [next(iter(message)) for message in history] == [
        "human",
        "ai",
        "tool",
        "ai",
        "human",
        "ai",
    ]
