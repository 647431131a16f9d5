"""Internal: report turns, model steps and tool calls to OpenTelemetry, once it is switched on.

The names are those of the semantic conventions for generative AI as of version 1.41.0, the newest
whose metrics are called ``gen_ai.client.operation.duration`` and ``gen_ai.client.token.usage``.
:mod:`letta_adapters.tracing` switches it on. Until then nothing here imports OpenTelemetry.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from letta_adapters._version import __version__
from letta_adapters.errors import ConfigurationError, LettaError
from letta_adapters.messages import (
    AssistantMessage,
    Message,
    ReasoningMessage,
    StreamEvent,
    ToolCallMessage,
    ToolResultMessage,
    Usage,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

_Self = TypeVar("_Self")
_P = ParamSpec("_P")

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"
CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_PROVIDER: Final = "letta"
# The buckets that the conventions name.
_SECONDS: Final = tuple(0.01 * 2**step for step in range(14))
_TOKENS: Final = tuple(4**step for step in range(14))
# What a model says; fragments and whole messages alike.
_OUTPUT: Final = (StreamEvent, AssistantMessage, ReasoningMessage, ToolCallMessage)

_log: Final = logging.getLogger("letta_adapters.tracing")


@dataclass(frozen=True, slots=True)
class Instruments:
    """The things that :func:`switch_on` has made of the application's providers."""

    tracer: Tracer
    duration: Histogram
    tokens: Histogram
    first_chunk: Histogram
    capture: bool

    def measure(self, name: str, seconds: float, facts: Mapping[str, Any]) -> None:
        """Record the duration of an operation."""
        self.duration.record(seconds, {"gen_ai.operation.name": name, **facts})


_active: Instruments | None = None


def switch_on(
    tracer_provider: TracerProvider | None,
    meter_provider: MeterProvider | None,
    capture_content: bool | None,
) -> None:
    """Report all turns that begin from now on; see :func:`letta_adapters.tracing.instrument`."""
    global _active
    try:
        from opentelemetry import metrics, trace
    except ImportError as error:
        raise ConfigurationError(
            "OpenTelemetry is not installed.", hint="pip install 'letta-adapters[otel]'"
        ) from error
    name = "letta_adapters"
    tracer = trace.get_tracer(name, __version__, tracer_provider, SCHEMA_URL)
    meter = metrics.get_meter(name, __version__, meter_provider, SCHEMA_URL)
    _active = Instruments(
        tracer,
        meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        ),
        meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        ),
        meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time to receive the first chunk.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        ),
        _wants_content() if capture_content is None else capture_content,
    )


def switch_off() -> None:
    """Report no further turns; those that run are reported to their end."""
    global _active
    _active = None


def get_instruments() -> Instruments | None:
    """Return what turns are reported with; ``None`` while that is off."""
    return _active


def is_inside(context: Context | None) -> bool:
    """Return whether a context has another current span than the running code."""
    if context is None:
        return False
    from opentelemetry import trace

    return trace.get_current_span(context) is not trace.get_current_span()


def get_context(spans: Callable[[], Any] | None = None) -> Context | None:
    """Return the context of the running code; ``None`` while nothing is reported.

    Args:
        spans: Returns the span that a framework has for the running code, or ``None``.
    """
    if _active is None:
        return None
    from opentelemetry import context, trace

    current = context.get_current()
    try:
        found = None if spans is None else spans()
    except Exception:  # somebody else's tracer
        found = None
    # A framework may have no span here, or one of another library.
    return trace.set_span_in_context(found, current) if isinstance(found, trace.Span) else current


def _wants_content() -> bool:
    # Newer instrumentations of OpenTelemetry know the names of places there, older ones "true".
    given = os.environ.get(CAPTURE, "").strip().lower()
    return given in ("true", "1", "span_only", "span_and_event")


