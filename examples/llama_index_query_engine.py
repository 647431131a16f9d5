"""Run a query engine over local documents, streaming, with citations.

    python examples/llama_index_query_engine.py

The embedding here is LlamaIndex' mock; put your own in its place.
"""

from __future__ import annotations

import re

from _agent import connected, find_or_create
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.query_engine import CitationQueryEngine

from letta_adapters.llama_index import LettaLLM
from letta_adapters.testing.scripted_model import ModelRequest, Reply

DOCUMENTS = {
    "harbour.txt": "The harbour opens at six in the morning.",
    "museum.txt": "The museum is closed on Mondays.",
}


def stand_in(_request: ModelRequest, asked: str) -> Reply:
    source = re.search(r"Source (\d+):\n(?:[^\n]*\n)*?[^\n]*museum", asked)
    number = source[1] if source else "1"
    return Reply(f"It is closed on Mondays [{number}].", token_delay=0.02)


def main() -> None:
    with connected(stand_in) as client:
        agent_id = find_or_create(client, "guide", "I show people around, and name my sources.")
        llm = LettaLLM(agent_id=agent_id, client=client)
        documents = [
            Document(text=text, metadata={"file": name}) for name, text in DOCUMENTS.items()
        ]
        index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=8))
        engine = CitationQueryEngine.from_args(index, llm=llm, streaming=True)
        answer = engine.query("When is the museum closed?")
        for text in answer.response_gen:
            print(text, end="", flush=True)
        print()
        for number, node in enumerate(answer.source_nodes, 1):
            print(f"  [{number}] {node.metadata['file']}")


if __name__ == "__main__":
    main()
