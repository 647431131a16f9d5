"""Emulate a chat model over a stateful agent: take a whole message history, return one response.

LangChain and LlamaIndex send the history with every call; a Letta agent already has it. This
package holds the rule that finds the new messages in a history (:mod:`~letta_adapters.calls.rule`),
the exchange that sends only those (:mod:`~letta_adapters.calls.exchange`), and the caller that
makes such calls from any thread and event loop (:mod:`~letta_adapters.calls.caller`). It uses no
class of either framework.

Internal: not part of the public API.
"""

from letta_adapters.calls.caller import Caller
from letta_adapters.calls.entries import Entry
from letta_adapters.calls.marker import Marker
from letta_adapters.calls.model import Call, CallEnd, CallEvent, CallStart

__all__ = [
    "Call",
    "CallEnd",
    "CallEvent",
    "CallStart",
    "Caller",
    "Entry",
    "Marker",
]
