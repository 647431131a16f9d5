"""What names no target, time, tool or field is refused by name, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, RootModel

from letta_adapters import InvalidInputError
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

HALF = "half \ud83d of it"


def look(city: str) -> str:
    """Look at a city."""
    return f"sunny in {city}"


def named(name: str) -> dict[str, Any]:
    return {"name": name, "description": "x", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize("make", [ChatLetta, LettaRunnable])
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"agent_id": ""}, "agent_id"),
        ({"agent_id": "  "}, "agent_id"),
        ({"conversation_id": ""}, "conversation_id"),
        ({"thread_id": ""}, "thread_id"),
        ({"model": ""}, "model"),
        ({"agentid": "agent-1"}, "'agentid'.*'agent_id'"),
        ({"temprature": 0.1}, "'temprature'.*'temperature'"),
        ({"timeout": 0}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
        ({"temperature": "hot"}, "temperature"),
        ({"session_options": {"permision_mode": "plan"}}, "permision_mode.*permission_mode"),
        ({"stop": 3}, "stop"),
    ],
    ids=str,
)
def test_a_field(make: Callable[..., Any], fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as raised:
        make(**fields)
    assert isinstance(raised.value, ModelError)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"agent_id": ""}, "agent_id"),
        ({"agent_id": "../../v1/agents"}, "agent_id"),
        ({"conversation_id": ""}, "conversation_id"),
        ({"thread_id": " "}, "thread_id"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"max_steps": 0}, "max_steps"),
        ({"model": ""}, "model"),
        ({"stop": 3}, "stop"),
        ({"surprise": 1}, "surprise"),
        ({"thread_id": HALF}, "thread_id"),
    ],
    ids=str,
)
async def test_an_argument_of_a_call(
    letta_fake: FakeLetta, given: dict[str, Any], says: str
) -> None:
    model = ChatLetta(client=letta_fake.client())
    with pytest.raises(InvalidInputError, match=says):
        model.invoke("hello", **given)
    with pytest.raises(InvalidInputError, match=says):
        await model.ainvoke("hello", **given)
    assert letta_fake.requests == []


@pytest.mark.parametrize("name", ["conversation_id", "thread_id"])
def test_an_empty_name_in_the_configuration(letta_fake: FakeLetta, name: str) -> None:
    model = ChatLetta(client=letta_fake.client())
    with pytest.raises(InvalidInputError, match=name):
        model.invoke("hello", {"configurable": {name: ""}})
    assert letta_fake.requests == []


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([{"type": "web_search_20250305"}], "web_search_20250305"),
        ([{"type": "web_search_20250305", "name": "web_search"}], "another provider"),
        ([{"type": "web_search"}], "another provider"),
        ([{"type": "code_interpreter", "container": {"type": "auto"}}], "another provider"),
        ([look, look], "Two tools"),
        ([named("look"), look], "Two tools"),
        ([named("two words")], "two words"),
        ([named("x" * 100)], "x{100}"),
        ([named("")], "not a tool name"),
        ([3], "not a tool"),
        ([{"name": "l", "parameters": {"type": "array", "items": {}}}], "array"),
    ],
    ids=range(11),
)
def test_a_tool(tools: list[Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as raised:
        ChatLetta().bind_tools(tools)
    assert isinstance(raised.value, ModelError)


def test_a_choice_of_no_tool() -> None:
    with pytest.raises(ModelError, match="tool_choice"):
        ChatLetta().bind_tools([], tool_choice="any")
    with pytest.raises(ModelError, match="paint"):
        ChatLetta().bind_tools([look], tool_choice="paint")


@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage(HALF)],
        [SystemMessage(HALF), HumanMessage("go")],
        [AIMessage(HALF), HumanMessage("go")],
        [HumanMessage("go", name=HALF)],
        [HumanMessage([{"type": "text", "text": HALF}])],
    ],
    ids=["human", "system", "ai", "name", "part"],
)
def test_half_a_character(letta_fake: FakeLetta, messages: list[Any]) -> None:
    with pytest.raises(InvalidInputError, match="surrogate"):
        ChatLetta(client=letta_fake.client()).invoke(messages)
    assert letta_fake.requests == []


def test_half_a_character_in_what_a_tool_gave_is_replaced(letta_fake: FakeLetta) -> None:
    """A file's name may hold one, and nobody is to blame."""

    def look(city: str) -> str:
        """Look at a city."""
        return HALF

    letta_fake.script(Reply(tool_calls=[ToolUse("look", {"city": "Rome"}, id="c1")]), "Done.")
    agent = LettaRunnable(client=letta_fake.client(), tools=[look], output="text")
    assert agent.invoke("go") == "Done."
    (told,) = letta_fake.requests[-1]["messages"][0]["approvals"]
    assert told["tool_return"] == "half ? of it"


