"""The LangChain application: advice about a city, and an assistant that looks at the weather."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from letta_adapters.langchain import LettaRunnable

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "You are a travel agent. Be brief."), ("user", "What should I see in {city}?")]
)


def advise(model: BaseChatModel, city: str) -> str:
    """Return one piece of advice."""
    return (PROMPT | model | StrOutputParser()).invoke({"city": city})


class Assistant:
    """An assistant that remembers the conversation, and asks for the weather itself."""

    def __init__(self, weather: Callable[[str], str], **connection: Any) -> None:
        def get_weather(city: str) -> str:
            """Return today's weather of a city."""
            return weather(city)

        self._agent = LettaRunnable(tools=[get_weather], **connection)
        self._history: list[BaseMessage] = []

    def answer(self, question: str) -> str:
        """Return the answer to the next question."""
        self._history.append(HumanMessage(question))
        self._history += self._agent.invoke(self._history)["messages"]
        return str(self._history[-1].text)


def tokens(model: BaseChatModel, question: str) -> Iterator[str]:
    """Yield the answer as it comes."""
    for chunk in model.stream(question):
        yield str(chunk.text)
