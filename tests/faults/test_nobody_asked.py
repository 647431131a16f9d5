"""A question of the agent's that an adapter meets where there is nobody to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from llama_index.core.agent.workflow import FunctionAgent

from letta_adapters import LettaClient
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.llama_index import LettaLLM
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

Ask = Callable[[LettaClient, str], str]


def add(a: int) -> int:
    """Add one.

    Args:
        a: The number.
    """
    return a + 1


def runnable(client: LettaClient, agent: str) -> str:
    return str(LettaRunnable(client=client, agent_id=agent, output="text").invoke("Go."))


def runnable_async(client: LettaClient, agent: str) -> str:
    step = LettaRunnable(client=client, agent_id=agent, output="text")
    return str(asyncio.run(step.ainvoke("Go.")))


def agent_of_langchain(client: LettaClient, agent: str) -> str:
    loop: Any = create_agent(ChatLetta(client=client, agent_id=agent), [add])
    return str(loop.invoke({"messages": "Go."})["messages"][-1].text)


def agent_of_llama_index(client: LettaClient, agent: str) -> str:
    async def run() -> Any:
        loop = FunctionAgent(llm=LettaLLM(client=client, agent_id=agent), tools=[add])
        return await loop.run("Go.")

    return str(asyncio.run(run()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "ask", [runnable, runnable_async, agent_of_langchain, agent_of_llama_index]
)
def test_the_call_is_ended_and_the_agent_reads_no_refusal_of_its_user(ask: Ask) -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("launch", {}, id="call_1")]), "Then not.")
    with letta.client() as client:
        assert ask(client, client.create_agent(name="asks")).endswith("Then not.")
    sent = [m for request in letta.requests for m in request.get("messages", [])]
    (answer,) = [a for m in sent if m.get("type") == "approval" for a in m["approvals"]]
    # A denial would reach the agent as "User reason: ...".
    assert (answer["type"], answer["status"]) == ("tool", "error")
    told = str(answer["tool_return"])
    assert "Nobody was asked" in told or "launch" in told  # the framework's own word
