"""Turn messages into the rows a user interface draws, and merge stored history into them.

The same thing arrives several times in different forms: fragments, then the complete message, then
the stored one, whose ``id`` may differ. It is identified by the ``otid`` for text and the
``tool_call_id`` for a tool, so these are what rows are joined on.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from letta_adapters.engine.assembler import arguments_of
from letta_adapters.engine.rows import (
    CALLS,
    KIND_OF_TEXT,
    Entries,
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

# Fragments and messages of these kinds come as messages of their own; as an ``UnknownMessage`` they
# are something this version cannot read.
_READABLE = frozenset({*KIND_OF_TEXT, *CALLS, "tool_return_message"})


class Transcript:
    """Accumulate the messages of any number of turns into rows.

    ::

        transcript = Transcript()
        transcript.rebase(await session.list_messages())
        async for message in session.stream():
            transcript.apply(message)
            draw(transcript.rows)

    Applying a message again changes nothing. It is not thread-safe.
    """

    def __init__(self) -> None:
        self._entries = Entries()
        self._turn = 0
        # By their number in the turn. One without a number is known by its identity, as two
        # fragments can be equal, and is kept so that Python does not use its id again.
        self._fragments: dict[object, object] = {}
        self._applied: dict[int, object] = {}
        # The rows shown, and where among them each one is, so that a message costs its own row
        # only.
        self._shown: list[Row] = []
        self._places: dict[RowId, int] = {}
        self._rows: tuple[Row, ...] | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows to show now, oldest first; a row that did not change is the same object."""
        self._refresh()
        if self._rows is None:
            self._rows = tuple(self._shown)
        return self._rows

    def _refresh(self) -> tuple[Row, ...]:
        """Bring the shown rows up to date; return those that are new or another object now."""
        touched, self._entries.touched = self._entries.touched, {}
        changed: list[Row] = []
        for id_, entry in touched.items():
            at = self._places.get(id_)
            if at is None and entry.void:
                continue  # nothing of it was shown, and nothing is
            if at is not None and not entry.void:
                if self._shown[at] is not entry.row():
                    self._shown[at] = entry.row()
                    changed.append(entry.row())
            elif at is None and id_ == next(reversed(self._entries)):
                self._places[id_] = len(self._shown)
                self._shown.append(entry.row())
                changed.append(entry.row())
            else:  # taken back, said again, or one of several new ones: rows move
                self._rebuild()
                return tuple(e.row() for e in touched.values() if not e.void)
        if changed:
            self._rows = None
        return tuple(changed)

    def _rebuild(self) -> None:
        shown = {id_: entry for id_, entry in self._entries.items() if not entry.void}
        self._places = {id_: at for at, id_ in enumerate(shown)}
        self._shown = [entry.row() for entry in shown.values()]
        self._rows = None

    def apply(self, message: Message) -> tuple[Row, ...]:
        """Take the next message of a stream.

        Args:
            message: Any message of ``session.stream()``. Fragments (``StreamEvent``) grow a row
                that is ``"streaming"``, the complete message replaces its text. A ``RetryMessage``
                takes back the text of the failed attempt, a failed ``ResultMessage`` marks
                unfinished rows as ``"failed"``. An ``InitMessage`` makes no row.

        Returns:
            The rows that are new or changed, which is all there is to draw again; where a
            ``RetryMessage`` took something back, draw :attr:`rows`.
        """
        reader = _APPLY.get(type(message))
        if reader is not None:
            reader(self, message)
        return self._refresh()

    def rebase(self, history: MessagePage | Sequence[Mapping[str, Any]]) -> None:
        """Make the stored messages the truth, and keep the rows that are not stored yet.

        Rows of an earlier ``rebase`` that are not in ``history`` are gone, so give all the pages
        you show. Rows from streams stay where they were between the rows that are stored by now,
        and at the end if nothing after them is. A text that streams at the moment goes on streaming
        (the App Server lists unfinished messages): until its complete message, the end of its turn,
        a stored row after it, or the same list once more without a fragment in between.

        Args:
            history: A page, which knows its order; or the API's own message objects, newest first.
        """
        page = (
            history
            if isinstance(history, MessagePage)
            else MessagePage([dict(item) for item in history])
        )
        stored = Entries()
        for item in page.messages if page.order == "asc" else oldest_first(page.messages):
            read_stored(stored, item)
        live = self._entries
        newest = next(reversed(stored), None)
        merged = {id_: _merge(e, live.get(id_), id_ == newest) for id_, e in stored.items()}
        self._entries = Entries()
        self._entries.update(_woven(merged, live))
        self._rebuild()

    # -- one method per kind of message -----------------------------------------------------

    def _entry(self, kind: RowKind, key: str | None) -> Entry:
        return self._entries.of(kind, str(key or f"turn-{self._turn}"))

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
        # Numbers are unique in one run; only the run, the message and the number name a fragment.
        number = message.fragment if message.seq_id is None else message.seq_id
        key = id(event) if number is None else (event.get("run_id"), event.get("id"), number)
        if key in self._fragments:
            return
        self._fragments[key] = event
        kind = str(event.get("message_type"))
        if kind in KIND_OF_TEXT:
            entry = self._entry(KIND_OF_TEXT[kind], event.get("otid") or event.get("id"))
            if entry.growing:
                entry.parts.append(text_of(event))
                entry.news = True
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
                self._entries.touched[entry.kind, entry.key] = entry
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


def _merge(stored: Entry, live: Entry | None, newest: bool) -> Entry:
    """Return the stored row, with the facts that only the stream knows so far."""
    stored.stored = True
    if live is None:
        return stored
    stored.run_id = stored.run_id or live.run_id
    # A stored call may have no result yet, and a stored result no call on this page.
    if stored.kind == "tool":
        if stored.tool_input is None:
            stored.name = stored.name or live.name
            stored.parts, stored.tool_input = live.parts, live.tool_input
        if stored.output is None:
            stored.output, stored.is_error = live.output, live.is_error
            stored.status = live.status
        return stored
    text, so_far = stored.text(), live.text()
    if not live.growing or not (so_far.startswith(text) or text.startswith(so_far)):
        return stored
    # Either side may be ahead. A text that something follows is over, and so is one to which
    # neither side has added anything since the last look.
    over = not newest or (live.listed == text and not live.news)
    if over and len(text) >= len(so_far):
        return stored
    live.listed, live.news = text, False
    live.changed(None)
    return live


def _woven(stored: dict[RowId, Entry], live: dict[RowId, Entry]) -> dict[RowId, Entry]:
    """Return the stored rows in order, with unstored rows beside their neighbours in ``live``."""
    order = list(stored)
    after: dict[RowId, list[RowId]] = {}
    loose: list[RowId] = []
    anchor: RowId | None = None
    for id_, entry in live.items():
        # Each run of unstored rows goes after the stored row that was before it; rows before the
        # first one go to the start of its turn.
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
    """Return the place for rows of turns before that of ``id_``, ahead of its question."""
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
