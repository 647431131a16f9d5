"""Judge the tool calls that the server asks about, by this package's own rules.

The server is told to ask about every tool (mode ``strict``). A call that needs nobody's word is
answered at once; the others go to whoever reads the turn, with their kind and the answer that would
be given by default.

Internal: not part of the public API.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from letta_adapters.backends.base import Conversation
from letta_adapters.engine.app_server import Verdict
from letta_adapters.messages import ToolCallMessage
from letta_adapters.permissions import Allow, denials
from letta_adapters.permissions.policy import (
    Ground,
    Machine,
    Rules,
    answer_unasked,
    is_disallowed,
    kind_of,
)

# A callback's `Allow(save=...)` refers to this. The server's own suggestions would write rules into
# the working directory, which grants nothing here.
_SAVE: Final = {"id": "save-default", "text": "Yes, and don't ask again for this very call"}
# The number of remembered calls, of all conversations together; the oldest are asked about again.
_REMEMBERED: Final = 1000

log = logging.getLogger("letta_adapters")


@dataclass(frozen=True, slots=True)
class Session:
    """The settings of a session, as they are now.

    ``cwd`` is where the agent works, ``None`` if that is not known (any more). ``asks`` is true if
    somebody wants to be asked about every call.
    """

    rules: Rules = field(default_factory=Rules)
    cwd: str | None = None
    asks: bool = False


class Permits:
    """The judge of one backend.

    Args:
        machine: The server's directories, if it runs on this machine as this user. Without it no
            path can be looked at, so that no file may be read unasked.
    """

    def __init__(self, machine: Machine | None) -> None:
        self._machine = machine
        self._remembered: dict[tuple[Conversation, str, str], None] = {}
        self._warned: set[str] = set()

    def verdict(
        self, conversation: Conversation, name: str, tool_input: Mapping[str, Any], session: Session
    ) -> Verdict:
        """Return the verdict on a call that the server asks about."""
        # Before all else: what the session rules out stays so, whatever was allowed earlier.
        if is_disallowed(name, session.rules):
            return Verdict(refused=denials.DISALLOWED)
        if self._key(conversation, name, tool_input) in self._remembered:
            return Verdict(granted=True)
        if self._machine is None:
            ground = Ground()
        else:
            ground = self._machine.ground(conversation.agent_id, session.cwd)
        kind = kind_of(name, tool_input, ground)
        answer = answer_unasked(name, kind, session.rules)
        if isinstance(answer, Allow):
            default: dict[str, Any] = {"behavior": "allow"}
        else:
            default = {"behavior": "deny", "message": answer.message}
        about = {"kind": kind, "default": default, "suggestions": (_SAVE,)}
        return Verdict(granted=isinstance(answer, Allow) and not session.asks, about=about)

    def remember(self, conversation: Conversation, call: ToolCallMessage) -> None:
        """Ask no more about this very call in this conversation."""
        self._remembered[self._key(conversation, call.tool_name, call.tool_input)] = None
        while len(self._remembered) > _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _key(
        self, conversation: Conversation, name: str, tool_input: Mapping[str, Any]
    ) -> tuple[Conversation, str, str]:
        return conversation, name, json.dumps(tool_input, sort_keys=True, default=repr)

    def warn_unasked(self, names: Sequence[str]) -> None:
        """Warn, once for each tool, that somebody else's server runs it without a question."""
        new = sorted(set(names) - self._warned)
        if new:
            self._warned.update(new)
            log.warning(
                "The App Server ran %s without asking: its own settings allow that, and no client "
                "can prevent it.",
                ", ".join(new),
            )
