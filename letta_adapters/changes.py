"""What a management call changes, so that nobody goes on by what was remembered of it before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_ITEM: Final = re.compile(r"/v1/(agents|conversations)/([^/]+)/?")
_COMMANDS: Final[Mapping[str, tuple[str, bool]]] = {
    "agent_delete": ("agents", True),
    "agent_update": ("agents", False),
    "conversation_update": ("conversations", False),
}


@dataclass(frozen=True, slots=True)
class Change:
    """An agent, or a conversation, is not what it was. ``gone``: deleted, or archived."""

    agent_id: str = ""
    conversation_id: str = ""
    gone: bool = False

    def concerns(self, agent_id: str, conversation_id: str) -> bool:
        """Is it about this conversation, or its agent?"""
        if self.agent_id:
            return self.agent_id == agent_id
        return self.conversation_id == conversation_id


def change_of(method: str, path: str, body: Mapping[str, Any] | None) -> Change | None:
    """Return what a call that succeeded has changed; ``None``: nothing that is remembered.

    Args:
        method, path, body: As ``client.request`` takes them (``"COMMAND"`` included).
    """
    given = body or {}
    if method == "COMMAND":
        kind, gone = _COMMANDS.get(path, ("", False))
        field = "agent_id" if kind == "agents" else "conversation_id"
        id_, fields = str(given.get(field) or ""), given.get("body")
        given = fields if isinstance(fields, Mapping) else {}
    else:
        found = _ITEM.fullmatch(path.partition("?")[0])
        kind, id_ = (found[1], found[2]) if found and method in ("PATCH", "DELETE") else ("", "")
        gone = method == "DELETE"
    if kind == "agents":
        return Change(agent_id=id_, gone=gone)
    if kind == "conversations":
        return Change(conversation_id=id_, gone=gone or given.get("archived") is True)
    return None
