"""Represent a message of a framework's history without the framework's classes.

Internal: not part of the public API.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from letta_adapters.chat.marker import Marker
from letta_adapters.messages import PendingToolCall

_DIGEST_CHARS: Final = 12


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """Hold one message of a history.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"`` or ``"tool"``.
        content: Text, or parts in Letta's wire form (``{"type": "text", ...}``, ``{"type": "image",
            ...}``; :func:`letta_adapters.content.to_wire` makes them).
        id: The framework's id of the message, if it stays the same when the call is repeated.
        name: The name of the speaker, if the framework gives one.
        marker: The marker of an assistant message that one of our agents gave.
        tool_calls: The tool calls of an assistant message.
        tool_call_id: The call that a ``tool`` entry answers with its content.
        is_error: The tool failed, and the content says how.
        decision: On a ``tool`` entry for a call that asks whether the server's own tool may run:
            anything that ``normalise_decision`` takes. It has no meaning for any other call.
        known: The conversation holds the message already (its turn failed after it was accepted),
            so it is not sent again.
        summary: A framework put this message in the place of earlier ones, which it sums up.
        fact: A ``tool`` entry reports the fate of a call that its run left open. It is no decision,
            whoever asked.
        kept: Digest of the message as the framework stores it, if this copy is decorated (with a
            state prompt, with a memory's content): the next history shows it without the
            decoration.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | Sequence[Mapping[str, Any]] = ""
    id: str | None = None
    name: str | None = None
    marker: Marker | None = None
    tool_calls: tuple[PendingToolCall, ...] = ()
    tool_call_id: str = ""
    is_error: bool = False
    decision: object = None
    known: bool = False
    summary: bool = False
    fact: bool = False
    kept: str | None = None

    @property
    def text(self) -> str:
        """Return the text of the content."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(p.get("text") or "") for p in self.content if p.get("type") == "text")

    @property
    def others(self) -> list[Mapping[str, Any]]:
        """Return the parts of the content that are no text."""
        if isinstance(self.content, str):
            return []
        return [part for part in self.content if part.get("type") != "text"]

    def digest(self) -> str:
        """Return a digest that two entries share if they are the same message.

        Ids and names do not count.
        """
        # The framework stores the undecorated message, and the next history is compared with that.
        if self.kept is not None:
            return self.kept
        # Ids are left out: a framework may give a message and its calls other ids when it reloads
        # them.
        calls = [(call.tool_name, call.raw_arguments) for call in self.tool_calls]
        return make_digest(self.role, self.text, self.others, self.tool_call_id, calls)


def make_digest(*values: Any) -> str:
    """Return a short digest of JSON values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]


def digest_arguments(raw: str) -> str:
    """Return a digest of a call's arguments, whatever the order and spacing of their JSON.

    Args:
        raw: The arguments as JSON text; malformed text is digested as it stands.
    """
    try:
        return make_digest(json.loads(raw or "{}"))
    except ValueError:
        return make_digest(raw)
