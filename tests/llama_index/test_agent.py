"""``LettaAgent``: what any agent of LlamaIndex must do, and a remote one, on both backends."""

from __future__ import annotations

import asyncio
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
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.workflow import Context

from letta_adapters.llama_index import (
    ApprovalRequiredEvent,
    ApprovalResponseEvent,
    LettaAgent,
    LettaMemory,
)
from letta_adapters.testing.llama_index import AgentConformance, AgentSubject
from letta_adapters.testing.llama_index.agents import add, make_add_call, run
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.llama_index.conftest import World

# LlamaIndex' own agents look at every tool in a way that pydantic wants to give up.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
]


def bash(command: str, id: str) -> ToolUse:
    return ToolUse("Bash", {"command": command, "description": "a test"}, id=id)


class TestLettaAgent(AgentConformance):
    """What any agent must do."""

    @pytest.fixture
    def subject(self, world: World) -> AgentSubject:
        async def said(output: AgentOutput) -> list[str]:
            return await world.said(place(output))

        return AgentSubject(world.script, world.agent, said)

    async def test_tools_run_at_the_same_time(self, subject: AgentSubject, world: World) -> None:
        await world.allow_parallel_calls()
        await super().test_tools_run_at_the_same_time(subject)


def place(output: AgentOutput) -> str:
    return str(output.raw["conversation_id"])


async def test_texts_can_be_coalesced(world: World) -> None:
    world.script("One two three four five.")
    output, events = await run(world.agent(coalesce=True), "count")
    assert str(output) == "One two three four five."
    deltas = [event.delta for event in events if isinstance(event, AgentStream)]
    assert "".join(deltas) == "One two three four five."


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


async def test_hand_off_to_a_function_agent(world: World) -> None:
    handoff = ToolUse("handoff", {"to_agent": "plain", "reason": "Simple."}, id="handoff-3")
    world.script(Reply(tool_calls=[handoff]), "Plain here.")
    one = world.agent(name="one", description="Routes.", can_handoff_to=["plain"])
    plain = FunctionAgent(name="plain", description="Answers.", llm=world.llm())
    workflow = AgentWorkflow(agents=[one, plain], root_agent="one")
    output, _ = await run(workflow, "help")
    assert (str(output), output.current_agent_name) == ("Plain here.", "plain")


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


def explode(why: str) -> str:
    """Fail."""
    raise ValueError(why)


async def test_a_tool_that_raises_is_logged_with_its_line(
    local: Any, embedded_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """LlamaIndex catches it, and shows its text to the model only."""
    embedded_model.script(Reply(tool_calls=[ToolUse("explode", {"why": "boom"})]), "I see.")
    output, _ = await run(local(tools=[explode]), "go")
    assert str(output) == "I see."
    assert "raise ValueError(why)" in caplog.text
    assert [r.levelname for r in caplog.records if "letta_adapters" in r.name] == ["WARNING"]


async def test_its_own_tools_are_shown_and_not_run_again(local: Any, embedded_model: Any) -> None:
    embedded_model.script(
        Reply(tool_calls=[bash("echo one", "own-1")]),
        Reply(tool_calls=[make_add_call(2, 3, "own-2")]),
        "Done.",
    )
    options = {"allowed_tools": ["Bash"]}
    output, events = await run(local(tools=[add], session_options=options), "go")
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
        await asyncio.wait_for(handler, 30)
    output, _ = await run(local(), "again")
    assert str(output) == "Fine."
