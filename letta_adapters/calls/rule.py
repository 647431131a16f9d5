"""The history rule: what of a history the agent has not seen. Pure.

An assistant message of ours carries a :class:`~letta_adapters.calls.marker.Marker`. What stands
before the newest one must be a suffix of what that turn was given (a history may be trimmed at its
front), and what follows it is new. System messages take no part: prompts with a date in them must
not start a conversation anew with every call.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from letta_adapters.calls.entries import Entry
from letta_adapters.calls.marker import Marker
from letta_adapters.errors import InvalidInputError

# How many digests a marker keeps; what stood before them is not looked at.
KEPT: Final = 200
_SPACE: Final = uuid.UUID("6f7c1c52-53b9-4a0e-a0d6-2f6a6d3ec2a4")


@dataclass(frozen=True, slots=True)
class Plan:
    """A history, taken apart.

    ``marker``: the newest of the agent's own. ``mismatch``: why the history does not fit it, or
    ``""``. ``new``: what follows it. ``since_reply``: what follows the newest assistant message,
    whoever gave it. ``whole``: all but the system messages. ``system``: their text.
    """

    marker: Marker | None
    mismatch: str
    new: tuple[Entry, ...]
    since_reply: tuple[Entry, ...]
    whole: tuple[Entry, ...]
    system: str


def make_plan(entries: Sequence[Entry], agent_id: str) -> Plan:
    """Take a history apart for this agent.

    Raises:
        InvalidInputError: there is nothing in it that the agent could answer.
    """
    whole = tuple(entry for entry in entries if entry.role != "system")
    system = "\n\n".join(e.text for e in entries if e.role == "system" and e.text.strip())
    if not whole:
        raise InvalidInputError(
            "There is no message to send.", hint="The history needs a user's message."
        )
    at = _newest(whole, agent_id, len(whole))
    marker = whole[at].marker if at is not None else None
    new = whole if at is None else whole[at + 1 :]
    last_reply = max((i for i, e in enumerate(whole) if e.role == "assistant"), default=-1)
    since_reply = whole[last_reply + 1 :]
    if not any(entry.role in ("user", "tool") for entry in new):
        raise InvalidInputError(
            "The history ends with the agent's own answer: there is nothing new to send.",
            hint="Add a user's message, or the results of the tools it called.",
        )
    mismatch = _mismatch(whole, at, agent_id) if at is not None else ""
    return Plan(marker, mismatch, new, since_reply, whole, system)


def _newest(whole: Sequence[Entry], agent_id: str, before: int) -> int | None:
    """Where the newest answer of this agent before that place stands."""
    for at in range(before - 1, -1, -1):
        marker = whole[at].marker
        if marker is not None and marker.agent_id == agent_id:
            return at
    return None


def _mismatch(whole: Sequence[Entry], at: int, agent_id: str) -> str:
    """Compare what stands before each of the agent's markers with what it was given."""
    here: int | None = at
    while here is not None:
        marker = whole[here].marker
        assert marker is not None
        inputs = marker.inputs
        start = here
        while start > 0 and here - start < len(inputs):
            if whole[start - 1].digest() != inputs[len(inputs) - 1 - (here - start)]:
                return "a message that the agent has answered is no longer what it was"
            start -= 1
        if start == 0 or (marker.earlier and here - start == len(inputs)):
            return ""
        before = whole[start - 1].marker
        if before is None or before.agent_id != agent_id or before.key != marker.previous:
            return "there are messages before the agent's answer that it was not given"
        here = start - 1
    return ""


def inputs_of(entries: Sequence[Entry]) -> tuple[tuple[str, ...], bool]:
    """The ``inputs`` and ``earlier`` of a marker whose turn was given these entries."""
    kept = entries[-KEPT:]
    return tuple(entry.digest() for entry in kept), len(kept) < len(entries)


def call_key(send: Sequence[Entry], context: Sequence[object]) -> str | None:
    """An id that a repeated call has again: the ``otid`` of its message (see ``engine/otids.py``).

    ``None`` if the framework gave the newest message no id of its own: two equal questions may be
    meant as two. A tool's result needs none, its call's id is unique. Nothing in it comes from the
    server, so a recorded conversation has it too; it begins with zeros, as such ids do.

    Args:
        send: What is to be sent, not empty.
        context: What else makes two calls different (system text, tools, the thread's name).
    """
    last = send[-1]
    if last.role != "tool" and not last.id:
        return None
    named = [(entry.id or "", entry.digest()) for entry in send]
    made = uuid.uuid5(_SPACE, json.dumps([named, [str(item) for item in context]]))
    return f"00000000-{str(made)[9:]}"
