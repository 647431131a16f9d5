"""A turn's events on the workflow's stream, in LlamaIndex' terms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any

from llama_index.core.agent.workflow.workflow_events import AgentStream, ToolCall, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.instrumentation.events.agent import AgentToolCallEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.tools import ToolOutput, ToolSelection
from llama_index.core.workflow import Context

from letta_adapters.calls import Call, CallEnd, CallEvent, Entry
from letta_adapters.calls.answer import Piece
from letta_adapters.calls.calling import Calling
from letta_adapters.llama_index.responses import usage_of
from letta_adapters.llama_index.spans import (
    ServerTool,
    Span,
    dispatcher,
    listening,
    tool_span,
    tracing,
)
from letta_adapters.llama_index.state import AgentState
from letta_adapters.messages import ToolResultMessage


class ServerToolError(Exception):
    """What a tool on the agent's side failed with."""


class StepReader:
    """Reads one call of an agent's step.

    What the agent's own tools do is written to the stream and never sent into the workflow, which
    would run them again.
    """

    def __init__(self, ctx: Context, name: str, call: Call, *, streaming: bool = True) -> None:
        self._ctx = ctx
        self._name = name
        self._streaming = streaming
        self._reader = Calling(call).reader()
        self._own = frozenset(str(tool["name"]) for tool in call.tools)
        self._text = ""
        self._thinking: list[str] = []
        self._called: dict[str, ToolCall] = {}
        self._results: list[ToolCallResult] = []
        self._heard, self._traced = listening(), tracing()
        self._spans: dict[str, Span] = {}

    async def read(self, events: AsyncIterable[CallEvent], *, coalesce: bool) -> None:
        """Read to the end; ``coalesce`` puts texts that are here already into one event."""
        try:
            await (self._read_batches(events) if coalesce else self._read(events))
        except BaseException as error:
            for span in self._spans.values():
                span.fail(error)
            raise
        for span in self._spans.values():  # its result was not told
            span.end(None)
        if self._calls():
            self._stream("", None)

    async def _read(self, events: AsyncIterable[CallEvent]) -> None:
        async for event in events:
            pieces = self._reader.read(event)
            if pieces:
                self._write(pieces)
                # Let the consumer have it: a backlog of growing texts costs more than the switch.
                await asyncio.sleep(0)

    async def _read_batches(self, events: AsyncIterable[CallEvent]) -> None:
        async for batch in _batches(events):
            self._write(_joined([p for event in batch for p in self._reader.read(event)]))

    def _write(self, pieces: Any) -> None:
        for kind, value in pieces:
            if kind == "text":
                self._text += value
                self._stream(value, None)
            elif kind == "reasoning":
                self._thinking.append(value)
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
                self._result(value)

    def _stream(self, delta: str, thinking: str | None) -> None:
        if not self._streaming:
            return
        self._ctx.write_event_to_stream(
            AgentStream(
                delta=delta,
                response=self._text,
                current_agent_name=self._name,
                thinking_delta=thinking,
                tool_calls=self._calls(),
            )
        )

    def _calls(self) -> list[ToolSelection]:
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

    def _result(self, result: ToolResultMessage) -> None:
        call = self._called.get(result.tool_call_id)
        kwargs = call.tool_kwargs if call else {}
        name = call.tool_name if call else result.tool_name or ""
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
        """No other integration shows what a remote agent's own tools do."""
        tool = ServerTool(call.tool_name)
        span_id = active_span_id.get() or ""
        if self._traced:
            span = self._spans[call.tool_id] = tool_span(tool, call.tool_kwargs)
            span_id = span.id
        if self._heard:
            arguments = json.dumps(call.tool_kwargs, default=str)
            dispatcher.event(
                AgentToolCallEvent(arguments=arguments, tool=tool.metadata, span_id=span_id)
            )

    def _observe_result(self, result: ToolCallResult) -> None:
        span = self._spans.pop(result.tool_id, None)
        if span is None:
            return
        if result.tool_output.is_error:
            error = ServerToolError(str(result.tool_output.content))
            dispatcher.event(ExceptionEvent(exception=error, span_id=span.id))
            span.fail(error)
        else:
            span.end(result.tool_output)

    async def keep(self, state: AgentState, given: Sequence[Entry]) -> None:
        """Put what came into the run's state, and the agent's own tools into its tool calls.

        ``given``: the history as the memory has it.
        """
        end = self._end
        if self._results:
            known = await self._ctx.store.get("current_tool_calls", default=[])
            await self._ctx.store.set("current_tool_calls", [*known, *self._results])
        questions = {
            call.tool_call_id: dict(end.details.get(call.tool_call_id) or {})
            for call in end.pending
            if call.tool_name not in self._own
        }
        plain = json.loads(json.dumps(questions, default=str))
        state.heard(given, self._text, "".join(self._thinking), end, _raw(end), plain)

    def response(self, message: ChatMessage) -> ChatResponse:
        """The turn as an LLM's answer, for whoever watches LLM calls."""
        raw = _raw(self._end)
        extra = {**raw.get("usage", {}), "stop_reason": raw["stop_reason"]}
        return ChatResponse(message=message, raw=raw, additional_kwargs=extra)

    @property
    def _end(self) -> CallEnd:
        assert self._reader.end is not None
        return self._reader.end


def _raw(end: CallEnd) -> dict[str, Any]:
    made: dict[str, Any] = {
        "agent_id": end.agent_id,
        "conversation_id": end.conversation_id,
        "run_ids": list(end.run_ids),
        "stop_reason": end.stop_reason,
        "model": end.model,
    }
    return made | ({} if end.usage is None else {"usage": usage_of(end.usage)})


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind as one piece."""
    made: list[Piece] = []
    for kind, value in pieces:
        if made and made[-1][0] == kind and kind in ("text", "reasoning"):
            made[-1] = (kind, made[-1][1] + value)
        else:
            made.append((kind, value))
    return made


async def _batches(events: AsyncIterable[CallEvent]) -> AsyncIterator[list[CallEvent]]:
    """Everything that is here by now, each time the consumer comes for more."""
    ready: list[CallEvent] = []
    news = asyncio.Event()

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
            batch, ready[:] = list(ready), []
            if batch:
                yield batch
    finally:
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading})
    await reading
