"""Internal: assemble fragments into complete messages, one for each otid or tool call.

Text and reasoning are keyed by ``otid`` (one ``id`` is shared by all parts of a step, and the
streamed ``id`` can differ from the stored one), tool calls by ``tool_call_id`` (parallel calls
interleave). A server that does not stream tokens sends each message whole: one big fragment.

A message that was handed out is final: should more text come under its otid after the step has
moved on, that is a second message with the rest. Nothing is dropped, nothing is said twice.

The rules: docs/protocol.md ("Which ids are unique, and across what").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from letta_adapters.messages import (
    AssistantMessage,
    ReasoningMessage,
    ToolCallMessage,
    ToolResultMessage,
    arguments_in,
    content_text,
)

_JSON_MARKS = re.compile(r'["{}\[\]\\]')

TEXT_FIELD = {
    "assistant_message": "content",
    "reasoning_message": "reasoning",
    "hidden_reasoning_message": "hidden_reasoning",
}

# Not ``None``, which is the message id of events that have none.
_NOT_HANDED_OUT = object()

Complete = AssistantMessage | ReasoningMessage | ToolCallMessage


def list_dicts(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a field that is a list when whole and one object when streamed."""
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def read_arguments(call: Mapping[str, Any]) -> str:
    """Return the arguments of a call, or the piece of them that a fragment carries, as text."""
    arguments = call.get("arguments") or ""
    return arguments if type(arguments) is str else json.dumps(arguments)


def read_text(event: Mapping[str, Any]) -> str:
    """Return the text of a message or fragment; text that a provider hides is opaque data."""
    kind = event["message_type"]
    return "" if kind == "hidden_reasoning_message" else content_text(event.get(TEXT_FIELD[kind]))


def list_strings(value: Any) -> tuple[str, ...]:
    """Return the texts of a field that is a list, a single value or nothing."""
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),) if value else ()


