"""The private parts of LlamaIndex that the adapter uses are where it looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
from llama_index.core.agent.workflow import BaseWorkflowAgent
from llama_index.core.agent.workflow.workflow_events import AgentOutput, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.mock import MockLLM
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.tools import ToolOutput
from llama_index.core.workflow import Context
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

import letta_adapters.llama_index as package
from letta_adapters.llama_index import _compat
from tests._private_parts import make_checks

# LlamaIndex reads deprecated attributes of its own classes.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:is_running called", "ignore:Skipping serialization"
)
_CALL: Final = ToolCallResult(
    tool_name="search",
    tool_kwargs={},
    tool_id="call-1",
    tool_output=ToolOutput(content="found", tool_name="search", raw_input={}, raw_output="found"),
    return_direct=False,
)


class _Saying(BaseWorkflowAgent):
    """Say one word, and note what the store of the context holds meanwhile."""

    async def take_step(self, ctx: Any, llm_input: Any, tools: Any, memory: Any) -> AgentOutput:
        await ctx.store.set(_compat.TOOL_CALLS, [_CALL])
        for key in (_compat.ITERATIONS, _compat.MAX_ITERATIONS):
            await ctx.store.set(f"seen-{key}", await ctx.store.get(key, default=None))
        await ctx.store.set(
            "seen-memory", await ctx.store.get(_compat.MEMORY, default=None) is memory
        )
        said = ChatMessage(role="assistant", content="Hello.")
        return AgentOutput(response=said, tool_calls=[], current_agent_name=self.name)

    async def handle_tool_call_results(self, ctx: Any, results: Any, memory: Any) -> None:
        raise AssertionError("There are no calls.")

    async def finalize(self, ctx: Any, output: Any, memory: Any) -> Any:
        return output


def _agent() -> _Saying:
    return _Saying(name="one", llm=MockLLM(), verbose=True, timeout=30)


def _after_run(*keys: str) -> list[Any]:
    """Return what a run left in the store under these keys."""

    async def run() -> list[Any]:
        agent = _agent()
        ctx = Context(agent)
        await agent.run("Hi.", ctx=ctx, max_iterations=7)
        return [await ctx.store.get(key, default=None) for key in keys]

    return asyncio.run(run())


def _tools_told() -> list[str]:
    async def run() -> list[str]:
        output = await _agent().run("Hi.")
        return [call.tool_name for call in output.tool_calls]

    return asyncio.run(run())


def _marked_stays() -> bool:
    """Return whether the decorator for spans leaves a marked function alone."""

    def work() -> None:
        """Do nothing."""

    setattr(work, _compat.DISPATCHER_SPAN_DECORATED_ATTR, True)
    return get_dispatcher(__name__).span(work) is work


def _object_tool() -> str:
    class Person(BaseModel):
        name: str

    return str(get_function_tool(Person).real_fn.__qualname__)


def _is_stored(key: str) -> bool:
    return key in Context(_agent()).to_dict()


def _face() -> Any:
    return Context(_agent())._face


_PROBES: Final[dict[str, Callable[[], bool]]] = {
    "WORKFLOW_KWARGS": lambda: {"timeout", "verbose"} <= set(_compat.WORKFLOW_KWARGS),
    "DISPATCHER_SPAN_DECORATED_ATTR": _marked_stays,
    # A new run sets it to 0, and adds 1 after each step.
    _compat.ITERATIONS: lambda: (
        _after_run(f"seen-{_compat.ITERATIONS}", _compat.ITERATIONS) == [0, 1]
    ),
    _compat.MAX_ITERATIONS: lambda: _after_run(f"seen-{_compat.MAX_ITERATIONS}") == [7],
    _compat.MEMORY: lambda: _after_run("seen-memory") == [True],
    _compat.TOOL_CALLS: lambda: _tools_told() == ["search"],
    "_face": lambda: _face() is not None,
    "_serializer": lambda: hasattr(_face()._serializer, "serialize"),
    _compat.RESTING: lambda: type(_face()).__name__ == _compat.RESTING,
    **{key: partial(_is_stored, key) for key in _compat.STORE},
    "_verbose": lambda: _agent()._verbose is True,
    _compat.OBJECT_TOOL: lambda: _object_tool() == _compat.OBJECT_TOOL,
}


class TestPrivateParts(
    make_checks(
        package,
        _PROBES,
        "llama_index",
        "llama_index_instrumentation",
        "workflows",
        common=(_compat.MEMORY, *_compat.STORE),
    )
):
    """The private parts of LlamaIndex are listed, and are there."""


def test_forgetting_a_run_keeps_what_the_context_stores() -> None:
    async def run() -> Any:
        agent = _agent()
        ctx = Context(agent)
        await agent.run("Hi.", ctx=ctx)
        await ctx.store.set("mine", "kept")
        _compat.forget_run(ctx, agent)
        return await ctx.store.get("mine"), _compat.is_live(ctx), _compat.is_verbose(agent)

    assert asyncio.run(run()) == ("kept", False, True)
