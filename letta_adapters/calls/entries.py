"""A message of a framework's history, in terms of neither framework."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from letta_adapters.calls.marker import Marker
from letta_adapters.messages import PendingToolCall

# What is told with the images of a message that holds text only where it goes.
IMAGES_BESIDE: Final = "(Images of the message before.)"
_DIGEST_CHARS: Final = 12


@dataclass(frozen=True, slots=True)
class Entry:
    """One message.

    ``content``: text, or parts in Letta's wire form (``{"type": "text", ...}``, ``{"type":
    "image", ...}``; :func:`letta_adapters.content.to_wire` makes them). ``id``: the framework's id
    of the message, if it has one that stays the same when the call is repeated. ``marker``: of an
    assistant message that one of our agents gave. ``tool_calls``: of an assistant message. A
    ``tool`` entry answers ``tool_call_id`` with its content, or, where the call asked whether the
    server's own tool may run, with a ``decision``: anything that ``normalise_decision`` takes; for
    any other call it says nothing. ``known``: the conversation holds it already
    (its turn failed after it was accepted), so it is not sent again. ``summary``: a framework put
    it in the place of what stood before, which it tells in short. ``fact``: a ``tool`` entry says
    what became of a call that its run left open; whoever asked, it is no decision. ``kept``: the
    digest of the message as the framework keeps it, if it has decorated this copy (a state prompt,
    a memory's content): the next history shows it without.
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
        """The text of its content."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(p.get("text") or "") for p in self.content if p.get("type") == "text")

    @property
    def others(self) -> list[Mapping[str, Any]]:
        """The parts of its content that are no text."""
        if isinstance(self.content, str):
            return []
        return [part for part in self.content if part.get("type") != "text"]

    def digest(self) -> str:
        """Says whether two entries are the same message; ids and names do not count."""
        if self.kept is not None:
            return self.kept
        calls = [(call.tool_name, call.raw_arguments) for call in self.tool_calls]
        return digest_of(self.role, self.text, self.others, self.tool_call_id, calls)


def digest_of(*values: Any) -> str:
    """A short digest of JSON values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]


def arguments_digest(raw: str) -> str:
    """Says whether a call's arguments are still the same, however they are written."""
    try:
        return digest_of(json.loads(raw or "{}"))
    except ValueError:
        return digest_of(raw)


def as_text(entries: Iterable[Entry]) -> str:
    """Entries as a transcript, for a server that takes no history as messages."""
    return "\n".join(line for entry in entries for line in _lines(entry))


def _lines(entry: Entry) -> list[str]:
    if entry.role == "tool":
        kind = "Error" if entry.is_error else "Result"
        return [f"{kind} of the tool call {entry.tool_call_id}: {entry.text}"]
    speaker = "User" if entry.role == "user" else "Assistant"
    named = f"{speaker} ({entry.name})" if entry.name else speaker
    lines = [f"{named}: {entry.text}"] if entry.text else []
    lines += (
        f"{named} called the tool {call.tool_name} ({call.tool_call_id}) with {call.raw_arguments}"
        for call in entry.tool_calls
    )
    return lines


def as_messages(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Entries as messages of the Letta API, which stores any ``user`` and ``assistant`` text.

    It takes no tool calls and tool results from the outside (0.16.8): they become text.
    """
    made: list[dict[str, Any]] = []
    for entry in entries:
        if entry.role == "user" and not isinstance(entry.content, str):
            message: dict[str, Any] = {"role": "user", "content": list(entry.content)}
        elif entry.role == "user":
            message = {"role": "user", "content": entry.content}
        else:
            plain = entry.role == "assistant" and not entry.tool_calls
            text = entry.text if plain else "\n".join(_lines(entry))
            message = {"role": "user" if entry.role == "tool" else "assistant", "content": text}
        if entry.name:
            message["name"] = entry.name
        if message["content"]:  # the server refuses an empty one
            made.append(message)
        if entry.role != "user" and entry.others:
            # Images stand in a user's message only.
            beside = {"type": "text", "text": IMAGES_BESIDE}
            made.append({"role": "user", "content": [beside, *entry.others]})
    return made
