"""Internal: build the chain of ``with_structured_output``: schema, validation, the object."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from letta_adapters.client.structured import find_json, make_json_schema_validator
from letta_adapters.errors import InvalidInputError

METHODS = ("function_calling", "json_schema", "json_mode")


def build_structured_chain(
    model: BaseChatModel,
    schema: Any,
    method: str,
    *,
    include_raw: bool,
    strict: bool | None,
    **more: Any,
) -> Runnable[Any, Any]:
    """Return the chain of :meth:`ChatLetta.with_structured_output`, whose arguments it takes.

    Args:
        model: The chat model.
        schema: A pydantic class, a ``TypedDict``, a JSON schema, or ``None`` (JSON mode).
        method: One of :data:`METHODS`.
        include_raw: Give the message and a parsing error beside the object.
        strict: Passed on into the schema.
        more: Bound to the model as it is.

    Raises:
        InvalidInputError: The schema or the method cannot be used.
    """
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}, not {method!r}.")
    if schema is None and method != "json_mode":
        raise InvalidInputError(f"method={method!r} needs a schema.")
    validate = make_validator(schema)
    parse: Callable[[AIMessage], Any]
    shown = {"kwargs": {"method": method, "strict": strict}, "schema": schema or {}}
    if method == "function_calling":
        # The model gets one tool that stands for the schema; the object is its arguments.
        tool = convert_to_openai_tool(_to_tool(schema), strict=strict)
        function = tool["function"]
        name, shown["schema"] = function["name"], convert_to_openai_tool(_to_tool(schema))
        bound = model.bind_tools(
            [tool],
            tool_choice=name,
            strict=strict,
            ls_structured_output_format=shown,
            letta_shape={"schema": function.get("parameters") or {}, "tool": name},
            letta_validate=validate,
            **more,
        )

        def parse(message: AIMessage) -> Any:
            call = next((c for c in message.tool_calls if c["name"] == name), None)
            return None if call is None else validate(call["args"])
    else:
        json_schema = to_json_schema(schema) if schema is not None else {}
        bound = model.bind(
            ls_structured_output_format=shown | {"schema": json_schema},
            letta_shape={"schema": json_schema, "tool": None},
            letta_validate=validate,
            **more,
        )

        def parse(message: AIMessage) -> Any:
            return validate(_parse_json(str(message.text), json_schema))

    return _keep_raw(bound, parse) if include_raw else bound | RunnableLambda(parse)


def _keep_raw(
    bound: Runnable[Any, AIMessage], parse: Callable[[AIMessage], Any]
) -> Runnable[Any, Any]:
    """Return a chain that gives the message, the object and the parsing error."""
    assign = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | RunnableLambda(parse), parsing_error=lambda _: None
    )
    # A parsing error becomes a value in the result: with ``include_raw`` the message is not lost.
    fallback = RunnablePassthrough.assign(parsed=lambda _: None)
    safe = assign.with_fallbacks([fallback], exception_key="parsing_error")
    return RunnableMap(raw=bound) | safe


def _to_tool(schema: Any) -> Any:
    """Return the schema in a form that LangChain makes a tool of, with nothing left out.

    Raises:
        InvalidInputError: The schema has no name, or describes no object.
    """
    if not is_json_schema(schema):
        return schema
    if schema.get("type", "object") != "object":
        raise InvalidInputError(
            f"A tool's arguments are an object, and the schema is of type {schema['type']!r}.",
            hint='Use method="json_schema", or put it into an object.',
        )
    if not schema.get("title"):
        raise InvalidInputError(
            "The JSON schema has no 'title', which names the tool.",
            hint='Add one, or use method="json_schema".',
        )
    about = {"name": schema["title"], "description": schema.get("description") or ""}
    # All the rest of the schema is kept (`$defs`, `additionalProperties`, ...).
    rest = {k: v for k, v in schema.items() if k not in ("title", "description")}
    return {**about, "parameters": {"type": "object", **rest}}


def is_json_schema(schema: Any) -> bool:
    """Return whether it is a JSON schema, and not a dict around one.

    Such a dict describes a tool or a response format.
    """
    tool = {"function", "input_schema", "toolSpec", "json_schema"}
    if not isinstance(schema, Mapping) or tool & schema.keys():
        return False
    return not ("name" in schema and {"parameters", "schema"} & schema.keys())


def to_json_schema(schema: Any) -> dict[str, Any]:
    """Return the whole JSON schema in a description of the answer.

    LangChain's own conversion keeps nothing of a JSON schema without ``properties``: of an array, a
    reference, a map.

    Args:
        schema: A class, a ``TypedDict``, a JSON schema, a tool or a response format.

    Raises:
        InvalidInputError: There is no schema in it.
    """
    if is_json_schema(schema) and "name" not in schema:
        # It is the schema already, whatever LangChain's conversion would leave out of it.
        return dict(schema)
    if isinstance(schema, Mapping):
        inner = schema.get("json_schema", schema)
        if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
            return dict(inner["schema"])  # OpenAI's response format
    try:
        return convert_to_json_schema(schema)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInputError(f"{schema!r} is no schema: {error}") from error


def _parse_json(text: str, schema: Mapping[str, Any]) -> Any:
    """Return the JSON data in an answer's text."""
    try:
        return json.loads(find_json(text, schema))
    except (ValueError, RecursionError) as error:  # the latter: it is nested too deeply
        raise OutputParserException(
            f"The agent's answer is no JSON: {error}", llm_output=text
        ) from error


def make_validator(schema: Any) -> Callable[[Any], Any]:
    """Return a function that checks data against a schema and gives the object.

    The function raises ``ValueError`` for data of another shape.

    Args:
        schema: A pydantic class, a ``TypedDict``, a JSON schema, or ``None`` for any object.
    """
    if schema is None:
        return _check_object
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        # LangChain still accepts models of both versions of pydantic.
        model: Any = schema  # of pydantic 2, or of its version 1
        validate: Callable[[Any], Any] = getattr(model, "model_validate", None) or model.parse_obj
        return validate
    # A typed dict has no method that validates.
    if is_typeddict(schema):
        return TypeAdapter(schema).validate_python
    if isinstance(schema, Mapping):
        return make_json_schema_validator(to_json_schema(schema))
    return _check_object


def _check_object(data: Any) -> Any:
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data
