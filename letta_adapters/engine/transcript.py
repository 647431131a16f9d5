"""Internal: turn messages into the rows a user interface draws, and merge stored history into them.

The same thing arrives several times in different forms: fragments, then the complete message, then
the stored one, whose ``id`` may differ. It is identified by the ``otid`` for text and the
``tool_call_id`` for a tool, so these are what rows are joined on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Any, Final, Literal, TypeAlias

from letta_adapters.engine.assembler import join_text, list_dicts, read_arguments, read_text
from letta_adapters.engine.shapes import find_misshapen, is_content
from letta_adapters.engine.stored import (
    CALLS,
    SPOKEN,
    Spoken,
    list_calls,
    read_messages,
    read_user,
    turn_round,
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
    UserMessage,
    content_text,
)

__all__ = ["Row", "Transcript"]

RowKind: TypeAlias = Literal["user", "assistant", "reasoning", "tool", "error", "event"]
RowStatus: TypeAlias = Literal["streaming", "complete", "failed"]

_TEXT_KINDS: Final[Mapping[str, RowKind]] = {
    "assistant_message": "assistant",
    "reasoning_message": "reasoning",
    "hidden_reasoning_message": "reasoning",
}

_Item: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a conversation as a user interface shows it.

    ``key`` is the ``otid`` of a text and the ``tool_call_id`` of a tool: ``(kind, key)`` is unique
    and stays while the row changes. ``text`` is the text of a message, or for a tool the arguments
    as the model wrote them (``tool_input`` is ``None`` until they are complete); for hidden
    reasoning it is empty. ``status`` is ``"streaming"`` until a text is complete or a tool has
    returned, and ``"failed"`` if the turn ended before that. ``is_error`` tells whether the tool's
    result is an error.
    """

    kind: RowKind
    key: str
    text: str = ""
    tool_name: str | None = None
    tool_input: Mapping[str, Any] | None = None
    tool_output: str | None = None
    is_error: bool = False
    status: RowStatus = "complete"
    run_id: str | None = None


RowId: TypeAlias = tuple[RowKind, str]


class RowBuilder:
    """A row that changes; if ``void``, its text was taken back and nothing of it is shown."""

    __slots__ = (
        "_row", "is_error", "key", "kind", "listed", "name", "news", "output", "parts", "run_id",
        "status", "stored", "tool_input", "void",
    )  # fmt: skip

    def __init__(self, kind: RowKind, key: str, status: RowStatus = "streaming") -> None:
        self.kind = kind
        self.key = key
        self.status = status
        self.parts: list[str] = []
        self.name: str | None = None
        self.tool_input: Mapping[str, Any] | None = None
        self.output: str | None = None
        self.is_error = False
        self.run_id: str | None = None
        self.stored = False
        # The server's version of a text that still streams; it may be ahead of the stream.
        self.listed: str | None = None
        # True if a fragment came since then.
        self.news = False
        self.void = False
        self._row: Row | None = None

    @property
    def growing(self) -> bool:
        """True if a fragment can still add to it."""
        return self.status == "streaming" and self.tool_input is None

    def mark_changed(self, run_id: str | None) -> None:
        """Note a change, after which the row counts (again) and has to be made anew."""
        self.run_id = run_id or self.run_id
        self.void = False
        self._row = None

    def settle(self, status: RowStatus) -> None:
        self.status = status
        self._row = None

    def set_text(self, text: str, run_id: str | None) -> None:
        self.parts = [text]
        self.listed = None
        self.settle("complete")
        self.mark_changed(run_id)

    def set_call(
        self, name: str, raw: str, tool_input: Mapping[str, Any], run_id: str | None
    ) -> None:
        self.name = name or self.name
        self.parts = [raw]
        self.tool_input = tool_input
        self.mark_changed(run_id)

    def set_result(self, output: str, is_error: bool, name: str | None, run_id: str | None) -> None:
        self.name = self.name or name
        self.output = output
        self.is_error = is_error
        self.settle("complete")
        self.mark_changed(self.run_id or run_id)  # a row stays with the run that called the tool

    def join(self) -> str:
        self.parts = ["".join(self.parts)]  # as it came: half an emoji may still be completed
        streamed = join_text(self.parts)
        # The list may be a moment ahead of the stream, and text that was shown must not vanish
        # again.
        ahead = self.listed is not None and len(self.listed) > len(streamed)
        return str(self.listed) if ahead else streamed

    def build(self) -> Row:
        # The same object while nothing changes: by that a user interface sees what to draw again.
        if self._row is None:
            self._row = Row(
                self.kind, self.key, self.join(), self.name, self.tool_input, self.output,
                self.is_error, self.status, self.run_id,
            )  # fmt: skip
        return self._row


