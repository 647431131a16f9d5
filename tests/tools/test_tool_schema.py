"""JSON schemas from signatures and docstrings, written out; arguments checked by them."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

import pydantic
import pytest
from pydantic import BaseModel, Field
from typing_extensions import Doc, NotRequired, TypedDict

from letta_adapters.errors import InvalidInputError
from letta_adapters.tools.client_side import Tool, tool
from letta_adapters.tools.schema import (
    make_schema,
    normalise_parameters,
    read_docstring,
    without_titles,
)


class Unit(enum.Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


class Place(BaseModel):
    """Somewhere."""

    title: str = Field(description="What it is called.")
    near: Place | None = None


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Options(TypedDict):
    speed: int
    label: NotRequired[str]


class Opaque:
    pass


def properties(fn: Callable[..., Any]) -> dict[str, Any]:
    return tool(fn).parameters["properties"]


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# --- schemas ----------------------------------------------------------------


def test_a_documented_function() -> None:
    def get_weather(city: str, days: int = 1, *, unit: Literal["C", "F"] = "C") -> str:
        """Look up the weather.

        Forecasts reach ten days.

        Args:
            city: Its name,
                in English.
            days (int): How many days ahead.
        """
        return ""

    made = tool(get_weather)
    assert made.to_wire() == {
        "name": "get_weather",
        "description": "Look up the weather.\n\nForecasts reach ten days.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name, in English."},
                "days": {"type": "integer", "default": 1, "description": "How many days ahead."},
                "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            },
            "required": ["city"],
        },
    }
    assert list(made.parameters) == ["type", "properties", "required"]


def test_nothing_to_say_and_nothing_to_take() -> None:
    def ping() -> None: ...

    assert tool(ping).to_wire() == {
        "name": "ping",
        "description": "ping",
        "parameters": {"type": "object", "properties": {}, "required": []},
    }


def test_types() -> None:
    def fn(
        a: list[int],
        b: dict[str, float],
        c: str | None,
        d: Union[int, str],  # noqa: UP007  # the old spellings are asked about, too
        e: bool = False,
        f: Optional[int] = None,  # noqa: UP045
        g: Any = None,
        h: Annotated[int, Field(ge=1, le=9, description="One digit.")] = 3,
        i: "Literal['x']" = "x",  # noqa: UP037
    ) -> None: ...

    assert tool(fn).parameters == {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "integer"}},
            "b": {"type": "object", "additionalProperties": {"type": "number"}},
            "c": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "d": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "e": {"type": "boolean", "default": False},
            "f": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
            "g": {"default": None},
            "h": {
                "type": "integer",
                "minimum": 1,
                "maximum": 9,
                "default": 3,
                "description": "One digit.",
            },
            "i": properties(fn)["i"],  # "const", and in some versions "enum" and "type" beside it
        },
        "required": ["a", "b", "c", "d"],
    }
    assert properties(fn)["i"]["const"] == "x"
    assert properties(fn)["i"]["default"] == "x"


def test_nested_types_keep_their_definitions_and_lose_their_titles() -> None:
    def travel(
        to: Place,
        via: list[Point],
        options: Options,
        unit: Unit = Unit.CELSIUS,
        home: Point = Point(1.0),  # noqa: B008  # a default that is no JSON
    ) -> None:
        """Go.

        :param to: Where to.
        """

    assert tool(travel).parameters == {
        "type": "object",
        "properties": {
            "to": {"$ref": "#/$defs/Place", "description": "Where to."},
            "via": {"type": "array", "items": {"$ref": "#/$defs/Point"}},
            "options": {"$ref": "#/$defs/Options"},
            "unit": {"$ref": "#/$defs/Unit", "default": "C"},
            "home": {"$ref": "#/$defs/Point", "default": {"x": 1.0, "y": 0.0}},
        },
        "required": ["to", "via", "options"],
        "$defs": {
            "Place": {
                "type": "object",
                "description": "Somewhere.",
                "properties": {
                    "title": {"type": "string", "description": "What it is called."},
                    "near": {
                        "anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}],
                        "default": None,
                    },
                },
                "required": ["title"],
            },
            "Point": {
                "type": "object",
                "properties": {
                    "x": {"type": "number"},
                    "y": {"type": "number", "default": 0.0},
                },
                "required": ["x"],
            },
            "Options": {
                "type": "object",
                "properties": {"speed": {"type": "integer"}, "label": {"type": "string"}},
                "required": ["speed"],
            },
            "Unit": {"type": "string", "enum": ["C", "F"]},
        },
    }


def test_unannotated_parameters_take_anything() -> None:
    def fn(a, b=5):
        return a, b

    assert tool(fn).parameters == {
        "type": "object",
        "properties": {"a": {}, "b": {"default": 5}},
        "required": ["a"],
    }
    assert tool(fn).parse_arguments('{"a": [1]}') == {"a": [1], "b": 5}


def test_awkward_names() -> None:
    def fn(json: int, schema: int, _x: int, model_config: int, p0: int, title: str) -> None: ...

    names = ["json", "schema", "_x", "model_config", "p0", "title"]
    assert list(properties(fn)) == names
    parsed = tool(fn).parse_arguments(
        '{"json": 1, "schema": 2, "_x": 3, "model_config": 4, "p0": 5, "title": "t"}'
    )
    assert list(parsed.values()) == [1, 2, 3, 4, 5, "t"]


def test_descriptions_nearest_to_the_parameter_win() -> None:
    def fn(
        a: Annotated[int, Field(description="field")],
        b: Annotated[int, "text"],
        c: Annotated[int, Doc("doc")],
        d: int = Field(4, description="default", ge=1),
        e: int = 0,
        f: Annotated[int, object()] = 0,
    ) -> None:
        """Do.

        Args:
            a: docstring
            b: docstring
            c: docstring
            d: docstring
            e: docstring
            unknown: docstring
        """

    found = {name: schema.get("description") for name, schema in properties(fn).items()}
    assert found == {
        "a": "field",
        "b": "text",
        "c": "doc",
        "d": "default",
        "e": "docstring",
        "f": None,
    }
    assert properties(fn)["d"] == {
        "type": "integer",
        "default": 4,
        "minimum": 1,
        "description": "default",
    }
    assert tool(fn).parse_arguments('{"a": 1, "b": 1, "c": 1}')["d"] == 4


def test_field_defaults_and_aliases() -> None:
    def fn(
        a: Annotated[int, Field(default=9)],
        b: Annotated[list[int], Field(default_factory=list)],
        from_: Annotated[str, Field(alias="from")],
        c: Annotated[int, Field(default=1)] = 2,
    ) -> None: ...

    parameters = tool(fn).parameters
    assert parameters["required"] == ["from"]
    assert parameters["properties"]["a"] == {"type": "integer", "default": 9}
    assert parameters["properties"]["c"]["default"] == 2
    assert tool(fn).parse_arguments('{"from": "x"}') == {"a": 9, "b": [], "from_": "x", "c": 2}


def test_none_as_default_may_be_said() -> None:
    def fn(
        a: int = None,  # noqa: RUF013  # what many write, and mean None too
        b: Annotated[int, Field(ge=2)] = None,  # noqa: RUF013
    ) -> None: ...

    assert properties(fn)["a"] == {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "default": None,
    }
    assert tool(fn).parse_arguments('{"a": null, "b": null}') == {"a": None, "b": None}
    assert "b: " in refused(tool(fn).parse_arguments, '{"b": 1}')


def test_defaults_that_json_cannot_hold_are_not_told() -> None:
    marker = object()

    def fn(a: int = 1, b: Any = marker) -> None: ...

    assert properties(fn) == {"a": {"type": "integer", "default": 1}, "b": {}}
    assert tool(fn).parse_arguments("{}")["b"] is marker


def test_what_partial_binds_is_not_the_models_to_choose() -> None:
    def fn(db: Opaque, city: str, limit: int = 5, flag: bool = False) -> str:
        """Search.

        Args:
            limit: How many.
        """
        return ""

    made = tool(functools.partial(functools.partial(fn, Opaque()), flag=True))
    assert made.to_wire() == {
        "name": "fn",
        "description": "Search.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "limit": {"type": "integer", "default": 5, "description": "How many."},
            },
            "required": ["city"],
        },
    }


def test_keyword_rest() -> None:
    def fn(a: int, **rest: Any) -> None: ...

    made = tool(fn)
    assert made.parameters == {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": True,
    }
    assert made.parse_arguments('{"a": 1, "b": [2]}') == {"a": 1, "b": [2]}


def test_wrapped_functions_show_the_signature_inside() -> None:
    def inner(city: str) -> str:
        """Inner."""
        return city

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> str:
        return inner(*args, **kwargs)

    assert tool(outer).description == "Inner."
    assert list(properties(outer)) == ["city"]
    assert list(properties(functools.lru_cache(inner))) == ["city"]


# --- refusals ---------------------------------------------------------------


def test_what_cannot_be_called_by_name() -> None:
    def positional(a: int, /) -> None: ...
    def rest(*names: str) -> None: ...

    assert "remove the '/'" in refused(tool, positional)
    assert "'a' of 'positional'" in refused(tool, positional)
    assert "takes *names" in refused(tool, rest)
    assert "bound method" in refused(tool, Tracker.unbound)


class Tracker:
    def unbound(self, a: int) -> None: ...


def test_what_cannot_be_described() -> None:
    def opaque(a: int, b: Opaque) -> None: ...
    def call(a: Callable[[], int]) -> None: ...
    # A name that nothing defines is what is refused.
    def lost(a: Nowhere) -> None: ...  # noqa: F821
    def inner(a: list[Nowhere]) -> None: ...  # noqa: F821

    message = refused(tool, opaque)
    assert message.startswith("Parameter 'b' of 'opaque' has no JSON schema: ")
    assert "functools.partial" in message
    assert "'a' of 'call'" in refused(tool, call)
    assert "name 'Nowhere' is not defined" in refused(tool, lost)
    assert "at module level" in refused(tool, inner)
    inner.__annotations__["a"] = list["Nowhere"]  # noqa: F821
    assert "'a' of 'inner'" in refused(tool, inner)
    assert "Nowhere" in refused(tool, inner)


def test_conflicting_names_are_blamed_on_the_function() -> None:
    def fn(a: Annotated[int, Field(alias="x")], b: Annotated[int, Field(alias="x")]) -> None: ...

    made = refused_or_tool(fn)
    assert made is None or list(made.parameters["properties"]) == ["x"]


def refused_or_tool(fn: Any) -> Tool | None:
    try:
        return tool(fn)
    except InvalidInputError:
        return None


def test_a_failure_that_is_no_single_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    from letta_adapters.tools import schema as _tool_schema

    real = _tool_schema._make_model

    def broken(fields: Any, docs: Any, module: str) -> Any:
        if len(fields) > 1:
            raise RuntimeError
        return real(fields, docs, module)

    monkeypatch.setattr(_tool_schema, "_make_model", broken)

    def fn(a: int, b: int) -> None: ...

    assert refused(tool, fn).startswith("'fn' has no JSON schema: RuntimeError.")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes it from 3.12 on")
def test_typing_typeddict_says_what_to_use() -> None:
    import typing

    old = typing.TypedDict("old", {"a": int})  # noqa: UP013  # what is refused

    def fn(a: int) -> None: ...

    fn.__annotations__["a"] = old
    assert "typing_extensions.TypedDict" in refused(tool, fn)


# --- arguments --------------------------------------------------------------


def test_arguments_are_coerced_as_json() -> None:
    def fn(
        a: int,
        b: tuple[int, str],
        c: datetime.date,
        d: UUID,
        e: Decimal,
        f: Unit,
        g: Place,
        h: Point,
        i: set[int],
        j: Options,
    ) -> None: ...

    parsed = tool(fn).parse_arguments(
        '{"a": "3", "b": [1, "x"], "c": "2024-02-29", "d": "12345678123456781234567812345678",'
        ' "e": "1.10", "f": "F", "g": {"title": "Rome", "near": {"title": "Ostia"}},'
        ' "h": {"x": 1}, "i": [1, 1], "j": {"speed": "7"}}'
    )
    assert parsed == {
        "a": 3,
        "b": (1, "x"),
        "c": datetime.date(2024, 2, 29),
        "d": UUID("12345678123456781234567812345678"),
        "e": Decimal("1.10"),
        "f": Unit.FAHRENHEIT,
        "g": Place(title="Rome", near=Place(title="Ostia")),
        "h": Point(1.0),
        "i": {1},
        "j": {"speed": 7},
    }


def test_defaults_are_the_functions_own_objects() -> None:
    shared: list[int] = []

    def fn(a: list[int] = shared, b: int = "odd") -> None: ...

    parsed = tool(fn).parse_arguments("{}")
    assert parsed["a"] is shared
    assert parsed["b"] == "odd"  # Python does not check defaults, so neither do we


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("{}", "city: is required"),
        ('{"city": 3}', "city: Input should be a valid string"),
        (
            '{"city": "Rome", "places": [{"title": "a"}, {}]}',
            "places.1.title: is required",
        ),
        ('{"city": "Rome", "town": 1}', "town: there is no such parameter"),
        ('{"town": 1}', "town: there is no such parameter; city: is required"),
        ("[]", "the arguments must be a JSON object"),
        ('"city"', "the arguments must be a JSON object"),
        ('{"city": "Ro', re.compile("EOF while parsing a string.*")),
        ("{'city': 1}", re.compile("key must be a string.*")),
    ],
)
def test_errors_are_short_and_name_the_field(raw: str, message: Any) -> None:
    def look_up(city: str, places: list[Place] = []) -> None: ...  # noqa: B006  # never run

    with pytest.raises(InvalidInputError) as caught:
        tool(look_up).parse_arguments(raw)
    text = caught.value.message
    assert text == str(caught.value)
    prefix = "Invalid arguments for look_up: "
    assert text.startswith(prefix)
    if isinstance(message, str):
        assert text == prefix + message
    else:
        assert message.fullmatch(text[len(prefix) :])
    assert "pydantic" not in text


def test_many_errors_are_cut() -> None:
    def fn(a: int, b: int, c: int, d: int, e: int, f: int, g: int) -> None: ...

    text = refused(tool(fn).parse_arguments, "{}")
    assert text.endswith("e: is required; and 2 more")


def test_unicode_and_big_numbers_survive() -> None:
    def fn(text: str, number: int) -> None: ...

    raw = '{"text": "h\\u00e9 \\ud83d\\ude00", "number": 123456789012345678901234567890}'
    assert tool(fn).parse_arguments(raw) == {
        "text": "hé 😀",
        "number": 123456789012345678901234567890,
    }
    for bad in ('{"text": "\\ud83d", "number": 1}', '{"text": "\ud83d", "number": 1}'):
        refused(tool(fn).parse_arguments, bad)


# --- docstrings -------------------------------------------------------------


@pytest.mark.parametrize(
    "doc",
    [
        """Short.

        Long one.

        Args:
            a: First.
            b (int, optional): Second
                line.

        Returns:
            Something.

        Raises:
            ValueError: never.
        """,
        """Short.

        Long one.

        Parameters
        ----------
        a : str
            First.
        b : int, optional
            Second
            line.

        Returns
        -------
        str
            Something.
        """,
        """Short.

        Long one.

        :param a: First.
        :param int b: Second
            line.
        :returns: Something.
        """,
        """Short.

        Long one.

        @param a: First.
        @param b: Second line.
        @return: Something.
        """,
    ],
    ids=["google", "numpy", "rest", "epydoc"],
)
def test_docstring_styles(doc: str) -> None:
    assert read_docstring(doc) == ("Short.\n\nLong one.", {"a": "First.", "b": "Second line."})


def test_odd_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_docstring(None) == ("", {})
    assert read_docstring("  \n") == ("", {})
    shared = "Short.\n\nParameters\n----------\nx, y : int\n    Both.\nz : int\n"
    assert read_docstring(shared) == ("Short.", {"x": "Both.", "y": "Both."})

    import docstring_parser

    def fail(doc: str) -> Any:
        raise docstring_parser.ParseError

    monkeypatch.setattr(docstring_parser, "parse", fail)
    assert read_docstring("Short.\n\n    Long.") == ("Short.\n\nLong.", {})


# --- schemas from elsewhere -------------------------------------------------


def test_titles_go_and_only_titles() -> None:
    schema = {
        "title": "T",
        "properties": {"title": {"title": "Title", "type": "string", "default": {"title": 1}}},
        "anyOf": [{"title": "A", "enum": [{"title": "kept"}]}],
        "items": {"title": "I"},
        "$defs": {"title": {"title": "D", "const": {"title": "kept"}}},
        "allOf": [{"$ref": "#/$defs/title"}],
        "additionalProperties": False,
    }
    assert without_titles(schema) == {
        "$ref": "#/$defs/title",
        "properties": {"title": {"type": "string", "default": {"title": 1}}},
        "anyOf": [{"enum": [{"title": "kept"}]}],
        "items": {},
        "$defs": {"title": {"const": {"title": "kept"}}},
        "additionalProperties": False,
    }
    kept = {"allOf": [{"$ref": "#/a"}, {"$ref": "#/b"}]}
    assert without_titles(kept) == kept


def test_a_schema_of_ones_own_is_completed_and_copied() -> None:
    own = {"properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    made = normalise_parameters(own, "t")
    assert made == {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": [],
        "additionalProperties": False,
    }
    made["properties"]["a"]["type"] = "string"
    assert own["properties"] == {"a": {"type": "integer"}}
    empty = {"type": "object", "properties": {}, "required": []}
    assert normalise_parameters(None, "t") == normalise_parameters({}, "t") == empty


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("object", "str"),
        ({"type": "string"}, "schema of an object"),
        ({"properties": ["a"]}, "schema of an object"),
        ({"required": True}, "'required'"),
        ({"required": "a"}, "'required'"),
        ({"required": [1]}, "'required'"),
        ({"properties": {"a": {"default": object()}}}, "not JSON"),
        ({"properties": {"a": {"default": float("nan")}}}, "not JSON"),
    ],
)
def test_a_schema_that_is_none(schema: Any, says: str) -> None:
    assert says in refused(normalise_parameters, schema, "t")


def test_schemas_of_models() -> None:
    class Old:  # what pydantic v1 models look like
        @staticmethod
        def schema() -> dict[str, Any]:
            return {"title": "Old", "description": "d", "properties": {"a": {"title": "A"}}}

    expected = {"type": "object", "properties": {"a": {}}, "required": []}
    assert make_schema(Old, "t") == expected
    assert make_schema({"title": "T", "properties": {"a": {"title": "A"}}}, "t") == expected
    assert make_schema(Place, "t")["$defs"]["Place"]["required"] == ["title"]
    assert "no JSON schema" in refused(make_schema, 3, "t")

    class Bad(BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        a: Opaque

    assert "no JSON schema" in refused(make_schema, Bad, "t")


def test_a_schema_nested_by_the_thousand_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(100_000):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(InvalidInputError, match="not JSON"):
        tool(lambda **_: 1, name="deep", parameters=schema)
    with pytest.raises(InvalidInputError, match="no JSON schema"):
        make_schema(schema, "deep")
