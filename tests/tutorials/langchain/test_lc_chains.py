"""Chains: prompts, parsers, objects, histories."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from tests.tutorials.control import line
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
