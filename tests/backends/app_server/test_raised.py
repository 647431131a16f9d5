"""What your own tools and callbacks raise over Letta Code: shown to you, not to the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool as langchain_tool
from llama_index.core.tools import FunctionTool, ToolOutput

from letta_adapters import AsyncLettaClient, LettaClient, ToolResultMessage
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse

LINE = 'return {}["order-" + order]'


def lookup(order: str) -> str:
    """Look up an order."""
    return {}["order-" + order]


async def lookup_later(order: str) -> str:
    """Look up an order."""
    return lookup(order)


class Catching:
    """A tool of LlamaIndex that gives what its function raised as a part of the result."""

    metadata = FunctionTool.from_defaults(lookup).metadata

    async def acall(self, order: str) -> ToolOutput:
        try:
            return ToolOutput(
                content=lookup(order), tool_name="lookup", raw_input={}, raw_output=""
            )
        except KeyError as error:
            return ToolOutput(
                content=repr(error),
                tool_name="lookup",
                raw_input={},
                raw_output="",
                is_error=True,
                exception=error,
            )


TOOLS: dict[str, Any] = {
    "function": lookup,
    "coroutine": lookup_later,
    "langchain": langchain_tool(lookup),
    "llama_index": FunctionTool.from_defaults(lookup),
    "llama_index_caught": Catching(),
}


def _result(messages: list[Any]) -> ToolResultMessage:
    (result,) = [m for m in messages if isinstance(m, ToolResultMessage)]
    assert messages[-1].success
    return result


def _logged(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = [r for r in caplog.records if r.name.startswith("letta_adapters")]
    assert record.levelname == "WARNING"
    assert record.exc_info is not None
    return record.getMessage()


@pytest.mark.parametrize("kind", TOOLS)
async def test_a_tool_that_raises(
    client: AsyncLettaClient,
    agent: str,
    model: ScriptedModel,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    name = "lookup_later" if kind == "coroutine" else "lookup"
    model.script(Reply(tool_calls=[ToolUse(name, {"order": "7"})]), "I see.")
    async with client.create_session(agent, tools=[TOOLS[kind]]) as session:
        await session.send("where is it?")
        result = _result([m async for m in session.stream()])
    assert LINE in str(result.traceback)
    assert "order-7" in result.content
    assert name in _logged(caplog)
    assert LINE in caplog.text
    assert LINE not in str(model.requests[-1].messages)


def test_a_tool_that_raises_in_a_sync_session(
    embedded: LettaClient,
    embedded_agent: str,
    embedded_model: ScriptedModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    embedded_model.clear()
    embedded_model.script(Reply(tool_calls=[ToolUse("lookup", {"order": "7"})]), "I see.")
    with embedded.create_session(embedded_agent, tools=[lookup]) as session:
        session.send("where is it?")
        result = _result(list(session.stream()))
    assert LINE in str(result.traceback)
    assert LINE in caplog.text


@pytest.mark.parametrize("asked", ["Bash", "lookup"])
async def test_a_permission_callback_that_raises(
    client: AsyncLettaClient,
    agent: str,
    model: ScriptedModel,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    asked: str,
) -> None:
    def ask(name: str, given: Any, context: Any) -> bool:
        raise RuntimeError("the dialog crashed")

    uses = {
        "Bash": ToolUse("Bash", {"command": "touch made", "description": "a test"}),
        "lookup": ToolUse("lookup", {"order": "7"}),
    }
    model.script(Reply(tool_calls=[uses[asked]]), "I see.")
    async with client.create_session(
        agent, tools=[lookup], can_use_tool=ask, cwd=tmp_path
    ) as session:
        await session.send("go")
        result = _result([m async for m in session.stream()])
    assert result.is_error
    assert 'raise RuntimeError("the dialog crashed")' in str(result.traceback)
    assert asked in _logged(caplog)
    assert list(tmp_path.iterdir()) == []
    assert "raise RuntimeError" not in str(model.requests[-1].messages)
