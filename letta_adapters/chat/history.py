"""Internal: split a history into what the agent has seen and what is new. No I/O.

An assistant message of ours carries a :class:`~letta_adapters.chat.marker.Marker`. The messages
before the newest one must be a suffix of the input of that turn (a history may be trimmed at its
front), and the messages after it are new. System messages take no part: prompts with a date in them
must not start a conversation anew with every call.

What becomes of a history that does not fit (it forks, continues or fails) is decided by
:mod:`~letta_adapters.chat.routing`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from letta_adapters.chat.marker import Marker
from letta_adapters.chat.request import HistoryMessage, Place, digest_arguments
from letta_adapters.errors import InvalidInputError
from letta_adapters.messages import PendingToolCall

# The number of digests that a marker keeps; messages before those are not compared.
KEPT: Final = 200
# Never to be changed: stored messages are recognised by ids made in this namespace.
_SPACE: Final = uuid.UUID("6f7c1c52-53b9-4a0e-a0d6-2f6a6d3ec2a4")


def encode_call(id_: str | None, name: str, arguments: Mapping[str, Any] | str) -> PendingToolCall:
    """Return a tool call of a framework's message as histories are compared by it.

    Args:
        id_: The call's id, if it has one.
        name: The tool.
        arguments: The arguments, or the text that the model wrote in their place.
    """
    if not isinstance(arguments, str):
        # Sorted keys: the same arguments have to have the same digest when the history comes back.
        arguments = json.dumps(arguments, sort_keys=True, default=str)
    return PendingToolCall(id_ or "", name, arguments)


@dataclass(frozen=True, slots=True)
class HistorySplit:
    """Hold a history, taken apart.

    Attributes:
        marker: The newest marker of this agent that was given at this place.
        mismatch: Why the history does not fit the marker, or ``""``.
        new: The messages after the marker.
        last_turn: The messages after the newest assistant message, whoever gave it; where none
            follow, the history from its last user's message on.
        whole: All messages but the system messages.
        system: The text of the system messages.
        edited: The calls that the agent did not make like that, and their arguments as the history
            has them now.
    """

    marker: Marker | None
    mismatch: str
    new: tuple[HistoryMessage, ...]
    last_turn: tuple[HistoryMessage, ...]
    whole: tuple[HistoryMessage, ...]
    system: str
    edited: Mapping[str, str] = field(default_factory=dict)


def split_history(
    entries: Sequence[HistoryMessage], agent_id: str, place: Place | None = None
) -> HistorySplit:
    """Take a history apart for this agent, as it is seen from a place.

    A history need not end with a user's message: a graph promises only that some node is called
    now.

    Args:
        entries: The history, oldest first.
        agent_id: The agent whose answers count.
        place: The place of the call; ``None``: answers given anywhere count.

    Raises:
        InvalidInputError: The history is empty, or ends with calls that have no results.
    """
    whole = tuple(entry for entry in entries if entry.role != "system")
    system = "\n\n".join(e.text for e in entries if e.role == "system" and e.text.strip())
    if not whole and not system:
        raise InvalidInputError(
            "There is no message to send.", hint="The history needs a user's message."
        )
    at = _find_newest(whole, agent_id, place)
    marker = whole[at].marker if at is not None else None
    new = whole if at is None else whole[at + 1 :]
    if marker is not None and marker.pending and not new:
        raise InvalidInputError(
            "The history ends with tool calls of the agent: there is nothing new to send.",
            hint="Add the results of the tools it called.",
        )
    mismatch = _find_mismatch(whole, at, agent_id) if at is not None else ""
    edited = _find_edited(whole[at]) if at is not None else {}
    return HistorySplit(marker, mismatch, new, _find_last_turn(whole), whole, system, edited)


def _find_newest(whole: Sequence[HistoryMessage], agent_id: str, place: Place | None) -> int | None:
    """Return the index of the newest answer of this agent that was given at this place.

    An answer that does not tell where it was given counts unless one of another place follows it:
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


def _find_edited(answer: HistoryMessage) -> dict[str, str]:
    """Return the new arguments of calls that the application changed, by the calls' ids."""
    marker = answer.marker
    assert marker is not None
    asked = {id_: made for (id_, _), made in zip(marker.pending, marker.arguments, strict=False)}
    return {
        call.tool_call_id: call.raw_arguments
        for call in answer.tool_calls
        if asked.get(call.tool_call_id, "") not in ("", digest_arguments(call.raw_arguments))
    }


def _find_last_turn(whole: tuple[HistoryMessage, ...]) -> tuple[HistoryMessage, ...]:
    """Return the messages after the newest answer, or from the last user's message on."""
    last_reply = max((i for i, e in enumerate(whole) if e.role == "assistant"), default=-1)
    if last_reply + 1 < len(whole):
        return whole[last_reply + 1 :]
    asked = max((i for i, e in enumerate(whole) if e.role == "user"), default=0)
    return whole[asked:]


def _find_mismatch(whole: Sequence[HistoryMessage], at: int, agent_id: str) -> str:
    """Compare the messages before each of the agent's markers with those it was given.

    Returns:
        Why they do not fit, or ``""``.
    """
    here: int | None = at
    while here is not None:
        marker = whole[here].marker
        assert marker is not None
        # Walk back from the answer, message by message, as far as its marker has digests.
        inputs = marker.inputs
        start = here
        while start > 0 and here - start < len(inputs):
            if whole[start - 1].summary:
                return ""  # the history was trimmed here, and says so
            if whole[start - 1].digest() != inputs[len(inputs) - 1 - (here - start)]:
                return "a message that the agent has answered is no longer what it was"
            start -= 1
        # A history that begins here, or goes on beyond the digests, fits as far as anyone can tell.
        trimmed = start == 0 or whole[start - 1].summary
        if trimmed or (marker.earlier and here - start == len(inputs)):
            return ""
        # Otherwise another answer of ours must stand right before: the one that this marker names.
        before = whole[start - 1].marker
        if before is None or before.agent_id != agent_id or before.key != marker.previous:
            return "there are messages before the agent's answer that it was not given"
        here = start - 1
    return ""


def digest_inputs(entries: Sequence[HistoryMessage]) -> tuple[tuple[str, ...], bool]:
    """Return the ``inputs`` and ``earlier`` of a marker whose turn was given these entries."""
    kept = entries[-KEPT:]
    return tuple(entry.digest() for entry in kept), len(kept) < len(entries)


def make_call_key(send: Sequence[HistoryMessage], context: Sequence[object]) -> str | None:
    """Return an id that a repeated call has again: its message's ``otid`` (``engine/otids.py``).

    ``None`` if the framework gave the newest message no id of its own: two equal questions may be
    meant as two. A tool's result needs none, its call's id is unique. Nothing in it comes from the
    server, so a recorded conversation has it too; it begins with zeros, as such ids do.

    Args:
        send: The messages to send.
        context: Other things that make two calls different (system text, tools, the thread's name).
    """
    if not send:
        return None
    last = send[-1]
    if last.role != "tool" and not last.id:
        return None
    named = [(entry.id or "", entry.digest()) for entry in send]
    made = uuid.uuid5(_SPACE, json.dumps([named, [str(item) for item in context]]))
    return f"00000000-{str(made)[9:]}"
