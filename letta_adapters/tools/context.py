"""Internal: what a running tool knows of its call, and how it reports its progress."""

from __future__ import annotations

import inspect
import math
import re
import threading
import types
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

from letta_adapters.errors import InvalidInputError
from letta_adapters.messages import ToolProgressMessage
from letta_adapters.tools.result import clean_text

OnReport: TypeAlias = Callable[[ToolProgressMessage], None]


@dataclass(frozen=True, eq=False)
class ToolContext:
    """The call that a tool carries out, for a parameter of the tool that is annotated with it.

    The model does not see that parameter. What the tool reports is in the session's stream at once,
    as a :class:`ToolProgressMessage`; the model reads the returned value only::

        import shutil

        def copy_files(names: list[str], context: ToolContext) -> str:
            '''Copy files.'''
            for number, name in enumerate(names, 1):
                context.report(f"Copying {name}", progress=number, total=len(names))
                shutil.copy(name, "backup")
            return f"{len(names)} files were copied."

    A tool's own tests may make one, with ``on_report=reports.append`` to see what is reported.

    Args:
        tool_call_id: The id of the call, the same as in its ``ToolCallMessage``.
        tool_name: The name by which the model called it.
        agent_id: The agent that calls, if it is known.
        conversation_id: The conversation, if it is known.
        on_report: Called with each message, in the thread that reports.
    """

    tool_call_id: str
    tool_name: str
    agent_id: str | None = None
    conversation_id: str | None = None
    on_report: OnReport | None = field(default=None, repr=False)
    _state: _State = field(default_factory=lambda: _State(), init=False, repr=False)

    @property
    def stopped(self) -> bool:
        """True once nobody waits for the tool: its turn was stopped, or its time was up.

        A coroutine is cancelled then. A plain function runs in a thread, which Python cannot stop:
        one that takes long looks here now and then, and returns.
        """
        return self._state.over

    def report(
        self, content: str = "", *, progress: float | None = None, total: float | None = None
    ) -> None:
        """Tell how far the tool is; this never waits, and any thread may call it.

        Reports wait in a queue until the stream's reader takes them. If that is slow, the oldest
        are dropped (a gap in their ``number`` tells). A report that comes when the call is over is
        dropped as well.

        Args:
            content: A text for people.
            progress: How much is done, in any unit.
            total: How much there is to do, in the same unit.

        Raises:
            InvalidInputError: The text is no string, a number is none, or neither is given.
        """
        if not isinstance(content, str):
            raise InvalidInputError(
                f"report() takes a text, not {type(content).__name__}.",
                hint="Write report(str(value)), or report(progress=1, total=10).",
            )
        for name, number in (("progress", progress), ("total", total)):
            if number is not None and not _is_finite(number):
                raise InvalidInputError(f"report({name}={number!r}) is no finite number.")
        if not content and progress is None:
            raise InvalidInputError("report() needs a text or progress=...", hint="")
        text = clean_text(str.__str__(content))
        state = self._state
        # Numbered and handed on at once, so that reports of several threads keep their order.
        with state.lock:
            if state.over:
                return
            state.number += 1
            if self.on_report is not None:
                self.on_report(
                    ToolProgressMessage(
                        self.tool_call_id, self.tool_name, text, progress, total, state.number
                    )
                )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Refuse to be an argument; other packages would ask the model for it."""
        raise InvalidInputError(
            "A ToolContext is filled by a session (create_session(tools=[...])) or a "
            "LettaRunnable, and by nobody else.",
            hint="Elsewhere use LangChain's InjectedToolCallId and dispatch_custom_event, or "
            "LlamaIndex' Context and its write_event_to_stream.",
        )

    def end(self) -> None:
        """Take note that nobody waits for the tool any more (for whoever runs it)."""
        with self._state.lock:
            self._state.over = True


class _State:
    """The part of a context that changes."""

    __slots__ = ("lock", "number", "over")

    def __init__(self) -> None:
        # The same thread may report again in ``on_report``.
        self.lock = threading.RLock()
        self.number = 0
        self.over = False


def _is_finite(value: object) -> bool:
    # True is a number to Python, and no amount.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# For tools whose parameters are all the model's: those of MCP servers and of other frameworks.
current_call: Final[ContextVar[ToolContext | None]] = ContextVar("letta_tool_call", default=None)

_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# How the annotation reads where it cannot be looked up.
_WRITTEN: Final = re.compile(r"(?:Optional\[)?(?:\w+\.)*ToolContext(?:\]| \| None)?")


def take_context(signature: inspect.Signature, label: str) -> tuple[str | None, inspect.Signature]:
    """Return the name of the parameter that takes the :class:`ToolContext`, and the other ones.

    Args:
        signature: The signature of the tool's function.
        label: The tool's name, for errors.

    Raises:
        InvalidInputError: There are two of them, or it cannot be passed by name.
    """
    parameters = signature.parameters.values()
    found = [p for p in parameters if _takes_context(p.annotation)]
    if not found:
        return None, signature
    if len(found) > 1 or found[0].kind not in _BY_NAME:
        raise InvalidInputError(
            f"{label!r} must take its ToolContext in one parameter, by its name.",
            hint="Write one parameter: context: ToolContext.",
        )
    others = [p for p in parameters if p is not found[0]]
    return found[0].name, signature.replace(parameters=others)


def _takes_context(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return _WRITTEN.fullmatch(annotation.strip()) is not None
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return {*get_args(annotation)} == {ToolContext, type(None)}
    return annotation is ToolContext
