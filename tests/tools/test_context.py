"""The call that a tool is told of: which parameter takes it, and what it takes itself."""

from __future__ import annotations

import functools
import threading
from typing import Annotated, Any, Optional

import pytest

from letta_adapters import InvalidInputError, Tool, ToolContext, ToolProgressMessage, tool


def plain(city: str, context: ToolContext) -> str:
    """Look up."""
    return f"{city} {context.tool_call_id}"


def first(call: ToolContext, city: str) -> str:
    """Look up."""
    return f"{city} {call.tool_call_id}"


def optional(city: str, context: ToolContext | None = None) -> str:
    """Look up."""
    return f"{city} {context and context.tool_call_id}"


def older(city: str, *, context: Optional[ToolContext] = None) -> str:  # noqa: UP045
    """Look up."""
    return f"{city} {context and context.tool_call_id}"


def annotated(city: str, context: Annotated[ToolContext, "mine"]) -> str:
    """Look up."""
    return f"{city} {context.tool_call_id}"


class Desk:
    """A place to look things up."""

    async def look(self, city: str, context: ToolContext) -> str:
        """Look up."""
        return f"{city} {context.tool_call_id}"


@pytest.mark.parametrize("fn", [plain, first, optional, older, annotated, Desk().look])
@pytest.mark.parametrize("explicit", [False, True])
async def test_the_model_does_not_see_the_parameter(fn: Any, explicit: bool) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    made = tool(fn, parameters=schema) if explicit else tool(fn)
    assert made.parameters == schema
    result = await made.run({"city": "Oslo"}, context=ToolContext("call-1", "look"))
    assert (result.content, result.is_error) == ("Oslo call-1", False)
    # A tool that is made of a tool keeps it.
    again = await tool(made, name="other").run({"city": "Oslo"}, context=ToolContext("c", "look"))
    assert again.content == "Oslo c"


async def test_the_model_cannot_pass_one(fn: Any = plain) -> None:
    def greedy(context: ToolContext, **others: Any) -> str:
        """Take all."""
        return str(others)

    for made in (tool(plain), tool(greedy), tool(greedy, parameters={"properties": {}})):
        result = await made.run({"city": "Oslo", "context": {"tool_call_id": "mine"}})
        assert result.is_error
        assert "context: there is no such parameter" in str(result.content)


async def test_without_a_call_its_id_is_empty() -> None:
    assert (await tool(plain).run({"city": "Oslo"})).content == "Oslo "


async def test_a_bound_one_is_the_callers_own() -> None:
    mine = ToolContext("mine", "look")
    made = tool(functools.partial(plain, context=mine), name="look")
    assert made.context is None
    assert (await made.run({"city": "Oslo"})).content == "Oslo mine"


def two(a: ToolContext, b: ToolContext) -> None:
    """Take two."""


def by_place(a: ToolContext, /) -> None:
    """Take it by its place."""


def many(*a: ToolContext) -> None:
    """Take many."""


def named(**a: ToolContext) -> None:
    """Take all names."""


@pytest.mark.parametrize("fn", [two, by_place, many, named])
def test_it_is_one_parameter_with_a_name(fn: Any) -> None:
    with pytest.raises(InvalidInputError, match="must take its ToolContext in one parameter"):
        tool(fn)


def test_one_among_other_types_has_no_schema() -> None:
    def listed(a: list[ToolContext]) -> None:
        """Take a list."""

    with pytest.raises(InvalidInputError, match="Parameter 'a' of 'listed' has no JSON schema"):
        tool(listed)


def test_a_schema_of_ones_own_must_not_name_it() -> None:
    with pytest.raises(InvalidInputError, match="which is its ToolContext"):
        tool(plain, parameters={"properties": {"context": {"type": "string"}}})
    with pytest.raises(InvalidInputError, match="which is its ToolContext"):
        Tool("look", "Look.", {"properties": {"c": {}}}, handler=plain, context="c")


def test_a_tools_own_test_sees_its_reports() -> None:
    seen: list[ToolProgressMessage] = []
    context = ToolContext("call-1", "look", on_report=seen.append)
    context.report("one")
    context.report(progress=1, total=2)
    context.report("half \ud800", progress=0.5)
    assert seen == [
        ToolProgressMessage("call-1", "look", "one"),
        ToolProgressMessage("call-1", "look", "", 1, 2, 2),
        ToolProgressMessage("call-1", "look", "half ?", 0.5, None, 3),
    ]
    assert not context.stopped
    assert "ToolContext(tool_call_id='call-1', tool_name='look'" in repr(context)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"content": 3}, "takes a text, not int"),
        ({"content": None}, "takes a text, not NoneType"),
        ({"content": b"x"}, "takes a text, not bytes"),
        ({"progress": True}, "progress=True"),
        ({"progress": float("nan")}, "progress=nan"),
        ({"progress": 1, "total": float("inf")}, "total=inf"),
        ({"progress": "1"}, "progress='1'"),
        ({"content": "x", "total": [1]}, "total="),
        ({}, "needs a text"),
        ({"total": 3}, "needs a text"),
    ],
)
def test_what_is_no_report(given: dict[str, Any], says: str) -> None:
    seen: list[ToolProgressMessage] = []
    context = ToolContext("call-1", "look", on_report=seen.append)
    with pytest.raises(InvalidInputError) as raised:
        context.report(**given)
    assert says in raised.value.message
    context.report("one")
    assert [m.number for m in seen] == [1]


async def test_a_function_that_outlives_its_time_sees_that_it_is_stopped() -> None:
    ended = threading.Event()
    seen: list[ToolProgressMessage] = []

    def slow(context: ToolContext) -> None:
        """Wait."""
        context.report("one")
        while not context.stopped:
            threading.Event().wait(0.01)
        context.report("two")
        ended.set()

    context = ToolContext("call-1", "slow", on_report=seen.append)
    result = await tool(slow, timeout=0.05).run({}, context=context)
    assert "timed out" in str(result.content)
    assert ended.wait(20)
    assert [m.content for m in seen] == ["one"]
