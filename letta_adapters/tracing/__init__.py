"""Report what agents do to OpenTelemetry: turns, model steps, tool calls, tokens, durations.

It needs the extra ``[otel]``, and an application that has set up providers::

    from letta_adapters import tracing

    tracing.instrument()

The page ``docs/logging.md`` lists all spans, attributes and metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from letta_adapters.tracing.spans import switch_off, switch_on

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["instrument", "uninstrument"]


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    capture_content: bool | None = None,
) -> None:
    """Report all turns of this process that begin from now on. A second call replaces the first.

    Args:
        tracer_provider: The provider of spans. Default: the application's global one.
        meter_provider: The provider of metrics. Default: the application's global one.
        capture_content: Report messages, answers, and the arguments and results of tools too.
            Default: the environment variable ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``
            decides; without it, no content leaves the process.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    switch_on(tracer_provider, meter_provider, capture_content)


def uninstrument() -> None:
    """Report no further turns. Those that run are reported to their end."""
    switch_off()
