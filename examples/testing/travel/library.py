"""The LlamaIndex application: questions about the agency's own brochures."""

from __future__ import annotations

from typing import Any

from llama_index.core import Document, SummaryIndex
from llama_index.core.llms import LLM

BROCHURES = ("Rome: the Forum opens at nine.", "Oslo: the fjord cruise leaves at noon.")


def ask(llm: LLM, question: str) -> tuple[str, list[str]]:
    """Return the answer, and the brochures it was made from."""
    index = SummaryIndex.from_documents([Document(text=text) for text in BROCHURES])
    response: Any = index.as_query_engine(llm=llm).query(question)
    return str(response), [node.get_content() for node in response.source_nodes]
