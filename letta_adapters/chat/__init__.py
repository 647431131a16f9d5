"""Emulate a chat model over a stateful agent: take a whole message history, return one response.

LangChain and LlamaIndex send the history with every call; a Letta agent already has it. This
package holds the rule that finds the new messages in a history
(:mod:`~letta_adapters.chat.history`), the stream that sends only those and yields the response
(:mod:`~letta_adapters.chat.stream`), and the choice of a client for any thread and event loop
(:mod:`~letta_adapters.chat.clients`). It uses no class of either framework.

Internal: not part of the public API.
"""

from letta_adapters.chat.clients import ChatClients
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.request import (
    ChatEvent,
    ChatRequest,
    HistoryMessage,
    ResponseCompleted,
    ResponseStarted,
)

__all__ = [
    "ChatClients",
    "ChatEvent",
    "ChatRequest",
    "HistoryMessage",
    "Marker",
    "ResponseCompleted",
    "ResponseStarted",
]
