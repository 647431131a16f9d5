"""Client-side tools: made from what users have, run, and their results formatted."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import enum
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field

from letta_adapters.content import ImageContent, TextContent, image_from_bytes
from letta_adapters.errors import InvalidInputError
from letta_adapters.tools import client_side
from letta_adapters.tools.client_side import (
    Tool,
    as_tool,
    as_tools,
    tool,
)
from letta_adapters.tools.result import ToolResult, format_error, format_result

PNG = image_from_bytes(b"\x89PNG\r\n\x1a\n")
EMPTY = {"type": "object", "properties": {}, "required": []}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
both = pytest.mark.parametrize("in_thread_loop", [False, True])


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def greet(name: str, times: int = 1) -> str:
    """Greet someone."""
    return " ".join(["hello", *[name] * times])


async def agreet(name: str, times: int = 1) -> str:
    """Greet someone."""
    await asyncio.sleep(0)
    return greet(name, times)


class Greeter:
    """Greets."""

    def __init__(self, word: str) -> None:
        self.word = word

    def greet(self, name: str) -> str:
        """Greet in your own word.

        Args:
            name: Whom.
        """
        return f"{self.word} {name}"

    def __call__(self, name: str) -> str:
        return self.greet(name)


class AsyncGreeter(Greeter):
    async def __call__(self, name: str) -> str:
        """Greet later."""
        return self.greet(name)


@dataclasses.dataclass
class Configured:
    word: str

    def __call__(self, name: str) -> str:
        return f"{self.word} {name}"


# --- making -----------------------------------------------------------------


def test_decorators() -> None:
    @tool
    def one(a: int) -> int:
        """One."""
        return a + 1

    @tool(name="renamed", description="Two!", timeout=5)
    def two(a: int) -> int:
        """Two."""
        return a + 2

    assert isinstance(one, Tool)
    assert (one.name, one.description, one.timeout) == ("one", "One.", None)
    assert one(1) == 2
    assert (two.name, two.description, two.timeout) == ("renamed", "Two!", 5)
    assert two.parse_arguments('{"a": "1"}') == {"a": 1}


@pytest.mark.parametrize(
    ("obj", "name", "description"),
    [
        (greet, "greet", "Greet someone."),
        (agreet, "agreet", "Greet someone."),
        (Greeter("hello").greet, "greet", "Greet in your own word."),
        (Greeter("hello"), "Greeter", "Greets."),
        (AsyncGreeter("hello"), "AsyncGreeter", "Greet later."),
        (Configured("hello"), "Configured", "Configured"),
        (functools.partial(greet, times=1), "greet", "Greet someone."),
        (functools.partial(agreet, times=1), "agreet", "Greet someone."),
        (functools.lru_cache(greet), "greet", "Greet someone."),
    ],
)
@both
async def test_callables(obj: Any, name: str, description: str, in_thread_loop: bool) -> None:
    made = as_tool(obj)
    assert (made.name, made.description) == (name, description)
    assert made.parameters["required"] == ["name"]
    outcome = await made.run('{"name": "Ada"}', in_thread_loop=in_thread_loop)
    assert outcome == ToolResult("hello Ada", is_error=False)


def test_a_tool_stays_itself_and_can_be_changed() -> None:
    made = tool(greet, timeout=3)
    again = tool(made, name="hi")
    assert (again.name, again.timeout, again.handler) == ("hi", 3, greet)
    assert again.parse_arguments('{"name": "Ada", "times": "2"}') == {"name": "Ada", "times": 2}
    assert as_tool(made).to_wire() == made.to_wire()
    assert repr(made).startswith("Tool(name='greet', ")


def test_lambdas_need_a_name() -> None:
    assert "name='...'" in refused(as_tool, lambda a: a)
    assert tool(lambda a: a, name="identity").to_wire() == {
        "name": "identity",
        "description": "identity",
        "parameters": {"type": "object", "properties": {"a": {}}, "required": ["a"]},
    }


async def test_a_schema_of_ones_own_takes_over() -> None:
    def anything(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    made = tool(anything, parameters={"properties": {"a": {"type": "integer"}}, "required": ["a"]})
    assert made.parameters["type"] == "object"
    assert await made.run('{"a": "1", "b": null}') == ToolResult('{"a":"1","b":null}')
    assert await made.run("{}") == ToolResult(
        "Invalid arguments for anything: a: is required", is_error=True
    )
    assert (await made.run("[1]")).content.endswith("must be a JSON object")
    assert (await made.run('{"a"')).is_error
    assert (await made.run('{"a":' * 100_000)).is_error
    changed = tool(tool(greet), parameters={"properties": {}})
    assert changed.parse_arguments('{"times": "2"}') == {"times": "2"}


@pytest.mark.parametrize("name", ["", "get weather", "a.b", "x" * 65, "né", "a\n", 3])
def test_bad_names(name: Any) -> None:
    assert "is not a tool name" in refused(Tool, name, "d", {})


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), True, "5"])
def test_bad_timeouts(timeout: Any) -> None:
    assert "seconds" in refused(tool, greet, timeout=timeout)


def test_other_refusals() -> None:
    def generate() -> Iterator[int]:
        yield 1

    async def agenerate() -> AsyncIterator[int]:
        yield 1

    assert "generator" in refused(tool, generate)
    assert "generator" in refused(tool, agenerate)
    assert "class Greeter" in refused(as_tool, Greeter)
    assert "int is not a tool" in refused(as_tool, 3)
    assert "description" in refused(Tool, "a", None, {})
    assert "positional-only" in refused(as_tool, len)


def test_several_tools() -> None:
    made = as_tools([greet, tool(agreet), {"name": "declared"}])
    assert [item.name for item in made] == ["greet", "agreet", "declared"]
    assert as_tools(()) == ()
    assert [item.name for item in as_tools(iter([greet]))] == ["greet"]
    assert "Two tools are called 'greet'" in refused(as_tools, [greet, Greeter("x").greet])
    for wrong in (greet, tool(greet), "greet", {"name": "greet"}, None):
        assert "tools=[...]" in refused(as_tools, wrong)


# --- dicts ------------------------------------------------------------------


@pytest.mark.parametrize(
    "obj",
    [
        {"name": "look_up", "description": "Look.", "parameters": CITY},
        {
            "type": "function",
            "function": {"name": "look_up", "description": "Look.", "parameters": CITY},
        },
        {"type": "function", "name": "look_up", "description": "Look.", "parameters": CITY},
        {"name": "look_up", "description": "Look.", "input_schema": CITY},
        {"name": "look_up", "description": "Look.", "inputSchema": CITY, "parameters": None},
    ],
)
async def test_a_dict_declares_a_tool(obj: dict[str, Any]) -> None:
    made = as_tool(obj)
    assert made.handler is None
    assert made.to_wire() == {"name": "look_up", "description": "Look.", "parameters": CITY}
    assert made.parse_arguments('{"city": 3}') == {"city": 3}
    assert "city: is required" in refused(made.parse_arguments, "")
    assert "no handler" in refused(made)
    with pytest.raises(InvalidInputError, match="no handler"):
        await made.run("{}")


def test_sparse_and_wrong_dicts() -> None:
    sparse = as_tool({"name": "ping", "parameters": None})
    assert sparse.to_wire() == {"name": "ping", "description": "ping", "parameters": EMPTY}
    assert "no name" in refused(as_tool, {"description": "x"})
    assert "no name" in refused(as_tool, {"type": "function", "function": None})
    assert "'web_search'" in refused(as_tool, {"type": "web_search", "name": "web"})
    assert "JSON schema" in refused(as_tool, {"name": "a", "parameters": []})
    two = {"name": "a", "parameters": CITY, "inputSchema": EMPTY}
    assert "parameters and inputSchema" in refused(as_tool, two)


# --- framework tools, by look-alikes ----------------------------------------


class CityModel(BaseModel):
    """The model's own docstring."""

    city: str = Field(description="Its name.")


