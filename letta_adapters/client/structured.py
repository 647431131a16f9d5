"""Structured output: an answer that is JSON data of a shape, and how often it may be mended.

Neither the Letta API nor Letta Code has a response format per request: the Letta API has one in the
model settings of an agent or conversation, which a turn would change for everybody, and Letta Code
accepts one and does not pass it on. So the agent is told with the message what is wanted, the
answer is checked, and an answer that does not fit goes back with what is wrong with it. Both
adapters keep to the same rule (:mod:`letta_adapters.chat.constraints`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Generic, TypeVar, cast

from letta_adapters.content import to_wire
from letta_adapters.errors import InvalidInputError, LettaError, StructuredOutputError
from letta_adapters.messages import ResultMessage

T = TypeVar("T")

# The number of times an answer may be mended. Each is a turn, which costs model calls.
REPAIRS: Final = 1

_REFERENCES: Final = frozenset({"$ref", "$dynamicRef"})
_OLDER: Final = ("additionalItems", "disallow", "extends")
_TOO_DEEP: Final = "it is nested too deeply"
_BRACKETS: Final = {"object": ("{", "}"), "array": ("[", "]")}


@dataclass(frozen=True, repr=False)
class StructuredResult(ResultMessage, Generic[T]):
    """The result of a turn that was asked for data of a shape.

    ``result`` is the text that the data was read from. A turn whose last answer does not fit has
    ``success=False`` and the error code ``invalid_structured_output``; its ``partial`` is that
    answer. ``usage``, ``run_ids`` and ``duration_ms`` are those of all its attempts::

        result = session.run_turn("Who wrote Emma?", output_schema=Author)
        print(result.output.name)
    """

    value: T | None = field(default=None, compare=False)

    @property
    def output(self) -> T:
        """The data, as an object of the class that was asked for.

        Raises:
            StructuredOutputError: The answer does not fit (``text``, ``problem``).
            LettaError: The turn failed.
        """
        if not self.success:
            raise self.to_error()
        return cast("T", self.value)  # a success has one, which may be None

    def raise_for_status(self) -> StructuredResult[T]:
        """Return self, or raise the typed :class:`LettaError` of a failed turn."""
        if self.success:
            return self
        raise self.to_error()

    def to_error(self) -> LettaError:
        """Return the exception of a failed turn (see :mod:`letta_adapters.errors`)."""
        error = super().to_error()
        if isinstance(error, StructuredOutputError):
            error.text, error.problem = self.text, self.error_detail or ""
        return error

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON data, as any other; the object is read from ``result`` anew."""
        plain = super().to_dict()
        del plain["value"]
        return plain


@dataclass(frozen=True, slots=True)
class OutputSchema(Generic[T]):
    """A shape of data: its JSON schema, and a function that makes the object or raises."""

    schema: Mapping[str, Any]
    validate: Callable[[Any], T]

    @property
    def wish(self) -> str:
        """The sentences that tell the agent what is wanted."""
        return describe_wish(self.schema)

    def read(self, text: str) -> tuple[T | None, str | None]:
        """Return the object in an answer's text and ``None``, or ``None`` and what is wrong."""
        made: list[T] = []
        problem = find_fault(
            text, self.schema, lambda data: made.append(self.validate(data)), self.wish
        )
        return (made[0], None) if problem is None else (None, problem)


def read_output_schema(source: Any) -> OutputSchema[Any]:
    """Return the shape that a class or a JSON schema describes.

    Args:
        source: A pydantic model, a dataclass, a ``TypedDict`` or any other type that pydantic
            knows; or a JSON schema as a dict.

    Raises:
        InvalidInputError: It describes no JSON data.
    """
    if isinstance(source, Mapping):
        if not source:
            raise InvalidInputError(
                "output_schema is empty, so every answer would do.",
                hint='Describe the data: {"type": "object", "properties": {...}}.',
            )
        return OutputSchema(dict(source), make_json_schema_validator(source))
    # Text could only be the name of a type, and an object is no description of one.
    named = isinstance(source, type) or getattr(source, "__origin__", None) is not None
    if not named:
        raise InvalidInputError(
            f"output_schema is {source!r}, which is neither a class nor a JSON schema.",
            hint="Pass a pydantic model, a dataclass, a TypedDict, or a JSON schema as a dict.",
        )
    # Imported late: it takes longer than the rest of the package.
    from pydantic import TypeAdapter

    try:
        adapter = TypeAdapter(source)
        schema = adapter.json_schema()
    except Exception as error:  # the annotations of a class are code: anything can come out
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidInputError(
            f"output_schema={getattr(source, '__name__', source)!s} has no JSON schema: {reason}",
            hint="Annotate its fields with types that JSON can carry.",
        ) from error
    # As JSON, since there dates and enums are read also by a strict model.
    return OutputSchema(schema, lambda data: adapter.validate_json(json.dumps(data)))


