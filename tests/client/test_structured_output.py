"""``run_turn(output_schema=...)`` and its like: the object, mending, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from typing_extensions import TypedDict

from letta_adapters import (
    AsyncLettaClient,
    InvalidInputError,
    LettaClient,
    Rest,
    StructuredOutputError,
    aprompt,
    prompt,
)
from letta_adapters.client.structured import read_output_schema
from letta_adapters.messages import message_from_dict
from letta_adapters.testing.fakes import FakeLetta
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import stream


class Author(BaseModel):
    name: str
    born: int


@dataclass
class Point:
    x: int
    y: int


class City(TypedDict):
    name: str


AUTHOR = '{"name": "Jane Austen", "born": 1775}'
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("wanted", "answer", "output"),
    [
        (Author, AUTHOR, Author(name="Jane Austen", born=1775)),
        (Author, f"Here it is:\n```json\n{AUTHOR}\n```", Author(name="Jane Austen", born=1775)),
        (Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (City, '{"name": "Rome"}', {"name": "Rome"}),
        (SCHEMA, '{"n": 3}', {"n": 3}),
        (list[Point], '[{"x": 1, "y": 2}]', [Point(1, 2)]),
        ({"type": ["null", "integer"]}, "null", None),
    ],
    ids=["model", "fenced", "dataclass", "typed dict", "schema", "list", "null"],
)
def test_the_answer_is_read_as_what_was_asked_for(wanted: Any, answer: str, output: Any) -> None:
    fake = FakeLetta(answer)
    with fake.client() as client, client.create_session() as session:
        result = session.run_turn("Tell me.", output_schema=wanted)
    assert result.success
    assert result.output == output
    assert result.result == answer
    # What is stored of it is a result like any other.
    assert message_from_dict(result.to_dict()).to_dict() == result.to_dict()


async def test_an_answer_that_does_not_fit_is_mended_and_both_turns_are_counted() -> None:
    fake = FakeLetta('{"name": "Jane Austen"}', AUTHOR)
    async with fake.async_client() as client, client.create_session() as session:
        result = await session.run_turn("Who wrote Emma?", output_schema=Author)
    assert result.output == Author(name="Jane Austen", born=1775)
    assert result.usage.step_count == 2
    assert len(result.run_ids) == 2


def test_an_answer_that_is_never_right_is_a_typed_error_with_its_text() -> None:
    fake = FakeLetta("I do not know.", '{"n": "three"}')
    with fake.client() as client, client.create_session() as session:
        result = session.run_turn("Count.", output_schema=SCHEMA)
    assert (result.success, result.result, result.partial) == (False, None, '{"n": "three"}')
    assert result.input_stored
    with pytest.raises(StructuredOutputError, match="'three' is not of type 'integer'") as caught:
        print(result.output)
    assert caught.value.text == '{"n": "three"}'
    assert "'three' is not of type 'integer'" in caught.value.problem
    with pytest.raises(StructuredOutputError):
        result.raise_for_status()


def test_without_repairs_the_agent_is_asked_once() -> None:
    fake = FakeLetta("No.", AUTHOR)
    with fake.client() as client, client.create_session() as session:
        result = session.run_turn("Who?", output_schema=Author, output_repairs=0)
        assert result.error_code == "invalid_structured_output"
        # The second answer was not asked for.
        assert session.run_turn("And now?").result == AUTHOR


def nest_schema(depth: int) -> dict[str, Any]:
    """Return a schema of objects in objects."""
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


class Odd(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    thing: FakeLetta


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        "Author",
        Author(name="a", born=1),
        Odd,
        {"type": "objekt"},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#/$defs/nothing"},
        {"$ref": "http://["},
        {"title": "a", "$ref": "#/title"},
        {"title": "a", "$ref": "#/title/b"},
        nest_schema(2000),
    ],
    ids=[
        *("empty", "text", "object", "no schema", "no json schema", "elsewhere", "dangling"),
        *("no address", "leads to text", "leads into text", "too deep"),
    ],
)
def test_what_describes_no_data_is_refused_before_anything_is_sent(wanted: Any) -> None:
    fake = FakeLetta("Hello.")
    with fake.client() as client, client.create_session() as session:
        with pytest.raises(InvalidInputError):
            session.run_turn("Hi", output_schema=wanted)
        assert session.run_turn("Hi").result == "Hello."  # the first that the agent was asked


ELSEWHERE = {"$ref": "https://example.org/schema.json"}


@pytest.mark.parametrize(
    "wanted",
    [
        {"$defs": {"a": ELSEWHERE}},
        {"definitions": {"a": ELSEWHERE}},
        {"properties": {"a": ELSEWHERE}},
        {"properties": {"const": ELSEWHERE, "$ref": {"type": "string"}}},
        {"patternProperties": {"^a": ELSEWHERE}},
        {"dependentSchemas": {"a": ELSEWHERE}},
        {"additionalProperties": ELSEWHERE},
        {"items": {"items": ELSEWHERE}},
        {"prefixItems": [True, ELSEWHERE]},
        {"allOf": [ELSEWHERE]},
        {"anyOf": [{"not": ELSEWHERE}]},
        {"if": True, "then": ELSEWHERE},
        {"unevaluatedProperties": ELSEWHERE},
        {"$dynamicRef": "https://example.org/schema.json"},
        # A part that names an older draft has the keywords of that draft.
        {"$schema": "http://json-schema.org/draft-03/schema#", "extends": ELSEWHERE},
        {"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ELSEWHERE}},
        {
            "items": {"$ref": "#/$defs/b"},
            "not": {"$schema": "http://json-schema.org/draft-03/schema#", "$ref": "#/$defs/b"},
            "$defs": {"b": {"items": {"disallow": ["string", ELSEWHERE]}}},
        },
        # What holds no schema does hold one where a reference leads into it.
        {"$ref": "#/examples/0", "examples": [ELSEWHERE]},
        {"$ref": "#/x-more/a", "x-more": {"a": {"items": ELSEWHERE}}},
        {
            "$ref": "#/$defs/b",
            "$defs": {"b": {"const": {"$ref": "#/$defs/c"}, "allOf": [ELSEWHERE]}},
        },
    ],
    ids=lambda wanted: next(iter(wanted)),
)
def test_a_reference_to_elsewhere_is_refused_wherever_a_schema_can_stand(wanted: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"'https://example.org/schema.json', which is not"):
        read_output_schema(wanted)


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ({"type": "object", "examples": [{"$ref": "#/nowhere"}]}, {"a": 1}),
        ({"properties": {"a": {"const": {"$ref": "x"}}}}, {"a": {"$ref": "x"}}),
        ({"properties": {"a": {"enum": [{"$ref": "x"}]}}}, {"a": {"$ref": "x"}}),
        ({"properties": {"a": {"default": {"$ref": "x"}}}}, {"a": 1}),
        ({"type": "object", "example": {"$ref": "x"}}, {"a": 1}),
        ({"type": "object", "extends": {"$ref": "x"}, "disallow": {"type": 5}}, {"a": 1}),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "dependencies": {"a": ["b"], "c": {"required": ["d"]}},
            },
            {"a": 1, "b": 2},
        ),
        ({"properties": {"$ref": {"type": "string"}}}, {"$ref": "anything"}),
        ({"properties": {"$ref": {"$ref": "#/$defs/a"}}, "$defs": {"a": {}}}, {"$ref": "anything"}),
        ({"$ref": "#/examples/0", "examples": [{"required": ["a"]}]}, {"a": 1}),
        ({"$ref": "#b", "$defs": {"c": {"$anchor": "b", "required": ["a"]}}}, {"a": 1}),
        ({"properties": {"a": {"$dynamicRef": "#n"}}, "$dynamicAnchor": "n"}, {"a": {"a": {}}}),
        (
            {
                "$id": "https://example.org/one",
                "properties": {"a": {"$id": "in/", "$ref": "two"}},
                "$defs": {"b": {"$id": "in/two", "type": "integer"}},
            },
            {"a": 1},
        ),
    ],
    ids=[
        *("examples", "const", "enum", "default", "unknown keyword", "words of an older draft"),
        *("an older draft", "a property's name"),
        *("a property of that name", "into examples", "anchor", "dynamic", "with names"),
    ],
)
def test_what_only_looks_like_a_reference_is_none(wanted: Any, answer: Any) -> None:
    with FakeLetta(json.dumps(answer)).client() as client, client.create_session() as session:
        assert session.run_turn("Tell me.", output_schema=wanted).output == answer


class Chain(BaseModel):
    c: Chain | None = None


@pytest.mark.parametrize("depth", [300, 900])
@pytest.mark.parametrize(
    "wanted",
    [{"type": "object", "properties": {"c": {"$ref": "#"}}}, Chain],
    ids=["schema", "model"],
)
def test_an_answer_that_is_nested_too_deeply_does_not_fit(wanted: Any, depth: int) -> None:
    deep = '{"c":' * depth + "{}" + "}" * depth
    with FakeLetta(deep, "{}", deep).client() as client, client.create_session() as session:
        assert session.run_turn("Tell me.", output_schema=wanted).success
        failed = session.run_turn("Again.", output_schema=wanted, output_repairs=0)
    assert failed.error_code == "invalid_structured_output"


class Climber(BaseModel):
    c: Any

    @field_validator("c")
    @classmethod
    def climb(cls, value: int) -> int:
        """Count down by calling itself, as a function that follows nested data does."""
        return value if value <= 0 else cls.climb(value - 1)


def test_a_validator_that_goes_too_deep_refuses_the_answer() -> None:
    fake = FakeLetta('{"c": 100000}', '{"c": 3}')
    with fake.client() as client, client.create_session() as session:
        assert session.run_turn("Tell me.", output_schema=Climber).output.c == 0


@pytest.mark.parametrize(
    "options", [{"output_repairs": 1}, {"output_schema": City, "output_repairs": -1}]
)
def test_repairs_are_a_number_and_need_a_schema(options: dict[str, Any]) -> None:
    with FakeLetta().client() as client, client.create_session() as session:
        with pytest.raises(InvalidInputError, match="output_repairs"):
            session.run_turn("Hi", **options)
        with pytest.raises(InvalidInputError):
            session.run_turn("", output_schema=City)


def test_one_question_may_ask_for_data() -> None:
    wanted = Author(name="Jane Austen", born=1775)
    fake = FakeLetta(AUTHOR, "No.", AUTHOR, '{"n": 3}')
    with fake.client() as client:
        assert client.prompt("Who?", output_schema=Author).output == wanted
        assert prompt("Who?", client=client, output_schema=Author).output == wanted
        counted = prompt("Count.", client=client, output_schema=SCHEMA, output_repairs=0)
        assert counted.output == {"n": 3}
        for refused in ({"output_schema": {}}, {"output_repairs": 1}):
            with pytest.raises(InvalidInputError):
                client.prompt("Hi", **refused)


async def test_one_question_may_ask_for_data_on_an_event_loop() -> None:
    async with FakeLetta(AUTHOR, "No.", AUTHOR).async_client() as client:
        told = await client.prompt("Who?", output_schema=Author)
        assert told.output.name == "Jane Austen"
        mended = await aprompt("Who?", client=client, output_schema=Author)
        assert (mended.output.born, mended.usage.step_count) == (1775, 2)


def says(text: str) -> Any:
    return stream(ev.ping(), ev.text(text), ev.ending())


NOT_RUN = {"call_1": False}


async def test_the_answer_after_an_approval_is_read_as_data() -> None:
    """The message asked for it; what does not fit goes back with what is wanted."""
    with Server() as server:
        async with AsyncLettaClient(Rest(base_url=server.url)) as client:
            server.leave_pending(ev.call("count", "call_1"))
            server.script(says("There are three."), says('{"n": 3}'))
            session = client.resume_session(agent_id=ev.AGENT, conversation_id=ev.CONV)
            with pytest.raises(InvalidInputError):
                await session.respond_turn(NOT_RUN, output_schema={})
            assert server.sent() == []
            result = await session.respond_turn(NOT_RUN, output_schema=SCHEMA)
            assert result.output == {"n": 3}
            assert "fits this JSON schema" in server.texts()[-1]
        with LettaClient(Rest(base_url=server.url)) as blocking:
            server.leave_pending(ev.call("count", "call_1"))
            server.script(says("Three."))
            again = blocking.resume_session(agent_id=ev.AGENT, conversation_id=ev.CONV)
            failed = again.respond_turn(NOT_RUN, output_schema=SCHEMA, output_repairs=0)
    assert (failed.error_code, failed.partial) == ("invalid_structured_output", "Three.")
