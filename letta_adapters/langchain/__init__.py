"""Letta agents in LangChain and LangGraph.

``ChatLetta`` is a chat model whose brain is an agent: ``pip install "letta-adapters[langchain]"``.
"""

from letta_adapters.langchain.chat_model import ChatLetta
from letta_adapters.langchain.create import init_letta_model

__all__ = ["ChatLetta", "init_letta_model"]
