"""Internal: show the demo's agent in the installed frameworks: a chain, a query engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from letta_adapters.cli.render import clean
from letta_adapters.sync.client import LettaClient

if TYPE_CHECKING:
    from rich.console import Console

GREET: Final = "You are called from {framework}. Greet its users in one short sentence."
NOTE: Final = "The password of the demo is swordfish, and it changes on Sundays."
QUERY: Final = "What is the password of the demo?"


def show(console: Console, client: LettaClient, agent_id: str) -> None:
    """Stream one answer through each framework that is installed."""
    for name, module, ask in _FRAMEWORKS:
        if find_spec(module.split(".")[0]) is None:
            # This package's extras are called as the frameworks are, with hyphens.
            extra = module.split(".")[0].removesuffix("_core").replace("_", "-")
            console.print(
                Text(
                    f'\n{name}: not installed (pip install "letta-adapters[{extra}]")', style="dim"
                )
            )
            continue
        console.print(Text(f"\n{name}", style="bold"))
        for text in ask(client, agent_id):
            console.print(clean(text), end="", markup=False, highlight=False, soft_wrap=True)
        console.print()


def _chain(client: LettaClient, agent_id: str) -> Iterator[str]:
    """Stream an answer through ``prompt | ChatLetta | StrOutputParser``."""
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    from letta_adapters.langchain import ChatLetta

    prompt = ChatPromptTemplate.from_messages([("user", GREET)])
    chain = prompt | ChatLetta(agent_id=agent_id, client=client) | StrOutputParser()
    yield from chain.stream({"framework": "LangChain"})


def _query_engine(client: LettaClient, agent_id: str) -> Iterator[str]:
    """Stream an answer of a query engine over one document."""
    from llama_index.core import Document, MockEmbedding, VectorStoreIndex

    from letta_adapters.llama_index import LettaLLM

    llm = LettaLLM(agent_id=agent_id, client=client)
    # A mock embedding needs no key and no download; there is one document to find.
    index = VectorStoreIndex.from_documents(
        [Document(text=NOTE)], embed_model=MockEmbedding(embed_dim=8)
    )
    answer: Any = index.as_query_engine(llm=llm, streaming=True).query(QUERY)
    yield from answer.response_gen


_FRAMEWORKS: Final[tuple[tuple[str, str, Callable[[LettaClient, str], Iterator[str]]], ...]] = (
    ("A LangChain chain", "langchain_core", _chain),
    ("A LlamaIndex query engine", "llama_index.core", _query_engine),
)


def stand_in_answer(said: str) -> str | None:
    """Return the scripted stand-in's answer to a question of this module, or ``None``."""
    caller = re.search(r"You are called from (\w+)\.", said)
    if caller:
        return f"Hello, {caller[1]} users: here I am, a Letta agent inside your own code."
    known = re.search(r"The password of the demo is (\w+)", said)
    if known and QUERY in said:
        return f"The note says that the password is {known[1]}."
    return None
