"""The events of a call as the pieces of one answer, in no framework's form.

A tool that runs on the agent's side is a ``server_call`` and a ``server_result``, never a tool call
of the message: a loop would run it again. Only what waits for the caller is a ``tool_call``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from letta_adapters.calls.live import given
from letta_adapters.calls.marker import Marker
from letta_adapters.calls.model import ID_PREFIX, CallEnd, CallEvent, CallStart
from letta_adapters.messages import (
    AssistantMessage,
    LoopStatusMessage,
    Message,
    QueueUpdateMessage,
    ReasoningMessage,
    RetryMessage,
    StreamEvent,
    ToolCallMessage,
    ToolResultMessage,
    UnknownMessage,
    content_text,
)

STOPPED: Final = "stop_sequence"

# Events that are about the conversation and no part of the answer.
_SILENT: Final = frozenset({"", "user_message", "system_message"})

# A ``note`` is about the run and no part of the message.
Kind = Literal["text", "reasoning", "server_call", "server_result", "note", "other"]
Piece = tuple[Kind, Any]


class Reader:
    """Takes events one by one; says what they add to the message.

    Args:
        own_tools: Names of the caller's tools.
        answered: Tool calls the caller has just answered: the server repeats their results, or
            runs those of its own tools that were allowed.
        stop: Texts that end the message. The turn goes on to its end all the same: cancelling it
            would take the user's message out of the conversation.
    """

    def __init__(
        self,
        own_tools: Iterable[str] = (),
        answered: Iterable[ToolCallMessage] = (),
        stop: Sequence[str] | None = None,
    ) -> None:
        self.start: CallStart | None = None
        self.end: CallEnd | None = None
        self.stopped = False
        self._own = frozenset(own_tools)
        self._answered = {call.tool_call_id: call for call in answered}
        self._streamed: set[str | None] = set()
        self._unsure: dict[str, ToolCallMessage] = {}
        self._shown: set[str] = set()
        self._stop = _Cutter(stop) if stop else None

    @property
    def id(self) -> str | None:
        """The answer's id: the same again when the call is repeated."""
        return f"{ID_PREFIX}{self.start.id}" if self.start is not None else None

    def read(self, event: CallEvent) -> Sequence[Piece]:
        """What the event adds."""
        if type(event) is StreamEvent:
            pieces = self._fragment(event.event)
        elif isinstance(event, CallStart):
            self.start = event
            return ()
        elif isinstance(event, CallEnd):
            self.end = event
            pieces = self._rest(event)
        else:
            pieces = self._whole(event)
        return self._cut(pieces) if self._stop is not None else pieces

    def _fragment(self, event: Mapping[str, Any]) -> Sequence[Piece]:
        kind = event.get("message_type")
        if kind == "assistant_message":
            self._streamed.add(event.get("otid"))
            text = content_text(event.get("content"))
            return (("text", text),) if text else ()
        if kind == "reasoning_message":
            self._streamed.add(event.get("otid"))
            thought = event.get("reasoning")
            return (("reasoning", thought),) if thought else ()
        return ()

    def _whole(self, message: Message) -> Sequence[Piece]:
        if isinstance(message, AssistantMessage | ReasoningMessage):
            # Its text was streamed already, unless this answer is not streamed.
            if message.otid in self._streamed and message.otid is not None:
                return ()
            if isinstance(message, ReasoningMessage):
                return () if message.redacted else (("reasoning", message.content),)
            return (("text", message.content),)
        if isinstance(message, ToolCallMessage):
            if message.requires_approval:
                self._unsure[message.tool_call_id] = message
                return ()
            return self._server_call(message)
        if isinstance(message, ToolResultMessage):
            return self._result(message)
        if isinstance(message, RetryMessage):
            note = {"reason": message.reason, "attempt": message.attempt}
            return (("other", {"type": "letta_retry", **note}),)
        if isinstance(message, QueueUpdateMessage | LoopStatusMessage):
            kind = "letta_queue" if isinstance(message, QueueUpdateMessage) else "letta_loop_status"
            return (("note", {"type": kind, **asdict(message)}),)
        if isinstance(message, UnknownMessage) and message.event_type not in _SILENT:
            return (("other", dict(message.raw)),)
        return ()

    def _server_call(self, call: ToolCallMessage) -> list[Piece]:
        self._shown.add(call.tool_call_id)
        return [("server_call", call)]

    def _result(self, result: ToolResultMessage) -> Sequence[Piece]:
        call = self._unsure.pop(result.tool_call_id, self._answered.get(result.tool_call_id))
        ours = call is not None and call.tool_name in self._own
        if ours and result.tool_call_id in self._answered:
            return ()
        pieces: list[Piece] = []
        if result.tool_call_id not in self._shown:
            missing = ToolCallMessage(result.tool_call_id, result.tool_name or "", {})
            pieces += self._server_call(call or missing)
        return [*pieces, ("server_result", result)]

    def _rest(self, end: CallEnd) -> Sequence[Piece]:
        waiting = {call.tool_call_id for call in end.pending}
        pieces: list[Piece] = []
        for call_id, call in self._unsure.items():
            if call_id not in waiting:
                pieces += self._server_call(call)
        return pieces

    def _cut(self, pieces: Sequence[Piece]) -> list[Piece]:
        assert self._stop is not None
        kept: list[Piece] = []
        for kind, value in pieces:
            if self.stopped:
                break
            if kind == "text":
                value, self.stopped = self._stop.feed(value)
            else:
                kept += _texts(self._stop.flush())
            if kind != "text" or value:
                kept.append((kind, value))
        if self.end is not None and not self.stopped:
            kept += _texts(self._stop.flush())
        return kept

    # -- the end ----------------------------------------------------------------------------

    @property
    def tool_calls(self) -> tuple[ToolCallMessage, ...]:
        """What waits for the caller."""
        return self.end.pending if self.end is not None else ()


def _texts(text: str) -> list[Piece]:
    return [("text", text)] if text else []


class _Cutter:
    """Cuts a text at the first of some words, which may arrive in pieces."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(word for word in stop if word)
        self._longest = max(map(len, self._stop), default=1)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """What may be shown by now, and whether that is all there will be."""
        text = self._held + text
        found = [at for word in self._stop if (at := text.find(word)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        # The end of it may be the beginning of a stop word.
        keep = next(
            (
                n
                for n in range(min(self._longest - 1, len(text)), 0, -1)
                if any(word.startswith(text[-n:]) for word in self._stop)
            ),
            0,
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """No text follows: what was held back is text."""
        held, self._held = self._held, ""
        return held


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: what was said, and where it stands."""

    reader: Reader
    pieces: tuple[Piece, ...] = field(default=())

    @property
    def end(self) -> CallEnd:
        """The call's last event."""
        assert self.reader.end is not None
        return self.reader.end

    @property
    def text(self) -> str:
        """All text of it."""
        return "".join(value for kind, value in self.pieces if kind == "text")

    def settle(self, end: CallEnd) -> None:
        """Its calls were given up: the message shows them, the conversation waits no more."""
        self.reader.end = replace(end, pending=self.end.pending)
        self._remember()

    def standing_for(self, first: Marker) -> None:
        """It is what several calls came to, which began with that one."""
        self.reader.end = replace(self.end, marker=self.end.marker.standing_for(first))
        self._remember()

    def _remember(self) -> None:
        if self.reader.start is not None:
            given.put(self.reader.start.id, self.end.marker, self.text)
