"""Handlers that keep what LlamaIndex' instrumentation reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span import BaseSpan


class Spans(BaseSpanHandler[BaseSpan]):
    """A span handler that keeps the outcome of every span.

    ``seen`` has ``(Class.method, "end" or "drop", result or error)``, ``parents`` the parent's id
    by ``Class.method``.
    """

    _seen: list[tuple[str, str, Any]] = PrivateAttr(default_factory=list)
    _parents: dict[str, str | None] = PrivateAttr(default_factory=dict)

    @property
    def seen(self) -> list[tuple[str, str, Any]]:
        """Return the spans that are over, in the order of their ends."""
        return self._seen

    @property
    def parents(self) -> dict[str, str | None]:
        """Return the id of each span's parent."""
        return self._parents

    def named(self, part: str) -> list[tuple[str, Any]]:
        """Return how the spans with ``part`` in their names ended, and with what result."""
        return [(how, result) for name, how, result in self._seen if part in name]

    def new_span(self, id_: str, *args: Any, parent_span_id: Any = None, **kwargs: Any) -> BaseSpan:
        """Note that a span begins."""
        # LlamaIndex names spans `Class.method-<uuid>`.
        self._parents[id_.partition("-")[0]] = parent_span_id
        return BaseSpan(id_=id_, parent_id=parent_span_id)

    def prepare_to_exit_span(self, id_: str, *args: Any, result: Any = None, **_: Any) -> Any:
        """Note that a span ends well."""
        self._seen.append((id_.partition("-")[0], "end", result))
        return self.open_spans.get(id_)

    def prepare_to_drop_span(self, id_: str, *args: Any, err: Any = None, **_: Any) -> Any:
        """Note that a span fails."""
        self._seen.append((id_.partition("-")[0], "drop", err))
        return self.open_spans.get(id_)


class Events(BaseEventHandler):
    """An event handler that keeps every event."""

    _seen: list[Any] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """Return the handler's name."""
        return "LettaTestingEvents"

    @property
    def seen(self) -> list[Any]:
        """Return all events, in order."""
        return self._seen

    def named(self, name: str) -> list[Any]:
        """Return the events of a class."""
        return [event for event in self._seen if type(event).__name__ == name]

    def handle(self, event: Any, **_: Any) -> None:
        """Keep one more event."""
        self._seen.append(event)


@contextmanager
def watching() -> Iterator[tuple[Spans, Events]]:
    """Watch everything that LlamaIndex' instrumentation reports in the block.

    ::

        with watching() as (spans, events):
            llm.complete("hi")
        assert spans.named("complete")
    """
    # The root, since every module's dispatcher hands on to it what it reports.
    root: Any = get_dispatcher()
    spans, events = Spans(), Events()
    root.add_span_handler(spans)
    root.add_event_handler(events)
    try:
        yield spans, events
    finally:
        root.span_handlers.remove(spans)
        root.event_handlers.remove(events)
