"""Leaving a turn early, or closing what it belongs to: the agent stops, once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    ConversationBusyError,
    InvalidInputError,
    SessionClosedError,
)
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._tools import answered
from tests.faults._turns import LONG, first_fragment, stopped_once, until
from tests.faults._wire import (
    Wire,
    asks,
    deaf,
    hang,
    status,
    stream,
)
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


# -- leaving the loop -----------------------------------------------------------------------------


async def test_consumer_stops_early_and_closes(server: Server, rest: MakeRest, face: Any) -> None:
    server.script(LONG)
    async with face(rest()) as client:
        session = resume(client, include_partial_messages=True)
        await session.send("hello")
        reading = session.stream()
        await first_fragment(reading)
        await reading.aclose()
        assert not server.active
        await reading.aclose()
        await stopped_once(session, server)


async def test_break_and_drop(server: Server, client: AsyncLettaClient) -> None:
    """Without a close: dropping the stream closes it as soon as the loop comes round."""
    server.script(LONG)
    session = resume(client)
    await session.send("hello")
    async for _ in session.stream():
        break
    gc.collect()
    await until(lambda: not server.active)
    await stopped_once(session, server)


async def test_break_while_the_stream_is_kept(server: Server, client: AsyncLettaClient) -> None:
    """``break`` closes nothing; the next turn's reader first aborts what it left unfinished."""
    server.script(LONG)
    session = resume(client)
    await session.send("hello")
    reading = session.stream()
    async for _ in reading:
        break
    assert server.active
    await stopped_once(session, server)
    assert [m.type async for m in reading][-2:] == ["error", "result"]


@pytest.mark.parametrize("how", ["async with", "aclose"])
async def test_a_stream_that_is_closed_before_it_is_read(
    server: Server, client: AsyncLettaClient, how: str
) -> None:
    server.script(LONG)
    session = resume(client)
    await session.send("hello")
    if how == "aclose":
        await session.stream().aclose()
    else:
        async with session.stream():
            pass
    assert not server.active
    await stopped_once(session, server)


@pytest.mark.parametrize("gives_up", ["abort", "close"])
async def test_another_session_is_not_blocked_by_what_its_task_gave_up(
    server: Server, client: AsyncLettaClient, gives_up: str
) -> None:
    server.script(LONG)
    left = resume(client)
    await left.send("hello")
    with pytest.raises(ConversationBusyError, match="have not been read"):
        await resume(client).run_turn("again")
    await (left.abort() if gives_up == "abort" else left.close())
    await stopped_once(resume(client), server)


