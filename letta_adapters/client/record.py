"""Internal: tell what happens in a turn: to the log, and to OpenTelemetry where that is on."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Final

from letta_adapters.backends.base import DEFAULT, Conversation, Opened
from letta_adapters.engine.turn_state import TurnState
from letta_adapters.messages import Message, RetryMessage, Usage
from letta_adapters.tracing import spans

_log: Final = logging.getLogger("letta_adapters.turns")
# Whether and where records are shown is up to the application (docs/logging.md). Here, and not in
# the package, whose import `logging` would make half as long again; no client works without this.
logging.getLogger("letta_adapters").addHandler(logging.NullHandler())
_NOTHING: Final[AbstractContextManager[None]] = nullcontext()


@dataclass(frozen=True, slots=True)
class Told:
    """Hold what whoever asks for a turn has to tell of it.

    Args:
        facts: Returns what is known of the conversation by now: its model, its agent.
        model: The model of this turn, if it has one of its own.
        around: What is reported around it.
    """

    facts: Callable[[], Opened] | None = field(default=None, compare=False, repr=False)
    model: str | None = None
    around: spans.Around = spans.NOTHING_AROUND


# What is told of a turn of which nothing more is known.
PLAIN: Final = Told()


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """Hold what is known of a turn before it begins.

    Args:
        place: Its conversation.
        backend: The kind of backend.
        otid: The id of its message; ``""`` if there is none.
        content: The message in the form of the wire; it is never logged.
        told: What whoever asks for it has told.
    """

    place: Conversation
    backend: str
    otid: str
    content: Any
    told: Told

    @property
    def agent_id(self) -> str:
        """The agent's id, as far as it is known by now."""
        facts = self.told.facts
        return self.place.agent_id or ("" if facts is None else facts().conversation.agent_id)

    @property
    def model(self) -> str | None:
        """The model, as far as it is known by now."""
        facts = self.told.facts
        return self.told.model or (None if facts is None else facts().model)


