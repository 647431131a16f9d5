"""Internal: emulate a chat model over a stateful agent: a whole history in, one response out.

LangChain and LlamaIndex send the history with every call; a Letta agent already has it. So a call
passes these stages: ``split_history`` (:mod:`~letta_adapters.chat.history`), ``choose_route``
(:mod:`~letta_adapters.chat.routing`), ``find_answer`` (:mod:`~letta_adapters.chat.replay`),
``open_conversation`` (:mod:`~letta_adapters.chat.conversations`), ``build_payload``
(:mod:`~letta_adapters.chat.payload`), and the stream that sends and yields the response
(:mod:`~letta_adapters.chat.stream`). Between them travels a
:class:`~letta_adapters.chat.context.ChatContext`. No class of either framework occurs here.
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
