"""Questions to a person, by a model that gives two of its calls one id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow.workflow_events import ToolCallResult
from llama_index.core.workflow import Context

from letta_adapters.llama_index import ApprovalRequiredEvent, ApprovalResponseEvent, LettaAgent
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def deciding(agent: Any, text: str, ctx: Context, decisions: list[bool]) -> list[Any]:
    """A run whose questions get these answers in order; all its events."""
    handler = agent.run(text, ctx=ctx)
    events = []
    async for event in handler.stream_events():
        events.append(event)
        if isinstance(event, ApprovalRequiredEvent):
            answer = ApprovalResponseEvent(tool_id=event.tool_id, approve=decisions.pop(0))
            handler.ctx.send_event(answer)
    await handler
    return events


def asked(events: list[Any]) -> list[Any]:
    return [event.tool_kwargs for event in events if isinstance(event, ApprovalRequiredEvent)]


def approvals(fake: FakeLetta) -> list[bool]:
    sent = [message for body in fake.requests for message in body["messages"]]
    return [a["approve"] for m in sent if m["type"] == "approval" for a in m["approvals"]]


def danger(n: int) -> Reply:
    return Reply(tool_calls=[ToolUse("danger", {"n": n}, id="same")])


async def test_an_id_that_the_model_repeats_in_one_run_is_two_questions(
    letta_fake: FakeLetta,
) -> None:
    client = letta_fake.client()
    agent = LettaAgent(agent_id=client.create_agent(name="a"), client=client)
    letta_fake.script(danger(1), danger(2), "Done.")
    events = await deciding(agent, "go", Context(agent), [True, False])
    assert asked(events) == [{"n": 1}, {"n": 2}]
    assert approvals(letta_fake) == [True, False]


async def test_an_id_that_the_model_repeats_in_the_next_run_is_two_questions(
    letta_fake: FakeLetta,
) -> None:
    client = letta_fake.client()
    agent = LettaAgent(agent_id=client.create_agent(name="a"), client=client)
    letta_fake.script(danger(1), "Done.", danger(2), "Done.")
    ctx = Context(agent)
    events = await deciding(agent, "go", ctx, [True])
    events += await deciding(agent, "again", ctx, [False])
    assert asked(events) == [{"n": 1}, {"n": 2}]
    assert approvals(letta_fake) == [True, False]


async def test_letta_code_runs_only_what_each_answer_allows(
    embedded: Any, embedded_agent: str, embedded_model: ScriptedModel, tmp_path: Path
) -> None:
    def touch(name: str) -> Reply:
        about = {"command": f"touch {tmp_path / name}", "description": "a test"}
        return Reply(tool_calls=[ToolUse("Bash", about, id="same")])

    embedded_model.clear()
    embedded_model.script(touch("one"), touch("two"), "Done.", touch("three"), "Done.")
    options = {"cwd": str(tmp_path)}
    agent = LettaAgent(agent_id=embedded_agent, client=embedded, session_options=options)
    ctx = Context(agent)
    events = await deciding(agent, "go", ctx, [True, False])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]
    results = [e for e in events if isinstance(e, ToolCallResult)]
    assert [r.tool_output.is_error for r in results] == [False, True]
    await deciding(agent, "again", ctx, [False])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]
