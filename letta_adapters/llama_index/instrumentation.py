"""Internal: report LLM calls, and the agent's own tools, to LlamaIndex' instrumentation.

A span stays open for as long as the work it stands for. LlamaIndex' own decorators build an event
for every token whether or not anybody listens, report a consumer that stops early as an error,
leave the inner stream to the garbage collector, and close a stream's span before its first token:
nothing that is known later gets into a trace.
"""

from __future__ import annotations

import inspect
import uuid
import weakref
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextvars import copy_context
from dataclasses import replace
from typing import Any, TypeVar

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.event_handlers import NullEventHandler
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index.core.tools import BaseTool, ToolMetadata, ToolOutput
from llama_index_instrumentation import get_dispatcher

from letta_adapters.chat import ChatRequest
from letta_adapters.llama_index._compat import DISPATCHER_SPAN_DECORATED_ATTR
from letta_adapters.tracing.spans import get_context, is_inside

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
dispatcher = get_dispatcher(__name__)


def has_event_handlers() -> bool:
    """Return whether anybody handles instrumentation events."""
    return any(
        not isinstance(h, NullEventHandler) for d in _list_dispatchers() for h in d.event_handlers
    )


def has_span_handlers() -> bool:
    """Return whether anybody handles spans."""
    return any(
        not isinstance(h, NullSpanHandler) for d in _list_dispatchers() for h in d.span_handlers
    )


def _list_dispatchers() -> Iterable[Any]:
    """Yield the dispatchers that an event of ours reaches."""
    current: Any = dispatcher
    while current is not None:
        yield current
        # A dispatcher passes events on to its parents, as Python's loggers do.
        current = current.parent if current.propagate else None


def manages_own_span(method: F) -> F:
    """Mark a method that opens its span itself, so that LlamaIndex' decorator leaves it alone."""
    setattr(method, DISPATCHER_SPAN_DECORATED_ATTR, True)
    return method


