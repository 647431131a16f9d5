"""Internal: turn the events of a call into the pieces of one answer, without naming a framework.

A tool that runs on the agent's side becomes a ``server_call`` and a ``server_result``, never a tool
call of the message: a framework's tool loop would run it again. Only a call that waits for the
caller becomes a ``tool_call``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from letta_adapters.chat.cache import known_answers
from letta_adapters.chat.request import ID_PREFIX, ChatEvent, ResponseCompleted, ResponseStarted
from letta_adapters.messages import (
    AssistantMessage,
    LoopStatusMessage,
    Message,
    QueueUpdateMessage,
    ReasoningMessage,
    RetryMessage,
    StreamEvent,
    ToolCallMessage,
    ToolProgressMessage,
    ToolResultMessage,
    UnknownMessage,
    Usage,
    content_text,
)

STOPPED: Final = "stop_sequence"

# Events that are about the conversation and no part of the answer.
_SILENT: Final = frozenset({"", "user_message", "system_message"})

# Messages about the run, and the names of their events.
_NOTES: Final[Mapping[type, str]] = {
    QueueUpdateMessage: "letta_queue",
    LoopStatusMessage: "letta_loop_status",
    ToolProgressMessage: "letta_tool_progress",
}
# A ``note`` is about the run and no part of the message.
Kind = Literal["text", "reasoning", "server_call", "server_result", "note", "other"]
Part = tuple[Kind, Any]


class ServerToolError(Exception):
    """Report the failure of a tool on the agent's side to a framework's handlers.

    It is never raised: the agent reads the failure itself, and goes on.
    """


@dataclass(slots=True)
class AnswerSoFar:
    """Add up the parts of an answer that is under way.

    Attributes:
        text: All text.
        reasoning: All reasoning.
        server_tools: The calls and results of tools that ran on the agent's side, in order.
    """

    text: str = ""
    reasoning: str = ""
    server_tools: list[Part] = field(default_factory=list)

    def add(self, part: Part) -> None:
        """Add one part; one that is no text, reasoning or server tool adds nothing."""
        kind, value = part
        if kind == "text":
            self.text += value
        elif kind == "reasoning":
            self.reasoning += value
        elif kind in ("server_call", "server_result"):
            self.server_tools.append(part)


def join_parts(parts: Iterable[Part]) -> list[Part]:
    """Return the parts with neighbours of text joined, and neighbours of reasoning."""
    joined: list[Part] = []
    for kind, value in parts:
        if kind in ("text", "reasoning") and joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + value)
        else:
            joined.append((kind, value))
    return joined


class ResponseReader:
    """Read the events of a call one by one and return what each adds to the message.

    Args:
        own_tools: Names of the caller's tools.
        answered: Tool calls the caller has just answered: the server repeats their results, or runs
            those of its own tools that were allowed.
        stop: Texts that end the message. The turn goes on to its end all the same: cancelling it
            would take the user's message out of the conversation.
    """

    def __init__(
        self,
        own_tools: Iterable[str] = (),
        answered: Iterable[ToolCallMessage] = (),
        stop: Sequence[str] | None = None,
    ) -> None:
        self.start: ResponseStarted | None = None
        self.end: ResponseCompleted | None = None
        self.stopped = False
        self._own = frozenset(own_tools)
        self._answered = {call.tool_call_id: call for call in answered}
        # Ids (otids) of messages whose text arrived as fragments; their whole form adds nothing.
        self._streamed: set[str | None] = set()
        # Calls that may yet turn out to wait for the caller: only the end of the call tells.
        self._unsure: dict[str, ToolCallMessage] = {}
        # Calls already given out as server calls, so that none is given out twice.
        self._shown: set[str] = set()
        self._stop = StopSequenceFilter(stop) if stop else None

    @property
    def id(self) -> str | None:
        """Return the answer's id, which is the same when the call is repeated."""
        return f"{ID_PREFIX}{self.start.id}" if self.start is not None else None

    def read(self, event: ChatEvent) -> Sequence[Part]:
        """Return the pieces that the event adds to the message.

        Args:
            event: The next event, in the order in which the call yields them.
        """
        if type(event) is StreamEvent:
            pieces = self._fragment(event.event)
        elif isinstance(event, ResponseStarted):
            self.start = event
            return ()
        elif isinstance(event, ResponseCompleted):
            self.end = event
            pieces = self._rest(event)
        else:
            pieces = self._whole(event)
        return self._cut(pieces) if self._stop is not None else pieces

    def _fragment(self, event: Mapping[str, Any]) -> Sequence[Part]:
        """Return the text or reasoning in a token-level event."""
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

    def _whole(self, message: Message) -> Sequence[Part]:
        """Return what a whole message adds beyond the fragments that were streamed before it."""
        if isinstance(message, AssistantMessage | ReasoningMessage):
            # Its text was streamed already, unless this answer is not streamed.
            if message.otid in self._streamed and message.otid is not None:
                return ()
            if isinstance(message, ReasoningMessage):
                return () if message.redacted else (("reasoning", message.content),)
            return (("text", message.content),)
        if isinstance(message, ToolCallMessage):
            # Either the caller has to answer this call, or the server runs it by itself after all.
            if message.requires_approval:
                self._unsure[message.tool_call_id] = message
                return ()
            return self._server_call(message)
        if isinstance(message, ToolResultMessage):
            return self._result(message)
        if isinstance(message, RetryMessage):
            note = {"reason": message.reason, "attempt": message.attempt}
            return (("other", {"type": "letta_retry", **note}),)
        if type(message) in _NOTES:
            return (("note", {**asdict(message), "type": _NOTES[type(message)]}),)
        if isinstance(message, UnknownMessage) and message.event_type not in _SILENT:
            return (("other", dict(message.raw)),)
        return ()

    def _server_call(self, call: ToolCallMessage) -> list[Part]:
        self._shown.add(call.tool_call_id)
        return [("server_call", call)]

    def _result(self, result: ToolResultMessage) -> Sequence[Part]:
        """Return a tool's result together with its call, if the call was not given out before."""
        call = self._unsure.pop(result.tool_call_id, self._answered.get(result.tool_call_id))
        ours = call is not None and call.tool_name in self._own
        # The caller gave this result itself; the server only repeats it.
        if ours and result.tool_call_id in self._answered:
            return ()
        pieces: list[Part] = []
        if result.tool_call_id not in self._shown:
            # A result without its call would be an orphan to the framework.
            missing = ToolCallMessage(result.tool_call_id, result.tool_name or "", {})
            pieces += self._server_call(call or missing)
        return [*pieces, ("server_result", result)]

    def _rest(self, end: ResponseCompleted) -> Sequence[Part]:
        """Return the calls that waited for nobody after all: the server ran them itself."""
        waiting = {call.tool_call_id for call in end.pending}
        pieces: list[Part] = []
        for call_id, call in self._unsure.items():
            if call_id not in waiting:
                pieces += self._server_call(call)
        return pieces

    def _cut(self, pieces: Sequence[Part]) -> list[Part]:
        """Drop all pieces from the first stop text on, holding back text that may begin one."""
        assert self._stop is not None
        kept: list[Part] = []
        for kind, value in pieces:
            if self.stopped:
                break
            if kind == "text":
                # No stop text spans another kind of piece, so any other kind first releases the
                # text held back. A note is none: it may come between two tokens of a word.
                value, self.stopped = self._stop.feed(value)
            elif kind != "note":
                kept += _texts(self._stop.flush())
            if kind != "text" or value:
                kept.append((kind, value))
        if self.end is not None and not self.stopped:
            kept += _texts(self._stop.flush())
        return kept

    # -- the end ----------------------------------------------------------------------------

    @property
    def tool_calls(self) -> tuple[ToolCallMessage, ...]:
        """Return the calls that wait for the caller; empty before the end of the call."""
        return self.end.pending if self.end is not None else ()

    def describe(self) -> dict[str, Any]:
        """Return what every framework's message tells of an answer that is complete.

        Where it was given, by which model and runs of the server, why it ended, and which calls of
        an earlier turn were answered, or ended, for it.
        """
        end = self.end
        assert end is not None
        made: dict[str, Any] = {
            "stop_reason": STOPPED if self.stopped else end.stop_reason,
            "agent_id": end.agent_id,
            "conversation_id": end.conversation_id,
            "run_ids": list(end.run_ids),
            "model": end.model,
        }
        if end.recovered:
            made["recovered"] = [
                {
                    "tool_call_id": left.call.tool_call_id,
                    "tool_name": left.call.tool_name,
                    "asked": left.asked,
                    "allowed": left.allowed,
                }
                for left in end.recovered
            ]
        return made