def list_returns(event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the results in a tool's return; a single one has its fields in the event itself."""
    return list_dicts(event.get("tool_returns")) or [event]


def read_results(event: Mapping[str, Any], names: Mapping[str, str]) -> list[ToolResultMessage]:
    """Return the tool results that an event of the Letta API, or a stored message, holds.

    Args:
        event: The event, of the kind ``tool_return_message``.
        names: The names of the tools that were called, by tool call id.
    """
    returns = list_returns(event)
    # The event's name is that of its one tool; for several, the calls tell the names.
    name = event.get("name") if len(returns) == 1 else None
    ids = (event.get("id"), event.get("otid"), event.get("seq_id"), event.get("run_id"))
    results = []
    for item in returns:
        call_id = str(item.get("tool_call_id") or "")
        results.append(
            ToolResultMessage(
                call_id,
                join_text((content_text(item.get("tool_return")),)),
                item.get("status") == "error",
                name or names.get(call_id),
                list_strings(item.get("stdout")),
                list_strings(item.get("stderr")),
                *ids,
            )
        )
    return results


def join_text(parts: Iterable[str]) -> str:
    """Return the joined text of fragments, as a string that UTF-8 can encode.

    A model server that cuts between UTF-16 units sends the halves of an emoji in two fragments:
    they become one character again. A half without its partner becomes U+FFFD.
    """
    text = "".join(parts)
    # Most text is ASCII, for which this is a flag; encoding it would copy it.
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class _Text:
    __slots__ = ("first", "kind", "parts", "signature")

    def __init__(self, kind: str, first: Mapping[str, Any]) -> None:
        self.kind = kind
        self.first = first
        self.parts: list[str] = []
        self.signature: str | None = None

    def build(self) -> Complete:
        return build_text(self.kind, self.first, self.parts, self.signature)


def build_text(
    kind: str, first: Mapping[str, Any], parts: Iterable[str], signature: str | None
) -> AssistantMessage | ReasoningMessage:
    """Build a complete text or thought.

    Args:
        kind: One of :data:`TEXT_FIELD`.
        first: The event it began with, which has its ids.
        parts: The text, in pieces.
        signature: The provider's signature of a thought.
    """
    ids = (first.get("id"), first.get("otid"), first.get("seq_id"), first.get("run_id"))
    text = join_text(parts)
    if kind == "assistant_message":
        return AssistantMessage(text, *ids)
    redacted = kind == "hidden_reasoning_message"
    return ReasoningMessage(text, *ids, signature, first.get("source"), redacted)


class JSONDepth:
    """A reader that tells when a JSON object that arrives in pieces has closed.

    It reads each piece once.
    """

    __slots__ = ("_depth", "_escaped", "_opened", "_string")

    def __init__(self) -> None:
        self._depth = 0
        self._string = False
        self._escaped = -1  # position, relative to the next piece, of an escaped character
        self._opened = False

    def feed(self, piece: str) -> bool:
        """Take the next piece; return ``True`` once the outermost object or list is closed."""
        escaped = self._escaped
        for mark in _JSON_MARKS.finditer(piece):
            at = mark.start()
            if at == escaped:
                continue
            char = mark.group()
            if self._string:
                if char == "\\":
                    escaped = at + 1
                elif char == '"':
                    self._string = False
            elif char == '"':
                self._string = True
            elif char in "{[":
                self._depth += 1
                self._opened = True
            elif char != "\\" and self._depth:  # a stray closing bracket closes nothing
                self._depth -= 1
        # A backslash at the end of this piece escapes the first character of the next.
        self._escaped = escaped - len(piece) if escaped >= len(piece) else -1
        return self._opened and not self._depth


class _Call:
    __slots__ = ("approval", "depth", "first", "name", "parts", "tool_call_id")

    def __init__(self, tool_call_id: str, first: Mapping[str, Any], approval: bool) -> None:
        self.tool_call_id = tool_call_id
        self.first = first
        self.approval = approval
        self.name = ""
        self.parts: list[str] = []
        self.depth = JSONDepth()

    def build(self) -> ToolCallMessage:
        raw = join_text(self.parts)
        return _build_call(self.first, self.tool_call_id, self.name, raw, self.approval)


def _build_call(
    first: Mapping[str, Any], call_id: str, name: str, raw: str, approval: bool
) -> ToolCallMessage:
    ids = (first.get("id"), first.get("otid"), first.get("seq_id"), first.get("run_id"))
    return ToolCallMessage(call_id, name, parse_arguments(raw), raw, approval, *ids)


def read_calls(event: Mapping[str, Any], *, approval: bool) -> list[ToolCallMessage]:
    """Return the tool calls that a stored message holds, each of them whole.

    Args:
        event: The message.
        approval: Whether it asks for approval of them.
    """
    listed = event.get("tool_calls")
    calls = list_dicts(listed) if type(listed) is list else []
    known = {call["tool_call_id"] for call in calls if call.get("tool_call_id")}
    if not calls or len(known) < len(calls):
        # Pieces of calls, which is what the assembler is for.
        out: list[Any] = []
        assembler = Assembler()
        assembler.call(event, out, approval=approval)
        assembler.flush(out)
        return [*out, *assembler.open_calls()]
    return [
        _build_call(
            event,
            call["tool_call_id"],
            call.get("name") or "",
            join_text((read_arguments(call),)),
            approval,
        )
        for call in calls
    ]


def parse_arguments(raw: str) -> dict[str, Any]:
    """Return tool arguments as a dict; ``{}`` if the model did not write a JSON object."""
    return arguments_in(raw) or {}


class Assembler:
    """Collect the fragments of a step and hand out the messages that are complete.

    Texts of one step stay open until the step moves on (another message id, a tool call, the end),
    so that an otid which comes back is still one message. ``_done_calls`` remembers which message
    a call was handed out from: a later piece of it there is dropped, while the same
    ``tool_call_id`` in a later message is a new call (some models count theirs from 0 each step).
    """

    __slots__ = ("_calls", "_done_calls", "_latest", "_pieces", "_step", "_texts", "broken")

    def __init__(self) -> None:
        # The text that was being written when the stream broke; no message holds it.
        self.broken = ""
        self._texts: dict[tuple[str, Any], _Text] = {}
        self._calls: dict[str, _Call] = {}
        self._done_calls: dict[str, Any] = {}
        # The call that a message's pieces with that index, or without one, belong to.
        self._pieces: dict[tuple[Any, Any], str] = {}
        self._step: Any = None
        self._latest: tuple[str, Any] | None = None

    def text(self, event: Mapping[str, Any], out: list[Any]) -> None:
        """Take a text or reasoning fragment."""
        kind = event["message_type"]
        key = (kind, event.get("otid") or self._find_part(kind, event.get("id")))
        # Nearly every fragment goes on with the text of the one before.
        if key != self._latest:
            step = event.get("id")
            if key not in self._texts:
                # With another message's id a step begins, so what is open of the last one is
                # complete.
                if step != self._step:
                    self.flush(out)
                    self._step = step
                self._texts[key] = _Text(kind, event)
                self.broken = ""  # of an attempt that is void
            self._latest = key
        item = self._texts[key]
        item.parts.append(content_text(event.get(TEXT_FIELD[kind])))
        # A signature comes with one of the fragments only.
        if kind == "reasoning_message":
            item.signature = event.get("signature") or item.signature

    def _find_part(self, kind: str, message: Any) -> Any:
        """Return the key of the message's open text of that kind, else the message's id.

        A piece without an otid goes on with the text that was begun, not after it.
        """
        # The last one that was begun is the one that is being written.
        for known in reversed(self._texts):
            if known[0] == kind and self._texts[known].first.get("id") == message:
                return known[1]
        return message

    def call(self, event: Mapping[str, Any], out: list[Any], *, approval: bool) -> None:
        """Take a tool call event: a list of whole calls (step mode), or one fragment."""
        # What was said before a call is complete when the call begins.
        self._flush_texts(out)
        calls = event.get("tool_calls")
        if isinstance(calls, list) and calls:
            for call in list_dicts(calls):
                self._fragment(call, event, approval)
            # Whole calls of server tools need nobody's answer, so they are handed out at once.
            if not approval:
                self._flush_calls(out)
            return
        for call in list_dicts(calls) or list_dicts(event.get("tool_call")):
            item = self._fragment(call, event, approval)
            # A server tool runs for seconds, so its call is shown now and not when the result
            # arrives.
            if item and not item.approval and item.depth.feed(item.parts[-1]):
                self._hand_out(item.tool_call_id, out)

    def _fragment(
        self, call: Mapping[str, Any], event: Mapping[str, Any], approval: bool
    ) -> _Call | None:
        call_id = self._call_id(call, event)
        item = self._calls.get(call_id)
        if item is None:
            # An approval request is never late, and to drop one would leave the turn stuck.
            if not approval and self._done_calls.get(call_id, _NOT_HANDED_OUT) == event.get("id"):
                return None
            item = self._calls[call_id] = _Call(call_id, event, approval)
        # A call may be shown first, and asked about afterwards.
        elif approval:
            item.approval = True
        item.name = call.get("name") or item.name
        item.parts.append(read_arguments(call))
        return item

    def _call_id(self, call: Mapping[str, Any], event: Mapping[str, Any]) -> str:
        """Return the id of the call that a piece belongs to.

        Only a call's first piece must have one; the others may have its index in the message, or
        nothing, which means the call that was written last.
        """
        message, index = event.get("id"), call.get("index")
        call_id = str(call.get("tool_call_id") or "")
        if not call_id:
            return self._pieces.get((message, index)) or self._pieces.get((message, None)) or ""
        self._pieces[message, index] = self._pieces[message, None] = call_id
        return call_id

    def _hand_out(self, call_id: str, out: list[Any]) -> None:
        item = self._calls.pop(call_id)
        self._done_calls[call_id] = item.first.get("id")
        out.append(item.build())

    def open_calls(self) -> list[ToolCallMessage]:
        """Return the approval requests collected so far, without handing them out."""
        return [item.build() for item in self._calls.values() if item.approval]

    def take_calls(self, keep: frozenset[str]) -> list[ToolCallMessage]:
        """Hand out the approval requests in ``keep`` and forget the others.

        With parallel calls switched off the stream can show more calls than the server keeps.
        """
        calls = [c for c in self.open_calls() if c.tool_call_id in keep]
        # Those that are dropped count as handed out: a late piece of one must not begin a new call.
        self._done_calls.update((k, item.first.get("id")) for k, item in self._calls.items())
        self._calls.clear()
        return calls

    def flush(self, out: list[Any]) -> None:
        """Hand out everything open, except approval requests (see :meth:`take_calls`)."""
        self._flush_texts(out)
        self._flush_calls(out)

    def flush_broken(self, out: list[Any]) -> None:
        """Hand out what is complete after the stream broke; the last text is only a fragment."""
        # Only the text that was being written lacks its end; the others of the step are whole.
        if self._latest is not None:
            item = self._texts.pop(self._latest, None)
            if item is not None and item.kind == "assistant_message":
                self.broken = join_text(item.parts)
        self._flush_texts(out)
        self._calls.clear()

    def _flush_texts(self, out: list[Any]) -> None:
        if self._texts:
            out.extend(item.build() for item in self._texts.values())
            self._texts.clear()
        self._latest = None

    def _flush_calls(self, out: list[Any]) -> None:
        for call_id in [k for k, item in self._calls.items() if not item.approval]:
            self._hand_out(call_id, out)