class LangChainLike:
    """As ``langchain_core.tools.BaseTool``."""

    def __init__(self, **attributes: Any) -> None:
        self.name = "weather"
        self.description = "The weather."
        self.args_schema: Any = CityModel
        self.__dict__.update(attributes)

    @property
    def tool_call_schema(self) -> Any:
        return self.args_schema

    async def ainvoke(self, tool_input: dict[str, Any], config: Any = None) -> Any:
        if tool_input["city"] == "":
            raise RuntimeError("no city")
        return f"sunny in {tool_input['city']}"


CITY_DESCRIBED = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Its name."}},
    "required": ["city"],
}


@pytest.mark.parametrize("schema", [CityModel, CityModel.model_json_schema()])
@both
async def test_langchain_tools(schema: Any, in_thread_loop: bool) -> None:
    made = as_tool(LangChainLike(args_schema=schema))
    assert made.to_wire() == {
        "name": "weather",
        "description": "The weather.",
        "parameters": CITY_DESCRIBED,
    }
    run = functools.partial(made.run, in_thread_loop=in_thread_loop)
    assert await run('{"city": "Rome"}') == ToolResult("sunny in Rome")
    assert await run('{"city": ""}') == ToolResult("RuntimeError: no city", is_error=True)
    assert (await run("{}")).content == "Invalid arguments for weather: city: is required"


