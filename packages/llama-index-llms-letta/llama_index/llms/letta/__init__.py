"""Letta agents as LlamaIndex LLMs: everything is :mod:`letta_adapters.llama_index`."""

from letta_adapters.llama_index import LettaLLM

__all__ = ["LettaLLM"]