async def test_recovery_after_an_unfinished_turn_does_not_wait_for_itself(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(LONG)
    session = resume(client)
    await session.send("hello")
    reading = session.stream()
    await anext(reading)
    assert not (await session.recover_pending_approvals()).recovered
    await stopped_once(session, server)


@pytest.mark.parametrize("what", ["send", "run_turn"])
async def test_a_cancel_that_comes_as_the_message_is_accepted(
    server: Server, client: AsyncLettaClient, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The sender never learns that it was, so nobody would read the turn, or stop it."""
    server.script(LONG)
    session = resume(client)
    begin = session._begin

    async def begin_and_cancel(*args: Any) -> Any:
        turn = await begin(*args)
        asyncio.get_running_loop().call_soon(sending.cancel)  # before anybody learns of the turn
        return turn

    monkeypatch.setattr(session, "_begin", begin_and_cancel)
    sending = asyncio.create_task(getattr(session, what)("hello"))
    with pytest.raises(asyncio.CancelledError):
        await sending
    monkeypatch.undo()
    assert [run.status for run in server.runs] == ["cancelled"]
    await stopped_once(session, server)


async def test_leaving_after_the_result_stops_nothing(
    server: Server, rest: MakeRest, face: Any
) -> None:
    async with face(rest()) as client:
        session = resume(client)
        await session.send("hello")
        reading = session.stream()
        async for message in reading:
            if message.type == "result":
                break
        await reading.aclose()
        assert (await session.run_turn("again")).success
    assert server.cancels == 0


async def test_leaving_between_error_and_result(server: Server, client: AsyncLettaClient) -> None:
    server.script(stream(ev.ping(), ev.internal_error("Boom"), keep=False))
    session = resume(client)
    await session.send("hello")
    async with session.stream() as messages:
        async for message in messages:
            if message.type == "error":
                break
    assert (await session.run_turn("again")).success
    assert server.cancels == 0


async def test_leaving_while_the_agent_waits_for_this_client(
    server: Server, rest: MakeRest, face: Any
) -> None:
    """The call stays as it is: nobody has decided about it. The next turn meets it."""
    ran: list[str] = []

    def get_weather(city: str) -> str:
        ran.append(city)
        return "sunny"

    server.script(asks(ev.call()))
    async with face(rest()) as client:
        session = resume(client, tools=[get_weather])
        await session.send("hello")
        reading = session.stream()
        async for message in reading:
            if message.type == "tool_call":
                break
        await reading.aclose()
        left = server.pending()
        assert (await session.run_turn("again")).success
    if face is AsyncLettaClient:  # the sync face reads ahead, and may have answered already
        assert left == ["call_1"]
        assert server.texts() == ["hello", "again", "again"]
        assert [a.get("status") for a in answered(server)] == ["error"]
        assert ran == []


async def test_leaving_when_the_server_is_gone(server: Server, rest: MakeRest, face: Any) -> None:
    """Nothing can be stopped then; leaving does not fail because of it."""
    server.script(stream(ev.ping(), ev.text("You sa"), deaf))
    server.override("POST", "/cancel$", status(500, {"detail": "?"}), 9)
    server.override("GET", "/v1/", status(500, {"detail": "?"}), 99)
    async with face(rest(idle_timeout=0.3)) as client:
        session = resume(client, include_partial_messages=True)
        await session.send("hello")
        reading = session.stream()
        await first_fragment(reading)
        await reading.aclose()
        assert (await session.run_turn("again")).success
    assert server.texts() == ["hello", "again"]


# -- closing the session or the client ------------------------------------------------------------


async def test_closing_the_session_stops_the_turn(
    server: Server, rest: MakeRest, face: Any
) -> None:
    server.script(LONG)
    async with face(rest()) as client:
        async with resume(client, include_partial_messages=True) as session:
            await session.send("hello")
            reading = session.stream()
            await first_fragment(reading)
        await session.close()
        with pytest.raises(SessionClosedError):
            await session.send("more")
        with pytest.raises(SessionClosedError):
            session.stream() if face is AsyncLettaClient else session._target.stream()
        await stopped_once(resume(client), server)


async def test_closing_the_session_while_another_task_reads(
    server: Server, client: AsyncLettaClient
) -> None:
    def chatter(wire: Wire) -> None:
        while not wire.run.over.is_set():
            wire.chunk(ev.text("x"))

    server.script(stream(ev.ping(), chatter, hang))
    session = resume(client, include_partial_messages=True)
    await session.send("hello")
    seen: list[Any] = []

    async def read() -> None:
        async for message in session.stream():
            seen.append(message)  # noqa: PERF401  # when it comes: it is looked at meanwhile

    reading = asyncio.create_task(read())
    await until(lambda: len(seen) > 10)
    await session.close()
    await reading
    assert [m.type for m in seen[-2:]] == ["error", "result"]
    assert seen[-1].error_code == "cancelled"
    assert (await resume(client).run_turn("again")).success
    assert [run.status for run in server.runs] == ["cancelled", "completed"]


async def test_closing_the_session_while_another_task_reads_from_a_deaf_server(
    server: Server, rest: MakeRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_adapters.client.turn._END_SECONDS", 0.1)
    monkeypatch.setattr("letta_adapters.backends.rest.turn._STOP_SECONDS", 0.1)
    server.script(stream(ev.ping(), deaf))
    async with AsyncLettaClient(rest(idle_timeout=3600)) as client:
        session = resume(client)
        await session.send("hello")
        reading = session.stream()
        await anext(reading)
        waiting = asyncio.create_task(anext(reading))
        await asyncio.sleep(0)
        await session.close()
        assert (await waiting).type == "error"
        assert (await anext(reading)).error_code == "cancelled"
        assert (await resume(client).run_turn("again")).success


async def test_closing_the_client_stops_turns(server: Server, rest: MakeRest, face: Any) -> None:
    server.script(LONG)
    client = face(rest())
    session = resume(client)
    await session.send("hello")
    await client.close()
    assert [run.status for run in server.runs] == ["cancelled"]
    await session.close()
    await client.close()
    assert server.cancels == 1


# -- misuse ---------------------------------------------------------------------------------------


async def test_stream_without_send_and_stream_twice(
    server: Server, client: AsyncLettaClient
) -> None:
    session = resume(client)
    with pytest.raises(InvalidInputError, match=r"call send\(\) first"):
        session.stream()
    await session.send("hello")
    assert [m.type async for m in session.stream()][-1] == "result"
    with pytest.raises(InvalidInputError):
        session.stream()
