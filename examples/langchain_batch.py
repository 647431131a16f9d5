"""Ask one question about each of twenty documents, a few at a time.

    python examples/langchain_batch.py

Each document gets a conversation of its own, so they do not get mixed up; the agent is the same.
"""

from __future__ import annotations

import re

from _agent import connected, find_or_create
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.scripted_model import ModelRequest, Reply

CITIES = """
Amsterdam Athens Berlin Bern Brussels Budapest Copenhagen Dublin Helsinki Lisbon Ljubljana London
Madrid Oslo Paris Prague Rome Sofia Stockholm Vienna
"""
DOCUMENTS = [
    f"Report {n}: it was {n} degrees in {city}." for n, city in enumerate(CITIES.split(), 5)
]


def stand_in(_request: ModelRequest, asked: str) -> Reply:
    found = re.search(r"it was (\d+) degrees in (\w+)", asked)
    assert found is not None
    return Reply(f"{found[2]}: {found[1]} degrees")


def main() -> None:
    with connected(stand_in) as client:
        agent_id = find_or_create(client, "clerk", "I read reports and sum them up in one line.")
        prompt = ChatPromptTemplate.from_template("City and temperature, please. {document}")
        chain = prompt | ChatLetta(agent_id=agent_id, client=client) | StrOutputParser()
        questions = [{"document": document} for document in DOCUMENTS]
        for line in chain.batch(questions, {"max_concurrency": 5}):
            print(line)


if __name__ == "__main__":
    main()
