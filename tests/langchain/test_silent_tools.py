"""A ``LettaRunnable`` with ``can_use_tool`` refuses tools that the server runs without asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.exceptions import ModelError

from letta_adapters import Allow, LettaClient, Rest, UnsupportedOptionError
from letta_adapters.langchain import LettaRunnable
from letta_adapters.llama_index import LettaAgent
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import status

WEB = {"name": "web_search", "tool_type": "letta_builtin"}
MEMORY = {"name": "memory", "tool_type": "letta_core"}
OTHER = ev.AGENT[:-1] + "7"


@pytest.fixture
def server() -> Iterator[Server]:
    """A Letta API whose agent has a tool of the server's and one for its memory."""
    with Server() as running:
        running.agents[ev.AGENT]["tools"] = [WEB, MEMORY]
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[LettaClient]:
    """A client of ``server``."""
    with LettaClient(Rest(base_url=server.url, api_key="")) as made:
        yield made


def make_it_ask(server: Server, agent: str = ev.AGENT) -> None:
    rule = {"type": "requires_approval", "tool_name": "web_search"}
    server.agents[agent]["tool_rules"] = [rule]


async def astream(agent: LettaRunnable) -> Any:
    return [item async for item in agent.astream("Hi.")]


FACES: dict[str, Callable[[LettaRunnable], Any]] = {
    "invoke": lambda agent: agent.invoke("Hi."),
    "stream": lambda agent: list(agent.stream("Hi.")),
    "ainvoke": lambda agent: asyncio.run(agent.ainvoke("Hi.")),
    "astream": lambda agent: asyncio.run(astream(agent)),
}

PLACES: dict[str, dict[str, Any]] = {
    "agent": {"agent_id": ev.AGENT},
    "thread": {"agent_id": ev.AGENT, "thread_id": "mine"},
    "both": {"agent_id": ev.AGENT, "conversation_id": ev.CONV},
    "conversation": {"conversation_id": ev.CONV},
}


def count_reads(server: Server) -> int:
    return server.count("GET", "^/v1/agents/agent-")


@pytest.mark.parametrize("face", list(FACES))
@pytest.mark.parametrize("place", list(PLACES))
def test_a_tool_that_runs_unasked_is_refused_before_anything_is_sent(
    server: Server, client: LettaClient, face: str, place: str
) -> None:
    agent = LettaRunnable(client=client, can_use_tool=lambda *_: Allow(), **PLACES[place])
    with pytest.raises(UnsupportedOptionError, match=r"runs web_search without.*detach") as caught:
        FACES[face](agent)
    assert isinstance(caught.value, ModelError)
    assert caught.value.accepted is not True
    assert [request for request in server.requests if request.method != "GET"] == []
    # Mended, the same runnable goes on.
    make_it_ask(server)
    server.override("GET", r"/v1/conversations/$", status(200, []), 2)
    FACES[face](agent)
    assert server.texts() == ["Hi."]


@pytest.mark.parametrize("face", list(FACES))
def test_an_agent_that_asks_is_looked_at_once(
    server: Server, client: LettaClient, face: str
) -> None:
    make_it_ask(server)
    fields: Any = {"client": client, "agent_id": ev.AGENT, "can_use_tool": lambda *_: True}
    agent = LettaRunnable(**fields)
    FACES[face](agent)
    before = count_reads(server)
    FACES[face](agent)
    assert count_reads(server) == before
    # Another runnable looks for itself.
    server.agents[ev.AGENT]["tool_rules"] = []
    with pytest.raises(UnsupportedOptionError):
        FACES[face](LettaRunnable(**fields))


def test_a_conversation_of_another_agent_is_looked_at_with_its_own_agent(
    server: Server, client: LettaClient
) -> None:
    """Its id alone decides who answers, whichever agent is the default one."""
    make_it_ask(server)
    fields: Any = {"client": client, "can_use_tool": lambda *_: True}
    agent = LettaRunnable(agent_id=ev.AGENT, **fields)
    FACES["invoke"](agent)
    server.agents[OTHER] = server.agents[ev.AGENT] | {"id": OTHER, "tool_rules": []}
    found = {"id": ev.CONV, "agent_id": OTHER}
    server.override("GET", f"/v1/conversations/{ev.CONV}", status(200, found), 2)
    with pytest.raises(UnsupportedOptionError, match="web_search"):
        LettaRunnable(conversation_id=ev.CONV, **fields).invoke("Hi.")
    assert server.texts() == ["Hi."]


def test_without_a_callback_nothing_is_looked_at(server: Server, client: LettaClient) -> None:
    LettaRunnable(client=client, agent_id=ev.AGENT, model=None).invoke("Hi.")
    assert [r for r in server.requests if "agent.tools" in str(r.query)] == []
    assert server.texts() == ["Hi."]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_an_agent_of_llama_index_passes_on_only_what_is_asked(
    server: Server, client: LettaClient
) -> None:
    agent = LettaAgent(client=client, agent_id=ev.AGENT)
    assert str(await agent.run("Hi."))
    assert server.texts() == ["Hi."]
