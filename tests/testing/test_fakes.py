"""The fake Letta: the same cases that run against real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from llama_index.core.agent.workflow.workflow_events import AgentOutput

from letta_adapters import NotFoundError, TurnFailedError
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.messages import content_text
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.llama_index import (
    AgentConformance,
    AgentSubject,
    LLMConformance,
    LLMSubject,
)
from letta_adapters.testing.scripted_model import ModelError, Reply, ToolUse
from tests.langchain.cases import CASES, Case
from tests.langchain.test_history import LettaWorld

CUT = "a_call_that_was_cut_off_is_made_again_and_not_said_twice"  # it has no network to lose


@pytest.fixture
async def world() -> AsyncIterator[LettaWorld]:
    letta = FakeLetta()
    async with letta.async_client() as client:

        async def cut_off() -> None:
            raise NotImplementedError

        yield LettaWorld(client, await client.create_agent(name="fake"), letta.script, cut_off)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.__name__ != CUT], ids=lambda case: case.__name__
)
async def test_histories(case: Case, world: LettaWorld) -> None:
    await case(world)


class TestFakeLettaLLM(LLMConformance):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[LLMSubject]:
        letta = FakeLetta()
        with letta.client() as client:
            agent_id = client.create_agent(name="fake")

            def make(**fields: Any) -> LettaLLM:
                return LettaLLM(agent_id=agent_id, client=client, **fields)

            yield LLMSubject(letta.script, make, secret="none")


class TestFakeLettaAgent(AgentConformance):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[AgentSubject]:
        letta = FakeLetta()
        async with letta.async_client() as client:
            agent_id = await client.create_agent(name="fake")

            def make(**fields: Any) -> LettaAgent:
                return LettaAgent(agent_id=agent_id, client=client, **fields)

            async def said(output: AgentOutput) -> list[str]:
                place = output.raw["conversation_id"]
                page = await client.list_messages(agent_id, place, order="asc", limit=50)
                users = [m for m in page.raw if m["message_type"] == "user_message"]
                return [content_text(message["content"]) for message in users]

            yield AgentSubject(letta.script, make, said)


def test_in_two_lines() -> None:
    letta = FakeLetta("Hello Ada.", "You are Ada.")
    model = ChatLetta(client=letta.client())
    assert model.invoke("I am Ada.").text == "Hello Ada."
    assert letta.said == ["I am Ada."]


def test_a_whole_agent() -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    letta = FakeLetta(Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2})]), "Three.")
    agent = LettaRunnable(client=letta.client(), tools=[add], output="text")
    assert agent.invoke("1 + 2?") == "Three."
    assert letta.requests[-1]["messages"][0]["approvals"][0]["tool_return"] == "3"


def test_sessions() -> None:
    letta = FakeLetta("Hi.", Reply(error=ModelError(429, "no quota")))
    with letta.client() as client:
        agent = client.create_agent(name="ada")
        assert client.agents.retrieve(agent)["name"] == "ada"
        assert client.models.list()[0]["handle"] == "fake/model"
        with client.create_session(agent) as session:
            assert session.run_turn("hello").result == "Hi."
            failed = session.run_turn("again")
            assert not failed.success
            with pytest.raises(TurnFailedError, match="no quota"):
                failed.raise_for_status()
            kinds = [m["message_type"] for m in session.list_messages(order="asc").raw]
            assert kinds == ["user_message", "assistant_message", "user_message"]
        assert client.prompt("and now?").result == "You said: and now?"
        client.agents.delete(agent)
        with pytest.raises(NotFoundError):
            client.agents.retrieve(agent)


def test_an_unknown_cursor_gives_the_first_page() -> None:
    """As the Letta API does."""
    letta = FakeLetta("Hello.")
    with letta.client() as client, client.create_session() as session:
        session.run_turn("Hi.")
        first = session.list_messages(order="asc")
        after = session.list_messages(after="message-of-another-conversation", order="asc")
    assert [m["id"] for m in after.raw] == [m["id"] for m in first.raw]
