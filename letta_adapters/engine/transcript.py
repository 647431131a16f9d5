"""Messages → the rows a user interface draws, and stored history merged into them.

The same thing arrives several times under different guises: fragments, then the complete message,
then the stored one, whose ``id`` may differ. What identifies it is the ``otid`` for text and the
``tool_call_id`` for a tool, so that is what rows are joined on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from letta_adapters.engine.assembler import arguments_of
from letta_adapters.engine.rows import (
    CALLS,
    KIND_OF_TEXT,
    Entry,
    Row,
    RowId,
    RowKind,
    calls_of,
    oldest_first,
    read_stored,
    text_of,
)
from letta_adapters.messages import (
    AssistantMessage,
    ErrorMessage,
    Message,
    MessagePage,
    ReasoningMessage,
    ResultMessage,
    RetryMessage,
    StreamEvent,
    ToolCallMessage,
    ToolResultMessage,
    UnknownMessage,
)

__all__ = ["Row", "Transcript"]

# Fragments and messages of these kinds come as messages of their own; as an ``UnknownMessage``
# they are something this version cannot read.
_READABLE = frozenset({*KIND_OF_TEXT, *CALLS, "tool_return_message"})


class Transcript:
    """Accumulates the messages of any number of turns into rows.

    ::

        transcript = Transcript()
        transcript.rebase(await session.list_messages())
        async for message in session.stream():
            transcript.apply(message)
            draw(transcript.rows)

    Applying a message again changes nothing. Not thread-safe.
    """

    def __init__(self) -> None:
        self._entries: dict[RowId, Entry] = {}
        self._turn = 0
        # By identity, and kept so that no id is used again: two fragments can be equal.
        self._fragments: dict[int, object] = {}
        self._applied: dict[int, object] = {}

    @property
    def rows(self) -> tuple[Row, ...]:
        """What there is to show now, oldest first. A row that did not change is the same object."""
        return tuple(entry.row() for entry in self._entries.values() if not entry.void)

    def apply(self, message: Message) -> None:
        """Take the next message of a stream.

        Args:
            message: Anything ``session.stream()`` yields. Fragments (``StreamEvent``) grow a row
                that is ``"streaming"``, the complete message replaces its text. A ``RetryMessage``
                takes back what the failed attempt said, a failed ``ResultMessage`` marks what it
                left unfinished as ``"failed"``. An ``InitMessage`` makes no row.
        """
        reader = _APPLY.get(type(message))
        if reader is not None:
            reader(self, message)

    def rebase(self, history: MessagePage | Sequence[Mapping[str, Any]]) -> None:
        """Make the stored messages the truth, and keep what is not stored yet.

        Rows of an earlier ``rebase`` that are not in ``history`` are gone: give all the pages you
        show. Rows from streams stay where they were between the rows that are stored by now, and at
        the end if nothing after them is. A text whose stored form is only the beginning of what
        streams at the moment (the App Server lists unfinished messages) goes on streaming.

        Args:
            history: The API's own message objects, newest first, as ``list_messages()`` gives them.
        """
        items = history.messages if isinstance(history, MessagePage) else history
        stored: dict[RowId, Entry] = {}
        for item in oldest_first(items):
            read_stored(stored, item)
        live = self._entries
        merged = {id_: _merge(entry, live.get(id_)) for id_, entry in stored.items()}
        self._entries = _woven(merged, live)

    # -- one method per kind of message -----------------------------------------------------

    def _entry(self, kind: RowKind, key: str | None) -> Entry:
        id_ = (kind, str(key or f"turn-{self._turn}"))
        entry = self._entries.get(id_)
        if entry is None:
            entry = self._entries[id_] = Entry(*id_)
        return entry

    def _assistant(self, message: AssistantMessage) -> None:
        entry = self._entry("assistant", message.otid or message.id)
        entry.says(message.content, message.run_id)

    def _reasoning(self, message: ReasoningMessage) -> None:
        entry = self._entry("reasoning", message.otid or message.id)
        entry.says("" if message.redacted else message.content, message.run_id)

    def _call(self, message: ToolCallMessage) -> None:
        entry = self._entry("tool", message.tool_call_id)
        entry.calls(message.tool_name, message.raw_arguments, message.tool_input, message.run_id)

    def _result(self, message: ToolResultMessage) -> None:
        entry = self._entry("tool", message.tool_call_id)
        entry.returns(message.content, message.is_error, message.tool_name, message.run_id)

    def _unknown(self, message: UnknownMessage) -> None:
        if message.event_type not in _READABLE:
            read_stored(self._entries, message.raw)

    def _fragment(self, message: StreamEvent) -> None:
        event = message.event
        if id(event) in self._fragments:
            return
        self._fragments[id(event)] = event
        kind = str(event.get("message_type"))
        if kind in KIND_OF_TEXT:
            entry = self._entry(KIND_OF_TEXT[kind], event.get("otid") or event.get("id"))
            if entry.growing:
                entry.parts.append(text_of(event))
                entry.changed(event.get("run_id"))
        elif kind in CALLS:
            for call in calls_of(event):
                entry = self._entry("tool", call.get("tool_call_id"))
                if entry.growing:
                    entry.name = call.get("name") or entry.name
                    entry.parts.append(arguments_of(call))
                    entry.changed(event.get("run_id"))

    def _error(self, message: ErrorMessage) -> None:
        if self._first_time(message):
            entry = self._entry("error", message.run_id)
            entry.is_error = True
            entry.says(message.message, message.run_id)

    def _retry(self, message: RetryMessage) -> None:
        if self._first_time(message):
            for entry in self._unfinished((message.run_id,) if message.run_id else ()):
                # A call that is complete is no longer being written by the model.
                if entry.growing:
                    entry.parts = []
                    entry.void = True

    def _end(self, message: ResultMessage) -> None:
        if self._first_time(message):
            for entry in self._unfinished(message.run_ids):
                entry.settle("complete" if message.success else "failed")
            self._fragments.clear()
            self._turn += 1

    def _first_time(self, message: Message) -> bool:
        known = id(message) in self._applied
        self._applied[id(message)] = message
        return not known

    def _unfinished(self, run_ids: Sequence[str]) -> Iterator[Entry]:
        for entry in self._entries.values():
            ours = not run_ids or entry.run_id is None or entry.run_id in run_ids
            if entry.status == "streaming" and ours:
                yield entry


_APPLY: Mapping[type, Callable[[Transcript, Any], None]] = {
    AssistantMessage: Transcript._assistant,
    ReasoningMessage: Transcript._reasoning,
    ToolCallMessage: Transcript._call,
    ToolResultMessage: Transcript._result,
    StreamEvent: Transcript._fragment,
    ErrorMessage: Transcript._error,
    RetryMessage: Transcript._retry,
    ResultMessage: Transcript._end,
    UnknownMessage: Transcript._unknown,
}


def _merge(stored: Entry, live: Entry | None) -> Entry:
    """The row of what is stored, with what only the stream knows so far."""
    stored.stored = True
    if live is None:
        return stored
    stored.run_id = stored.run_id or live.run_id
    if stored.kind == "tool":
        if stored.tool_input is None:
            stored.name = stored.name or live.name
            stored.parts, stored.tool_input = live.parts, live.tool_input
        if stored.output is None:
            stored.output, stored.is_error = live.output, live.is_error
            stored.status = live.status
        return stored
    text, so_far = stored.text(), live.text()
    goes_on = live.growing and len(so_far) > len(text) and so_far.startswith(text)
    return live if goes_on else stored


def _woven(stored: dict[RowId, Entry], live: dict[RowId, Entry]) -> dict[RowId, Entry]:
    """The stored rows in their order, with each unstored row next to its neighbours in ``live``."""
    order = list(stored)
    after: dict[RowId, list[RowId]] = {}
    loose: list[RowId] = []
    anchor: RowId | None = None
    for id_, entry in live.items():
        if id_ not in stored:
            if not entry.stored:
                loose.append(id_)
        elif anchor is None:
            at = _start_of_turn(order, stored, id_, [live[i].run_id for i in loose])
            order[at:at] = loose
            anchor, loose = id_, []
        else:
            after[anchor] = loose
            anchor, loose = id_, []
    ids = chain.from_iterable((id_, *after.get(id_, ())) for id_ in order)
    return {id_: stored.get(id_) or live[id_] for id_ in chain(ids, loose)}


def _start_of_turn(
    order: list[RowId], stored: dict[RowId, Entry], id_: RowId, run_ids: list[str | None]
) -> int:
    """Where rows of earlier turns than that of ``id_`` go: before its question, not after it."""
    at = order.index(id_)
    run_id = stored[id_].run_id
    if run_id is not None and run_id in run_ids:
        return at
    while at > 0:
        before = stored[order[at - 1]]
        if before.kind != "user" and (run_id is None or before.run_id != run_id):
            break
        at -= 1
    return at
