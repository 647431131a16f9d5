"""A message that waits behind another client's turn is given up: that turn goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, ResultMessage
from letta_adapters.backends.app_server.backend import AppServerBackend
from letta_adapters.client.session import AsyncSession
from letta_adapters.testing.scripted_model import Reply, ScriptedModel
from tests.backends.app_server._server import AppServer

THEIRS = ["theirs "] * 30


@pytest.fixture
async def other(
    connect: Callable[..., AsyncLettaClient], server: AppServer
) -> AsyncIterator[AsyncLettaClient]:
    async with connect(server, name="remote") as made:
        yield made


async def running(
    other: AsyncLettaClient, agent: str, session: AsyncSession, model: ScriptedModel
) -> tuple[AsyncSession, asyncio.Task[ResultMessage]]:
    """Another client's session on the conversation, and its turn, which talks for a while."""
    await session.initialize()
    theirs = other.resume_session(agent_id=agent, conversation_id=session.conversation_id)
    model.script(Reply(THEIRS, token_delay=0.1))
    turn = asyncio.ensure_future(theirs.run_turn("first"))
    while not model.requests:
        await asyncio.sleep(0.05)
    return theirs, turn


async def close_session(session: AsyncSession, client: AsyncLettaClient) -> None:
    await session.send("second")
    await session.close()


async def close_client(session: AsyncSession, client: AsyncLettaClient) -> None:
    await session.send("second")
    await client.close()


async def cancel_task(session: AsyncSession, client: AsyncLettaClient) -> None:
    turn = asyncio.ensure_future(session.run_turn("second"))
    await asyncio.sleep(0.5)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn


async def abandon_stream(session: AsyncSession, client: AsyncLettaClient) -> None:
    await session.send("second")
    async with session.stream() as stream:
        await anext(stream)


async def run_out_of_time(session: AsyncSession, client: AsyncLettaClient) -> None:
    result = await session.run_turn("second")
    assert (result.success, result.error_code) == (False, "timeout_after_acceptance")


async def abort(session: AsyncSession, client: AsyncLettaClient) -> None:
    turn = asyncio.ensure_future(session.run_turn("second"))
    await asyncio.sleep(0.5)
    await session.abort()
    result = await turn
    assert (result.success, result.error_code) == (False, "cancelled")
    assert result.input_stored is False


WAYS = (close_session, close_client, cancel_task, abandon_stream, run_out_of_time, abort)


@pytest.mark.parametrize("give_up", WAYS)
async def test_a_queued_message_that_is_given_up_leaves_the_running_turn_alone(
    connect: Callable[..., AsyncLettaClient],
    server: AppServer,
    client: AsyncLettaClient,
    other: AsyncLettaClient,
    agent: str,
    model: ScriptedModel,
    give_up: Callable[[AsyncSession, AsyncLettaClient], Any],
) -> None:
    options: dict[str, Any] = {"turn_timeout": 1.0} if give_up is run_out_of_time else {}
    async with connect(server) as mine:
        session = mine.create_session(agent, **options)
        theirs, turn = await running(other, agent, session, model)
        await give_up(session, mine)
        assert not turn.done()
        assert (await turn).result == "".join(THEIRS)
        await asyncio.sleep(0.5)  # time for a message that is still queued to be said
        assert len(model.requests) == 1
        model.script("Fine.")
        assert (await theirs.run_turn("third")).result == "Fine."
        said = [str(m["content"]) for m in model.requests[-1].messages if m["role"] == "user"]
        assert "second" not in " ".join(said)
        await theirs.close()


async def test_a_turn_that_says_two_clients_messages_goes_on_when_one_of_them_gives_up(
    connect: Callable[..., AsyncLettaClient],
    server: AppServer,
    client: AsyncLettaClient,
    other: AsyncLettaClient,
    agent: str,
    model: ScriptedModel,
) -> None:
    """The server says in one turn what waited together."""
    async with connect(server, name="remote") as third:
        session = client.create_session(agent)
        _, first = await running(other, agent, session, model)
        model.script(Reply(THEIRS, token_delay=0.1))
        beside = third.resume_session(agent_id=agent, conversation_id=session.conversation_id)
        await beside.send("beside")
        await session.send("second")
        await first
        while len(model.requests) < 2:
            await asyncio.sleep(0.05)
        await session.close()
        messages = [message async for message in beside.stream()]
        assert getattr(messages[-1], "result", None) == "".join(THEIRS)
        await beside.close()


@pytest.mark.parametrize("way", ["abort", "close"])
async def test_what_waits_behind_a_turn_that_is_stopped_goes_on(
    client: AsyncLettaClient,
    other: AsyncLettaClient,
    agent: str,
    model: ScriptedModel,
    way: str,
) -> None:
    """An abort puts the queue on hold: nobody asked for that."""
    session = client.create_session(agent)
    theirs, first = await running(other, agent, session, model)
    model.script("mine")
    waiting = asyncio.ensure_future(session.run_turn("second"))
    await asyncio.sleep(0.5)
    await (theirs.abort() if way == "abort" else theirs.close())
    assert (await first).error_code == "cancelled"
    assert (await asyncio.wait_for(waiting, 30)).result == "mine"
    await theirs.close()


async def test_a_queued_message_whose_connection_was_lost_leaves_the_running_turn_alone(
    connect: Callable[..., AsyncLettaClient],
    server: AppServer,
    other: AsyncLettaClient,
    agent: str,
    model: ScriptedModel,
) -> None:
    async with connect(server, settle_timeout=0.2) as mine:
        session = mine.create_session(agent)
        _, first = await running(other, agent, session, model)
        waiting = asyncio.ensure_future(session.run_turn("second"))
        await asyncio.sleep(0.5)
        backend = mine.backend
        assert isinstance(backend, AppServerBackend)
        (await backend.connection())._socket.transport.abort()
        result = await waiting
        assert (result.error_code, result.input_stored) == ("stream_truncated", False)
        assert (await first).result == "".join(THEIRS)
        await asyncio.sleep(0.5)
        assert len(model.requests) == 1
        await session.close()


async def test_a_message_that_another_client_takes_out_of_the_queue_is_over(
    client: AsyncLettaClient, other: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    session = client.create_session(agent)
    theirs, first = await running(other, agent, session, model)
    waiting = asyncio.ensure_future(session.run_turn("second"))
    while not (queue := await theirs.queued()):
        await asyncio.sleep(0.05)
    assert await theirs.remove_queued(str(queue[0]["id"]))
    result = await asyncio.wait_for(waiting, 30)
    assert (result.error_code, result.input_stored) == ("cancelled", False)
    assert "queue" in str(result.error_detail)
    assert (await first).success
    await session.close()
    await theirs.close()