@pytest.mark.parametrize("stop", ["word4", ["word4"], ("word4", "word5")])
def test_one_text_that_ends_the_answer_is_one_text(letta_fake: FakeLetta, stop: Any) -> None:
    letta_fake.script("word1 word2 word3 word4 word5", "word1 word4")
    model = ChatLetta(client=letta_fake.client())
    assert model.invoke("go", stop=stop).text == "word1 word2 word3 "
    assert ChatLetta(client=letta_fake.client(), stop=stop).invoke("go").text == "word1 "


LIST: dict[str, Any] = {"title": "Numbers", "type": "array", "items": {"type": "integer"}}


class Numbers(RootModel[list[int]]):
    """Some numbers."""


@pytest.mark.parametrize(
    ("schema", "good", "bad", "value"),
    [
        (LIST, "Here: [1, 2]", '["one"]', [1, 2]),
        (LIST, "```json\n[1, 2]\n```", '{"a": 1}', [1, 2]),
        ({"type": "array", "items": {"type": "object", "required": ["a"]}},
         '[{"a": 1}, {"a": 2}]', '[{"b": 1}]', [{"a": 1}, {"a": 2}]),
        ({"type": "integer"}, " 3 ", '"three"', 3),
        ({"title": "M", "type": "object", "additionalProperties": {"type": "integer"}},
         '{"a": 1}', '{"a": "one"}', {"a": 1}),
        ({"title": "R", "$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "required": ["x"]}}},
         '{"x": 1}', '{"y": 1}', {"x": 1}),
        ({"name": "r", "schema": {"type": "object", "required": ["x"]}, "strict": True},
         '{"x": 1}', '{"y": 1}', {"x": 1}),
        (Numbers, "[1, 2]", '["one"]', Numbers([1, 2])),
    ],
    ids=["list", "fenced list", "list of objects", "integer", "map", "reference", "OpenAI", "root"],
)  # fmt: skip
def test_a_json_schema_of_any_type_is_checked(
    letta_fake: FakeLetta, schema: Any, good: str, bad: str, value: Any
) -> None:
    letta_fake.script(bad, good)
    model = ChatLetta(client=letta_fake.client())
    chain = model.with_structured_output(schema, method="json_schema")
    assert chain.invoke("go") == value
    assert len(letta_fake.requests) == 2


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (LIST, "json_schema"),
        ({"type": "object", "properties": {"x": {"type": "integer"}}}, "title"),
        (Numbers, "array"),
        (None, "schema"),
    ],
    ids=["list", "no title", "root", "none"],
)
def test_a_schema_that_no_tool_can_have(schema: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        ChatLetta().with_structured_output(schema, method="function_calling")


def test_a_map_as_a_tool_s_arguments_is_checked(letta_fake: FakeLetta) -> None:
    schema = {"title": "M", "type": "object", "additionalProperties": {"type": "integer"}}
    letta_fake.script(
        Reply(tool_calls=[ToolUse("M", {"a": "one"}, id="c1")]),
        Reply(tool_calls=[ToolUse("M", {"a": 1}, id="c2")]),
    )
    chain = ChatLetta(client=letta_fake.client()).with_structured_output(schema)
    assert chain.invoke("go") == {"a": 1}


class Person(BaseModel):
    """A person."""

    name: str


def test_ordinary_tools_are_taken() -> None:
    tools: list[Any] = [look, Person, named("paint"), {"type": "function", "function": named("p")}]
    tools += [Person.model_json_schema(), named("paint")]
    bound: Any = ChatLetta().bind_tools(tools)
    assert [t["function"]["name"] for t in bound.kwargs["tools"]] == [
        "look", "Person", "paint", "p"
    ]  # fmt: skip


@pytest.mark.parametrize("make", [ChatLetta, LettaRunnable])
def test_a_session_s_own_option(letta_fake: FakeLetta, make: Any) -> None:
    with pytest.raises(ValueError, match="for sessions alone"):
        make(client=letta_fake.client(), session_options={"can_use_tool": lambda *_: False})
    assert letta_fake.requests == []
