"""LangChain's injected parameters: the call's id is filled, what only a graph has is refused."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from letta_adapters import InvalidInputError, ToolContext
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from letta_adapters.tools import ToolResult
from letta_adapters.tools.client_side import as_tool

tools = pytest.importorskip("langchain_core.tools", reason="the extra `langchain` is not installed")
from langchain_core.messages import ToolMessage  # noqa: E402
from langchain_core.tools import (  # noqa: E402
    BaseTool,
    InjectedToolArg,
    InjectedToolCallId,
    ToolException,
)
from pydantic import BaseModel  # noqa: E402

CALL = ToolContext("call-1", "look")
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


@tools.tool
def as_data(x: int, call_id: Annotated[str, InjectedToolCallId]) -> dict[str, Any]:
    """Look."""
    return {"x": x, "id": call_id}


@tools.tool(response_format="content_and_artifact")
async def with_artifact(
    x: int, call_id: Annotated[str, InjectedToolCallId]
) -> tuple[str, dict[str, int]]:
    """Look."""
    return f"{x} in {call_id}", {"secret": 1}


@tools.tool
def as_message(x: int, call_id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
    """Look."""
    return ToolMessage(f"{x} is too much", tool_call_id=call_id, artifact=3, status="error")


@tools.tool
def as_parts(x: int, call_id: Annotated[str, InjectedToolCallId]) -> list[Any]:
    """Look."""
    return [{"type": "text", "text": f"{x}"}, {"type": "text", "text": call_id}]


@tools.tool
def refusing(x: int, call_id: Annotated[str, InjectedToolCallId]) -> str:
    """Look."""
    raise ToolException(f"{x} is refused in {call_id}")


refusing.handle_tool_error = True


class Args(BaseModel):
    """The arguments of a class of tools."""

    x: int
    call_id: Annotated[str, InjectedToolCallId]


class ClassTool(BaseTool):
    """A tool that is a class."""

    name: str = "class_tool"
    description: str = "Look."
    args_schema: Any = Args

    def _run(self, x: int, call_id: str) -> str:
        return f"{x} in {call_id}"


@pytest.mark.parametrize(
    ("made", "result"),
    [
        (as_data, ToolResult('{"x": 1, "id": "call-1"}')),
        (with_artifact, ToolResult("1 in call-1")),
        (as_message, ToolResult("1 is too much", is_error=True)),
        (
            as_parts,
            ToolResult([{"type": "text", "text": "1"}, {"type": "text", "text": "call-1"}]),
        ),
        (refusing, ToolResult("1 is refused in call-1", is_error=True)),
        (ClassTool(), ToolResult("1 in call-1")),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("in_thread_loop", [False, True])
async def test_the_id_of_the_call_is_filled(
    made: Any, result: ToolResult, in_thread_loop: bool
) -> None:
    tool = as_tool(made)
    assert tool.parameters == SCHEMA
    assert await tool.run({"x": 1}, context=CALL, in_thread_loop=in_thread_loop) == result


async def test_the_model_cannot_choose_it() -> None:
    result = await as_tool(as_data).run({"x": 1, "call_id": "mine"}, context=CALL)
    assert result.is_error
    assert "no parameter call_id" in str(result.content)


async def test_what_has_a_default_keeps_it_and_the_model_cannot_choose_it() -> None:
    @tools.tool
    def look(x: int, hidden: Annotated[str, InjectedToolArg] = "mine") -> str:
        """Look."""
        return f"{x} {hidden}"

    assert await as_tool(look).run({"x": 1}) == ToolResult("1 mine")
    assert (await as_tool(look).run({"x": 1, "hidden": "yours"})).is_error


async def test_other_tools_are_called_as_ever() -> None:
    """With the arguments alone, so that what they return is not made into a message."""

    @tools.tool
    def look(x: int) -> dict[str, int]:
        """Look."""
        return {"x": x}

    assert await as_tool(look).run({"x": 1}, context=CALL) == ToolResult('{"x":1}')


def test_what_only_a_caller_can_fill_is_refused() -> None:
    @tools.tool
    def look(x: int, hidden: Annotated[str, InjectedToolArg]) -> str:
        """Look."""
        return hidden

    with pytest.raises(InvalidInputError, match=r"'hidden' of 'look' .*\(InjectedToolArg\)"):
        as_tool(look)


def test_what_only_a_graph_has_is_refused() -> None:
    prebuilt = pytest.importorskip("langgraph.prebuilt", reason="LangGraph is not installed")
    state: Any = Annotated[dict, prebuilt.InjectedState]
    store: Any = Annotated[Any, prebuilt.InjectedStore()]

    def with_state(x: int, state: state) -> str:
        """Look."""
        return ""

    def with_store(x: int, store: store) -> str:
        """Look."""
        return ""

    for function, what in ((with_state, "InjectedState"), (with_store, "InjectedStore")):
        function.__annotations__ |= {"state": state, "store": store, "x": int, "return": str}
        for name in {"state", "store"} - {function.__name__.removeprefix("with_")}:
            del function.__annotations__[name]
        with pytest.raises(InvalidInputError, match=rf"filled by LangGraph \({what}\)"):
            as_tool(tools.tool(function))


def test_the_runtime_of_a_graph_is_refused() -> None:
    prebuilt = pytest.importorskip("langgraph.prebuilt", reason="LangGraph is not installed")

    def look(x: int, runtime: Any) -> str:
        """Look."""
        return ""

    look.__annotations__ = {"x": int, "runtime": prebuilt.ToolRuntime, "return": str}
    with pytest.raises(InvalidInputError, match=r"filled by LangGraph \(ToolRuntime\)"):
        as_tool(tools.tool(look))


async def test_a_command_has_no_graph_to_go_to() -> None:
    types = pytest.importorskip("langgraph.types", reason="LangGraph is not installed")

    @tools.tool
    def look(x: int, call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Look."""
        return types.Command(update={"messages": [ToolMessage("x", tool_call_id=call_id)]})

    result = await as_tool(look).run({"x": 1}, context=CALL)
    assert result.is_error
    assert "returned a Command of LangGraph" in str(result.content)


def test_a_session_gives_it_the_id_of_its_call() -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("as_data", {"x": 1})]), "Done.")
    with letta.client() as client, client.create_session(tools=[as_data]) as session:
        session.send("Go")
        seen = [*session.stream()]
    (call,) = [m for m in seen if m.type == "tool_call"]
    (result,) = [m for m in seen if m.type == "tool_result"]
    assert result.content == f'{{"x": 1, "id": "{call.tool_call_id}"}}'
