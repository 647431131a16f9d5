"""Internal: find the answers to calls that end the turn they are of, which no model reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from letta_adapters.chat.request import HistoryMessage
from letta_adapters.errors import TurnCancelledError
from letta_adapters.permissions import Deny, denials, normalise_decision


def find_ending(entries: Iterable[HistoryMessage]) -> TurnCancelledError | None:
    """Return the error of a turn that one of these answers to its calls ends, if one does.

    Args:
        entries: The ``tool`` entries that answer the calls.

    Raises:
        InvalidInputError: An entry pretends to be a decision and is none.
    """
    for entry in entries:
        decision = None if entry.decision is None else normalise_decision(entry.decision)
        if entry.ends:
            return TurnCancelledError(entry.text)
        if isinstance(decision, Deny) and decision.interrupt:
            return TurnCancelledError(decision.message or denials.INTERRUPTED)
    return None


def list_last_answers(entries: Sequence[HistoryMessage]) -> list[HistoryMessage]:
    """Return the answers to calls with which a history ends, newest first."""
    said = (entry for entry in reversed(entries) if entry.role != "system")
    return list(itertools.takewhile(lambda entry: entry.role == "tool", said))
