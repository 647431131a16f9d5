"""What the framework adapters share: a whole message history in, one agent's turn out.

LangChain and LlamaIndex send the history with every call; a Letta agent already has it. Here is the
rule that says what of it is new (:mod:`~letta_adapters.calls.rule`), the exchange that sends just
that (:mod:`~letta_adapters.calls.exchange`), and the caller that does it from any thread and event
loop (:mod:`~letta_adapters.calls.caller`). Frameworks' own classes appear nowhere in it.
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