class RowBuilders(dict[RowId, RowBuilder]):
    """Rows by id, oldest first, with a note which of them were looked up to be changed."""

    __slots__ = ("touched",)

    def __init__(self) -> None:
        super().__init__()
        self.touched: dict[RowId, RowBuilder] = {}

    def touch(self, kind: RowKind, key: str) -> RowBuilder:
        """Return the row with that id, a new one at the end if there is none."""
        id_ = (kind, key)
        builder = self.get(id_)
        if builder is None:
            builder = self[id_] = RowBuilder(*id_)
        self.touched[id_] = builder
        return builder


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
        self._entries = RowBuilders()
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
                if self._shown[at] is not entry.build():
                    self._shown[at] = entry.build()
                    changed.append(entry.build())
            elif at is None and id_ == next(reversed(self._entries)):
                self._places[id_] = len(self._shown)
                self._shown.append(entry.build())
                changed.append(entry.build())
            else:  # taken back, said again, or one of several new ones: rows move
                self._rebuild()
                return tuple(e.build() for e in touched.values() if not e.void)
        if changed:
            self._rows = None
        return tuple(changed)

    def _rebuild(self) -> None:
        shown = {id_: entry for id_, entry in self._entries.items() if not entry.void}
        self._places = {id_: at for at, id_ in enumerate(shown)}
        self._shown = [entry.build() for entry in shown.values()]
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
            else MessagePage((), [dict(item) for item in history])
        )
        stored = RowBuilders()
        for item in page.raw if page.order == "asc" else turn_round(page.raw):
            _read_stored(stored, item)
        live = self._entries
        # Only the newest stored row can still stream: a text that something follows is over.
        newest = next(reversed(stored), None)
        merged = {id_: _merge(e, live.get(id_), id_ == newest) for id_, e in stored.items()}
        self._entries = RowBuilders()
        self._entries.update(_weave(merged, live))
        self._rebuild()

    # -- one method per kind of message -----------------------------------------------------

    def _entry(self, kind: RowKind, key: str | None) -> RowBuilder:
        return self._entries.touch(kind, key or f"turn-{self._turn}")

    def _user(self, message: UserMessage) -> None:
        row = self._entry("user", message.otid or message.id)
        row.set_text(message.content, message.run_id)

    def _message(self, message: Spoken) -> None:
        _add_message(self._entries, message, f"turn-{self._turn}")

    def _unknown(self, message: UnknownMessage) -> None:
        if message.event_type not in SPOKEN:
            _read_stored(self._entries, message.raw)

    def _fragment(self, message: StreamEvent) -> None:
        event = message.event
        # Numbers are unique in one run; only the run, the message and the number name a fragment.
        number = message.fragment if message.seq_id is None else message.seq_id
        key = id(event) if number is None else (event.get("run_id"), event.get("id"), number)
        if key in self._fragments:
            return
        self._fragments[key] = event
        kind = str(event.get("message_type"))
        if kind in _TEXT_KINDS:
            entry = self._entry(_TEXT_KINDS[kind], event.get("otid") or event.get("id"))
            # A late fragment must not be added to a text whose complete message has come.
            if entry.growing:
                entry.parts.append(read_text(event))
                entry.news = True
                entry.mark_changed(event.get("run_id"))
        elif kind in CALLS:
            for call in list_calls(event):
                entry = self._entry("tool", call.get("tool_call_id"))
                if entry.growing:
                    entry.name = call.get("name") or entry.name
                    entry.parts.append(read_arguments(call))
                    entry.mark_changed(event.get("run_id"))

    def _error(self, message: ErrorMessage) -> None:
        if self._first_time(message):
            entry = self._entry("error", message.run_id)
            entry.is_error = True
            entry.set_text(message.message, message.run_id)

    def _retry(self, message: RetryMessage) -> None:
        if self._first_time(message):
            for entry in self._list_unfinished((message.run_id,) if message.run_id else ()):
                # A call that is complete is no longer being written by the model.
                if entry.growing:
                    entry.parts = []
                    entry.void = True

    def _end(self, message: ResultMessage) -> None:
        if self._first_time(message):
            for entry in self._list_unfinished(message.run_ids):
                entry.settle("complete" if message.success else "failed")
            # Numbers begin anew with the next turn, and what was kept for them can go.
            self._fragments.clear()
            self._turn += 1

    def _first_time(self, message: Message) -> bool:
        # Errors and results have no ids of their own, so the object itself is what is recognised.
        known = id(message) in self._applied
        self._applied[id(message)] = message
        return not known

    def _list_unfinished(self, run_ids: Sequence[str]) -> Iterator[RowBuilder]:
        for entry in self._entries.values():
            ours = not run_ids or entry.run_id is None or entry.run_id in run_ids
            if entry.status == "streaming" and ours:
                self._entries.touched[entry.kind, entry.key] = entry
                yield entry