def _guarded(
    method: Callable[Concatenate[_Self, _P], None],
) -> Callable[Concatenate[_Self, _P], None]:
    """Keep what a processor or an exporter of the application raises away from the turn."""

    @wraps(method)
    def call(self: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            _log.warning("OpenTelemetry failed; the turn goes on.", exc_info=True)

    return call


@contextmanager
def attached(context: Context | None) -> Iterator[None]:
    """Make a span the current one, whose children all further spans are."""
    if context is None:
        yield
        return
    from opentelemetry import context as otel

    token = otel.attach(context)
    try:
        yield
    finally:
        otel.detach(token)


class _Operation:
    """A span, and the duration of what it stands for; it ends once."""

    def __init__(self, on: Instruments, name: str, common: Mapping[str, Any]) -> None:
        self._on = on
        self._name = name
        self._common = common
        self._began = time.monotonic()
        self._span: Span | None = None
        self._ended = False
        self.context: Context | None = None

    @_guarded
    def start(
        self,
        title: str,
        attributes: Mapping[str, Any],
        *,
        inside: Context | None = None,
        at: int | None = None,
        remote: bool = True,
    ) -> None:
        """Start the span.

        Args:
            title: What follows the operation's name in that of the span.
            attributes: Its attributes.
            inside: The context of its parent; ``None`` is the current one.
            at: Nanoseconds since 1970, if it began before now.
            remote: The operation is carried out by somebody else.
        """
        from opentelemetry import trace

        known = {k: v for k, v in {**self._common, **attributes}.items() if v not in (None, "")}
        self._span = self._on.tracer.start_span(
            f"{self._name} {title}".strip(),
            inside,
            trace.SpanKind.CLIENT if remote else trace.SpanKind.INTERNAL,
            {"gen_ai.operation.name": self._name, **known},
            start_time=at,
        )
        # A span has times of the day, and the metric a clock that never jumps: a start in the
        # past has to be told to both.
        if at is not None:
            self._began -= max(0.0, (time.time_ns() - at) / 1e9)
        self.context = trace.set_span_in_context(self._span, inside)

    @_guarded
    def end(
        self,
        error: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        at: int | None = None,
    ) -> None:
        """End the span and measure it.

        Args:
            error: The machine code of the failure, if it failed.
            attributes: Further attributes.
            at: Nanoseconds since 1970, if it ended before now.
        """
        if self._ended:
            return
        self._ended = True
        late = 0.0 if at is None else max(0.0, (time.time_ns() - at) / 1e9)
        seconds = max(0.0, time.monotonic() - self._began - late)
        try:
            if self._span is not None:
                self._finish(self._span, error, attributes or {}, at)
        finally:
            # In any case: the metric does not depend on what a processor does with the span.
            model = self._common.get("gen_ai.request.model")
            facts = {
                "gen_ai.provider.name": _PROVIDER,
                **({"gen_ai.request.model": model} if model else {}),
                **({"error.type": error} if error else {}),
            }
            self._on.measure(self._name, seconds, facts)

    def _finish(
        self, span: Span, error: str | None, attributes: Mapping[str, Any], at: int | None
    ) -> None:
        from opentelemetry.trace import Status, StatusCode

        span.set_attributes({k: v for k, v in attributes.items() if v is not None})
        if error is not None:
            span.set_attribute("error.type", error)
            # The code alone: what a server says may quote the user.
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(at)


@dataclass(frozen=True, slots=True)
class Around:
    """Tell of what is reported around a turn.

    Args:
        shared: A framework's own tracer counts the tokens; they get other names here.
        tools_shown: It shows the tools that the server runs as well; they get no spans here.
        context: The context of the turn's parent; ``None`` is the current one.
    """

    shared: bool = False
    tools_shown: bool = False
    context: Context | None = field(default=None, compare=False, repr=False)


NOTHING_AROUND: Final = Around()


class TurnTrace:
    """The spans of one turn: ``invoke_agent``, with a ``chat`` per model step and its tool calls.

    Args:
        on: What they are reported with.
        common: The attributes that all of them have.
        attributes: Those of the turn's own span.
        content: The message, which is reported where content is captured.
        around: What is reported around it.
    """

    def __init__(
        self,
        on: Instruments,
        common: Mapping[str, Any],
        attributes: Mapping[str, Any],
        *,
        content: Any,
        around: Around,
    ) -> None:
        self._on = on
        self._common: dict[str, Any] = {"gen_ai.provider.name": _PROVIDER, **common}
        self._around = around
        self._turn = _Operation(on, "invoke_agent", self._common)
        asked = _show_messages("user", content) if on.capture and content is not None else None
        self._turn.start("", {**attributes, "gen_ai.input.messages": asked}, inside=around.context)
        self._late: dict[str, Any] = {}
        self._step: _Operation | None = None
        self._step_from = time.time_ns()
        self._said_at = self._step_from
        self._tools: dict[str, _Operation] = {}
        # The calls that this process answers; what the server runs is told by its messages.
        self._ours: set[str] = set()

    @property
    def context(self) -> Context | None:
        """The context whose current span is the turn's."""
        return self._turn.context

    def inside(self) -> Any:
        """Return a context manager: what is done in it belongs to the turn."""
        return attached(self.context)

    def learn(self, model: str | None, agent_id: str) -> None:
        """Take note of what has become known."""
        # The operations share this dict, so all that end from now on are measured with the model.
        self._common["gen_ai.request.model"] = model
        # The turn's own span has begun without them, and gets them at its end.
        self._late = {"gen_ai.request.model": model, "gen_ai.agent.id": agent_id or None}

    @_guarded
    def see(self, batch: Sequence[Message]) -> None:
        """Take note of the messages that came just now."""
        now = time.time_ns()
        for message in batch:
            if isinstance(message, _OUTPUT):
                self._hear(now)
                if type(message) is ToolCallMessage:
                    self._call(message, now)
            elif type(message) is ToolResultMessage:
                self._end_step()
                self._step_from = now
                error = "tool_error" if message.is_error else None
                self._end_tool(message.tool_call_id, error, message.content)

    def _hear(self, now: int) -> None:
        self._said_at = now
        if self._step is not None:
            return
        step = self._step = _Operation(self._on, "chat", self._common)
        seconds = max(0.0, (now - self._step_from) / 1e9)
        step.start(
            str(self._common.get("gen_ai.request.model") or ""),
            {"gen_ai.response.time_to_first_chunk": seconds, "gen_ai.request.stream": True},
            inside=self.context,
            at=self._step_from,
        )
        facts = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": _PROVIDER}
        self._on.first_chunk.record(seconds, facts)

    def _end_step(self, error: str | None = None) -> None:
        if self._step is not None:
            # It was over at its last word: the time since then was the reader's, or a tool's.
            step, self._step = self._step, None
            step.end(error, at=self._said_at)

    def _call(self, call: ToolCallMessage, now: int) -> None:
        if call.requires_approval or call.tool_call_id in self._ours:
            return  # nothing runs before it is answered
        self._tools[call.tool_call_id] = self._start_tool(call, remote=True)

    def _start_tool(self, call: Any, *, remote: bool) -> _Operation:
        made = _Operation(self._on, "execute_tool", self._common)
        if remote and self._around.tools_shown:
            return made  # which is measured all the same
        made.start(
            call.tool_name,
            {
                "gen_ai.tool.name": call.tool_name,
                "gen_ai.tool.call.id": call.tool_call_id,
                "gen_ai.tool.type": "extension" if remote else "function",
                "gen_ai.tool.call.arguments": call.raw_arguments if self._on.capture else None,
            },
            inside=self.context,
            remote=False,
        )
        return made

    def _end_tool(self, tool_call_id: str, error: str | None, result: str | None) -> None:
        tool = self._tools.pop(tool_call_id, None)
        if tool is not None:
            shown = result if self._on.capture else None
            tool.end(error, {"gen_ai.tool.call.result": shown})

    @_guarded
    def allow(self, call: Any) -> None:
        """Take note that the server runs a tool from now on, which it has asked about."""
        self._end_step()
        self._tools[call.tool_call_id] = self._start_tool(call, remote=True)

    @contextmanager
    def run_tool(self, call: Any) -> Iterator[Callable[[str | None, str], None]]:
        """Report a tool that runs here; what it does belongs to its span.

        Yields a function that takes the machine code of the tool's failure, and its result.
        """
        self._ours.add(call.tool_call_id)
        try:
            self._end_step()
        except Exception:  # a processor of the application
            _log.warning("OpenTelemetry failed; the turn goes on.", exc_info=True)
        tool = self._start_tool(call, remote=False)

        def note(error: str | None, result: str) -> None:
            shown = result if self._on.capture else None
            tool.end(error, {"gen_ai.tool.call.result": shown})

        try:
            with attached(tool.context):
                yield note
        finally:
            tool.end("cancelled")  # nothing, if it has ended
            # The next model call begins once the results are there.
            self._step_from = time.time_ns()

    @_guarded
    def end(
        self, usage: Usage, error: str | None, attributes: Mapping[str, Any], answer: str | None
    ) -> None:
        """End all spans of the turn.

        Args:
            usage: The tokens it has used.
            error: The machine code of its failure, if it failed.
            attributes: Further attributes.
            answer: The answer, which is reported where content is captured.
        """
        self._end_step(error)
        for tool in self._tools.values():
            tool.end(error or "no_result")
        said = _show_messages("assistant", answer) if self._on.capture and answer else None
        told = {"gen_ai.output.messages": said, **self._late, **attributes, **self._count(usage)}
        self._turn.end(error, told)

    def _count(self, usage: Usage) -> dict[str, Any]:
        # After an error or a cancel a Letta API tells no usage, which is not a usage of nothing.
        if not usage.total_tokens:
            return {}
        model = self._common.get("gen_ai.request.model")
        facts = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": _PROVIDER,
            **({"gen_ai.request.model": model} if model else {}),
        }
        counts = {"input": usage.prompt_tokens, "output": usage.completion_tokens}
        for kind, count in counts.items():
            self._on.tokens.record(count, {**facts, "gen_ai.token.type": kind})
        # Whoever sums up spans must not find one turn's tokens on two of them.
        name = "letta.usage" if self._around.shared else "gen_ai.usage"
        return {
            f"{name}.input_tokens": usage.prompt_tokens,
            f"{name}.output_tokens": usage.completion_tokens,
            f"{name}.cache_read.input_tokens": usage.cached_input_tokens,
            f"{name}.cache_creation.input_tokens": usage.cache_write_tokens,
            f"{name}.reasoning.output_tokens": usage.reasoning_tokens,
        }


def _show_messages(role: str, content: Any) -> str:
    """Return messages in the form of the conventions; of an image only that there was one."""
    parts = [content] if isinstance(content, str) else content
    shown = [
        {"type": "text", "content": part if isinstance(part, str) else str(part.get("text") or "")}
        if isinstance(part, str) or part.get("type") == "text"
        else {"type": str(part.get("type"))}
        for part in parts
    ]
    return json.dumps([{"role": role, "parts": shown}], ensure_ascii=False)


def name_error(error: BaseException) -> str:
    """Return the machine code of an exception: that of a ``LettaError``, else its class."""
    return error.code if isinstance(error, LettaError) else type(error).__name__
