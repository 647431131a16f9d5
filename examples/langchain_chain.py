"""Run a chain: prompt template, Letta agent, output parser.

python examples/langchain_chain.py
"""

from __future__ import annotations

from _agent import connected, find_or_create
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.scripted_model import ModelRequest, Reply

WORDS = {"cheese": "fromage", "bread": "pain"}


def stand_in(_request: ModelRequest, asked: str) -> Reply:
    word = next(word for word in WORDS if word in asked)
    return Reply(f"{WORDS[word]}")


def main() -> None:
    with connected(stand_in) as client:
        agent_id = find_or_create(client, "translator", "I translate into French, one word a time.")
        prompt = ChatPromptTemplate.from_messages(
            [("system", "Answer with one word."), ("user", "What is {word} in French?")]
        )
        chain = prompt | ChatLetta(agent_id=agent_id, client=client) | StrOutputParser()
        for word in WORDS:
            print(f"{word}: {chain.invoke({'word': word})}")


if __name__ == "__main__":
    main()
