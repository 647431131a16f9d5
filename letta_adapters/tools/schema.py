"""Internal: a function's signature and docstring as a JSON schema, by which arguments are checked.

pydantic handles the types. A model class is built whose fields are called ``p0``, ``p1``, ... with
the real names as aliases, so that parameters may have any name (``json``, ``schema``, ``_x``).
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Optional, cast, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import from_json, to_jsonable_python

from letta_adapters.errors import InvalidInputError

_EMPTY = inspect.Parameter.empty
_MAX_ERRORS = 5
#: Keys under which a schema holds other schemas: directly under these, by name under the maps.
_SCHEMA_KEYS = frozenset(
    {"items", "prefixItems", "contains", "additionalProperties", "propertyNames"}
    | {"not", "anyOf", "oneOf", "allOf", "if", "then", "else"}
)
_SCHEMA_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})


@dataclass(frozen=True)
class Arguments:
    """The arguments of a function; ``schema`` is for the model, :meth:`parse` reads its answer."""

    schema: dict[str, Any]
    model: type[BaseModel]
    parameters: Mapping[str, inspect.Parameter]  # field name → parameter
    extra: bool  # takes **kwargs

    def parse(self, raw: str) -> dict[str, Any]:
        """Return the keyword arguments in a JSON object, converted, with defaults filled in.

        Raises:
            ValueError: They do not fit. The text names each wrong argument and is written for the
                model.
        """
        encoded = raw.encode()  # a lone surrogate is a UnicodeError here, a TypeError in from_json
        given = from_json(encoded)
        if not isinstance(given, dict):
            raise ValueError("the arguments must be a JSON object")
        known = {field.alias for field in self.model.model_fields.values()}
        # Known only to a function with **kwargs; to any other it is most likely a misspelt name.
        kwargs = {name: value for name, value in given.items() if name not in known}
        trouble = [] if self.extra else [f"{name}: there is no such parameter" for name in kwargs]
        try:
            parsed = self.model.model_validate_json(encoded)
        except ValidationError as exc:
            raise ValueError(_take_first([*trouble, *_list_errors(exc)])) from exc
        if trouble:
            raise ValueError(_take_first(trouble))
        # A default of the signature is passed as it is: a copy or a conversion would not be the
        # same.
        for name, parameter in self.parameters.items():
            plain = parameter.default is not _EMPTY and not isinstance(parameter.default, FieldInfo)
            if plain and name not in parsed.model_fields_set:
                kwargs[parameter.name] = parameter.default
            else:
                kwargs[parameter.name] = getattr(parsed, name)
        return kwargs


class _Schema(GenerateJsonSchema):
    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        # A default that is not JSON is simply left out of the schema.
        if kind != "non-serializable-default":
            super().emit_warning(kind, detail)

    def encode_default(self, dft: Any) -> Any:
        return to_jsonable_python(dft)  # pydantic 2.7's own fails for dataclasses


def unwrap_partial(fn: Callable[..., Any]) -> tuple[Callable[..., Any], frozenset[str]]:
    """Return the function inside ``functools.partial`` and the names of the arguments it binds."""
    bound: frozenset[str] = frozenset()
    while isinstance(fn, functools.partial):
        bound |= frozenset(fn.keywords)
        fn = fn.func
    return fn, bound


def read_signature(fn: Callable[..., Any], label: str, *, lenient: bool) -> inspect.Signature:
    """Return the signature of ``fn``, with annotations that are text looked up.

    Arguments that ``functools.partial`` has bound by keyword are not the model's to choose and are
    left out.

    Args:
        fn: The function.
        label: Its name, for errors.
        lenient: Leave annotations that cannot be looked up as they are.

    Raises:
        InvalidInputError: It has no signature, or an annotation cannot be looked up.
    """
    try:
        signature = inspect.signature(fn, eval_str=True)
    except Exception as exc:  # annotations are code: anything can come out
        if lenient:
            with suppress(ValueError, TypeError):
                return inspect.signature(fn)
            return inspect.Signature()
        raise InvalidInputError(
            f"The signature of {label!r} cannot be read: {exc}.",
            hint="Define the types it names at module level, or give the schema: parameters={...}.",
        ) from exc
    bound = unwrap_partial(fn)[1]
    free = [p for p in signature.parameters.values() if p.name not in bound]
    return signature.replace(parameters=free)


def read_arguments(
    fn: Callable[..., Any], signature: inspect.Signature, label: str, docs: Mapping[str, str]
) -> Arguments:
    """Return the arguments of ``fn``.

    Args:
        fn: The function.
        signature: Its signature, without what is not the model's to choose.
        label: Its name, for errors.
        docs: Descriptions by parameter.

    Raises:
        InvalidInputError: It cannot be called by name, or its types cannot be described.
    """
    base, _ = unwrap_partial(fn)
    parameters = [*signature.parameters.values()]
    _check_kinds(parameters, label)
    extra = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    # Under names of their own, since a parameter may be called like a method of pydantic's models.
    fields = {
        f"p{i}": p
        for i, p in enumerate(p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD)
    }
    # There pydantic looks up the types that annotations give as text.
    module = getattr(base, "__module__", None) or __name__
    try:
        model = _make_model(fields, docs, module)
        schema = _make_json_schema(model)
    except Exception as exc:
        raise _blame(exc, fields.values(), label, module) from exc
    result = {"type": "object", "properties": {}, "required": [], **schema}
    if extra:
        result["additionalProperties"] = True
    return Arguments(_order_keys(result), model, fields, extra)


def _check_kinds(parameters: list[inspect.Parameter], label: str) -> None:
    for index, parameter in enumerate(parameters):
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise InvalidInputError(
                f"Parameter {parameter.name!r} of {label!r} is positional-only.",
                hint="Models pass arguments by name: remove the '/', or wrap the function.",
            )
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            raise InvalidInputError(
                f"{label!r} takes *{parameter.name}.",
                hint="Models pass arguments by name: take a list parameter. "
                "(A decorator without functools.wraps hides the real signature.)",
            )
        # A method taken from its class: no model could pass the object.
        if index == 0 and parameter.name in ("self", "cls") and parameter.annotation is _EMPTY:
            raise InvalidInputError(
                f"{label!r} is a method without its object.",
                hint="Pass the bound method: obj.method.",
            )


def _make_model(
    fields: Mapping[str, inspect.Parameter], docs: Mapping[str, str], module: str
) -> type[BaseModel]:
    definitions: dict[str, Any] = {n: _make_field(p, docs) for n, p in fields.items()}
    # Without a configuration, which would leak into the dataclasses and TypedDicts of the
    # annotations.
    return create_model("Arguments", __module__=module, **definitions)


def _make_field(parameter: inspect.Parameter, docs: Mapping[str, str]) -> tuple[Any, Any]:
    """Return one parameter as pydantic's ``(annotation, default)``."""
    annotation: Any = Any if parameter.annotation is _EMPTY else parameter.annotation
    default: Any = ... if parameter.default is _EMPTY else parameter.default
    base, metadata = annotation, []
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
    # `def f(x: int = None)` is common, and means that None is a value too.
    if default is None and base is not Any:
        base = Optional[base]  # noqa: UP045  # `base | None` fails where base is a string
    if isinstance(default, FieldInfo):  # def f(x: int = Field(3, description="..."))
        metadata.append(default)
        default = ...
    # The user's own Field may hold an alias, a description or a default: of several the last
    # counts.
    infos = [item for item in metadata if isinstance(item, FieldInfo)]
    alias = next((i.alias for i in reversed(infos) if i.alias), parameter.name)
    description = next((i.description for i in reversed(infos) if i.description), None)
    if description is None:
        description = _find_description(metadata) or docs.get(parameter.name)
    own = Field(alias=alias, description=description) if description else Field(alias=alias)
    if default is ... and not all(i.is_required() for i in infos):
        default = _EMPTY  # the Field has the default
    pieces = (base, *metadata, own)
    annotated = cast("Any", Annotated)[pieces]
    return (annotated, own) if default is _EMPTY else (annotated, default)


