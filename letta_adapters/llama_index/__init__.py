"""Use Letta agents in LlamaIndex: ``pip install "letta-adapters[llama-index]"``.

``LettaLLM`` is an LLM for query engines, synthesizers, chat engines and workflows; ``LettaAgent``
is an agent, alone or in an ``AgentWorkflow``.
"""

from letta_adapters.llama_index.agent import LettaAgent
from letta_adapters.llama_index.approvals import ApprovalRequiredEvent, ApprovalResponseEvent
from letta_adapters.llama_index.contexts import LettaAgentWorkflow
from letta_adapters.llama_index.llm import LettaLLM
from letta_adapters.llama_index.memory import LettaMemory

__all__ = [
    "ApprovalRequiredEvent",
    "ApprovalResponseEvent",
    "LettaAgent",
    "LettaAgentWorkflow",
    "LettaLLM",
    "LettaMemory",
]
