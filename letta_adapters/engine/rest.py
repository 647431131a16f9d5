"""Internal: turn Letta API events into messages, for one turn over one or more requests (segments).

The wire: ``POST /v1/conversations/{id}/messages`` with ``streaming: true`` answers with server-sent
events, one JSON object each. A segment ends at ``[DONE]``, an ``event: error`` or the connection's
end; ``[DONE]`` is not guaranteed after errors and cancels. A segment that ends with none of them
and no stop reason was cut. All rules were observed on letta 0.16.8.

The rules: docs/protocol.md ("What ends a turn")
and docs/protocol.md ("The order of events").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from letta_adapters.engine.assembler import list_strings, read_results
from letta_adapters.engine.reading import read_json
from letta_adapters.engine.shapes import find_misshapen
from letta_adapters.engine.sse import SSEDecoder
from letta_adapters.engine.stop_reasons import (
    DECISIVE_STOP_REASONS,
    SUCCESS_STOP_REASONS,
    Failure,
    StopReason,
    failure_from_error_event,
    failure_from_stop_reason,
)
from letta_adapters.engine.stored import read_item
from letta_adapters.engine.turn_state import TurnState
from letta_adapters.messages import (
    Message,
    ToolCallMessage,
    UnknownMessage,
    Usage,
)

_Handler = Callable[["RestTurn", dict[str, Any], list[Message]], None]

_UNSEEN_APPROVAL = Failure(
    "protocol_error",
    "The agent waits for the answer to a tool call that the stream did not show.",
    stop_reason="requires_approval",
)
_ANSWERED_ELSEWHERE = Failure(
    "no_pending_approval",
    "The tool calls the agent waited for are not pending any more.",
    stop_reason="requires_approval",
)


# The number of the last numbered events that are recognised when they come again.
_REMEMBERED_EVENTS = 256
# The greatest size of one event: no answer, tool result or image comes near it.
MAX_EVENT_BYTES = 256 << 20
_TORN = Failure("protocol_error", "The server sent a line that is no part of an event.")
_ENDLESS = Failure("protocol_error", "The server sent an event of more than 256 MiB.")
_NO_REASON = Failure(
    "protocol_error", "The server ended the stream and did not say why the turn stopped."
)


class RestTurn(TurnState):
    """A turn that is fed the bytes of its response bodies and returns messages."""

    def __init__(self, *, include_partial_messages: bool = False) -> None:
        super().__init__(include_partial_messages=include_partial_messages)
        self._sse = SSEDecoder()
        self.segment_over = False
        self._done = False
        self._resumed = False
        self._spoke = False
        # The last numbered events, by which an event that comes twice is recognised.
        self._taken: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED_EVENTS)

    def begin_segment(self, *, resumed: bool = False) -> None:
        """Begin a new response; ``resumed`` if it goes on where a lost one broke off.

        A lost response that is resumed must not see :meth:`end_segment`, as its open texts go on.
        Numbered events (``seq_id``) that the resumed response repeats are not taken twice, so it
        may as well start from the beginning.
        """
        self._sse = SSEDecoder()
        self.segment_over = False
        self._done = False
        self._resumed = resumed
        if not resumed:
            self.stop = StopReason()
            self._spoke = False
            self.pending = ()
            # Each request is a run of its own: resuming it at the last one's position would wait
            # for events that never come.
            self.run_id = None
            self.last_seq_id = None
            self._taken.clear()

    def feed(self, chunk: bytes) -> list[Message]:
        """Take body bytes, cut anywhere; return the messages they complete, in order."""
        out: list[Message] = []
        for name, data in self._sse.feed(chunk):
            # Whatever follows the end mark in one chunk belongs to no message.
            if self.segment_over:
                break
            event = _parse(data)
            # Ordinary events have no name, so nearly all of them are spared the longer way.
            if event is None or name is not None:
                event = self._special(name, data, event, out)
                if event is None:
                    continue
            try:
                self._take(event, out)
            except RecursionError:
                # It could be read, but is too deep to be compared or written again.
                self.misread(event, str(event.get("message_type")), "content", out)
        # A server that never ends its event would fill the memory.
        if self._sse.held > MAX_EVENT_BYTES:
            self.fail(_ENDLESS)
            self.segment_over = True
        if self._sse.torn:
            self.fail(_TORN)
        return out

    def _take(self, event: dict[str, Any], out: list[Message]) -> None:
        kind = event.get("message_type")
        handler = _HANDLERS.get(kind) if type(kind) is str else None
        if type(kind) is not str and kind is not None:
            self.misread(event, "event", "message_type", out)
            return
        # Before its run and number are noted: nothing in a broken event can be trusted.
        if handler is not None and (field := find_misshapen(event)):
            self.misread(event, str(kind), field, out)
            return
        run_id = event.get("run_id")
        if type(run_id) is str and run_id != self.run_id:
            self.note_run(run_id)
        seq_id = event.get("seq_id")
        if type(seq_id) is int and self._is_replayed(seq_id, event):
            return
        if handler is None:
            out.extend(read_item(event) if kind == "user_message" else (UnknownMessage(event),))
        else:
            handler(self, event, out)

    def end_segment(self) -> list[Message]:
        """End the response (or the segment): hand out what is complete, and settle how it ended.

        Afterwards exactly one holds: ``failure`` is set; :attr:`paused` calls wait (see
        :meth:`confirm_pending`); or the turn is complete.
        """
        out: list[Message] = []
        self.segment_over = True
        stop_reason = self.stop.value
        if self.failure is None:
            # Neither a reason nor the end mark came, so the connection broke in the middle.
            if stop_reason is None and not self._done:
                self.fail(
                    Failure("stream_truncated", "The stream ended before the turn was finished.")
                )
            elif stop_reason is None:
                self.fail(_NO_REASON)
            else:
                failure = failure_from_stop_reason(self.stop.cause or stop_reason)
                if failure is not None:
                    self.fail(replace(failure, stop_reason=stop_reason))
                elif stop_reason == "requires_approval" and not self.assembler.open_calls():
                    self.fail(_UNSEEN_APPROVAL)
        # After a break in the middle the last text is a fragment, and must not pass for a whole
        # one.
        if self.failure is None or self._complete_despite_failure():
            self.assembler.flush(out)
        else:
            self.assembler.flush_broken(out)
        return self.collect(out)

    def _complete_despite_failure(self) -> bool:
        """Return whether the step ended in order all the same, with nothing cut off.

        `max_steps`, `max_tokens_exceeded` and the like end a step in order.
        """
        stop_reason = self.stop.value
        return stop_reason is not None and stop_reason not in DECISIVE_STOP_REASONS

    @property
    def paused(self) -> list[ToolCallMessage]:
        """The calls that the stream showed as waiting for this client's answer."""
        if self.failure is not None or self.stop.value != "requires_approval":
            return []
        return self.assembler.open_calls()

    @property
    def silent(self) -> bool:
        """True if the response ended well and the agent neither said nor called anything in it."""
        return self.failure is None and not self._spoke and not self.pending

    def take_stored(self, items: Iterable[Mapping[str, Any]]) -> list[Message]:
        """Take the stored messages of a response that showed none of them.

        Args:
            items: The stored messages of the run, oldest first (``GET /v1/runs/{id}/messages``).
        """
        out: list[Message] = []
        for item in items:
            # A run stores its input as well, which the agent did not say.
            kind = item.get("message_type")
            if type(kind) is not str or kind not in _SPEAKS:
                continue
            if field := find_misshapen(item):
                self.misread(item, kind, field, out)
            else:
                _HANDLERS[kind](self, dict(item), out)
        end = len(out)
        self.assembler.flush(out)
        self.collect(out, end)
        return out

    def confirm_pending(self, tool_call_ids: Iterable[str]) -> list[Message]:
        """Keep the calls that are really pending, and return them.

        The server keeps only one unless parallel calls are on. If none of those shown is pending,
        someone else answered them: that is a failure, not an empty answer.
        """
        # Looked at before the calls are taken out, as it is made of those that are still in.
        shown = self.paused
        self.pending = tuple(self.assembler.take_calls(frozenset(tool_call_ids)))
        if shown and not self.pending:
            self.fail(_ANSWERED_ELSEWHERE)
        return self.collect(list(self.pending))

    # -- events -----------------------------------------------------------------------------

    def _is_replayed(self, seq_id: int, event: dict[str, Any]) -> bool:
        """Note a numbered event and its position; return whether it was taken before.

        Numbers order the events of a stream that is resumed. In one that is not, a number says
        nothing by itself (a ping repeats the last one), but one event that comes twice is one.
        """
        last = self.last_seq_id
        if last is not None and seq_id <= last:
            return self._resumed or event in self._taken
        self.last_seq_id = seq_id
        self._taken.append(event)
        return False

    def _special(
        self, name: str | None, data: bytes, event: dict[str, Any] | None, out: list[Message]
    ) -> dict[str, Any] | None:
        """Handle an event that has a name or is no JSON object; return an ordinary event."""
        if data == b"[DONE]":
            self._done = self.segment_over = True
        elif name == "cancelled":
            self.stop.see("cancelled")
        elif event is None:
            if data or name == "error":  # an event without data says nothing
                self._protocol_error(data)
        elif name == "error":
            self._on_error(event, out)
        else:
            return event
        return None

    def _protocol_error(self, data: bytes) -> None:
        self.segment_over = True
        shown = data[:80].decode("utf-8", "replace")
        text = f"The server sent an event that is no JSON object: {shown!r}"
        self.fail(Failure("protocol_error", text))

    def _on_error(self, event: dict[str, Any], out: list[Message]) -> None:
        run_id = event.get("run_id")
        # An event that is an error by its name was not looked at: its fields may be anything.
        if type(run_id) is str and run_id:
            self.note_run(run_id)
        self.segment_over = True
        if self.stop.value == "cancelled":
            return  # the cancel came first; what the server says of its own clean-up is noise
        failure = failure_from_error_event(event, self.stop.cause)
        # Whatever the stop reason said before, it was no success.
        seen = self.stop.value
        stop_reason = None if seen in SUCCESS_STOP_REASONS else seen
        self.fail(replace(failure, stop_reason=stop_reason))

    def _on_text(self, event: dict[str, Any], out: list[Message]) -> None:
        self._spoke = True
        start = len(out)
        self.assembler.text(event, out)
        if len(out) != start:
            self.collect(out, start)
        if self.partial:
            out.append(self.fragment(event))

    def _on_call(self, event: dict[str, Any], out: list[Message]) -> None:
        self._spoke = True
        start = len(out)
        approval = event["message_type"] == "approval_request_message"
        self.assembler.call(event, out, approval=approval)
        if self.partial:
            # After the texts that it ends, before the call that it completes.
            calls = (i for i in range(start, len(out)) if type(out[i]) is ToolCallMessage)
            out.insert(next(calls, len(out)), self.fragment(event))
        self.collect(out, start)

    def _on_return(self, event: dict[str, Any], out: list[Message]) -> None:
        start = len(out)
        self.assembler.flush(out)
        self.collect(out, start)
        results = read_results(event, self._tool_names)
        out.extend(result for result in results if self.tool_result(result))

    def _on_stop(self, event: dict[str, Any], out: list[Message]) -> None:
        reason = event.get("stop_reason")
        if reason:
            self.stop.see(str(reason))

    def _on_usage(self, event: dict[str, Any], out: list[Message]) -> None:
        self.usage = self.usage + Usage(
            event.get("prompt_tokens") or 0,
            event.get("completion_tokens") or 0,
            event.get("total_tokens") or 0,
            event.get("cached_input_tokens"),
            event.get("cache_write_tokens"),
            event.get("reasoning_tokens"),
            event.get("context_tokens"),
            event.get("step_count") or 0,
        )
        for run_id in list_strings(event.get("run_ids")):
            self._run_ids[run_id] = None

    def _on_ping(self, event: dict[str, Any], out: list[Message]) -> None:
        """Do nothing: a ping keeps the connection alive and carries the run id."""


_HANDLERS: dict[str, _Handler] = {
    "assistant_message": RestTurn._on_text,
    "reasoning_message": RestTurn._on_text,
    "hidden_reasoning_message": RestTurn._on_text,
    "tool_call_message": RestTurn._on_call,
    "approval_request_message": RestTurn._on_call,
    "tool_return_message": RestTurn._on_return,
    "stop_reason": RestTurn._on_stop,
    "usage_statistics": RestTurn._on_usage,
    "error_message": RestTurn._on_error,
    "ping": RestTurn._on_ping,
}


# The kinds of stored messages by which an agent says or does something.
_SPEAKS = frozenset(
    {
        "assistant_message",
        "reasoning_message",
        "hidden_reasoning_message",
        "tool_call_message",
        "tool_return_message",
    }
)


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        value = read_json(data)
    except (ValueError, RecursionError):
        return None
    return value if type(value) is dict else None