def _find_description(metadata: list[Any]) -> str | None:
    """Return the text of ``Annotated[str, "text"]`` and ``Annotated[str, Doc("text")]``."""
    for item in metadata:
        text = item if isinstance(item, str) else getattr(item, "documentation", None)
        if isinstance(text, str):
            return text
    return None


def _blame(
    exc: Exception, fields: Iterable[inspect.Parameter], label: str, module: str
) -> InvalidInputError:
    """Return the error which names the parameter that pydantic cannot handle."""

    def trouble(parameter: inspect.Parameter) -> Exception | None:
        try:
            _make_json_schema(_make_model({"p": parameter}, {}, module))
        except Exception as found:
            return found
        return None

    # pydantic tells the type only, so each parameter is tried alone.
    culprit = ""
    for parameter in fields:
        found = trouble(parameter)
        if found is not None:
            culprit, exc = f"Parameter {parameter.name!r} of ", found
            break
    reason = (str(exc).splitlines() or [type(exc).__name__])[0]
    # The first sentence alone: the rest is about pydantic's configuration.
    reason = reason.split(". ")[0].split(", then call")[0].rstrip(".")
    return InvalidInputError(
        f"{culprit}{label!r} has no JSON schema: {reason}.",
        hint="Annotate it with a type that JSON can carry, bind it with functools.partial, "
        "or give the schema: parameters={...}.",
    )


def _make_json_schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(schema_generator=_Schema)
    schema.pop("description", None)
    return cast("dict[str, Any]", without_titles(schema))


