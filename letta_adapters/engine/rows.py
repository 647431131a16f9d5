"""The rows of a transcript, and how stored messages become rows.

Shapes of stored messages: the Letta API's ``GET .../messages``, observed on letta 0.16.8; the App
Server lists the same.

Internal: not part of the public API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, groupby
from typing import Any, Literal, TypeAlias

from letta_adapters.engine.assembler import (
    TEXT_FIELD,
    arguments_of,
    dicts_of,
    join_text,
    parse_arguments,
)
from letta_adapters.messages import content_text

RowKind: TypeAlias = Literal["user", "assistant", "reasoning", "tool", "error", "event"]
RowStatus: TypeAlias = Literal["streaming", "complete", "failed"]

KIND_OF_TEXT: Mapping[str, RowKind] = {
    "assistant_message": "assistant",
    "reasoning_message": "reasoning",
    "hidden_reasoning_message": "reasoning",
}
CALLS = ("tool_call_message", "approval_request_message")
_REMINDERS = re.compile(r"(?:\s*<system-reminder>.*?</system-reminder>)+\s*", re.DOTALL)
_ALERT = re.compile(r"\s*<system-alert>(.*)</system-alert>\s*", re.DOTALL)


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


class Entry:
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

    def changed(self, run_id: str | None) -> None:
        """Note a change, after which the row counts (again) and has to be made anew."""
        self.run_id = run_id or self.run_id
        self.void = False
        self._row = None

    def settle(self, status: RowStatus) -> None:
        self.status = status
        self._row = None

    def says(self, text: str, run_id: str | None) -> None:
        self.parts = [text]
        self.listed = None
        self.settle("complete")
        self.changed(run_id)

    def calls(self, name: str, raw: str, tool_input: Mapping[str, Any], run_id: str | None) -> None:
        self.name = name or self.name
        self.parts = [raw]
        self.tool_input = tool_input
        self.changed(run_id)

    def returns(self, output: str, is_error: bool, name: str | None, run_id: str | None) -> None:
        self.name = self.name or name
        self.output = output
        self.is_error = is_error
        self.settle("complete")
        self.changed(self.run_id or run_id)  # a row stays with the run that called the tool

    def text(self) -> str:
        self.parts = ["".join(self.parts)]  # as it came: half an emoji may still be completed
        streamed = join_text(self.parts)
        # The list may be a moment ahead of the stream, and text that was shown must not vanish
        # again.
        ahead = self.listed is not None and len(self.listed) > len(streamed)
        return str(self.listed) if ahead else streamed

    def row(self) -> Row:
        if self._row is None:
            self._row = Row(
                self.kind, self.key, self.text(), self.name, self.tool_input, self.output,
                self.is_error, self.status, self.run_id,
            )  # fmt: skip
        return self._row


class Entries(dict[RowId, Entry]):
    """Rows by id, oldest first, with a note which of them were looked up to be changed."""

    __slots__ = ("touched",)

    def __init__(self) -> None:
        super().__init__()
        self.touched: dict[RowId, Entry] = {}

    def of(self, kind: RowKind, key: str) -> Entry:
        """Return the row with that id, a new one at the end if there is none."""
        id_ = (kind, key)
        entry = self.get(id_)
        if entry is None:
            entry = self[id_] = Entry(*id_)
        self.touched[id_] = entry
        return entry


_Item: TypeAlias = Mapping[str, Any]


def oldest_first(items: Iterable[_Item]) -> Iterator[_Item]:
    """Turn a newest-first list round; the parts of one stored message keep their order in it."""
    parts = [list(group) for _, group in groupby(items, lambda item: item.get("id"))]
    return chain.from_iterable(reversed(parts))


def read_stored(entries: Entries, item: _Item) -> None:
    """Add the content of a stored message to the rows."""
    _READ.get(str(item.get("message_type")), _read_event)(entries, item)


def _own_key(item: _Item) -> Any:
    if item.get("otid") or item.get("id"):
        return item.get("otid") or item.get("id")
    # Without any id the content itself must tell, so that reading the list again makes no new row.
    return sha256(json.dumps(item, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _read_text(entries: Entries, item: _Item) -> None:
    kind = KIND_OF_TEXT[item["message_type"]]
    entries.of(kind, str(_own_key(item))).says(text_of(item), item.get("run_id"))


def _read_calls(entries: Entries, item: _Item) -> None:
    for call in calls_of(item):
        raw = arguments_of(call)
        entry = entries.of("tool", str(call.get("tool_call_id")))
        entry.calls(call.get("name") or "", raw, parse_arguments(raw), item.get("run_id"))


def _read_returns(entries: Entries, item: _Item) -> None:
    returns = dicts_of(item.get("tool_returns")) or [item]
    name = item.get("name") if len(returns) == 1 else None
    for result in returns:
        # The call may be on another page: then its row begins with the result.
        entry = entries.of("tool", str(result.get("tool_call_id")))
        entry.returns(*_returned(result), name, item.get("run_id"))


def _read_answers(entries: Entries, item: _Item) -> None:
    for answer in dicts_of(item.get("approvals")):
        # For a client-side tool the answer is its result, for a server tool only a permission.
        if answer.get("type") == "tool":
            output = _returned(answer)
        elif answer.get("approve") is False:
            output = (str(answer.get("reason") or ""), True)
        else:
            continue  # approved: the tool runs, and its return follows
        entry = entries.of("tool", str(answer.get("tool_call_id")))
        entry.returns(*output, None, item.get("run_id"))


def _read_user(entries: Entries, item: _Item) -> None:
    kind, text = _user(item.get("content"))
    if text is not None:
        entries.of(kind, str(_own_key(item))).says(text, item.get("run_id"))


def _read_event(entries: Entries, item: _Item) -> None:
    fields = ("summary", "content", "message", "event_type", "message_type")
    texts = (content_text(item.get(field)) for field in fields)
    # Events have their text under different names; the first that is filled is shown.
    text = next(filter(None, texts), "")
    entries.of("event", str(_own_key(item))).says(text, item.get("run_id"))


def _read_nothing(entries: Entries, item: _Item) -> None:
    """Do nothing: the system prompt is no part of the conversation."""


_READ: Mapping[str, Callable[[Entries, _Item], None]] = {
    **dict.fromkeys(KIND_OF_TEXT, _read_text),
    **dict.fromkeys(CALLS, _read_calls),
    "tool_return_message": _read_returns,
    "approval_response_message": _read_answers,
    "user_message": _read_user,
    "system_message": _read_nothing,
}


def calls_of(item: _Item) -> list[Mapping[str, Any]]:
    """Return the tool calls of a message, or the one that a fragment belongs to."""
    return dicts_of(item.get("tool_calls")) or dicts_of(item.get("tool_call"))


def text_of(item: _Item) -> str:
    """Return the text of a message or fragment; text that a provider hides is opaque data."""
    kind = item["message_type"]
    return "" if kind == "hidden_reasoning_message" else content_text(item.get(TEXT_FIELD[kind]))


def _returned(item: Mapping[str, Any]) -> tuple[str, bool]:
    return content_text(item.get("tool_return")), item.get("status") == "error"


def _user(content: Any) -> tuple[RowKind, str | None]:
    """Return a user message without text that was injected; ``None`` if nothing else is left."""
    parts = dicts_of(content) if isinstance(content, list) else [{"text": content}]
    texts = [p["text"] for p in parts if isinstance(p.get("text"), str)]
    # Only a message that consists of nothing else can be the server's own.
    alert = _alert(texts[0]) if len(parts) == len(texts) == 1 else None
    if alert is not None:
        return "event", alert
    own = [_without_reminders(text) for text in texts]
    said = join_text(own)
    # An empty message, or one of images alone, is the user's own and stays.
    nothing_left = not said and any(texts) and len(parts) == len(texts)
    return "user", None if nothing_left else said


def _without_reminders(text: str) -> str:
    # Only in front, where the server puts them: the user may write such a tag further on.
    injected = _REMINDERS.match(text)
    return text[injected.end() :] if injected else text


def _alert(text: str) -> str | None:
    """Return the text of a message in which the server speaks as the user, else ``None``.

    It does so with JSON after a compaction, and with a tag when it resumes a turn.
    """
    tagged = _ALERT.fullmatch(text)
    if tagged:
        return tagged[1].strip()
    if text.startswith("{") and '"system_alert"' in text:
        alert = parse_arguments(text)
        if alert.get("type") == "system_alert":
            return str(alert.get("message") or "")
    return None