class Span:
    """Open one span.

    Handlers make a span the current one where it is entered. The work that a consumer does between
    two tokens is no part of it, so it is entered and left in a context of its own.

    Args:
        name: The name of the method, as ``Class.method``.
        instance: The object whose method it is.
        method: The method, whose signature names the arguments.
        args: The arguments of the call.
        kwargs: The keyword arguments of the call.
    """

    def __init__(
        self,
        name: str,
        instance: Any,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        # The form of the ids that LlamaIndex' own decorator makes.
        self.id = f"{name}-{uuid.uuid4()}"
        self._about = {
            "id_": self.id,
            "bound_args": inspect.signature(method).bind(*args, **kwargs),
            "instance": instance,
        }
        # The parent is read here, in the caller's context, before the span becomes the current one.
        self._context = copy_context()
        parent = active_span_id.get()
        self._context.run(dispatcher.span_enter, **self._about, parent_id=parent)

    def trace(self) -> Any:
        """Return OpenTelemetry's context in which a tracer has made the span the current one."""
        return self._context.run(get_context)

    def end(self, result: Any) -> None:
        """Close the span with a result."""
        self._context.run(dispatcher.span_exit, **self._about, result=result)

    def fail(self, error: BaseException) -> None:
        """Close the span with an error."""
        self._context.run(dispatcher.span_drop, **self._about, err=error)


class ServerTool(BaseTool):
    """Represent a tool that a Letta agent runs itself, for handlers that read a span's instance."""

    def __init__(self, name: str) -> None:
        self._metadata = ToolMetadata(name=name, description=f"{name} (run by the Letta agent)")

    @property
    def metadata(self) -> ToolMetadata:
        """Return the tool's name and description."""
        return self._metadata

    def __call__(self, input: Any) -> ToolOutput:
        """Refuse to run: the tool is on the agent's side.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{self._metadata.name} runs on the agent's side.")


def open_tool_span(tool: ServerTool, arguments: Mapping[str, Any]) -> Span:
    """Open the span of one call of a server-side tool."""

    # Handlers know a tool's call by a span of this name.
    def acall(**kwargs: Any) -> None:
        """Give the span a signature that takes any argument."""

    return Span(f"{tool.metadata.get_name()}.acall", tool, acall, (), arguments)


class CallInstrumentation:
    """Report the start, the progress and the end of one call.

    Args:
        llm: The LLM that is called.
        prompt: A list of messages, or a text.
        kwargs: The arguments of the call.
        method: A method that streams, whose span stays open until the stream's end. The spans of
            other methods are LlamaIndex' own.
    """

    def __init__(
        self,
        llm: BaseLLM,
        prompt: Sequence[ChatMessage] | str,
        kwargs: dict[str, Any],
        method: Callable[..., Any] | None = None,
    ) -> None:
        self._manager = llm.callback_manager
        self._heard = has_event_handlers()
        self._over = False
        self._span: Span | None = None
        if method is not None and has_span_handlers():
            # A private subclass is shown under the name that users know.
            known = next(c for c in type(llm).__mro__ if not c.__name__.startswith("_"))
            name = f"{known.__name__}.{method.__name__}"
            self._span = Span(name, llm, method, (prompt,), kwargs)
        # Without a span of its own, the call's events belong to the one that LlamaIndex has opened.
        self._span_id = self._span.id if self._span else active_span_id.get() or ""
        self._chat = not isinstance(prompt, str)
        self._prompt: Any = prompt if isinstance(prompt, str) else list(prompt)
        self._event_id = ""
        self._report_start(llm, kwargs)

    def _report_start(self, llm: BaseLLM, kwargs: dict[str, Any]) -> None:
        """Report the start of the call, to those who listen."""
        # Building the payload is costly, so it is left out where nobody listens.
        about = llm.to_payload() if self._heard or self._manager.handlers else {}
        if self._heard:
            common: dict[str, Any] = {
                "model_dict": about,
                "additional_kwargs": kwargs,
                "span_id": self._span_id,
            }
            dispatcher.event(
                LLMChatStartEvent(messages=self._prompt, **common)
                if self._chat
                else LLMCompletionStartEvent(prompt=self._prompt, **common)
            )
        if self._manager.handlers:
            key = EventPayload.MESSAGES if self._chat else EventPayload.PROMPT
            payload: dict[Any, Any] = {
                key: self._prompt,
                EventPayload.ADDITIONAL_KWARGS: kwargs,
                EventPayload.SERIALIZED: about,
            }
            self._event_id = self._manager.on_event_start(CBEventType.LLM, payload=payload)

    def follow(self, call: ChatRequest, *, shows_tools: bool = False) -> ChatRequest:
        """Return the call, whose turns are parts of the span that is open until its end.

        Args:
            call: The call that is reported.
            shows_tools: The tools that the agent runs itself get spans (:func:`open_tool_span`).
        """
        if self._span is None:
            return call
        trace = self._span.trace()
        return replace(call, trace=trace, tools_shown=shows_tools and is_inside(trace))

    def progress(self, response: Any) -> None:
        """Report one more response of a stream."""
        if not self._heard:
            return
        if self._chat:
            event: Any = LLMChatInProgressEvent(
                messages=self._prompt, response=response, span_id=self._span_id
            )
        else:
            event = LLMCompletionInProgressEvent(
                prompt=self._prompt, response=response, span_id=self._span_id
            )
        dispatcher.event(event)

    def end(self, response: Any) -> None:
        """Report that the call is over; stopping early is a normal end.

        Args:
            response: The last response; ``None`` if there was none.
        """
        self._over = True
        if self._event_id:
            ask = EventPayload.MESSAGES if self._chat else EventPayload.PROMPT
            got = EventPayload.RESPONSE if self._chat else EventPayload.COMPLETION
            payload: dict[Any, Any] = {ask: self._prompt, got: response}
            self._manager.on_event_end(CBEventType.LLM, payload=payload, event_id=self._event_id)
        if self._heard:
            self._report_end(response)
        if self._span is not None:
            self._span.end(response)

    def _report_end(self, response: Any) -> None:
        """Send the event that ends the call."""
        if self._chat:
            event: Any = LLMChatEndEvent(
                messages=self._prompt, response=response, span_id=self._span_id
            )
        # LlamaIndex' event for the end of a completion requires a response.
        elif response is None:
            return
        else:
            event = LLMCompletionEndEvent(
                prompt=self._prompt, response=response, span_id=self._span_id
            )
        dispatcher.event(event)

    def fail(self, error: BaseException) -> None:
        """Report that the call failed."""
        self._over = True
        if self._event_id:
            payload: dict[Any, Any] = {EventPayload.EXCEPTION: error}
            self._manager.on_event_end(CBEventType.LLM, payload=payload, event_id=self._event_id)
        if self._heard:
            dispatcher.event(ExceptionEvent(exception=error, span_id=self._span_id))
        if self._span is not None:
            self._span.fail(error)

    # -- around a call ----------------------------------------------------------------------

    def call(self, work: Callable[[], T]) -> T:
        """Make a call that gives a whole answer, and report its end.

        Args:
            work: Makes the call.
        """
        try:
            response = work()
        except BaseException as error:
            self.fail(error)
            raise
        self.end(response)
        return response

    async def acall(self, work: Awaitable[T]) -> T:
        """Await a call that gives a whole answer, and report its end.

        Args:
            work: Makes the call.
        """
        try:
            response = await work
        except BaseException as error:
            # A task that is cancelled ends its call too.
            self.fail(error)
            raise
        self.end(response)
        return response

    def stream(self, responses: Generator[T, None, None]) -> Generator[T, None, None]:
        """Return a streamed answer whose progress and end are reported."""
        return self._watch(self._stream(responses))

    def astream(self, responses: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Return a streamed answer whose progress and end are reported."""
        return self._watch(self._astream(responses))

    def _watch(self, stream: T) -> T:
        """Report the end also of a stream that nobody ever reads: when it is thrown away."""
        if self._span is not None or self._event_id:
            # A generator that was never started runs no `finally` of its own.
            weakref.finalize(stream, self._end_unread).atexit = False
        return stream

    def _end_unread(self) -> None:
        if not self._over:
            self.end(None)

    def _stream(self, responses: Generator[T, None, None]) -> Generator[T, None, None]:
        """Pass the responses on; a consumer that leaves early is a normal end."""
        last: T | None = None
        try:
            for last in responses:
                self.progress(last)
                yield last
        except GeneratorExit:
            # Closing the inner stream is what stops the agent.
            responses.close()
            self.end(last)
            raise
        except BaseException as error:
            self.fail(error)
            raise
        self.end(last)

    async def _astream(self, responses: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Pass the responses on; a consumer that leaves early is a normal end."""
        last: T | None = None
        try:
            async for last in responses:
                self.progress(last)
                yield last
        except GeneratorExit:
            # Closing the inner stream is what stops the agent.
            await responses.aclose()
            self.end(last)
            raise
        except BaseException as error:
            self.fail(error)
            raise
        self.end(last)
