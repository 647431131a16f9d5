"""Letta agents in LangChain: all of :mod:`letta_adapters.langchain`, at this import path."""

from letta_adapters.langchain import ChatLetta, LettaRunnable, decide

__all__ = ["ChatLetta", "LettaRunnable", "decide"]