def test_langchain_tools_without_a_schema_of_their_own() -> None:
    single = LangChainLike(args_schema=None, args={"tool_input": {"type": "string"}})
    assert as_tool(single).parameters == {
        "type": "object",
        "properties": {"tool_input": {"type": "string"}},
        "required": ["tool_input"],
    }
    bare = LangChainLike(args_schema=None, description="", args={})
    assert as_tool(bare).to_wire() == {
        "name": "weather",
        "description": "weather",
        "parameters": EMPTY,
    }

    class ArgsSchemaOnly:
        name = "weather"
        description = "The weather."
        args_schema = CityModel

        async def ainvoke(self, tool_input: dict[str, Any]) -> str:
            return ""

    assert as_tool(ArgsSchemaOnly()).parameters == CITY_DESCRIBED


def test_langchain_names_are_checked_and_can_be_replaced() -> None:
    odd = LangChainLike(name="my weather")
    assert "'my weather' is not a tool name" in refused(as_tool, odd)
    assert tool(odd, name="weather", timeout=2).name == "weather"
    assert "The class LangChainLike" in refused(as_tool, LangChainLike)


@dataclasses.dataclass
class Metadata:
    """As ``llama_index.core.tools.ToolMetadata``."""

    description: str = "The weather."
    name: Any = "weather"
    fn_schema: Any = CityModel

    def get_parameters_dict(self) -> dict[str, Any]:
        schema = self.fn_schema.model_json_schema()
        return {k: v for k, v in schema.items() if k in ("type", "properties", "required", "$defs")}


@dataclasses.dataclass
class SparseMetadata:
    name: str = "weather"
    description: str = ""
    fn_schema: Any = CityModel


@dataclasses.dataclass
class ToolOutput:
    content: str
    raw_output: Any
    is_error: bool = False