class TurnRecord:
    """Tell of one turn: its begin, its retries, its tools and, once, its end."""

    __slots__ = ("_ended", "_facts", "_running", "_started", "_trace", "_used")

    def __init__(self, facts: TurnFacts | None, *, used: Usage | None = None) -> None:
        self._facts = facts
        self._used = used or Usage()
        self._started = time.monotonic()
        self._ended = facts is None
        self._trace = None if facts is None else _start_trace(facts)
        self._tell(logging.INFO, "A turn starts.")

    def _tell(self, level: int, text: str, *values: object, **extra: object) -> None:
        facts = self._facts
        if facts is None or not _log.isEnabledFor(level):
            return
        known = {
            "agent_id": facts.agent_id,
            "conversation_id": facts.place.conversation_id,
            "otid": facts.otid,
            "backend": facts.backend,
        }
        _log.log(level, text, *values, extra={**known, **extra})

    def inside(self) -> AbstractContextManager[None]:
        """Return a context manager: spans that are made in it belong to the turn."""
        return _NOTHING if self._trace is None else _inside(self._trace)

    def watch(
        self, read: Callable[[], Awaitable[list[Message]]]
    ) -> Callable[[], Awaitable[list[Message]]]:
        """Return a function that reads the next messages, and tells of them if anybody listens."""
        # Otherwise the function itself, so that a turn of which nobody hears costs nothing.
        trace = self._trace
        if trace is None and not _log.isEnabledFor(logging.INFO):
            return read

        async def watched() -> list[Message]:
            with self.inside():
                batch = await read()
            if trace is not None:
                # Before the batch is seen, as the span of a model step is named after the model.
                self._learn(trace)
                trace.see(batch)
            for message in batch:
                if type(message) is RetryMessage:
                    self._tell(logging.INFO, "The model call is repeated.")
            return batch

        return watched

    def _learn(self, trace: spans.TurnTrace) -> None:
        # Both may be read beside the turn.
        if self._facts is not None:
            trace.learn(self._facts.model, self._facts.agent_id)

    def note(self, text: str) -> None:
        """Log something that was done to the turn, as a sentence without any content."""
        self._tell(logging.INFO, text)

    def refuse(self, error: BaseException) -> None:
        """Tell that the turn's message was not accepted, or given up before it was."""
        cancelled = isinstance(error, asyncio.CancelledError)
        code = "cancelled" if cancelled else spans.name_error(error)
        self._end(Usage(), code, None, (), None)

    def end(self, state: TurnState, *, stopped: bool, paused: bool = False) -> None:
        """Tell the end of the turn; the first one counts.

        Args:
            state: The turn as far as it came.
            stopped: It was told to stop.
            paused: It waits for its caller's answers; with them another record begins.
        """
        failure = state.failure
        code = failure.code if failure else "cancelled" if stopped else None
        reason = (failure and failure.stop_reason) or state.stop.value
        if paused:
            reason = "requires_approval"
        # A turn goes on counting after a pause; what was told then must not be told twice.
        self._end(state.usage - self._used, code, reason, state.run_ids, state.answer)

    def _end(
        self,
        usage: Usage,
        code: str | None,
        reason: str | None,
        run_ids: Sequence[str],
        answer: str | None,
    ) -> None:
        if self._ended:
            return
        self._ended = True
        run_id = run_ids[-1] if run_ids else None
        milliseconds = math.ceil((time.monotonic() - self._started) * 1000)
        # To leave a turn as it is is what its caller wanted, and no failure.
        error = None if code == "detached" else code
        self._tell(
            logging.INFO,
            "A turn ended after %d ms: %s.",
            milliseconds,
            code or reason or "end_turn",
            run_id=run_id,
            duration_ms=milliseconds,
            stop_reason=reason,
            error_code=code,
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
        )
        if self._trace is not None:
            self._learn(self._trace)
            told = {
                "gen_ai.response.finish_reasons": [reason] if reason else None,
                "letta.run.id": run_id,
            }
            self._trace.end(usage, error, told, answer)

    def go_on(self, used: Usage) -> TurnRecord:
        """Return the record of what follows a pause.

        Args:
            used: The tokens that were told of already.
        """
        facts = self._facts
        if facts is None:
            return self
        # That context belongs to the call that paused: the rest is reported inside the one that
        # brings the answers.
        around = replace(facts.told.around, context=None)
        told = replace(facts.told, around=around)
        return TurnRecord(replace(facts, content=None, told=told), used=used)


# The trace of the turn whose tools and callbacks the running code is a part of.
_current: ContextVar[spans.TurnTrace | None] = ContextVar("letta_turn_trace", default=None)


@contextmanager
def _inside(trace: spans.TurnTrace) -> Iterator[None]:
    token = _current.set(trace)
    try:
        with trace.inside():
            yield
    finally:
        _current.reset(token)


def _start_trace(facts: TurnFacts) -> spans.TurnTrace | None:
    on = spans.get_instruments()
    if on is None:
        return None
    return spans.TurnTrace(
        on,
        {
            "gen_ai.conversation.id": _name_place(facts.place),
            "gen_ai.request.model": facts.model,
        },
        {
            "gen_ai.agent.id": facts.agent_id,
            "letta.backend": facts.backend,
            "letta.otid": facts.otid,
        },
        content=facts.content,
        around=facts.told.around,
    )


def _name_place(place: Conversation) -> str:
    # Every agent has a conversation that is called so.
    unique = place.conversation_id != DEFAULT or not place.agent_id
    return place.conversation_id if unique else f"{place.agent_id}:{DEFAULT}"


def _note_nothing(error: str | None, result: str) -> None:
    """Take note of nothing."""


def run_tool(call: Any) -> AbstractContextManager[Callable[[str | None, str], None]]:
    """Return a context manager for the run of a client-side tool.

    It gives a function that takes the machine code of the tool's failure (or ``None``) and the
    result's text.
    """
    trace = _current.get()
    return nullcontext(_note_nothing) if trace is None else trace.run_tool(call)


def allow_tool(call: Any) -> None:
    """Take note that the server runs a tool, which it has asked about."""
    trace = _current.get()
    if trace is not None:
        trace.allow(call)


# That of a turn which is not sent.
SILENT: Final = TurnRecord(None)
