"""``LettaAgent``: what any agent of LlamaIndex must do, and a remote one, on both backends."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.agent.workflow.workflow_events import (
    AgentOutput,
    AgentStream,
    ToolCall,
    ToolCallResult,
)
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ThinkingBlock
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context, JsonSerializer
from llama_index.core.workflow.errors import WorkflowRuntimeError
from pydantic import BaseModel

from letta_adapters import LettaError
from letta_adapters.llama_index import (
    ApprovalRequiredEvent,
    ApprovalResponseEvent,
    LettaAgent,
    LettaMemory,
)
from letta_adapters.testing.scripted_model import ModelError, Reply, ToolUse
from tests.llama_index.conftest import World

# LlamaIndex' own agents look at every tool in a way that pydantic wants to give up.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def explode(why: str) -> str:
    """Fails."""
    raise ValueError(why)


def adding(a: int, b: int, id: str) -> ToolUse:
    return ToolUse("add", {"a": a, "b": b}, id=id)


def bash(command: str, id: str) -> ToolUse:
    return ToolUse("Bash", {"command": command, "description": "a test"}, id=id)


class Person(BaseModel):
    """A person."""

    name: str
    age: int


async def run(agent: Any, message: Any, ctx: Context | None = None, **kwargs: Any) -> Any:
    """The result and the events of a run."""
    handler = agent.run(message, ctx=ctx, **kwargs)
    events = [event async for event in handler.stream_events()]
    return await handler, events


def names(events: list[Any]) -> list[str]:
    """The kinds in order, runs of stream events as one."""
    found: list[str] = []
    for event in events:
        name = type(event).__name__
        if found[-1:] != [name] or name != "AgentStream":
            found.append(name)
    return found


def place(output: AgentOutput) -> str:
    return str(output.raw["conversation_id"])


async def test_an_answer_streams(world: World) -> None:
    world.script(Reply(text="One two three.", reasoning="Hm hm."))
    output, events = await run(world.agent(), "count")
    assert str(output) == "One two three."
    assert names(events) == ["AgentStream", "AgentOutput", "StopEvent"]
    streamed = [event for event in events if isinstance(event, AgentStream)]
    assert "".join(event.delta for event in streamed) == "One two three."
    assert "".join(event.thinking_delta or "" for event in streamed) == "Hm hm."
    assert streamed[-1].response == "One two three."
    assert isinstance(output.response.blocks[0], ThinkingBlock)
    assert output.raw["usage"]["total_tokens"] == 120


async def test_texts_can_be_coalesced(world: World) -> None:
    world.script("One two three four five.")
    output, events = await run(world.agent(coalesce=True), "count")
    assert str(output) == "One two three four five."
    deltas = [event.delta for event in events if isinstance(event, AgentStream)]
    assert "".join(deltas) == "One two three four five."


async def test_local_tools_run_in_the_workflow(world: World) -> None:
    calls = [adding(2, 3, "add-1")]
    world.script(Reply(text="Let me add.", tool_calls=calls), "It is 5.")
    output, events = await run(world.agent(tools=[add]), "2 + 3?")
    assert str(output) == "It is 5."
    assert names(events) == [
        "AgentStream",
        "AgentOutput",
        "ToolCall",
        "ToolCallResult",
        "AgentStream",
        "AgentOutput",
        "StopEvent",
    ]
    assert [(c.tool_name, c.tool_output.content) for c in output.tool_calls] == [("add", "5")]
    assert await world.said(place(output)) == ["2 + 3?"]


async def test_a_tool_that_fails_is_told(world: World) -> None:
    world.script(Reply(tool_calls=[ToolUse("explode", {"why": "boom"}, id="e-1")]), "I see.")
    tool = FunctionTool.from_defaults(explode)
    output, _ = await run(world.agent(tools=[tool]), "go")
    assert str(output) == "I see."
    (result,) = output.tool_calls
    assert (result.tool_output.is_error, result.tool_output.content) == (True, "boom")


async def test_a_result_that_is_the_answer(world: World) -> None:
    world.script(Reply(tool_calls=[adding(2, 3, "direct-1")]), "And more.")
    agent = world.agent(tools=[FunctionTool.from_defaults(add, return_direct=True)])
    ctx = Context(agent)
    output, _ = await run(agent, "2 + 3?", ctx)
    assert str(output) == "5"
    output, _ = await run(agent, "go on", ctx)
    assert str(output) == "And more."


async def test_it_remembers_between_runs_and_processes(world: World) -> None:
    world.script("First.", "Second.", "Third.")
    agent = world.agent(name="ada")
    ctx = Context(agent)
    first, _ = await run(agent, "one", ctx)
    second, _ = await run(agent, "two", ctx)
    stored = json.dumps(ctx.to_dict(serializer=JsonSerializer()))
    again = world.agent(name="ada")
    resumed = Context.from_dict(again, json.loads(stored), serializer=JsonSerializer())
    third, _ = await run(again, "three", resumed)
    assert place(first) == place(second) == place(third)
    assert await world.said(place(third)) == ["one", "two", "three"]


async def test_contexts_do_not_see_each_other(world: World) -> None:
    world.script("First.", "Second.")
    agent = world.agent()
    outputs = [(await run(agent, text, Context(agent)))[0] for text in ("one", "two")]
    assert place(outputs[0]) != place(outputs[1])


async def test_saying_yes_twice_counts_twice(world: World) -> None:
    world.script("First.", "Second.")
    agent = world.agent()
    ctx = Context(agent)
    await run(agent, "yes", ctx)
    output, _ = await run(agent, "yes", ctx)
    assert str(output) == "Second."
    assert await world.said(place(output)) == ["yes", "yes"]


async def test_a_memory_that_is_lost_does_not_lose_the_conversation(world: World) -> None:
    """LlamaIndex' default memory is dropped between two runs with pydantic 2.14 and newer."""
    world.script("First.", "Second.")
    agent = world.agent()
    ctx = Context(agent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, _ = await run(agent, "one", ctx, memory=ChatMemoryBuffer.from_defaults())
        second, _ = await run(agent, "two", ctx)
    assert place(first) == place(second)
    assert await world.said(place(second)) == ["one", "two"]


async def test_a_memory_of_your_own(world: World) -> None:
    world.script("Hello Ada.")
    memory = LettaMemory(messages=[ChatMessage(role=MessageRole.USER, content="I am Ada.")])
    output, _ = await run(world.agent(), "Who am I?", memory=memory)
    told = " ".join(await world.said(place(output)))
    assert "I am Ada." in told
    assert [m.role for m in memory.get()] == ["user", "user", "assistant"]


async def test_hand_off_between_letta_agents(world: World) -> None:
    handoff = ToolUse("handoff", {"to_agent": "two", "reason": "It knows."}, id="handoff-1")
    back = ToolUse("handoff", {"to_agent": "one", "reason": "Done."}, id="handoff-2")
    world.script(Reply(tool_calls=[handoff]), "Two here.", Reply(tool_calls=[back]), "One again.")
    one = world.agent(name="one", description="Knows nothing.", can_handoff_to=["two"])
    two = world.agent(
        name="two",
        description="Knows all.",
        can_handoff_to=["one"],
        agent_id=await world.another("two"),
    )
    workflow = AgentWorkflow(agents=[one, two], root_agent="one")
    ctx = Context(workflow)
    output, events = await run(workflow, "help", ctx)
    assert (str(output), output.current_agent_name) == ("Two here.", "two")
    assert [e.tool_name for e in events if type(e) is ToolCall] == ["handoff"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output, _ = await run(workflow, "and now?", ctx)
    assert (str(output), output.current_agent_name) == ("One again.", "one")


async def test_hand_off_to_a_function_agent(world: World) -> None:
    handoff = ToolUse("handoff", {"to_agent": "plain", "reason": "Simple."}, id="handoff-3")
    world.script(Reply(tool_calls=[handoff]), "Plain here.")
    one = world.agent(name="one", description="Routes.", can_handoff_to=["plain"])
    plain = FunctionAgent(name="plain", description="Answers.", llm=world.llm())
    workflow = AgentWorkflow(agents=[one, plain], root_agent="one")
    output, _ = await run(workflow, "help")
    assert (str(output), output.current_agent_name) == ("Plain here.", "plain")


async def test_structured_output(world: World) -> None:
    world.script("Ada is 36.", '{"name": "Ada", "age": 36}')
    output, _ = await run(world.agent(output_cls=Person), "Who?")
    assert output.get_pydantic_model(Person) == Person(name="Ada", age=36)


async def test_a_failed_turn_is_not_sent_twice(world: World) -> None:
    quota = ModelError(429, "You exceeded your current quota", *["insufficient_quota"] * 2)
    # The Letta API asks the model again a few times.
    world.script("First.", *[Reply(error=quota, when="two")] * 6, Reply("Third.", when="three"))
    agent = world.agent()
    ctx = Context(agent)
    await run(agent, "one", ctx)
    with pytest.raises((LettaError, WorkflowRuntimeError)):
        await run(agent, "two", ctx)
    output, _ = await run(agent, "three", ctx)
    assert str(output) == "Third."
    said = " ".join(await world.said(place(output)))
    assert [said.count(word) for word in ("one", "two", "three")] == [1, 1, 1]


@pytest.mark.parametrize("method", ["force", "generate"])
async def test_too_many_rounds(world: World, method: Any) -> None:
    world.script(Reply(tool_calls=[adding(1, 1, "round-1")]), "Enough.", "Still here.")
    agent = world.agent(tools=[add], early_stopping_method=method)
    ctx = Context(agent)
    if method == "force":
        with pytest.raises(WorkflowRuntimeError, match="Max iterations"):
            await run(agent, "go", ctx, max_iterations=1)
        return
    output, _ = await run(agent, "go", ctx, max_iterations=1)
    assert str(output) == "Enough."


async def test_a_system_prompt_is_told_once(world: World) -> None:
    world.script("First.", "Second.")
    agent = world.agent(system_prompt="Be brief.")
    ctx = Context(agent)
    await run(agent, "one", ctx)
    output, _ = await run(agent, "two", ctx)
    assert (await world.told(place(output))).count("Be brief.") == 1


# -- tools of the agent's own, which the recorded server runs too slowly to be asked for -----------


@pytest.fixture
def local(embedded: Any, embedded_agent: str, embedded_model: Any, tmp_path: Path) -> Any:
    """An agent that may work in a directory of its own."""
    embedded_model.clear()

    def make(**fields: Any) -> LettaAgent:
        options = {"session_options": {"cwd": str(tmp_path)}}
        return LettaAgent(**{"agent_id": embedded_agent, "client": embedded, **options, **fields})

    return make


async def test_its_own_tools_are_shown_and_not_run_again(local: Any, embedded_model: Any) -> None:
    embedded_model.script(
        Reply(tool_calls=[bash("echo one", "own-1")]),
        Reply(tool_calls=[adding(2, 3, "own-2")]),
        "Done.",
    )
    output, events = await run(local(tools=[add]), "go")
    assert str(output) == "Done."
    shown = [e for e in events if isinstance(e, ToolCall | ToolCallResult)]
    tools = [(type(e).__name__, e.tool_name) for e in shown]
    assert tools == [
        ("ToolCall", "Bash"),
        ("ToolCallResult", "Bash"),
        ("ToolCall", "add"),
        ("ToolCallResult", "add"),
    ]
    assert [c.tool_name for c in output.tool_calls] == ["Bash", "add"]
    assert "one" in output.tool_calls[0].tool_output.content
    assert len(embedded_model.requests) == 3


@pytest.mark.parametrize("approve", [True, False])
async def test_a_person_decides(
    local: Any, embedded_model: Any, tmp_path: Path, approve: bool
) -> None:
    file = tmp_path / "made"
    embedded_model.script(Reply(tool_calls=[bash(f"touch {file}", "ask-1")]), "So be it.")
    handler = local().run("go")
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequiredEvent):
            assert (event.tool_name, event.tool_id) == ("Bash", "ask-1")
            answer = ApprovalResponseEvent(tool_id="ask-1", approve=approve, reason="Not today.")
            handler.ctx.send_event(answer)
    assert str(await handler) == "So be it."
    assert file.exists() is approve
    users = [m for m in embedded_model.requests[-1].messages if m["role"] == "user"]
    assert len(users) == 1
    if not approve:
        assert "Not today." in embedded_model.requests[-1].messages[-1]["content"]


async def test_cancelling_the_run_stops_the_agent(local: Any, embedded_model: Any) -> None:
    embedded_model.script(Reply(text="a b c d e f g h i j", token_delay=0.2), "Fine.")
    agent = local()
    ctx = Context(agent)
    handler = agent.run("count", ctx=ctx)
    async for event in handler.stream_events():
        if isinstance(event, AgentStream):
            await handler.cancel_run()
            break
    with pytest.raises(BaseException):  # noqa: B017  # the workflow's own, by version
        await asyncio.wait_for(handler, 10)
    output, _ = await run(local(), "again")
    assert str(output) == "Fine."
