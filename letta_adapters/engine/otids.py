"""Internal: names of messages (``otid``) that stay the same when a call is made again.

The rules: docs/protocol.md ("Which ids are unique, and across what").
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

# The first part of such a name stands for the call, the rest for the conversation.
_KEY: Final = re.compile(r"00000000-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_OF_CALL: Final = 24


def make_otid(key: str, agent_id: str, conversation_id: str) -> str:
    """Return the ``otid`` of a message in a conversation.

    A Letta API with Redis takes an ``otid`` for one request of the whole server, and answers a
    second one with the first's run, whatever conversation that was in (letta 0.16.8).

    Args:
        key: The name of the call, a UUID that begins with zeros.
        agent_id: The agent.
        conversation_id: The conversation that the message goes to.
    """
    place = hashlib.sha256(f"{agent_id}\n{conversation_id}".encode()).hexdigest()
    return key[:_OF_CALL] + place[: len(key) - _OF_CALL]


def is_same_call(otid: object, other: str) -> bool:
    """Return whether both name one message, or one call in whatever conversation."""
    return isinstance(otid, str) and get_call_part(otid) == get_call_part(other)


def get_call_part(otid: str) -> str:
    """Return the common part of the names of one call, wherever it was sent.

    Other names are returned as they are. In a recording conversations have other ids, so this part
    is the one to compare.
    """
    return otid[:_OF_CALL] if _KEY.fullmatch(otid) else otid
