"""Spans of LlamaIndex' instrumentation that stay open for as long as what they stand for."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from typing import Any, TypeVar

from llama_index.core.instrumentation.event_handlers import NullEventHandler
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index.core.tools import BaseTool, ToolMetadata, ToolOutput
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

F = TypeVar("F", bound=Callable[..., Any])
dispatcher = get_dispatcher(__name__)


def listening() -> bool:
    """Does anybody handle instrumentation events?"""
    return any(not isinstance(h, NullEventHandler) for d in _chain() for h in d.event_handlers)


def tracing() -> bool:
    """Does anybody handle spans?"""
    return any(not isinstance(h, NullSpanHandler) for d in _chain() for h in d.span_handlers)


def _chain() -> Iterable[Any]:
    current: Any = dispatcher
    while current is not None:
        yield current
        current = current.parent if current.propagate else None


def own_span(method: F) -> F:
    """The method opens its span itself: LlamaIndex' decorator leaves it alone."""
    setattr(method, DISPATCHER_SPAN_DECORATED_ATTR, True)
    return method


class Span:
    """One span; ``name`` is ``Class.method``.

    Handlers make a span the current one where it is entered. What a consumer does between two
    tokens is no part of it, so it is entered and left in a context of its own.
    """

    def __init__(
        self,
        name: str,
        instance: Any,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.id = f"{name}-{uuid.uuid4()}"
        self._about = {
            "id_": self.id,
            "bound_args": inspect.signature(method).bind(*args, **kwargs),
            "instance": instance,
        }
        self._context = copy_context()
        parent = active_span_id.get()
        self._context.run(dispatcher.span_enter, **self._about, parent_id=parent)

    def end(self, result: Any) -> None:
        """It came to its end."""
        self._context.run(dispatcher.span_exit, **self._about, result=result)

    def fail(self, error: BaseException) -> None:
        """It failed."""
        self._context.run(dispatcher.span_drop, **self._about, err=error)


class ServerTool(BaseTool):
    """A tool that a Letta agent runs itself, for handlers that look at a span's instance."""

    def __init__(self, name: str) -> None:
        self._metadata = ToolMetadata(name=name, description=f"{name} (run by the Letta agent)")

    @property
    def metadata(self) -> ToolMetadata:
        """Name and description."""
        return self._metadata

    def __call__(self, input: Any) -> ToolOutput:
        """It cannot be run from here.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{self._metadata.name} runs on the agent's side.")


def tool_span(tool: ServerTool, arguments: Mapping[str, Any]) -> Span:
    """The span of one call of a server-side tool."""

    def acall(**kwargs: Any) -> None:
        """Only its signature is looked at."""

    return Span(f"{tool.metadata.get_name()}.acall", tool, acall, (), arguments)
