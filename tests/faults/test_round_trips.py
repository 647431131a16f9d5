"""What a session asks before its message, and that the rest is read beside the answer."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient
from letta_adapters.client import facts
from letta_adapters.errors import ConversationBusyError, NotFoundError
from letta_adapters.messages import InitMessage
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._turns import LONG, until
from tests.faults._wire import Play, Wire, deaf, status

MakeRest = Callable[..., Any]
MESSAGE = ("POST", f"/v1/conversations/{ev.CONV}/messages")
TO_DEFAULT = ("POST", "/v1/conversations/default/messages")
READ_CONVERSATION = ("GET", f"/v1/conversations/{ev.CONV}")
READ_AGENT = ("GET", f"/v1/agents/{ev.AGENT}")
MADE = "conv-00000000-0000-4000-8000-000000000002"

WAYS: dict[str, tuple[Callable[[Any], Any], list[tuple[str, str]], list[tuple[str, str]]]] = {
    "conversation": (
        lambda client: client.resume_session(ev.CONV),
        [MESSAGE],
        [READ_CONVERSATION, READ_AGENT],
    ),
    "agent": (lambda client: client.resume_session(ev.AGENT), [TO_DEFAULT], [READ_AGENT]),
    "new": (
        lambda client: client.create_session(ev.AGENT),
        [("POST", "/v1/conversations"), ("POST", f"/v1/conversations/{MADE}/messages")],
        [READ_AGENT],
    ),
    "both ids": (
        lambda client: client.resume_session(agent_id=ev.AGENT, conversation_id=ev.CONV),
        [MESSAGE],
        [],
    ),
}


def by_conversation(client: Any, **options: Any) -> Any:
    """A session that does not know the agent of its conversation."""
    return client.resume_session(ev.CONV, **options)


def after_the_message(server: Server, answer: Any) -> Play:
    """Answer once a message has arrived."""

    def play(wire: Wire) -> None:
        server.wait_for(server.sent)
        wire.answer(200, answer)

    return play


def asked(server: Server) -> list[tuple[str, str]]:
    return [(request.method, request.path.rstrip("/")) for request in server.requests]


@pytest.mark.parametrize("way", list(WAYS))
async def test_only_what_a_message_needs_is_asked_before_it(
    server: Server, rest: MakeRest, face: Any, way: str
) -> None:
    open_session, before, beside = WAYS[way]
    agent = server.agents[ev.AGENT] | {"tools": [{"name": "web_search"}]}
    conversation = {"id": ev.CONV, "agent_id": ev.AGENT, "model": None}
    # What is read beside the answer is not told before the message has arrived.
    server.override("GET", "/v1/conversations/", after_the_message(server, conversation))
    server.override("GET", "/v1/agents/", after_the_message(server, agent))
    async with face(rest()) as client, open_session(client) as session:
        await session.send("hello")
        messages = [message async for message in session.stream()]
        assert (session.agent_id, messages[-1].agent_id) == (ev.AGENT, ev.AGENT)
        assert (await session.run_turn("again")).agent_id == ev.AGENT
    assert [message.type for message in messages] == ["init", "assistant", "result"]
    init = messages[0]
    assert isinstance(init, InitMessage)
    assert (init.agent_id, init.tools) == (ev.AGENT, ("web_search",) if beside else ())
    assert Counter(asked(server)) == Counter([*before, *beside, before[-1]])
    assert asked(server)[: len(before) - 1] == before[:-1]


async def test_the_default_agent_costs_one_request_more(
    server: Server, client: AsyncLettaClient
) -> None:
    assert (await client.prompt("first")).success  # makes it
    server.requests.clear()
    assert (await client.prompt("hello")).success
    # The agent by its tag, the conversation, the message; and what ``init`` tells beside it.
    assert [method for method, _ in asked(server)][:2] == ["GET", "POST"]
    assert Counter(method for method, _ in asked(server)[2:]) == {"POST": 1, "GET": 1}


async def test_a_permission_callback_is_not_trusted_with_tools_unseen(
    server: Server, client: AsyncLettaClient
) -> None:
    async with by_conversation(client, can_use_tool=lambda *_: True) as session:
        assert session.agent_id == ev.AGENT
        assert (await session.run_turn("hello")).success
    assert asked(server) == [READ_CONVERSATION, READ_AGENT, MESSAGE]


async def test_sessions_that_name_a_conversation_differently_take_turns_in_it(
    server: Server, client: AsyncLettaClient
) -> None:
    by_agent = client.resume_session(agent_id=ev.AGENT, conversation_id=ev.CONV)
    other = by_conversation(client)
    await by_agent.send("one")
    await other.send("two")
    assert [item["content"] for item in await by_agent.queued()] == ["two"]
    with pytest.raises(ConversationBusyError):
        await by_conversation(client).run_turn("three")
    assert server.texts() == ["one"]
    await by_agent.close()
    messages = [message async for message in other.stream()]
    assert messages[0].agent_id == ev.AGENT
    assert messages[-1].result == "You said: two"
    assert server.texts() == ["one", "two"]


async def test_a_session_of_nothing_is_refused_by_its_message(
    server: Server, rest: MakeRest, face: Any
) -> None:
    gone = {"detail": f"Conversation not found with id='['{ev.CONV}']'"}
    server.override("GET", "/v1/conversations/", status(404, gone), 9)
    server.override("POST", "/messages", status(404, gone), 2)
    async with face(rest()) as client, by_conversation(client) as session:
        for use in (session.send, session.run_turn):
            with pytest.raises(NotFoundError, match=f"Conversation {ev.CONV} was not") as caught:
                await use("hello")
            assert caught.value.accepted is False
            assert "Check the id" in str(caught.value)
        with pytest.raises(NotFoundError, match=f"Conversation {ev.CONV} was not"):
            await session.initialize()
    assert len(server.sent()) == 2


async def test_an_agent_that_is_gone_is_named_by_who_wants_a_conversation_with_it(
    server: Server, client: AsyncLettaClient
) -> None:
    missing = ev.AGENT[:-1] + "9"
    server.override("POST", "/v1/conversations/", status(404, {"detail": "Agent not found"}))
    with pytest.raises(NotFoundError, match=f"Agent with ID {missing} not found"):
        await client.prompt("hello", missing)


async def test_an_answer_outlives_facts_that_cannot_be_read(
    server: Server, client: AsyncLettaClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.override("GET", "/v1/agents/", status(403, {"detail": "not yours"}), 9)
    async with by_conversation(client) as session:
        with caplog.at_level(logging.WARNING):
            await session.send("hello")
            messages = [message async for message in session.stream()]
        assert (messages[0].agent_id, messages[0].model) == ("", None)
        assert messages[-1].result == "You said: hello"
        assert session.agent_id is None
        server.relent()
        assert (await session.initialize()).agent_id == ev.AGENT  # asks once more
    assert "not yours" in caplog.text
    assert server.texts() == ["hello"]


async def test_an_answer_does_not_wait_for_ever_for_facts(
    server: Server, rest: MakeRest, face: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "PATIENCE", 0.05)
    server.override("GET", "/v1/agents/", deaf)
    async with face(rest()) as client, by_conversation(client) as session:
        assert (await session.run_turn("hello")).result == "You said: hello"
        assert (await session.run_turn("again")).result == "You said: again"
    assert server.texts() == ["hello", "again"]
    assert server.cancels == 0


@pytest.mark.parametrize("reads", [False, True])
async def test_closing_a_session_ends_what_it_reads_beside_the_answer(
    server: Server, client: AsyncLettaClient, reads: bool
) -> None:
    before = asyncio.all_tasks()
    server.override("GET", "/v1/agents/", deaf)
    session = by_conversation(client)
    await session.send("hello")
    await until(lambda: server.count("GET", "/v1/agents/"))
    reader = None
    if reads:
        stream = session.stream()
        reader = asyncio.ensure_future(anext(aiter(stream)))
        await asyncio.sleep(0)
    await session.close()
    if reader is not None:
        assert (await reader).type == "init"
        assert [message.type async for message in stream][-1:] == ["result"]
    assert asyncio.all_tasks() <= before
    assert server.texts() == ["hello"]


async def test_a_reader_cancelled_while_facts_are_read_stops_the_agent(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(LONG)
    server.override("GET", "/v1/agents/", deaf)
    session = by_conversation(client)
    await session.send("hello")
    await until(lambda: server.count("GET", "/v1/agents/"))
    reader = asyncio.ensure_future(anext(aiter(session.stream())))
    await asyncio.sleep(0.05)  # it has begun, and waits for the facts
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert [run.status for run in server.runs] == ["cancelled"]
    await session.close()
