"""Letta agents in LlamaIndex: ``pip install "letta-adapters[llama-index]"``.

``LettaLLM`` is an LLM for query engines, synthesizers, chat engines and workflows; ``LettaAgent``
is an agent, alone or in an ``AgentWorkflow``.
"""

from letta_adapters.llama_index.llm import LettaLLM

__all__ = ["LettaLLM"]
