"""Nothing that a process remembers of its calls grows with their number."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters._utils.bounded import BOUND, Bounded
from letta_adapters.backends.base import Change, find_change, find_command_change
from letta_adapters.chat import clients
from letta_adapters.chat.cache import ConversationCache, get_cache, recent
from letta_adapters.client.client import get_slots, is_busy
from letta_adapters.langchain import ChatLetta
from letta_adapters.llama_index import LettaLLM
from letta_adapters.testing import FakeLetta

CALLS = 1_100


def sizes(known: ConversationCache) -> dict[str, int]:
    found = {name: len(value) for name, value in vars(known).items() if hasattr(value, "__len__")}
    assert {"held", "threads", "told", "changed"} <= set(found)
    return found


def test_what_was_used_last_is_kept() -> None:
    kept: Bounded[int, str] = Bounded(3, in_use=lambda key: key == 1)
    for key in (1, 2, 3):
        kept[key] = "x"
    assert kept.get(2) == "x"
    kept[4] = kept[5] = "x"
    assert set(kept) == {1, 4, 5}


def test_what_is_in_use_is_never_forgotten() -> None:
    kept: Bounded[int, str] = Bounded(2, in_use=lambda key: key < 5)
    for key in range(8):
        kept[key] = "x"
    assert set(kept) == {0, 1, 2, 3, 4, 7}


def test_a_full_cache_looks_at_few_entries() -> None:
    """What it costs to write an entry does not grow with the number of entries."""
    looked: list[int] = []
    kept: Bounded[int, str] = Bounded(1000, in_use=lambda key: bool(looked.append(key)))
    for key in range(3000):
        kept[key] = "x"
    assert (len(kept), min(kept)) == (1000, 2000)
    assert looked == list(range(2000))


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.slow
async def test_many_calls_leave_every_cache_at_its_bound(
    letta_fake: FakeLetta, thread: bool
) -> None:
    """Ephemeral calls leave nothing; a thread for each call is forgotten some time."""
    async with letta_fake.async_client() as client:
        agent = await client.create_agent(model="fake/model")
        chat = ChatLetta(agent_id=agent, client=client)
        llm = LettaLLM(agent_id=agent, client=client)

        async def ask(number: int) -> None:
            if thread:
                where: Any = {"configurable": {"thread_id": str(number)}}
                await chat.ainvoke(f"question {number}", where)
            else:
                await llm.acomplete(f"question {number}")

        for start in range(0, CALLS, 50):
            await asyncio.gather(*(ask(number) for number in range(start, start + 50)))
        found = sizes(get_cache(client))
        assert max(found.values()) <= BOUND, found
        assert len(client.handles) == 1
        if not thread:
            assert found["told"] == found["threads"] == 0
        assert len(recent._calls) <= BOUND
        assert len(recent._unended) <= BOUND
        assert len(recent._seen) <= BOUND
        assert not get_slots(client).turns
        while is_busy(client):  # the last conversations are being removed
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("away", [False, True])
async def test_runs_of_others_are_looked_for_after_a_moment(
    monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """What this process did a moment ago it knows; then another one may have been asked."""
    letta = FakeLetta()
    http_client = letta.http_client()
    asked: list[str] = []

    async def note(request: httpx.Request) -> None:
        asked.append(request.url.path)

    http_client.event_hooks["request"].append(note)
    async with AsyncLettaClient(Rest(base_url="http://letta.fake"), http_client=http_client) as it:
        model = ChatLetta(agent_id=await it.create_agent(), client=it)
        history: list[Any] = [HumanMessage("one", id="1")]
        history.append(await model.ainvoke(history))
        if away:
            monkeypatch.setattr("letta_adapters.chat.cache._MOMENT", -1.0)
        await model.ainvoke([*history, HumanMessage("two", id="2")])
    assert (asked.count("/v1/runs/") == 1) is away


async def test_what_is_deleted_is_let_go_of(letta_fake: FakeLetta) -> None:
    async with letta_fake.async_client() as client:
        agent = await client.create_agent(model="fake/model")
        model = ChatLetta(agent_id=agent, client=client)
        answer = await model.ainvoke("hi", {"configurable": {"thread_id": "t"}})
        known = get_cache(client)
        assert sizes(known)["threads"] == sizes(known)["told"] == 1
        await client.conversations.delete(answer.response_metadata["conversation_id"])
        assert sizes(known)["threads"] == sizes(known)["told"] == 0


@pytest.mark.parametrize(
    ("call", "change"),
    [
        (("DELETE", "/v1/agents/agent-1", None), Change(agent_id="agent-1", gone=True)),
        (("PATCH", "/v1/agents/agent-1", {"model": "x"}), Change(agent_id="agent-1")),
        (("DELETE", "/v1/conversations/conv-1", None), Change("", "conv-1", True)),
        (("PATCH", "/v1/conversations/conv-1", {"archived": True}), Change("", "conv-1", True)),
        (("PATCH", "/v1/conversations/conv-1", {"summary": "x"}), Change("", "conv-1")),
        (("GET", "/v1/agents/agent-1", None), None),
        (("DELETE", "/v1/agents/agent-1/tools", None), None),
    ],
)
def test_what_a_request_changes(call: Any, change: Change | None) -> None:
    assert find_change(*call) == change


@pytest.mark.parametrize(
    ("name", "fields", "change"),
    [
        ("agent_delete", {"agent_id": "agent-1"}, Change("agent-1", "", True)),
        (
            "conversation_update",
            {"conversation_id": "conv-1", "body": {"archived": True}},
            Change("", "conv-1", True),
        ),
        ("list_memory", {"agent_id": "agent-1"}, None),
    ],
)
def test_what_a_command_changes(name: str, fields: Any, change: Change | None) -> None:
    assert find_command_change(name, fields) == change


async def test_an_application_with_a_key_for_each_user_keeps_some_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "_CLIENTS", 3)
    monkeypatch.setattr(clients, "_IDLE_SECONDS", -1.0)
    home = asyncio.get_running_loop()
    made: list[AsyncLettaClient] = []
    for number in range(10):
        spec = Rest(base_url="http://127.0.0.1:1", api_key=f"key{number}")
        made.append(clients._get_shared(home, spec))
        await asyncio.sleep(0.01)
    assert len(clients._clients[home]) == 3
    assert [client.closed for client in made] == [True] * 7 + [False] * 3
    for client in made:
        await client.close()
