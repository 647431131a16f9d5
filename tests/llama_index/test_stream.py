"""What a LettaAgent's run writes to its stream, and what watches it sees when it is torn."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.agent.workflow.workflow_events import AgentInput, AgentStream

from letta_adapters.llama_index import LettaAgent
from letta_adapters.llama_index.step import StepReader
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.llama_index.agents import add, make_add_call, run
from letta_adapters.testing.llama_index.watching import watching
from letta_adapters.testing.scripted_model import Reply

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
]


def made(fake: FakeLetta, **fields: Any) -> LettaAgent:
    client = fake.client()
    return LettaAgent(agent_id=client.create_agent(name="a"), client=client, **fields)


async def test_what_is_asked_and_the_calls_that_come_are_on_the_stream(
    letta_fake: FakeLetta,
) -> None:
    letta_fake.script(
        Reply(text="Let me add.", tool_calls=[make_add_call(2, 3, "add-1")]), "It is 5."
    )
    _, events = await run(made(letta_fake, tools=[add]), "2 + 3?")
    first, second = [event for event in events if isinstance(event, AgentInput)]
    assert [message.content for message in first.input] == ["2 + 3?"]
    assert [message.role.value for message in second.input] == ["user", "assistant", "tool"]
    streamed = [event for event in events if isinstance(event, AgentStream)]
    called = [(call.tool_name, call.tool_kwargs) for e in streamed for call in e.tool_calls]
    assert called == [("add", {"a": 2, "b": 3})]
    assert "".join(event.delta for event in streamed) == "Let me add.It is 5."


async def test_an_agent_that_is_not_to_stream_does_not(letta_fake: FakeLetta) -> None:
    letta_fake.script(Reply(tool_calls=[make_add_call(2, 3, "add-1")]), "It is 5.")
    output, events = await run(made(letta_fake, tools=[add], streaming=False), "2 + 3?")
    assert str(output) == "It is 5."
    assert [event for event in events if isinstance(event, AgentStream)] == []
    assert [body["stream_tokens"] for body in letta_fake.requests] == [False, False]


@pytest.mark.parametrize("error", [RuntimeError("torn"), KeyError("torn"), SystemError("torn")])
async def test_the_span_of_a_turn_is_closed_whatever_is_raised(
    letta_fake: FakeLetta, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def torn(*_: Any) -> None:
        raise error

    monkeypatch.setattr(StepReader, "_write", torn)
    agent = made(letta_fake)
    with watching() as (spans, _), pytest.raises(type(error), match="torn"):
        await run(agent, "go")
    assert [how for how, _ in spans.named("LettaLLM.astream_chat")] == ["drop"]
    assert spans.open_spans == {}
