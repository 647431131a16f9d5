"""Ask an assistant about your documents, twice; it names its sources and remembers you.

    python examples/document_assistant.py

The agent calls a search tool over a LlamaIndex index when it needs to, and cites by number. The
embedding here is LlamaIndex' mock; put your own in its place.
"""

from __future__ import annotations

import asyncio

from _agent import connected, find_or_create, heard
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.agent.workflow import AgentStream
from llama_index.core.schema import NodeWithScore
from llama_index.core.workflow import Context

from letta_adapters import LettaClient
from letta_adapters.llama_index import LettaAgent
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse

DOCUMENTS = {
    "harbour.txt": "The harbour opens at six in the morning.",
    "museum.txt": "The museum is closed on Mondays.",
}


def stand_in(request: ModelRequest, asked: str) -> Reply:
    found = heard(request)
    if found is not None:
        number = found[: found.index("museum.txt")].rsplit("[", 1)[1].split("]")[0]
        return Reply(f"The museum is closed on Mondays [{number}].", token_delay=0.02)
    if "museum" in asked:
        return Reply(tool_calls=[ToolUse("search", {"query": "When is the museum closed?"})])
    return Reply("You asked when the museum is closed.", token_delay=0.02)


class Library:
    """A searchable set of documents that numbers what it finds, so that it can be cited."""

    def __init__(self, documents: dict[str, str]) -> None:
        texts = [Document(text=text, metadata={"file": name}) for name, text in documents.items()]
        index = VectorStoreIndex.from_documents(texts, embed_model=MockEmbedding(embed_dim=8))
        self.retriever = index.as_retriever(similarity_top_k=2)
        self.found: list[NodeWithScore] = []

    def search(self, query: str) -> str:
        """Search the documents. Cite what you use by its number, such as [1].

        Args:
            query: What to look for, in plain words.
        """
        nodes = self.retriever.retrieve(query)
        first = len(self.found) + 1
        self.found += nodes
        parts = [
            f"[{number}] {node.metadata['file']}: {node.get_content()}"
            for number, node in enumerate(nodes, first)
        ]
        return "\n".join(parts)


async def ask(agent: LettaAgent, context: Context, library: Library, question: str) -> None:
    """Print the streamed answer, and the sources that it cites."""
    print(f"> {question}")
    handler = agent.run(question, ctx=context)
    async for event in handler.stream_events():
        if isinstance(event, AgentStream):
            print(event.delta, end="", flush=True)
    print()
    answer = str(await handler)
    for number, node in enumerate(library.found, 1):
        if f"[{number}]" in answer:
            print(f"  [{number}] {node.metadata['file']}: {node.get_content()}")


async def run(client: LettaClient) -> None:
    """Ask two questions; the second needs what was said before."""
    library = Library(DOCUMENTS)
    agent = LettaAgent(
        name="librarian",
        agent_id=find_or_create(client, "librarian", "I answer from documents and cite them."),
        client=client,
        tools=[library.search],
    )
    context = Context(agent)
    await ask(agent, context, library, "When is the museum closed?")
    await ask(agent, context, library, "What did I want to know?")


def main() -> None:
    with connected(stand_in) as client:
        asyncio.run(run(client))


if __name__ == "__main__":
    main()