def _order_keys(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with type, properties and required first, as people look for these."""
    first = ("type", "properties", "required")
    return {**{k: schema[k] for k in first}, **{k: v for k, v in schema.items() if k not in first}}


def without_titles(node: Any) -> Any:
    """Return a copy of a JSON schema without ``title`` keywords; names and defaults stay.

    ``allOf`` with a lone ``$ref``, as pydantic before 2.9 writes it, becomes that ``$ref``.
    """
    if isinstance(node, list):
        return [without_titles(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    lone = node.get("allOf")
    if (
        isinstance(lone, list)
        and len(lone) == 1
        and isinstance(lone[0], dict)
        and "$ref" in lone[0]
    ):
        node = {**lone[0], **{key: value for key, value in node.items() if key != "allOf"}}
    return {key: _without_titles(key, value) for key, value in node.items() if key != "title"}


def _without_titles(key: str, value: Any) -> Any:
    if key in _SCHEMA_KEYS:
        return without_titles(value)
    if key in _SCHEMA_MAPS and isinstance(value, Mapping):
        return {name: without_titles(schema) for name, schema in value.items()}
    return copy.deepcopy(value)


def normalise_parameters(parameters: object, label: str) -> dict[str, Any]:
    """Return a caller's own schema, copied and completed with ``properties`` and ``required``.

    ``None`` is a tool without arguments.

    Raises:
        InvalidInputError: It is not the JSON schema of an object.
    """
    if parameters is None:
        return {"type": "object", "properties": {}, "required": []}
    if not isinstance(parameters, Mapping):
        raise InvalidInputError(
            f"The parameters of {label!r} are {type(parameters).__name__}, not a JSON schema.",
            hint='Give a dict like {"type": "object", "properties": {...}, "required": [...]}.',
        )
    schema = {"type": "object", "properties": {}, "required": [], **parameters}
    required = schema["required"]
    if schema["type"] != "object" or not isinstance(schema["properties"], Mapping):
        raise InvalidInputError(
            f"The parameters of {label!r} are not the schema of an object.",
            hint='Wrap it: {"type": "object", "properties": {"name": <schema>}}.',
        )
    if not isinstance(required, (list, tuple)) or not all(isinstance(r, str) for r in required):
        raise InvalidInputError(
            f"'required' in the parameters of {label!r} is not a list of names.",
            hint="Name the required properties there, not inside each property.",
        )
    # Through JSON and back: the copy shares nothing with the caller's, and is sure to be sendable.
    try:
        copied = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInputError(f"The parameters of {label!r} are not JSON: {exc}.") from exc
    return _order_keys(copied)


def make_schema(source: Any, label: str) -> dict[str, Any]:
    """Return the schema in a JSON schema dict or a pydantic model class (v2 or v1)."""
    try:
        if isinstance(source, type) and issubclass(source, BaseModel):
            source = _make_json_schema(source)
        elif source is not None and not isinstance(source, Mapping):
            source = source.schema()
        source = without_titles(source)
    except Exception as exc:
        raise InvalidInputError(
            f"The arguments of {label!r} have no JSON schema: {exc}.",
            hint="They must be a pydantic model or a JSON schema.",
        ) from exc
    schema = normalise_parameters(source, label)
    schema.pop("description", None)  # the tool has its own
    return schema


def short_error(exc: ValidationError) -> str:
    """Return a validation error in one line for the model: ``city: Field required; ...``."""
    return _take_first(list(_list_errors(exc)))


def _take_first(lines: list[str]) -> str:
    more = f"; and {len(lines) - _MAX_ERRORS} more" if len(lines) > _MAX_ERRORS else ""
    return "; ".join(lines[:_MAX_ERRORS]) + more


def _list_errors(exc: ValidationError) -> Iterator[str]:
    for error in exc.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(str(part) for part in error["loc"])
        message = "is required" if error["type"] == "missing" else error["msg"]
        yield f"{place}: {message}" if place else message


def read_docstring(doc: str | None) -> tuple[str, dict[str, str]]:
    """Return the description (summary and text, no sections) and those of the parameters.

    Google, NumPy, reST and Epydoc styles are read. A docstring that cannot be parsed is returned
    whole as the description.
    """
    if not doc or not doc.strip():
        return "", {}
    import docstring_parser  # only who makes tools pays for it

    try:
        parsed = docstring_parser.parse(doc)
    except docstring_parser.ParseError:
        return inspect.cleandoc(doc), {}
    parts = [parsed.short_description, parsed.long_description]
    # NumPy's style describes several parameters at once, as in ``x, y : int``.
    docs = {
        name.strip(" *"): " ".join((param.description or "").split())
        for param in parsed.params
        for name in param.arg_name.split(",")
    }
    return "\n\n".join(part for part in parts if part), {k: v for k, v in docs.items() if v}
