"""The history rule: what of a history the agent has not seen. Pure.

An assistant message of ours carries a :class:`~letta_adapters.calls.marker.Marker`. What stands
before the newest one must be a suffix of what that turn was given (a history may be trimmed at its
front), and what follows it is new. System messages take no part: prompts with a date in them must
not start a conversation anew with every call.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from letta_adapters.calls.entries import Entry, arguments_digest
from letta_adapters.calls.marker import Marker
from letta_adapters.calls.scope import Place
from letta_adapters.errors import InvalidInputError

# How many digests a marker keeps; what stood before them is not looked at.
KEPT: Final = 200
_SPACE: Final = uuid.UUID("6f7c1c52-53b9-4a0e-a0d6-2f6a6d3ec2a4")


@dataclass(frozen=True, slots=True)
class Plan:
    """A history, taken apart.

    ``marker``: the newest of the agent's own, given at this place. ``mismatch``: why the history
    does not fit it, or ``""``. ``new``: what follows it. ``last_turn``: what follows the newest
    assistant message, whoever gave it; where nothing does, the history from its last user's
    message on. ``whole``: all but the system messages. ``system``: their text.
    ``edited``: the calls that the agent did not make like that, and their arguments as the history
    has them now.
    """

    marker: Marker | None
    mismatch: str
    new: tuple[Entry, ...]
    last_turn: tuple[Entry, ...]
    whole: tuple[Entry, ...]
    system: str
    edited: Mapping[str, str] = field(default_factory=dict)


def make_plan(entries: Sequence[Entry], agent_id: str, place: Place | None = None) -> Plan:
    """Take a history apart for this agent, as it is seen from a place.

    A history need not end with a user: a graph promises only that some node is called now.

    Raises:
        InvalidInputError: it is empty, or ends with calls that have no results.
    """
    whole = tuple(entry for entry in entries if entry.role != "system")
    system = "\n\n".join(e.text for e in entries if e.role == "system" and e.text.strip())
    if not whole and not system:
        raise InvalidInputError(
            "There is no message to send.", hint="The history needs a user's message."
        )
    at = _newest(whole, agent_id, place)
    marker = whole[at].marker if at is not None else None
    new = whole if at is None else whole[at + 1 :]
    if marker is not None and marker.pending and not new:
        raise InvalidInputError(
            "The history ends with tool calls of the agent: there is nothing new to send.",
            hint="Add the results of the tools it called.",
        )
    mismatch = _mismatch(whole, at, agent_id) if at is not None else ""
    edited = _edited(whole[at]) if at is not None else {}
    return Plan(marker, mismatch, new, _last_turn(whole), whole, system, edited)


def _newest(whole: Sequence[Entry], agent_id: str, place: Place | None) -> int | None:
    """Where the newest answer of this agent, given at this place, stands.

    An answer that does not say where it was given counts unless one of another place follows it:
    this place would have been given that one too, and has its own conversation.
    """
    elsewhere = False
    for at in range(len(whole) - 1, -1, -1):
        marker = whole[at].marker
        if marker is None or marker.agent_id != agent_id:
            continue
        here = place is None or place.made(marker)
        if here or (here is None and not elsewhere):
            return at
        elsewhere = True
    return None


def _edited(answer: Entry) -> dict[str, str]:
    marker = answer.marker
    assert marker is not None
    asked = {id_: made for (id_, _), made in zip(marker.pending, marker.arguments, strict=False)}
    return {
        call.tool_call_id: call.raw_arguments
        for call in answer.tool_calls
        if asked.get(call.tool_call_id, "") not in ("", arguments_digest(call.raw_arguments))
    }


def _last_turn(whole: tuple[Entry, ...]) -> tuple[Entry, ...]:
    last_reply = max((i for i, e in enumerate(whole) if e.role == "assistant"), default=-1)
    if last_reply + 1 < len(whole):
        return whole[last_reply + 1 :]
    asked = max((i for i, e in enumerate(whole) if e.role == "user"), default=0)
    return whole[asked:]


def _mismatch(whole: Sequence[Entry], at: int, agent_id: str) -> str:
    """Compare what stands before each of the agent's markers with what it was given."""
    here: int | None = at
    while here is not None:
        marker = whole[here].marker
        assert marker is not None
        inputs = marker.inputs
        start = here
        while start > 0 and here - start < len(inputs):
            if whole[start - 1].summary:
                return ""  # the history was trimmed here, and says so
            if whole[start - 1].digest() != inputs[len(inputs) - 1 - (here - start)]:
                return "a message that the agent has answered is no longer what it was"
            start -= 1
        trimmed = start == 0 or whole[start - 1].summary
        if trimmed or (marker.earlier and here - start == len(inputs)):
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
        send: What is to be sent.
        context: What else makes two calls different (system text, tools, the thread's name).
    """
    if not send:
        return None
    last = send[-1]
    if last.role != "tool" and not last.id:
        return None
    named = [(entry.id or "", entry.digest()) for entry in send]
    made = uuid.uuid5(_SPACE, json.dumps([named, [str(item) for item in context]]))
    return f"00000000-{str(made)[9:]}"