def describe_wish(schema: Mapping[str, Any]) -> str:
    """Return the sentences that tell the agent to answer with JSON.

    Args:
        schema: JSON schema of the data; empty for any JSON object.
    """
    if not schema:
        return "Answer with one JSON object and with nothing else."
    return (
        f"Answer with one JSON {_read_kind(schema)} that fits this JSON schema, and with nothing "
        f"else: {json.dumps(schema, sort_keys=True)}"
    )


def find_fault(
    text: str, schema: Mapping[str, Any], validate: Callable[[Any], object], again: str
) -> str | None:
    """Return the complaint about an answer, or ``None`` if its JSON fits.

    Args:
        text: The answer.
        schema: JSON schema of the data; empty for any JSON object.
        validate: Raises ``ValueError`` (pydantic's is one) for data of another shape.
        again: What the agent is told to do about it.
    """
    try:
        data = json.loads(find_json(text, schema))
    except ValueError as error:
        return f"That is no JSON: {error}. {again}"
    except RecursionError:
        return f"That does not fit: {_TOO_DEEP}. {again}"
    return find_problem(validate, data, again)


def find_problem(validate: Callable[[Any], object], data: Any, again: str) -> str | None:
    """Return the complaint about data that the validator refuses, or ``None``."""
    try:
        validate(data)
    except ValueError as error:
        return f"That does not fit: {error}. {again}"
    except RecursionError:
        # A validator of the application's own may follow the data as deep as it goes.
        return f"That does not fit: {_TOO_DEEP}. {again}"
    return None


def _read_kind(schema: Mapping[str, Any]) -> str:
    """Return the JSON type that a schema names, ``"value"`` where it names several."""
    kind = schema.get("type", "object")
    return kind if isinstance(kind, str) else "value"


def find_json(text: str, schema: Mapping[str, Any] | None = None) -> str:
    """Return the JSON in an answer, which models often put into a code block.

    Args:
        text: The answer.
        schema: JSON schema of the data; without one a JSON object is looked for.
    """
    kind = _read_kind(schema or {})
    if kind not in _BRACKETS:
        return text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    opening, closing = _BRACKETS[kind]
    start, end = text.find(opening), text.rfind(closing)
    # Without brackets the text is tried as it is, so that the complaint is about what was said.
    return text[start : end + 1] if 0 <= start < end else text