def _texts(text: str) -> list[Part]:
    return [("text", text)] if text else []


class StopSequenceFilter:
    """Cut a text at the first of several stop texts, each of which may arrive in fragments."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(word for word in stop if word)
        self._longest = max(map(len, self._stop), default=1)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Return the text that may be shown by now, and whether the message ends with it."""
        text = self._held + text
        found = [at for word in self._stop if (at := text.find(word)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        # The end of the text may be the beginning of a stop text: hold the longest such end back.
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
        """Return the text held back: nothing follows, so it is no part of a stop text."""
        held, self._held = self._held, ""
        return held


def _sum_usage(first: Usage | None, then: Usage | None) -> Usage | None:
    """Return the tokens of two calls; an answer that was given before has taken none."""
    return then if first is None else first if then is None else first + then


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold a whole answer: its pieces, and the reader that knows its first and last event."""

    reader: ResponseReader
    pieces: tuple[Part, ...] = field(default=())

    @property
    def end(self) -> ResponseCompleted:
        """Return the call's last event."""
        assert self.reader.end is not None
        return self.reader.end

    @property
    def text(self) -> str:
        """Return all text of the answer."""
        return "".join(value for kind, value in self.pieces if kind == "text")

    def settle(self, end: ResponseCompleted) -> None:
        """Record that the answer's calls were given up.

        The message still shows them, but the conversation no longer waits for their results.

        Args:
            end: The last event as it is after the calls were given up.
        """
        self.reader.end = replace(end, pending=self.end.pending)
        self._remember()

    def as_span(self, before: ResponseCompleted) -> None:
        """Make this the answer to several calls that the caller sees as one.

        It took the tokens and the runs of all of them.

        Args:
            before: The end of the call before it, which may stand for several calls itself.
        """
        end = self.end
        self.reader.end = replace(
            end,
            marker=end.marker.as_span(before.marker),
            usage=_sum_usage(before.usage, end.usage),
            run_ids=tuple(dict.fromkeys((*before.run_ids, *end.run_ids))),
            recovered=(*before.recovered, *end.recovered),
        )
        self._remember()

    def _remember(self) -> None:
        """Note the changed marker, in case the framework drops the one in the message."""
        if self.reader.start is not None:
            known_answers.put(self.reader.start.id, self.end.marker, self.text)