_APPLY: Mapping[type, Callable[[Transcript, Any], None]] = {
    UserMessage: Transcript._user,
    AssistantMessage: Transcript._message,
    ReasoningMessage: Transcript._message,
    ToolCallMessage: Transcript._message,
    ToolResultMessage: Transcript._message,
    StreamEvent: Transcript._fragment,
    ErrorMessage: Transcript._error,
    RetryMessage: Transcript._retry,
    ResultMessage: Transcript._end,
    UnknownMessage: Transcript._unknown,
}


def _merge(stored: RowBuilder, live: RowBuilder | None, newest: bool) -> RowBuilder:
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
    text, so_far = stored.join(), live.join()
    if not live.growing or not (so_far.startswith(text) or text.startswith(so_far)):
        return stored
    # Either side may be ahead. A text that something follows is over, and so is one to which
    # neither side has added anything since the last look.
    over = not newest or (live.listed == text and not live.news)
    if over and len(text) >= len(so_far):
        return stored
    live.listed, live.news = text, False
    live.mark_changed(None)
    return live


def _weave(
    stored: dict[RowId, RowBuilder], live: dict[RowId, RowBuilder]
) -> dict[RowId, RowBuilder]:
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
            at = _find_start_of_turn(order, stored, id_, [live[i].run_id for i in loose])
            order[at:at] = loose
            anchor, loose = id_, []
        else:
            after[anchor] = loose
            anchor, loose = id_, []
    ids = chain.from_iterable((id_, *after.get(id_, ())) for id_ in order)
    return {id_: stored.get(id_) or live[id_] for id_ in chain(ids, loose)}


def _find_start_of_turn(
    order: list[RowId], stored: dict[RowId, RowBuilder], id_: RowId, run_ids: list[str | None]
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


# -- messages and stored items as rows ------------------------------------------------------------


def _add_message(rows: RowBuilders, message: Spoken, key: str) -> None:
    """Add what the agent said or did to the row that it belongs to; ``key`` is for one of no id."""
    if isinstance(message, ToolCallMessage):
        call = rows.touch("tool", message.tool_call_id or key)
        call.set_call(message.tool_name, message.raw_arguments, message.tool_input, message.run_id)
    elif isinstance(message, ToolResultMessage):
        # The call may be on another page: then its row begins with the result.
        result = rows.touch("tool", message.tool_call_id or key)
        result.set_result(message.content, message.is_error, message.tool_name, message.run_id)
    elif isinstance(message, ReasoningMessage):
        thought = rows.touch("reasoning", message.otid or message.id or key)
        # Text that a provider hides is opaque data.
        thought.set_text("" if message.redacted else message.content, message.run_id)
    else:
        answer = rows.touch("assistant", message.otid or message.id or key)
        answer.set_text(message.content, message.run_id)


def _read_stored(rows: RowBuilders, item: _Item) -> None:
    """Add the content of a stored message to the rows."""
    kind = item.get("message_type")
    if kind is None:
        _read_event(rows, item)
    # A broken item makes no row: half of it would look like all of it.
    elif type(kind) is not str or find_misshapen(item):
        return
    elif kind in SPOKEN:
        for message in read_messages(item):
            _add_message(rows, message, _name_item(item))
    else:
        _READ.get(kind, _read_event)(rows, item)


def _name_item(item: _Item) -> str:
    if item.get("otid") or item.get("id"):
        return str(item.get("otid") or item.get("id"))
    # Without any id the content itself must tell, so that reading the list again makes no new row.
    return sha256(json.dumps(item, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _read_answers(rows: RowBuilders, item: _Item) -> None:
    for answer in list_dicts(item.get("approvals")):
        # For a client-side tool the answer is its result, for a server tool only a permission.
        if answer.get("type") == "tool":
            output, is_error = (
                content_text(answer.get("tool_return")),
                answer.get("status") == "error",
            )
        elif answer.get("approve") is False:
            output, is_error = str(answer.get("reason") or ""), True
        else:
            continue  # approved: the tool runs, and its return follows
        row = rows.touch("tool", str(answer.get("tool_call_id")))
        row.set_result(output, is_error, None, item.get("run_id"))


def _read_user(rows: RowBuilders, item: _Item) -> None:
    kind, text = read_user(item.get("content"))
    if text is not None:
        rows.touch(kind, _name_item(item)).set_text(text, item.get("run_id"))


def _read_event(rows: RowBuilders, item: _Item) -> None:
    fields = ("summary", "content", "message", "event_type", "message_type")
    found = (item.get(field) for field in fields)
    texts = (content_text(value) for value in found if is_content(value))
    # Events have their text under different names; the first that is filled is shown.
    text = next(filter(None, texts), "")
    rows.touch("event", _name_item(item)).set_text(text, item.get("run_id"))


def _read_nothing(rows: RowBuilders, item: _Item) -> None:
    """Do nothing: the system prompt is no part of the conversation."""


_READ: Final[Mapping[str, Callable[[RowBuilders, _Item], None]]] = {
    "approval_response_message": _read_answers,
    "user_message": _read_user,
    "system_message": _read_nothing,
}