class LlamaLike:
    """As ``llama_index.core.tools.AsyncBaseTool``."""

    requires_context = False

    def __init__(self, metadata: Any) -> None:
        self.metadata = metadata

    def __call__(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return self.call(*args, **kwargs)

    def call(self, **kwargs: Any) -> ToolOutput:
        raise AssertionError("acall comes first")

    async def acall(self, city: str) -> ToolOutput:
        return ToolOutput(f"sunny in {city}", {"raw": 1}, is_error=city == "")


@both
async def test_llama_index_tools(in_thread_loop: bool) -> None:
    made = as_tool(LlamaLike(Metadata()))
    assert made.to_wire() == {
        "name": "weather",
        "description": "The weather.",
        "parameters": CITY_DESCRIBED,
    }
    run = functools.partial(made.run, in_thread_loop=in_thread_loop)
    assert await run('{"city": "Rome"}') == ToolResult("sunny in Rome")
    assert await run('{"city": ""}') == ToolResult("sunny in ", is_error=True)
    assert (await run("{}")).is_error


async def test_llama_index_tools_that_are_only_synchronous() -> None:
    class CallOnly:
        metadata = SparseMetadata()

        def call(self, city: str) -> ToolOutput:
            return ToolOutput(f"{city} {threading.current_thread().name}", None)

    made = as_tool(CallOnly())
    assert (made.description, made.parameters) == ("weather", CITY_DESCRIBED)
    assert (await made.run('{"city": "Rome"}')).content == "Rome letta-tool"

    class Bare:
        metadata = SparseMetadata()

        def __call__(self, city: str) -> dict[str, str]:
            return {"city": city}

    assert await as_tool(Bare()).run('{"city": "Rome"}') == ToolResult('{"city":"Rome"}')


def test_llama_index_tools_that_need_a_workflow_are_refused() -> None:
    needy = LlamaLike(Metadata())
    needy.requires_context = True
    assert "Context" in refused(as_tool, needy)


def test_look_alikes_that_are_not() -> None:
    def fn(a: int) -> int:
        return a

    fn.metadata = {"name": "x"}
    assert as_tool(fn).name == "fn"
    nameless = LlamaLike(Metadata(name=None))
    assert "takes *args" in refused(as_tool, nameless)

    class OnlyMetadata:
        metadata = Metadata()

    assert "OnlyMetadata is not a tool" in refused(as_tool, OnlyMetadata())


# --- running ----------------------------------------------------------------


@pytest.mark.parametrize("raw", ["", "  ", "null", "{}", {}])
async def test_no_arguments(raw: Any) -> None:
    assert await tool(lambda: 3, name="three").run(raw) == ToolResult("3")


async def test_arguments_as_an_object() -> None:
    assert await tool(greet).run({"name": "Ada", "times": "2"}) == ToolResult("hello Ada Ada")
    assert (await tool(greet).run({"name": {1: 2}})).is_error
    assert (await tool(greet).run({(1,): 2})).is_error


async def test_surrogates_in_arguments_reach_the_model_cleaned() -> None:
    outcome = await tool(greet).run('{"name": "x", "\ud83d": 1}')
    assert outcome.is_error
    str(outcome.content).encode()


@both
async def test_a_failing_tool_is_an_outcome(in_thread_loop: bool) -> None:
    async def fail(kind: str) -> None:
        if kind == "exit":
            raise SystemExit(3)
        if kind == "cancel":
            raise asyncio.CancelledError
        raise ValueError("bad city")

    run = functools.partial(tool(fail).run, in_thread_loop=in_thread_loop)
    assert await run('{"kind": ""}') == ToolResult("ValueError: bad city", is_error=True)
    assert await run('{"kind": "cancel"}') == ToolResult("fail was cancelled.", is_error=True)
    assert (
        await run('{"kind": "exit"}')
    ).content == "RuntimeError: the function raised SystemExit(3)"


async def test_a_tool_may_report_a_failure_itself() -> None:
    def fail() -> ToolResult:
        return ToolResult("no such city", is_error=True)

    def show() -> ToolResult:
        return ToolResult([{"type": "text", "text": "a"}])

    assert await tool(fail).run("") == ToolResult("no such city", is_error=True)
    assert await tool(show).run("") == ToolResult([{"type": "text", "text": "a"}])


async def test_a_broken_validator_is_an_outcome() -> None:
    def explode(value: str) -> str:
        raise LookupError("oops")

    def fn(a: Annotated[str, AfterValidator(explode)]) -> None: ...

    fn.__annotations__["a"] = Annotated[str, AfterValidator(explode)]
    assert await tool(fn).run('{"a": "x"}') == ToolResult("LookupError: oops", is_error=True)


@both
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_timeout(asynchronous: bool, in_thread_loop: bool) -> None:
    release, unwound = threading.Event(), threading.Event()

    def block() -> None:
        release.wait(20)

    async def ablock() -> None:
        try:
            await asyncio.sleep(20)
        finally:
            unwound.set()

    made = tool(ablock if asynchronous else block, name="slow", timeout=0.05)
    outcome = await made.run("", in_thread_loop=in_thread_loop)
    assert outcome == ToolResult("slow timed out after 0.05 s; its outcome is unknown.", True)
    assert unwound.is_set() is asynchronous
    release.set()


async def test_a_tool_that_raises_timeouterror_itself_did_not_time_out() -> None:
    async def fetch() -> None:
        raise TimeoutError("upstream")

    outcome = await tool(fetch, timeout=5).run("")
    assert outcome == ToolResult("TimeoutError: upstream", is_error=True)


async def test_a_tool_that_ignores_its_timeout_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_side, "UNWIND_SECONDS", 0.02)
    release = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            await release.wait()
            raise ValueError("too late") from None

    assert (await tool(stubborn, timeout=0.02).run("")).is_error
    release.set()
    await asyncio.sleep(0.01)  # its exception is retrieved: nothing is logged


