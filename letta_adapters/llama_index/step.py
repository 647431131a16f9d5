"""Internal: write a turn's events to the workflow's stream, in LlamaIndex' terms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from llama_index.core.agent.workflow.workflow_events import AgentStream, ToolCall, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.instrumentation.events.agent import AgentToolCallEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.tools import ToolOutput, ToolSelection
from llama_index.core.workflow import Context

from letta_adapters.chat import ChatEvent, ChatRequest, HistoryMessage, ResponseCompleted
from letta_adapters.chat.constraints import ConstrainedRequest
from letta_adapters.chat.response import AnswerSoFar, join_parts
from letta_adapters.chat.response import ServerToolError as ServerToolError
from letta_adapters.llama_index._compat import TOOL_CALLS
from letta_adapters.llama_index.instrumentation import (
    ServerTool,
    Span,
    dispatcher,
    has_event_handlers,
    has_span_handlers,
    open_tool_span,
)
from letta_adapters.llama_index.responses import build_raw, to_response
from letta_adapters.llama_index.state import AgentState
from letta_adapters.messages import ToolResultMessage

# The greatest number of events that are written without giving their consumer a turn.
_BACKLOG: Final = 16


def _find_maker() -> Callable[..., AgentStream]:
    """Return what makes the event of a token.

    Validation takes half as long again, and these values are what they have to be.
    """
    try:
        AgentStream.model_construct(delta="", response="", current_agent_name="", tool_calls=[])
    except RecursionError:
        # workflows 2.26 looks for private attributes that pydantic 2.11 has not made yet.
        return AgentStream
    return AgentStream.model_construct


_make_event: Final = _find_maker()


class StepReader:
    """Read one call of an agent's step.

    The activity of the agent's own tools is written to the stream and never sent into the workflow,
    which would run them again.

    Args:
        ctx: The workflow's context.
        name: The agent's name.
        call: The call.
        streaming: Write an event for each token.
    """

    def __init__(
        self, ctx: Context, name: str, call: ChatRequest, *, streaming: bool = True
    ) -> None:
        self._ctx = ctx
        self._name = name
        self._streaming = streaming
        self._reader = ConstrainedRequest(call).reader()
        self._own = frozenset(str(tool["name"]) for tool in call.tools)
        self._so_far = AnswerSoFar()
        self._called: dict[str, ToolCall] = {}
        self._results: list[ToolCallResult] = []
        self._heard, self._traced = has_event_handlers(), has_span_handlers()
        self._spans: dict[str, Span] = {}

    async def read(self, events: AsyncIterable[ChatEvent], *, coalesce: bool) -> None:
        """Read the events to their end.

        Args:
            events: The events of the call.
            coalesce: Put texts that are there already into one event.
        """
        try:
            await (self._read_batches(events) if coalesce else self._read(events))
        except BaseException as error:
            for span in self._spans.values():
                span.fail(error)
            raise
        # Spans still open belong to tools whose results never came.
        for span in self._spans.values():  # its result was not told
            span.end(None)
        # The calls are known only now: one more event of the stream tells them.
        if self._list_calls():
            self._stream("", None)

    async def _read(self, events: AsyncIterable[ChatEvent]) -> None:
        """Write an event for each token."""
        written = 0
        async for event in events:
            pieces = self._reader.read(event)
            if pieces:
                self._write(pieces)
                written += 1
                # Give the consumer a turn now and then: each event in its backlog holds all text so
                # far. Where tokens come one by one, it has its turn with each of them.
                if written % _BACKLOG == 0:
                    await asyncio.sleep(0)

    async def _read_batches(self, events: AsyncIterable[ChatEvent]) -> None:
        """Write one event for all tokens that are there."""
        # Closed before the events are: a failure of ours leaves nobody at work on them.
        async with aclosing(_read_ready(events)) as batches:
            async for batch in batches:
                self._write(join_parts([p for event in batch for p in self._reader.read(event)]))

    def _write(self, pieces: Any) -> None:
        """Write the events of pieces to the workflow's stream."""
        for piece in pieces:
            self._so_far.add(piece)
            kind, value = piece
            if kind == "text":
                self._stream(value, None)
            elif kind == "reasoning":
                self._stream("", value)
            elif kind == "server_call":
                call = ToolCall(
                    tool_name=value.tool_name,
                    tool_kwargs=dict(value.tool_input),
                    tool_id=value.tool_call_id,
                )
                self._called[value.tool_call_id] = call
                self._ctx.write_event_to_stream(call)
                self._observe(call)
            elif kind == "server_result":
                self._write_result(value)

    def _stream(self, delta: str, thinking: str | None) -> None:
        """Write the text so far to the stream, if tokens are wanted."""
        if not self._streaming:
            return
        self._ctx.write_event_to_stream(
            _make_event(
                delta=delta,
                response=self._so_far.text,
                current_agent_name=self._name,
                thinking_delta=thinking,
                tool_calls=self._list_calls(),
            )
        )

    def _list_calls(self) -> list[ToolSelection]:
        """Return the calls that the workflow is going to run; they are known at the end."""
        return [
            ToolSelection(
                tool_id=call.tool_call_id,
                tool_name=call.tool_name,
                tool_kwargs=dict(call.tool_input),
            )
            for call in self._reader.tool_calls
            if call.tool_name in self._own
        ]

    def _write_result(self, result: ToolResultMessage) -> None:
        """Write the result of a tool that the agent ran itself."""
        call = self._called.get(result.tool_call_id)
        kwargs = call.tool_kwargs if call else {}
        name = call.tool_name if call else result.tool_name or ""
        # The classes of LlamaIndex' own tools, so that a consumer of the stream needs no others.
        made = ToolCallResult(
            tool_name=name,
            tool_kwargs=kwargs,
            tool_id=result.tool_call_id,
            tool_output=ToolOutput(
                tool_name=name,
                content=result.content,
                raw_input=kwargs,
                raw_output=result.content,
                is_error=result.is_error,
            ),
            return_direct=False,
        )
        self._results.append(made)
        self._observe_result(made)
        self._ctx.write_event_to_stream(made)

    def _observe(self, call: ToolCall) -> None:
        """Report the start of an agent's own tool to handlers of events and spans."""
        tool = ServerTool(call.tool_name)
        span_id = active_span_id.get() or ""
        if self._traced:
            span = self._spans[call.tool_id] = open_tool_span(tool, call.tool_kwargs)
            span_id = span.id
        # Reported as LlamaIndex reports the tools of its own agents.
        if self._heard:
            arguments = json.dumps(call.tool_kwargs, default=str)
            dispatcher.event(
                AgentToolCallEvent(arguments=arguments, tool=tool.metadata, span_id=span_id)
            )

    def _observe_result(self, result: ToolCallResult) -> None:
        """Report the end of an agent's own tool to handlers of spans."""
        span = self._spans.pop(result.tool_id, None)
        if span is None:
            return
        if result.tool_output.is_error:
            error = ServerToolError(str(result.tool_output.content))
            dispatcher.event(ExceptionEvent(exception=error, span_id=span.id))
            span.fail(error)
        else:
            span.end(result.tool_output)

    async def keep(self, state: AgentState, given: Sequence[HistoryMessage]) -> None:
        """Put the answer into the run's state, and the agent's own tools into its tool calls.

        Args:
            state: The state.
            given: The history as the memory has it.
        """
        end = self._end
        if self._results:
            # LlamaIndex makes a run's ``AgentOutput.tool_calls`` of this list.
            known = await self._ctx.store.get(TOOL_CALLS, default=[])
            await self._ctx.store.set(TOOL_CALLS, [*known, *self._results])
        questions = {
            call.tool_call_id: dict(end.details.get(call.tool_call_id) or {})
            for call in end.pending
            if call.tool_name not in self._own
        }
        # A context stores JSON only, and a server's data may hold anything.
        plain = json.loads(json.dumps(questions, default=str))
        said = self._so_far
        raw = build_raw(self._reader)
        state.take_answer(given, said.text, said.reasoning, end, raw, plain)

    def build_response(self, message: ChatMessage) -> ChatResponse:
        """Return the turn as an LLM's answer, for whoever watches LLM calls."""
        return to_response(message, build_raw(self._reader))

    @property
    def _end(self) -> ResponseCompleted:
        assert self._reader.end is not None
        return self._reader.end


async def _read_ready(events: AsyncIterable[ChatEvent]) -> AsyncGenerator[list[ChatEvent], None]:
    """Yield all events that are there by now, each time the consumer comes for more."""
    ready: list[ChatEvent] = []
    news = asyncio.Event()

    # Reading goes on while the consumer is busy; that is what fills a batch.
    async def pump() -> None:
        try:
            async for event in events:
                ready.append(event)
                news.set()
        finally:
            news.set()

    reading = asyncio.ensure_future(pump())
    try:
        while ready or not reading.done():
            if not ready:
                news.clear()
                await news.wait()
            # Taken at once: the pump may add events while the consumer works on these.
            batch, ready[:] = list(ready), []
            if batch:
                yield batch
    finally:
        # The consumer left early: end the reading before anything else is done with the events.
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading})
    await reading
