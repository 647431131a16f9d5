"""Client-side tools, which are Python functions that an agent calls and this process runs.

::

    @tool
    def get_weather(city: str, days: int = 1) -> str:
        '''Return the weather of a city.

        Args:
            city: Its name.
            days: The number of days ahead.
        '''

Name, description and JSON schema come from the function; LangChain and LlamaIndex tools are taken
as they are (neither framework is imported). Both the Letta API's ``client_tools`` (as observed on
0.16.8) and the App Server's ``external_tools`` (``letta`` 0.34) take ``{"name", "description",
"parameters"}``; neither checks names or duplicates, so it is done here.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from letta_adapters._utils.invoke import UNWIND_SECONDS, invoke_callable, report_raised
from letta_adapters.errors import InvalidInputError
from letta_adapters.tools import frameworks
from letta_adapters.tools.context import ToolContext, current_call, take_context
from letta_adapters.tools.result import ToolResult, clean_text, format_error, read_result
from letta_adapters.tools.schema import (
    Arguments,
    normalise_parameters,
    read_arguments,
    read_docstring,
    read_signature,
    unwrap_partial,
)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, eq=False)
class Tool:
    """A tool as the model sees it, and the function behind it.

    ``parameters`` is a JSON schema of type object with ``properties`` and ``required``. ``handler``
    is called with keyword arguments; ``None`` makes a tool that is only declared, whose calls come
    back to the caller. ``timeout`` is in seconds. ``context`` is the name of the handler's
    parameter that takes a :class:`ToolContext`, if it has one. Calling a ``Tool`` calls its
    handler.

    Raises:
        InvalidInputError: The name, the schema or the timeout is wrong.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    handler: Callable[..., Any] | None = None
    timeout: float | None = None
    arguments: Arguments | None = field(default=None, repr=False)
    context: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidInputError(
                f"{self.name!r} is not a tool name.",
                hint="Use 1 to 64 letters, digits, '_' and '-': tool(fn, name='...').",
            )
        if not isinstance(self.description, str):
            raise InvalidInputError(
                f"The description of {self.name!r} is {type(self.description).__name__}.",
                hint="Write it as a string.",
            )
        if self.timeout is not None and not _is_seconds(self.timeout):
            raise InvalidInputError(
                f"The timeout of {self.name!r} is {self.timeout!r}.",
                hint="Give seconds greater than 0, or None for no limit.",
            )
        # Past the frozen dataclass: every tool carries a complete schema, whoever made it.
        object.__setattr__(self, "parameters", normalise_parameters(self.parameters, self.name))
        if self.context in self.parameters["properties"]:
            raise InvalidInputError(
                f"The schema of {self.name!r} has {self.context!r}, which is its ToolContext.",
                hint="Rename one of the two.",
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.handler is None:
            raise InvalidInputError(f"The tool {self.name!r} has no handler to call.")
        return self.handler(*args, **kwargs)

    def to_wire(self) -> dict[str, Any]:
        """Return ``{"name", "description", "parameters"}``, which declares the tool."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }

    def parse_arguments(self, raw: str | Mapping[str, Any]) -> dict[str, Any]:
        """Return the model's arguments as keyword arguments of the handler.

        For a typed function values are converted and defaults filled in. With a schema of the
        caller's own the object is passed as it is, and only ``required`` is checked.

        Args:
            raw: The arguments as JSON text or as an object.

        Raises:
            InvalidInputError: They do not fit. The ``message`` is written for the model and names
                the parameter.
        """
        # One way to read arguments for both forms, so that they are checked alike.
        text = raw if isinstance(raw, str) else json.dumps(dict(raw), default=str)
        if text.strip() in ("", "null"):  # how some models call without arguments
            text = "{}"
        try:
            if self.arguments is not None:
                parsed = self.arguments.parse(text)
            else:
                parsed = self._parse_object(text)
            # A function with **kwargs takes any other name.
            if self.context in parsed:
                raise ValueError(f"{self.context}: there is no such parameter")
            return parsed
        except (ValueError, RecursionError) as exc:
            reason = str(exc)
        raise InvalidInputError(f"Invalid arguments for {self.name}: {reason}", hint="")

    def _parse_object(self, text: str) -> dict[str, Any]:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("the arguments must be a JSON object")
        missing = [name for name in self.parameters["required"] if name not in value]
        if missing:
            raise ValueError("; ".join(f"{name}: is required" for name in missing))
        return value

    async def run(
        self,
        arguments: str | Mapping[str, Any],
        *,
        in_thread_loop: bool = False,
        context: ToolContext | None = None,
    ) -> ToolResult:
        """Run the tool on the model's arguments and return its result.

        Any failure of the tool becomes a result with ``is_error``. An exception it raises is also
        logged (``letta_adapters.tools``, a warning with the traceback). Only cancellation of the
        caller passes through; the handler is then cancelled too.

        Args:
            arguments: The arguments as JSON text or as an object.
            in_thread_loop: Run coroutines in a worker thread too, not on this loop (for the sync
                client).
            context: The call that this is; what is reported in it goes nowhere without one.

        Raises:
            InvalidInputError: The tool has no handler.
        """
        if self.handler is None:
            raise InvalidInputError(f"The tool {self.name!r} has no handler to call.")
        try:
            kwargs = self.parse_arguments(arguments)
        except InvalidInputError as exc:
            return ToolResult(clean_text(exc.message), is_error=True)
        except Exception as exc:  # a validator of the user's own types
            return self._report(exc)
        context = context or ToolContext("", self.name)
        if self.context is not None:
            kwargs[self.context] = context
        # Set only while the task copies its context: the handler sees it, the caller does not.
        inside = current_call.set(context)
        # A task of its own tells "the tool was cancelled" from "the caller was cancelled".
        task = asyncio.ensure_future(
            invoke_callable(self.handler, kwargs, in_thread_loop=in_thread_loop)
        )
        current_call.reset(inside)
        # An exception that comes after the time limit has nobody to fetch it; asyncio would
        # complain.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait({task}, timeout=self.timeout)
        finally:
            # A tool that ignores its cancellation must not hold the turn up for ever.
            timed_out = not task.done()
            context.end()
            if timed_out:
                task.cancel()
                await asyncio.wait({task}, timeout=UNWIND_SECONDS)
        return self._collect(task, timed_out)

    def _collect(self, task: asyncio.Future[Any], timed_out: bool) -> ToolResult:
        # It may have done its work all the same, and the model has to know that.
        if timed_out:
            text = f"{self.name} timed out after {self.timeout:g} s; its outcome is unknown."
            return ToolResult(text, is_error=True)
        if task.cancelled():
            return ToolResult(f"{self.name} was cancelled.", is_error=True)
        error = task.exception()
        if error is not None:
            return self._report(error)
        return read_result(task.result())

    def _report(self, error: BaseException) -> ToolResult:
        shown = report_raised(f"The tool {self.name!r}", error)
        return ToolResult(format_error(error), is_error=True, traceback=shown)


def _is_seconds(value: object) -> bool:
    # True, NaN and infinity are numbers to Python, and no time limits.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value > 0


@overload
def tool(
    fn: object,
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> Tool: ...
@overload
def tool(
    fn: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    fn: object = None,
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a :class:`Tool`, as ``@tool``, ``@tool(timeout=5)`` or ``tool(fn, name="...")``.

    ::

        @tool(timeout=5)
        def look_up(word: str) -> str:
            '''Return the meaning of a word.'''
            return DICTIONARY[word]

        session = create_session(tools=[look_up])

    Args:
        fn: Anything :func:`as_tool` takes.
        name: The tool's name, in place of the function's.
        description: The text for the model, in place of the docstring.
        parameters: A JSON schema in place of the signature's. Arguments are then not checked
            against the signature: the handler gets the model's JSON as it is.
        timeout: Seconds the tool may take; ``None`` is no limit.

    Raises:
        InvalidInputError: This cannot be a tool; the message says what to change.
    """
    # Used as ``@tool(timeout=5)``: the function comes with a second call.
    if fn is None:
        return lambda decorated: tool(
            decorated, name=name, description=description, parameters=parameters, timeout=timeout
        )
    made = _make(fn, name, description, parameters)
    return made if timeout is None else replace(made, timeout=timeout)


def as_tool(obj: object) -> Tool:
    """Return a :class:`Tool` for whatever kind of tool a user has.

    Args:
        obj: A ``Tool``; a callable (function, bound method, ``functools.partial``, object with
            ``__call__``, sync or async); a LangChain or LlamaIndex tool; or a dict ``{"name",
            "description", "parameters"}``, also in OpenAI's ``{"type": "function", "function":
            {...}}``, which declares a tool whose calls the caller answers.

    Raises:
        InvalidInputError: It is none of these.
    """
    return _make(obj, None, None, None)


def as_tools(tools: Iterable[object]) -> tuple[Tool, ...]:
    """Return several tools at once; raise :class:`InvalidInputError` if two have the same name."""
    if isinstance(tools, (str, Mapping, Tool)) or not isinstance(tools, Iterable):
        raise InvalidInputError(
            f"tools is {type(tools).__name__}, not a list.", hint="Write tools=[...]."
        )
    made = tuple(as_tool(item) for item in tools)
    check_tool_names([item.name for item in made])
    return made


def as_runnable_tools(tools: Iterable[object]) -> tuple[Tool, ...]:
    """Return several tools as :func:`as_tools` does, for a session, which runs them itself.

    Raises:
        InvalidInputError: Two have the same name, or one has no function.
    """
    made = as_tools(tools)
    for tool in made:
        if tool.handler is None:
            raise InvalidInputError(
                f"Tool {tool.name!r} has no function to run: a session runs its tools itself."
            )
    return made


def check_tool_names(names: Sequence[str]) -> None:
    """Refuse names that models do not take, and a name that stands for two tools.

    Raises:
        InvalidInputError: A name is not valid; the message quotes it.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                f"{name!r} is not a tool name.",
                hint="Use 1 to 64 letters, digits, '_' and '-': tool(fn, name='...').",
            )
        if names.count(name) > 1:
            raise InvalidInputError(
                f"Two tools are called {name!r}.", hint="Rename one: tool(fn, name='...')."
            )


def _make(
    obj: object, name: str | None, description: str | None, parameters: Mapping[str, Any] | None
) -> Tool:
    if isinstance(obj, Tool):
        made: dict[str, Any] = {"arguments": obj.arguments, "timeout": obj.timeout}
        made["context"] = obj.context
        made |= {**obj.to_wire(), "handler": obj.handler}
    elif isinstance(obj, Mapping):
        made = frameworks.from_mapping(obj)
    elif frameworks.is_langchain_tool(obj):
        # Looked at before "is it callable?": the tools of both frameworks can be called as well.
        made = frameworks.from_langchain(obj)
    elif frameworks.is_llama_index_tool(obj):
        made = frameworks.from_llama_index(obj)
    elif callable(obj) and not isinstance(obj, type):
        # A class is callable too, but calling one makes an object instead of a result.
        made = _from_callable(obj, name, explicit=parameters is not None)
    else:
        what = f"The class {obj.__name__}" if isinstance(obj, type) else f"{type(obj).__name__}"
        raise InvalidInputError(
            f"{what} is not a tool.", hint="Pass a function, a Tool, a framework's tool or a dict."
        )
    # The caller's own words win over those found in the function.
    made |= {k: v for k, v in (("name", name), ("description", description)) if v is not None}
    # With a schema of the user's own there is no model of the signature to check arguments by.
    if parameters is not None:
        made |= {"parameters": dict(parameters), "arguments": None}
    return Tool(**made)


def _from_callable(fn: Callable[..., Any], name: str | None, *, explicit: bool) -> dict[str, Any]:
    base, _ = unwrap_partial(fn)
    label = name or getattr(base, "__name__", None) or type(base).__name__
    if label == "<lambda>":
        raise InvalidInputError("A lambda has no name.", hint="Use tool(fn, name='...').")
    # For an object the method behind the call tells what kind of function it is, not the object.
    called = base if inspect.isroutine(base) else type(base).__call__
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise InvalidInputError(f"{label!r} is a generator.", hint="Return one value instead.")
    doc, docs = read_docstring(_docstring(base, called))
    # With a schema of the user's own nothing else depends on the signature.
    signature = read_signature(fn, label, lenient=explicit)
    context, signature = take_context(signature, label)
    arguments = None if explicit else read_arguments(fn, signature, label, docs)
    return {
        "name": label,
        "description": doc or label,
        "parameters": arguments.schema if arguments else None,
        "handler": fn,
        "arguments": arguments,
        "context": context,
    }


def _docstring(base: object, called: object) -> str | None:
    if base is called or hasattr(base, "__name__"):
        return inspect.getdoc(base)
    # A dataclass without a docstring gets a made-up one, which tells the model nothing.
    generated = f"{type(base).__name__}("  # what @dataclass writes
    own = inspect.getdoc(type(base)) or ""
    return getattr(called, "__doc__", None) or (None if own.startswith(generated) else own)