@both
async def test_cancelling_the_turn_cancels_the_tool(in_thread_loop: bool) -> None:
    started, unwound = threading.Event(), threading.Event()

    async def slow() -> None:
        try:
            started.set()
            await asyncio.sleep(20)
        finally:
            unwound.set()

    task = asyncio.ensure_future(tool(slow).run("", in_thread_loop=in_thread_loop))
    for _ in range(5000):
        if started.is_set():
            break
        await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unwound.is_set()


# --- results ----------------------------------------------------------------


class Colour(str, enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Report:
    when: datetime
    tags: set[str]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


class Custom:
    def __str__(self) -> str:
        return "custom \ud800"


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (None, ""),
        ("", ""),
        ("plain", "plain"),
        (Colour.RED, "red"),
        ("file\udcff.txt", "file?.txt"),
        (3, "3"),
        (True, "true"),
        (1.5, "1.5"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        ([], "[]"),
        (["a", "b"], '["a","b"]'),
        ({"é": 1}, '{"é":1}'),
        (CityModel(city="Rome"), '{"city":"Rome"}'),
        (Report(datetime(2024, 2, 29), {"a"}), '{"when":"2024-02-29T00:00:00","tags":["a"]}'),
        (Path("a/b"), '"a/b"'),
        (b"bytes", '"bytes"'),
        (b"\xff", "b'\\xff'"),
        (Custom(), "custom ?"),
        ({"x": Unprintable}, f'{{"x":"{Unprintable}"}}'),
        (Unprintable(), "<Unprintable>"),
        (LOOP, "[[...]]"),
        (ValueError("x"), '"x"'),
    ],
)
def test_format_result(value: Any, content: str) -> None:
    assert format_result(value) == content


IMAGE = {
    "type": "image",
    "source": {
        "type": "base64",
        "media_type": "image/png",
        "data": base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(),
    },
}


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (TextContent("a"), [{"type": "text", "text": "a"}]),
        (PNG, [IMAGE]),
        ([TextContent("a"), PNG], [{"type": "text", "text": "a"}, IMAGE]),
        (("a\udcff", PNG), [{"type": "text", "text": "a?"}, IMAGE]),
        ([TextContent(""), PNG], [IMAGE]),
        (TextContent(""), ""),
        ([{"type": "text", "text": "a"}], [{"type": "text", "text": "a"}]),
        (IMAGE, [IMAGE]),
        ([PNG, 3], None),
        ({"type": "text", "text": 3}, '{"type":"text","text":3}'),
        ({"type": "image", "source": "disk"}, '{"type":"image","source":"disk"}'),
        ({"type": "text"}, '{"type":"text"}'),
    ],
)
def test_format_parts(value: Any, content: Any) -> None:
    formatted = format_result(value)
    if content is None:
        assert isinstance(formatted, str)
    else:
        assert formatted == content


def test_format_error() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert format_error(ValueError()) == "ValueError"
    assert format_error(KeyError("x")) == "KeyError: 'x'"
    assert format_error(OddError()) == "OddError: <OddError>"
    long = format_error(ValueError("x" * 9000))
    assert len(long) < 4100
    assert long.endswith("...")
    with pytest.raises(ValueError, match="city") as caught:
        CityModel.model_validate({})
    assert format_error(caught.value) == "Validation error: city: is required"


def test_images_made_by_hand() -> None:
    assert format_result(ImageContent(url="https://example.com/a.png")) == [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    ]


class Unlookable:
    """A value that cannot even be compared, as an array of numbers."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


@pytest.mark.parametrize(
    "value",
    [
        {"content": Unlookable(), "isError": False},
        {"content": [TextContent(5)]},  # type: ignore[arg-type]
        {"content": [{"type": Unlookable(), "text": "x"}], "isError": True},
    ],
    ids=["compared", "text", "type"],
)
async def test_a_result_that_cannot_be_looked_at_is_data(value: object) -> None:
    def odd() -> object:
        return value

    result = await tool(odd, description="Odd.").run("{}")
    assert isinstance(result.content, str)
    assert '"content"' in result.content
