"""Spans of an application's tracers, and of ours, as one tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from letta_adapters import tracing

NO_SDK = "the SDK of OpenTelemetry is not installed"


class Tree:
    """Keep the spans that end."""

    def __init__(self) -> None:
        export = pytest.importorskip("opentelemetry.sdk.trace.export", reason=NO_SDK)
        memory = pytest.importorskip(
            "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason=NO_SDK
        )
        trace = pytest.importorskip("opentelemetry.sdk.trace", reason=NO_SDK)
        self._spans = memory.InMemorySpanExporter()
        self.provider = trace.TracerProvider()
        self.provider.add_span_processor(export.SimpleSpanProcessor(self._spans))

    def paths(self) -> list[str]:
        """Return the path of each span that has no children, in the order in which they began."""
        spans = sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time)
        known = {span.context.span_id: span for span in spans}
        parents = {span.parent.span_id for span in spans if span.parent is not None}

        def show(span: Any) -> str:
            above = known.get(span.parent.span_id) if span.parent is not None else None
            name = span.name.strip()
            return name if above is None else f"{show(above)} > {name}"

        return [show(span) for span in spans if span.context.span_id not in parents]

    def attributes(self, name: str) -> list[set[str]]:
        """Return the names of the attributes of all spans of a name."""
        found = self._spans.get_finished_spans()
        return [set(span.attributes) for span in found if span.name.split(" ")[0] == name]


@contextmanager
def one_tree(instrumentor: Callable[[], Any]) -> Iterator[Tree]:
    """Yield the spans of an instrumentor and of ours while both are on.

    Args:
        instrumentor: Makes the instrumentor of a framework.
    """
    tree, theirs = Tree(), instrumentor()
    theirs.instrument(tracer_provider=tree.provider, skip_dep_check=True)
    tracing.instrument(tracer_provider=tree.provider)
    try:
        yield tree
    finally:
        tracing.uninstrument()
        theirs.uninstrument()
