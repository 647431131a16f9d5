"""Keep spans of LlamaIndex' instrumentation open for as long as the work they stand for.

Internal: not part of the public API.
"""

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

from letta_adapters.llama_index._compat import DISPATCHER_SPAN_DECORATED_ATTR

F = TypeVar("F", bound=Callable[..., Any])
dispatcher = get_dispatcher(__name__)


def listening() -> bool:
    """Return whether anybody handles instrumentation events."""
    return any(not isinstance(h, NullEventHandler) for d in _chain() for h in d.event_handlers)


def tracing() -> bool:
    """Return whether anybody handles spans."""
    return any(not isinstance(h, NullSpanHandler) for d in _chain() for h in d.span_handlers)


def _chain() -> Iterable[Any]:
    """Yield the dispatchers that an event of ours reaches."""
    current: Any = dispatcher
    while current is not None:
        yield current
        # A dispatcher passes events on to its parents, as Python's loggers do.
        current = current.parent if current.propagate else None


def own_span(method: F) -> F:
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


def tool_span(tool: ServerTool, arguments: Mapping[str, Any]) -> Span:
    """Open the span of one call of a server-side tool."""

    # Handlers know a tool's call by a span of this name.
    def acall(**kwargs: Any) -> None:
        """Give the span a signature that takes any argument."""

    return Span(f"{tool.metadata.get_name()}.acall", tool, acall, (), arguments)
