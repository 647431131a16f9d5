"""Where calls of one workflow go: branches that run at once, and turns of one memory."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.llama_index.agents import run

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
]


class Page(Event):
    text: str


class Read(Event):
    answer: str


class Reading(Workflow):
    """Reads three pages at once."""

    def __init__(self, reader: Any) -> None:
        super().__init__(timeout=60)
        self.reader = reader

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Page | None:
        for text in ("page one", "page two", "page three"):
            ctx.send_event(Page(text=text))
        return None

    @step(num_workers=3)
    async def read(self, ev: Page) -> Read:
        return Read(answer=str(await self.reader(ev.text)))

    @step
    async def end(self, ctx: Context, ev: Read) -> StopEvent | None:
        read = ctx.collect_events(ev, [Read] * 3)
        return None if read is None else StopEvent(result=sorted(one.answer for one in read))


@pytest.mark.parametrize("kind", ["agent", "llm"])
async def test_each_branch_has_a_conversation_of_its_own(letta_fake: FakeLetta, kind: str) -> None:
    client = letta_fake.client()
    about: dict[str, Any] = {"agent_id": client.create_agent(name="a"), "client": client}
    reader = LettaAgent(**about).run if kind == "agent" else LettaLLM(**about).acomplete
    result = await Reading(reader).run()
    assert result == [f"You said: {text}" for text in ("page one", "page three", "page two")]
    sent = [[m["content"] for m in body["messages"]] for body in letta_fake.requests]
    assert sorted(sent) == [["page one"], ["page three"], ["page two"]]


async def test_the_default_memory_of_a_workflow_is_kept_between_two_runs(
    letta_fake: FakeLetta,
) -> None:
    client = letta_fake.client()
    agent = LettaAgent(
        name="ada", description="d", agent_id=client.create_agent(name="a"), client=client
    )
    workflow = AgentWorkflow(agents=[agent])
    ctx = Context(workflow)
    for text in ("one", "two", "three"):
        await run(workflow, text, ctx)
    memory = await ctx.store.get("memory")
    assert [message.content for message in memory.get_all()] == [
        *("one", "You said: one", "two", "You said: two", "three", "You said: three")
    ]
    assert len(letta_fake._conversations) == 1
