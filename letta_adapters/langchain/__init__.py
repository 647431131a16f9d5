"""Use Letta agents in LangChain and LangGraph: ``pip install "letta-adapters[langchain]"``.

``ChatLetta`` is a chat model whose brain is an agent; ``LettaRunnable`` is a whole agent, tools and
approvals included, as one step of a chain or a graph; ``decide`` answers an agent's question
whether one of its own tools may run.
"""

from letta_adapters.langchain.chat_model import ChatLetta
from letta_adapters.langchain.runnable import LettaRunnable
from letta_adapters.langchain.tools import decide

__all__ = ["ChatLetta", "LettaRunnable", "decide"]
