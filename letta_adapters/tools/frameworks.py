"""Internal: make tools from those of LangChain and LlamaIndex, and from dicts.

Neither framework is imported: an object with the attributes of a framework's tool is one. Each
function returns the keyword arguments of :class:`letta_adapters.tools.Tool`. Arguments are
validated by the framework's own tool, with its own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, get_origin

from letta_adapters._utils.invoke import is_async_callable, report_raised
from letta_adapters.errors import InvalidInputError
from letta_adapters.tools.context import current_call
from letta_adapters.tools.result import ToolResult
from letta_adapters.tools.schema import make_schema

#: ``.args`` of LangChain's single-input ``Tool``.
_SINGLE_INPUT = {"tool_input": {"type": "string"}}

# The names under which dicts hold the JSON schema of a tool's arguments.
SCHEMA_NAMES: Final = ("parameters", "input_schema", "inputSchema")


def is_langchain_tool(obj: object) -> bool:
    """Return whether it has ``name``, ``description``, ``ainvoke`` and an argument schema."""
    # A class of tools has all of these attributes as well, and is no tool.
    return (
        not isinstance(obj, type)
        and callable(getattr(obj, "ainvoke", None))
        and (_has(obj, "tool_call_schema") or _has(obj, "args_schema"))
        and _has(obj, "name")
        and _has(obj, "description")
    )


def _has(obj: object, name: str) -> bool:
    # Looked up on the class too: reading a property such as tool_call_schema may build a model.
    return name in getattr(obj, "__dict__", ()) or hasattr(type(obj), name)


def from_langchain(obj: Any) -> dict[str, Any]:
    """Return a LangChain ``BaseTool``, which is called with ``ainvoke(arguments)``.

    The model sees ``tool_call_schema`` (without injected arguments), which falls back to
    ``args_schema``. A tool with an ``InjectedToolCallId`` gets the id of its call.

    Raises:
        InvalidInputError: LangGraph would have to fill one of its parameters; there is no graph
            here.
    """
    declared = getattr(obj, "args_schema", None)
    schema = getattr(obj, "tool_call_schema", None) or declared
    if declared is None and getattr(obj, "args", None) == _SINGLE_INPUT:
        # Tool(func=...): its tool_call_schema describes the wrapper, not the function.
        schema = {"properties": _SINGLE_INPUT, "required": list(_SINGLE_INPUT)}

    injected = _list_injected(obj, schema)
    wants_id = _check_injected(injected, str(obj.name))

    # By `ainvoke`, so that LangChain checks, traces and calls back as for any other caller.
    async def handler(**kwargs: Any) -> Any:
        given = sorted(injected.keys() & kwargs.keys())
        # LangChain would take from the model what only the application should give.
        if given:
            raise InvalidInputError(f"{obj.name} has no parameter {', '.join(given)}.", hint="")
        if not wants_id:
            return _read_message(await obj.ainvoke(kwargs))
        context = current_call.get()
        call = {"type": "tool_call", "id": context.tool_call_id if context else ""}
        return _read_message(await obj.ainvoke({**call, "name": obj.name, "args": kwargs}))

    return {
        "name": obj.name,
        "description": obj.description or obj.name,
        "parameters": make_schema(schema, str(obj.name)),
        "handler": handler,
    }


def _list_injected(obj: Any, shown: Any) -> dict[str, Any]:
    """Return the fields of a LangChain tool's arguments that the model does not see, by name."""
    make = getattr(obj, "get_input_schema", None)
    fields = getattr(make(), "model_fields", None) if callable(make) else None
    seen = getattr(shown, "model_fields", None)
    if fields is None or seen is None:
        return {}
    return {name: field for name, field in fields.items() if name not in seen}


def _check_injected(injected: Mapping[str, Any], label: str) -> bool:
    """Return whether a tool wants the id of its call.

    Raises:
        InvalidInputError: It wants something else, and has no default for it.
    """
    wants_id = False
    for name, field in injected.items():
        marks = [_mark(item) for item in (*field.metadata, field.annotation)]
        if any("InjectedToolCallId" in mark for mark in marks):
            wants_id = True
        elif field.is_required():
            what = next((m[0] for m in marks if m and "Injected" in " ".join(m)), "a value of it")
            raise InvalidInputError(
                f"Parameter {name!r} of {label!r} is filled by LangGraph ({what}), and there is no "
                "graph here.",
                hint="Give it a default, or give the tool to a LettaRunnable or an agent in a "
                "graph. The id of the call (InjectedToolCallId) is filled everywhere.",
            )
    return wants_id


def _mark(item: Any) -> list[str]:
    """Return the names of a class and its bases, for a class, its instance or a generic of it."""
    kind = get_origin(item) or item
    kind = kind if isinstance(kind, type) else type(kind)
    return [base.__name__ for base in kind.__mro__]


