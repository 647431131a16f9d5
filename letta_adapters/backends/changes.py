"""The effects of management calls on facts about agents and conversations that are cached.

Internal: not part of the public API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_ITEM: Final = re.compile(r"/v1/(agents|conversations)/([^/]+)/?")
# The commands of Letta Code that change one of them: its kind, and whether it is gone then.
_COMMANDS: Final[Mapping[str, tuple[str, bool]]] = {
    "agent_delete": ("agents", True),
    "agent_update": ("agents", False),
    "conversation_update": ("conversations", False),
}


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an agent or a conversation; ``gone`` means that it was deleted or archived."""

    agent_id: str = ""
    conversation_id: str = ""
    gone: bool = False

    def concerns(self, agent_id: str, conversation_id: str) -> bool:
        """Return whether the change is about this conversation, or its agent."""
        if self.agent_id:
            return self.agent_id == agent_id
        return self.conversation_id == conversation_id


def change_of(method: str, path: str, body: Mapping[str, Any] | None) -> Change | None:
    """Return the change that a successful call has made; ``None`` if nothing cached has changed.

    Args:
        method: The method, as ``client.request`` takes it (``"COMMAND"`` included).
        path: The path of the request, or the name of the command.
        body: The body of the request, or the fields of the command.
    """
    given = body or {}
    if method == "COMMAND":
        kind, gone = _COMMANDS.get(path, ("", False))
        field = "agent_id" if kind == "agents" else "conversation_id"
        # A command has its own fields, and the change itself one level deeper.
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
