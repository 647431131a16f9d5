"""Internal: the events that viewers get, and the log that they are read from.

Nothing is kept for each viewer but a number: all read the same log, which is bounded. So a viewer
that is slow, or has gone, takes no memory.
"""

from __future__ import annotations

import json
import math
import secrets
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from letta_adapters.messages import Message

EventKind: TypeAlias = Literal[
    "snapshot", "message", "queue", "approval", "answered", "handed", "failed", "dropped", "closed"
]
# The text of an exception of yours has paths and values in it; it stays in this process.
_PRIVATE: Final = ("traceback",)
# What a transcript is made of; errors are in none of Letta's, and worth to be seen.
_STORED: Final = frozenset({"user", "assistant", "reasoning", "tool_call", "tool_result", "error"})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a room.

    ``kind`` says how ``data`` is read:

    - ``snapshot``: draw anew. ``messages`` (oldest first), ``queue``, ``running``, ``approvals``,
      ``handed``.
    - ``message``: the next message, as ``message.to_dict()``.
    - ``queue``: ``running`` and the messages that wait, each with ``id``, ``text`` and ``by``.
    - ``approval``: a tool call waits; ``tool_call_id``, ``tool_name``, ``input``, ``kind``,
      ``recovered``. Viewers who may not answer get the first one only.
    - ``answered``: it waits no more; ``tool_call_id``, ``answer`` (``allow``, ``deny``,
      ``postpone``, ``withdrawn``), ``by`` (``None`` if nobody has answered).
    - ``handed``: a tool call waits for a page that carries it out; ``tool_call_id``, ``tool_name``,
      ``by`` (whose page). Its result is the end of it.
    - ``failed``: a message was not sent, or its turn was lost; ``id``, ``code``, ``message``,
      ``hint``.
    - ``dropped``: this viewer was too slow and has to come back with its last ``id``.
    - ``closed``: the room is closed; ``reason``.

    ``id`` names the place in the room's log to go on from; ``""`` if the event has none.
    """

    kind: EventKind
    data: Mapping[str, Any]
    id: str = ""
    number: int = field(default=0, compare=False)
    # Written once for all viewers.
    text: str = field(default="", compare=False, repr=False)
    # What viewers get who may not answer; the same as ``text`` if it is empty.
    public_text: str = field(default="", compare=False, repr=False)

    def write(self, *, may_approve: bool) -> str:
        """Return ``data`` as JSON for a viewer."""
        return self.text if may_approve or not self.public_text else self.public_text


def make_event(
    kind: EventKind,
    data: Mapping[str, Any],
    *,
    id: str = "",
    number: int = 0,
    public: Mapping[str, Any] | None = None,
) -> Event:
    """Return an event with its JSON.

    Args:
        kind: The kind.
        data: What happened.
        id: The place in the log.
        number: The same as a number.
        public: What viewers get who may not answer; all get ``data`` without it.
    """
    shown = "" if public is None else write_json(public)
    return Event(kind, data, id, number, write_json(data), shown)


def show_message(message: Message) -> dict[str, Any]:
    """Return a message for browsers: without what stays in this process."""
    return {key: value for key, value in message.to_dict().items() if key not in _PRIVATE}


def write_json(value: Any) -> str:
    """Return strict JSON in ASCII.

    Python reads and writes NaN and halves of surrogate pairs, and browsers fail on them.
    """
    try:
        # First as it is: to look through everything for the few such numbers would cost more.
        return json.dumps(value, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_without_nan(value), default=str)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_without_nan(item) for item in value]
    return value


class EventLog:
    """The events of a room in order, with what came before them folded into a transcript.

    A viewer who comes new gets :attr:`base` and then every event after :attr:`base_number`, so each
    message once. The base moves on when a turn is over; the events before it stay a while, for
    viewers who come back.

    Args:
        history: The number of messages in the base.
        events: The number of events that are kept.
        characters: The size of all their JSON together.
    """

    def __init__(self, *, history: int, events: int, characters: int) -> None:
        # Another one for each room: an id of an earlier process must not fit by chance.
        self._epoch = secrets.token_hex(8)
        self._events: deque[Event] = deque()
        self._max_events = events
        self._max_characters = characters
        self._characters = 0
        self.last = 0
        self.base: deque[dict[str, Any]] = deque(maxlen=history)
        self.base_number = 0

    def name(self, number: int) -> str:
        """Return the id of a place in the log."""
        return f"{self._epoch}.{number}"

    def find(self, id: str | None) -> int | None:
        """Return the place that an id names; ``None`` if it is unknown or its events are gone."""
        epoch, _, digits = (id or "").partition(".")
        # An id comes from a client: nothing but a number that this log has given out.
        if epoch != self._epoch or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            return None
        number = int(digits)
        return number if self.first - 1 <= number <= self.last else None

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        return self._events[0].number if self._events else self.last + 1

    def add(
        self, kind: EventKind, data: Mapping[str, Any], public: Mapping[str, Any] | None = None
    ) -> Event:
        """Add an event, and forget the oldest ones beyond the limits.

        Args:
            kind: The kind.
            data: What happened.
            public: What viewers get who may not answer.
        """
        self.last += 1
        event = make_event(kind, data, id=self.name(self.last), number=self.last, public=public)
        self._events.append(event)
        self._characters += len(event.text)
        # The newest event stays whatever its size, as nobody has read it yet.
        while len(self._events) > 1 and (
            len(self._events) > self._max_events or self._characters > self._max_characters
        ):
            gone = self._events.popleft()
            self._characters -= len(gone.text)
            # A very long turn: its beginning becomes a part of the transcript before its end.
            if gone.number > self.base_number:
                self._fold(gone)
        return event

    def after(self, number: int) -> Event | None:
        """Return the event after a place; ``None`` if there is none yet.

        Args:
            number: A place not before :attr:`first`.
        """
        at = number + 1 - self.first
        return self._events[at] if at < len(self._events) else None

    def fold(self) -> None:
        """Make all that happened so far a part of the transcript, because a turn is over."""
        for event in self._events:
            if event.number > self.base_number:
                self._fold(event)

    def _fold(self, event: Event) -> None:
        # Fragments are void once their message is whole; how a turn began and ended is not stored.
        if event.kind == "message" and event.data.get("type") in _STORED:
            self.base.append(dict(event.data))
        self.base_number = event.number

    def restart(self, messages: Sequence[Message]) -> None:
        """Make stored messages the transcript, while no turn runs.

        Args:
            messages: The messages, oldest first.
        """
        self.base.clear()
        self.base.extend(_show_all(messages))
        self.base_number = self.last


def _show_all(messages: Iterable[Message]) -> Iterable[dict[str, Any]]:
    # The system prompt is the agent's, and nothing that viewers are to read.
    return (show_message(m) for m in messages if m.type != "system")
