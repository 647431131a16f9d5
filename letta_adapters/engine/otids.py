"""Names of messages that a repeated call has again (``otid``), in the conversations they go to.

The rules: docs/protocol.md ("Which ids are unique, and across what").
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

# Its first part names the call, the rest the conversation.
_KEY: Final = re.compile(r"00000000-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_OF_CALL: Final = 24


def sent_as(key: str, agent_id: str, conversation_id: str) -> str:
    """The ``otid`` of a call with this ``key`` (a UUID that begins with zeros) in a conversation.

    A Letta API with Redis takes an ``otid`` for one request of the whole server, and answers a
    second one with the first's run, whatever conversation that was in (letta 0.16.8).
    """
    place = hashlib.sha256(f"{agent_id}\n{conversation_id}".encode()).hexdigest()
    return key[:_OF_CALL] + place[: len(key) - _OF_CALL]


def same_call(otid: object, other: str) -> bool:
    """Are these the names of one message, or of one call in whatever conversation?"""
    return isinstance(otid, str) and of_call(otid) == of_call(other)


def of_call(otid: str) -> str:
    """What the names of one call have in common, wherever it was sent; other names as they are.

    In a recording conversations have other ids, so this is what is compared.
    """
    return otid[:_OF_CALL] if _KEY.fullmatch(otid) else otid
