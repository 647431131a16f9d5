"""Letta agents as LlamaIndex agents: everything is :mod:`letta_adapters.llama_index`."""

from letta_adapters.llama_index import (
    ApprovalRequiredEvent,
    ApprovalResponseEvent,
    LettaAgent,
    LettaAgentWorkflow,
    LettaMemory,
)

__all__ = [
    "ApprovalRequiredEvent",
    "ApprovalResponseEvent",
    "LettaAgent",
    "LettaAgentWorkflow",
    "LettaMemory",
]
