"""Internal: the state of a turn that all protocols share, from its messages to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from letta_adapters.engine.assembler import Assembler
from letta_adapters.engine.stop_reasons import SUCCESS_STOP_REASONS, Failure, StopReason
from letta_adapters.errors import LettaError, error_for_code
from letta_adapters.messages import (
    AssistantMessage,
    ErrorMessage,
    Message,
    ResultMessage,
    StreamEvent,
    ToolCallMessage,
    ToolResultMessage,
    UnknownMessage,
    Usage,
)


class TurnState:
    """A turn from the accepted message to its result, over any number of requests."""

    def __init__(self, *, include_partial_messages: bool = False) -> None:
        self.partial = include_partial_messages
        self.assembler = Assembler()
        self.stop = StopReason()
        self.usage = Usage()
        self.failure: Failure | None = None
        self.pending: tuple[ToolCallMessage, ...] = ()
        # The server's details of a permission question, by tool call id: suggestions, diffs, ...
        self.details: dict[str, Mapping[str, Any]] = {}
        self.run_id: str | None = None
        self.last_seq_id: int | None = None
        self.input_stored: bool | None = None
        self._run_ids: dict[str, None] = {}
        self._tool_names: dict[str, str] = {}
        self._answered: set[str] = set()
        self._answer: list[AssistantMessage] = []
        self._fragments = 0

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs of this turn, oldest first."""
        return tuple(self._run_ids)

    @property
    def answer(self) -> str:
        """The answer's text, as far as it came."""
        return "".join(m.content for m in self._answer)

    def note_run(self, run_id: str) -> None:
        """Take note that the wire names this run as the one that is active."""
        self._run_ids[run_id] = None
        if run_id != self.run_id:
            self.run_id = run_id
            self.last_seq_id = None  # each run counts its own events

    def collect(self, out: list[Message], start: int = 0) -> list[Message]:
        """Note the answer's text and the tool calls among finished messages, which are returned.

        Args:
            out: Messages, in order.
            start: The index of the first that was not seen before.
        """
        for message in out[start:]:
            # The answer is the text after the last tool call: what is said before a call only
            # announces it. Its parts share the id of one message.
            if type(message) is AssistantMessage:
                if self._answer and self._answer[-1].id != message.id:
                    self._answer.clear()
                self._answer.append(message)
            elif type(message) is ToolCallMessage:
                self._answer.clear()
                self._tool_names[message.tool_call_id] = message.tool_name
                # Some models count the ids of their calls anew in each step, so a new call may have
                # an old id.
                self._answered.discard(message.tool_call_id)
        return out

    def recall(self, tool_names: Mapping[str, str]) -> None:
        """Note calls of an earlier turn, whose results come in this one.

        Args:
            tool_names: The tools, by tool call id.
        """
        self._tool_names.update(tool_names)

    def fragment(self, event: Mapping[str, Any]) -> StreamEvent:
        """Return the event as the next fragment of this turn."""
        self._fragments += 1
        return StreamEvent(event, self._fragments)

    def misread(self, event: Mapping[str, Any], kind: str, field: str, out: list[Message]) -> None:
        """Keep a known event that cannot be read, and fail the turn, as a part of it is missing.

        Args:
            event: The event as it came.
            kind: The name of its kind, for the error.
            field: The field that cannot be read.
            out: The messages, to which it is added.
        """
        out.append(UnknownMessage(event))
        text = f"The server sent a {kind} whose {field} cannot be read."
        self.fail(Failure("protocol_error", text))

    def tool_result(self, message: ToolResultMessage) -> bool:
        """Note a tool's result, and return ``False`` if that result was already handed out.

        The server repeats the results of client-side tools in some modes and not in others.
        """
        if message.tool_call_id in self._answered:
            return False
        self._answered.add(message.tool_call_id)
        return True

    def fail(self, failure: Failure) -> None:
        """Record the reason why the turn failed; the first one stays."""
        if self.failure is None:
            self.failure = failure

    def fail_with(self, error: LettaError) -> None:
        """Record an error of the transport, or of this side, as the reason."""
        self.fail(Failure(error.code, str(error)))

    def explain(self, text: str) -> None:
        """Add facts that were found out afterwards to the failure."""
        if self.failure is not None:
            self.failure = replace(self.failure, message=f"{self.failure.message} {text}")

    def error(self) -> LettaError:
        """Return the recorded failure as an exception."""
        failure = self.failure or Failure("turn_failed", "The turn failed.")
        return error_for_code(failure.code, failure.message, run_id=self.run_id)

    def finish(
        self, *, duration_ms: int, agent_id: str | None = None, conversation_id: str | None = None
    ) -> list[Message]:
        """Return the closing messages: an ``ErrorMessage`` if the turn failed, and the result."""
        failure = self.failure
        common: dict[str, Any] = {
            "usage": self.usage,
            "duration_ms": duration_ms,
            "agent_id": agent_id,
            "conversation_id": conversation_id,
            "run_ids": self.run_ids,
            "input_stored": self.input_stored,
        }
        if failure is None:
            return [ResultMessage(True, self.answer, self.stop.value or "end_turn", **common)]
        # What is still open belongs to a turn that was stopped before its stream had an end.
        said: list[Any] = []
        self.assembler.flush_broken(said)
        partial = self.answer + "".join(m.content for m in said if isinstance(m, AssistantMessage))
        # The failure's own stop reason counts; else the last one of the stream.
        seen = self.stop.value
        # A turn that failed after a successful-looking stop reason did not succeed.
        if seen is None or seen in SUCCESS_STOP_REASONS:
            seen = "error"
        stop_reason = failure.stop_reason or seen
        detail = failure.message
        # Servers repeat the message in the detail, which nobody wants to read twice.
        if failure.detail and failure.detail not in detail:
            detail = f"{detail} ({failure.detail})"
        return [
            ErrorMessage(
                failure.message,
                failure.code,
                failure.error_type,
                stop_reason,
                failure.detail,
                self.run_id,
            ),
            ResultMessage(
                False,
                None,
                stop_reason,
                error_code=failure.code,
                error_detail=detail,
                partial=partial + self.assembler.broken,
                **common,
            ),
        ]