def _read_message(output: Any) -> Any:
    """Return what a LangChain tool returned; of a ``ToolMessage`` its content and status."""
    names = _mark(output)
    if "Command" in names and hasattr(output, "update"):
        raise InvalidInputError(
            "The tool returned a Command of LangGraph, and there is no graph here.",
            hint="Return the content itself.",
        )
    if "ToolMessage" not in names:
        return output
    return ToolResult(output.content, is_error=getattr(output, "status", "") == "error")


def is_llama_index_tool(obj: object) -> bool:
    """Return whether its ``metadata`` has a name and a schema, and it can be called."""
    metadata = None if isinstance(obj, type) else getattr(obj, "metadata", None)
    if metadata is None or isinstance(metadata, Mapping):
        return False
    described = hasattr(metadata, "get_parameters_dict") or hasattr(metadata, "fn_schema")
    named = isinstance(getattr(metadata, "name", None), str)
    return described and named and _llama_index_call(obj) is not None


def _llama_index_call(obj: Any) -> Callable[..., Any] | None:
    # The asynchronous one first, which needs no thread of its own.
    for name in ("acall", "call"):
        method: Callable[..., Any] | None = getattr(obj, name, None)
        if callable(method):
            return method
    return obj if callable(obj) else None


def from_llama_index(obj: Any) -> dict[str, Any]:
    """Return a LlamaIndex ``BaseTool``, called with ``acall(**arguments)``, ``call`` or itself.

    Its ``ToolOutput`` becomes the result, with the same ``content`` and ``is_error``.

    Raises:
        InvalidInputError: The tool wants a workflow's ``Context``; there is no workflow here.
    """
    # Its own class is not imported, so everything is read from the attributes.
    metadata = obj.metadata
    name = str(metadata.name)
    if getattr(obj, "requires_context", False) is True:
        raise InvalidInputError(
            f"The tool {name!r} needs a LlamaIndex workflow Context, which does not exist here.",
            hint="Write a function without the Context, or bind it with functools.partial.",
        )
    make = getattr(metadata, "get_parameters_dict", None)
    schema = make() if callable(make) else metadata.fn_schema
    method = _llama_index_call(obj)
    assert method is not None
    call = method

    # Two of them, because a function is run on the loop or in a thread by what kind it is.
    async def arun(**kwargs: Any) -> Any:
        return _read_tool_output(await call(**kwargs))

    def run(**kwargs: Any) -> Any:
        return _read_tool_output(call(**kwargs))

    return {
        "name": name,
        "description": metadata.description or name,
        "parameters": make_schema(schema, name),
        "handler": arun if is_async_callable(call) else run,
    }


def _read_tool_output(output: Any) -> Any:
    if not hasattr(output, "is_error") or not hasattr(output, "content"):
        return output
    # A tool that catches exceptions of its function hands them out beside the text.
    raised = getattr(output, "exception", None)
    shown = None
    if isinstance(raised, BaseException):
        shown = report_raised(f"The tool {str(output.tool_name)!r}", raised)
    return ToolResult(str(output.content), is_error=bool(output.is_error), traceback=shown)


def rename_schema(tool: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return a dict that declares a tool with its schema under ``parameters``, as OpenAI calls it.

    Anthropic says ``input_schema``, and a tool that an MCP server lists has an ``inputSchema``.

    Raises:
        InvalidInputError: It has two schemas, and nothing tells which one counts.
    """
    found = [name for name in SCHEMA_NAMES if tool.get(name) is not None]
    if len(found) > 1:
        raise InvalidInputError(
            f"A tool given as a dict has {' and '.join(found)}.", hint="Leave one of them out."
        )
    if not found or found == ["parameters"]:
        return tool
    rest = {name: value for name, value in tool.items() if name not in SCHEMA_NAMES}
    return {**rest, "parameters": tool[found[0]]}


def from_mapping(obj: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a tool declared by ``{"name", "description", "parameters"}``.

    OpenAI's ``function`` wrapper around it is taken off; see also :func:`rename_schema`.
    """
    inner = obj.get("function") if obj.get("type") == "function" and "function" in obj else obj
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise InvalidInputError(
            "A tool given as a dict has no name.",
            hint='Its form is {"name": ..., "description": ..., "parameters": <JSON schema>}.',
        )
    # A web search of the provider, say, is run by the provider: nobody here could answer its calls.
    if obj.get("type", "function") != "function":
        raise InvalidInputError(
            f"{inner['name']!r} is a provider's own tool of type {obj['type']!r}, not a function.",
            hint="Attach such tools to the agent.",
        )
    # The TypeScript SDK's tools have their function in the object (`execute`). Here a dict only
    # declares a tool, so the function would never be called.
    runs = [key for key, value in inner.items() if callable(value) and not isinstance(value, type)]
    if runs:
        raise InvalidInputError(
            f"{inner['name']!r} is a dict with a function ({str(runs[0])!r}), which is not called.",
            hint="Use tool(fn, name=..., description=..., parameters=...): the function gets the "
            "arguments as keyword arguments.",
        )
    return {
        "name": inner["name"],
        "description": inner.get("description") or inner["name"],
        "parameters": rename_schema(inner).get("parameters"),
    }