def make_json_schema_validator(schema: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a function that checks data against a JSON schema and returns it.

    Raises:
        InvalidInputError: The schema is none, or refers to what is not in it.
    """
    # Imported late: only JSON schemas need them.
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry

    try:
        _check_schema(schema)
    except SchemaError as error:
        raise InvalidInputError(f"Not a JSON schema: {error.message}.") from error
    except RecursionError:
        raise InvalidInputError(f"Not a JSON schema: {_TOO_DEEP}.") from None
    # Made once, as a chain is called many times; of a registry that fetches nothing.
    checker = Draft202012Validator(schema, registry=Registry())

    def validate(data: Any) -> Any:
        try:
            # All at once: each repair is a turn, so one of them should be enough for every fault.
            problems = [error.message for error in checker.iter_errors(data)]
        except RecursionError:
            # A schema that refers to itself is followed as deep as the data goes.
            raise ValueError(_TOO_DEEP) from None
        if problems:
            raise ValueError("; ".join(problems))
        return data

    return validate


def _check_schema(schema: Mapping[str, Any]) -> None:
    """Check a schema with all that its references lead to, which may stand anywhere in it.

    Raises:
        SchemaError: It is none, or a reference leads to what is none.
        InvalidInputError: It refers to what is not in it.
    """
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    root: Registry[Any] = Registry()
    # Each with the resolver of its references, and whether it is read by an older draft.
    unchecked: list[tuple[Any, Any, bool]] = [
        (schema, root.resolver_with_root(DRAFT202012.create_resource(schema)), False)
    ]
    seen: set[tuple[int, bool]] = set()
    while unchecked:
        whole, resolver, older = unchecked.pop()
        if (id(whole), older) in seen:
            continue
        Draft202012Validator.check_schema(whole)
        parts = [(whole, resolver, older)]
        while parts:
            part, resolver, older = parts.pop()
            if not isinstance(part, Mapping):
                continue
            seen.add((id(part), older))
            # From a part that names another draft on, jsonschema reads by that.
            older = older or _names_older_draft(part)
            named = _REFERENCES & part.keys()
            unchecked += [(*_follow(part[name], resolver), older) for name in named]
            if older:
                unchecked += [(other, resolver, older) for other in _list_older_parts(part)]
            # Elsewhere (in examples, say) what looks like a reference is data.
            for inner in DRAFT202012.subresources_of(part):
                own = resolver.in_subresource(DRAFT202012.create_resource(inner))
                parts.append((inner, own, older))


def _names_older_draft(schema: Mapping[str, Any]) -> bool:
    from referencing.jsonschema import DRAFT202012, specification_with

    named = schema.get("$schema")
    return named is not None and specification_with(named, default=DRAFT202012) is not DRAFT202012


def _follow(reference: str, resolver: Any) -> tuple[Any, Any]:
    """Return what a reference leads to, and the resolver of the references in there."""
    from referencing.exceptions import Unresolvable

    try:
        found = resolver.lookup(reference)
    # The other two: it is no address, or leads into what has no parts.
    except (Unresolvable, ValueError, TypeError) as error:
        # Nothing is fetched for a schema.
        raise InvalidInputError(
            f"The JSON schema refers to {reference!r}, which is not in it.",
            hint="Put it under '$defs' of the schema.",
        ) from error
    return found.contents, found.resolver


def _list_older_parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas under keywords that only older drafts have."""
    held = [*schema.get("dependencies", {}).values()]
    for keyword in _OLDER:
        value = schema.get(keyword)
        held += value if isinstance(value, list) else [value]
    # Some of them take names as well.
    yield from (item for item in held if isinstance(item, Mapping))


def check_repairs(repairs: int | None, output_schema: Any) -> int:
    """Return how often an answer may be mended.

    Raises:
        InvalidInputError: It is no such number, or nothing was asked for that could be mended.
    """
    if repairs is None:
        return REPAIRS
    if output_schema is None:
        raise InvalidInputError("output_repairs is for an answer with an output_schema.")
    if type(repairs) is not int or repairs < 0:
        raise InvalidInputError(f"output_repairs must be 0 or more, not {repairs!r}.")
    return repairs


def add_wish(message: Any, wish: str) -> Any:
    """Return a message that also tells what is wanted.

    Raises:
        InvalidInputError: The message itself is none.
    """
    # Checked by itself: with the wish behind it, an empty message would pass for a good one.
    to_wire(message)
    if isinstance(message, str):
        return f"{message}\n\n{wish}"
    parts = message if isinstance(message, list | tuple) else [message]
    return [*parts, wish]


async def run_structured(
    run: Callable[[Any, str | None], Awaitable[ResultMessage]],
    message: Any,
    otid: str | None,
    wanted: OutputSchema[T],
    repairs: int,
) -> StructuredResult[T]:
    """Ask for data of a shape, and have an answer mended that does not fit.

    Args:
        run: Runs one turn: its message, and the message's id.
        message: The message.
        otid: The id of the first message.
        wanted: The shape.
        repairs: How often the answer may be mended.
    """
    first = await run(add_wish(message, wanted.wish), otid)
    return await mend(run, first, wanted, repairs)


async def mend(
    run: Callable[[Any, str | None], Awaitable[ResultMessage]],
    result: ResultMessage,
    wanted: OutputSchema[T],
    repairs: int,
) -> StructuredResult[T]:
    """Read the answer of a turn as data of a shape, and have one mended that does not fit.

    Args:
        run: Runs a further turn: its message, and the message's id.
        result: The result of the turn.
        wanted: The shape.
        repairs: How often the answer may be mended.
    """
    for left in range(repairs, -1, -1):
        if not result.success:
            break
        value, problem = wanted.read(result.result or "")
        if problem is None:
            return _as_structured(result, value)
        if not left:
            # Without the words that tell the agent what to do: the caller reads this one.
            return _as_structured(_fail(result, problem.removesuffix(f" {wanted.wish}")), None)
        # With an id of its own: under the first one's a server may answer with the first answer.
        result = _join(result, await run(problem, None))
    return _as_structured(result, None)


def _join(first: ResultMessage, then: ResultMessage) -> ResultMessage:
    """Return the later result with what both turns took."""
    return replace(
        then,
        usage=first.usage + then.usage,
        duration_ms=first.duration_ms + then.duration_ms,
        run_ids=(*first.run_ids, *then.run_ids),
        recovered=(*first.recovered, *then.recovered),
        # The message that was asked is stored, whatever became of a complaint about its answer.
        input_stored=True if not then.success else then.input_stored,
    )


def _fail(result: ResultMessage, problem: str) -> ResultMessage:
    return replace(
        result,
        success=False,
        result=None,
        partial=result.result or "",
        error_code=StructuredOutputError.default_code,
        error_detail=problem,
        input_stored=True,
    )


def _as_structured(result: ResultMessage, value: T | None) -> StructuredResult[T]:
    plain = {f.name: getattr(result, f.name) for f in fields(result)}
    return StructuredResult(**plain, value=value)
