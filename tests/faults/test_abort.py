"""Aborting, cancelling the task, running out of time: the agent stops, once."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from letta_adapters import Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    TimeoutAfterAcceptanceError,
    TurnCancelledError,
)
from letta_adapters.messages import InitMessage
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._turns import LONG, first_fragment, stopped_once, until
from tests.faults._wire import (
    Wire,
    asks,
    deaf,
    hang,
    held,
    status,
    stream,
)
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


# -- abort ----------------------------------------------------------------------------------------


async def test_abort(server: Server, rest: MakeRest, face: Any) -> None:
    server.script(LONG)
    async with face(rest()) as client:
        session = resume(client, include_partial_messages=True)
        await session.send("hello")
        reading = session.stream()
        await first_fragment(reading)
        await session.abort()
        rest_of_it = [message async for message in reading]
        assert [m.type for m in rest_of_it] == ["error", "result"]
        assert rest_of_it[-1].error_code == rest_of_it[-1].stop_reason == "cancelled"
        assert rest_of_it[-1].input_stored is False
        with pytest.raises(TurnCancelledError):
            rest_of_it[-1].raise_for_status()
        await stopped_once(session, server)


async def test_abort_right_after_send(server: Server, client: AsyncLettaClient) -> None:
    """A run that was just accepted may not exist yet: asked again until it does."""
    none = status(409, {"detail": "CONFLICT: No active runs to cancel for conversation x"})
    server.override("POST", "/cancel$", none, 2)
    server.script(LONG)
    session = resume(client)
    await session.send("hello")
    await session.abort()
    messages = [message async for message in session.stream()]
    assert messages[-1].error_code == "cancelled"
    assert server.cancels == 3
    assert (await session.run_turn("again")).success


async def test_abort_from_another_task(server: Server, client: AsyncLettaClient) -> None:
    server.script(LONG)
    session = resume(client)
    await session.initialize()
    turn = asyncio.create_task(session.run_turn("hello"))
    await until(lambda: server.active)
    await session.abort()
    assert (await turn).error_code == "cancelled"
    await stopped_once(session, server)


async def test_abort_when_the_answer_was_already_out(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(stream(ev.ping(), ev.text("done"), ev.stop(), hang))
    session = resume(client)
    await session.send("hello")
    stream_ = session.stream()
    await anext(stream_)
    await session.abort()
    messages = [message async for message in stream_]
    # Cancelled or finished: the server says which, and here it said both.
    assert messages[-1].type == "result"
    assert (await session.run_turn("again")).success


async def test_abort_between_a_tool_call_and_its_answer(
    server: Server, client: AsyncLettaClient
) -> None:
    ran: list[str] = []

    def get_weather(city: str) -> str:
        ran.append(city)
        return "sunny"

    server.script(asks(ev.call()))
    session = resume(client, tools=[get_weather], recovery_attempts=0)
    await session.send("hello")
    messages = []
    async for message in session.stream():
        messages.append(message)
        if message.type == "tool_call":
            await session.abort()
    assert messages[-1].error_code == "cancelled"
    assert ran == []
    assert server.pending() == []
    assert (await session.run_turn("again")).success


async def test_an_abort_that_fails_raises_and_the_turn_goes_on(
    server: Server, client: AsyncLettaClient
) -> None:
    go_on = threading.Event()
    server.script(stream(ev.ping(), held(go_on), ev.text("done"), ev.ending()))
    server.override("POST", "/cancel$", status(500, {"detail": "?"}), 1)
    session = resume(client)
    await session.send("hello")
    with pytest.raises(Exception, match="The Letta server failed"):
        await session.abort()
    go_on.set()
    messages = [message async for message in session.stream()]
    assert messages[-1].result == "done"


# -- cancelling the task --------------------------------------------------------------------------


async def test_cancel_while_reading(server: Server, client: AsyncLettaClient) -> None:
    server.script(LONG)
    session = resume(client)
    turn = asyncio.create_task(session.run_turn("hello"))
    await until(lambda: server.active)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    await stopped_once(session, server)


async def test_wait_for_around_a_turn(server: Server, client: AsyncLettaClient) -> None:
    server.script(LONG)
    session = resume(client)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(session.run_turn("hello"), 0.2)
    await stopped_once(session, server)


async def test_cancel_twice_while_reading(server: Server, client: AsyncLettaClient) -> None:
    """The second cancel does not lose the clean-up of the first."""
    slow_cancel = threading.Event()

    def cancel(wire: Wire) -> None:
        wire.wait(slow_cancel)
        wire.answer(200, server._cancel(ev.CONV))

    server.override("POST", "/cancel$", cancel, 1)
    server.script(LONG)
    session = resume(client)
    turn = asyncio.create_task(session.run_turn("hello"))
    await until(lambda: server.active)
    turn.cancel()
    await until(lambda: server.cancels)
    turn.cancel()
    await asyncio.sleep(0)
    slow_cancel.set()
    with pytest.raises(asyncio.CancelledError):
        await turn
    await stopped_once(session, server)


async def test_cancel_while_sending(server: Server, client: AsyncLettaClient) -> None:
    """The POST may have been accepted: its run must not go on behind the caller's back."""
    server.script(deaf)
    session = resume(client)
    sending = asyncio.create_task(session.send("hello"))
    await until(lambda: server.active)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await stopped_once(session, server)


async def test_cancel_while_sending_before_the_run_exists(
    server: Server, client: AsyncLettaClient
) -> None:
    """The server creates it a moment after the request: asked again until it is there."""
    none = status(409, {"detail": "CONFLICT: No active runs to cancel for conversation x"})
    server.override("POST", "/cancel$", none, 3)
    server.script(deaf)
    session = resume(client)
    sending = asyncio.create_task(session.send("hello"))
    await until(lambda: server.active)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (await session.run_turn("again")).success
    assert [run.status for run in server.runs] == ["cancelled", "completed"]
    assert server.cancels == 4


async def test_cancel_while_sending_what_was_done_at_once(
    server: Server, client: AsyncLettaClient
) -> None:
    def finished(wire: Wire) -> None:
        wire.store()
        wire.run.end("completed")
        wire.wait()

    server.script(finished)
    session = resume(client)
    sending = asyncio.create_task(session.send("hello"))
    await until(lambda: server.runs and server.runs[0].over.is_set())
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (await session.run_turn("again")).success
    assert server.cancels == 1


async def test_cancel_twice_while_sending(server: Server, client: AsyncLettaClient) -> None:
    slow_cancel = threading.Event()

    def cancel(wire: Wire) -> None:
        wire.wait(slow_cancel)
        wire.answer(200, server._cancel(ev.CONV))

    server.override("POST", "/cancel$", cancel, 1)
    server.script(deaf)
    session = resume(client)
    sending = asyncio.create_task(session.send("hello"))
    await until(lambda: server.active)
    sending.cancel()
    await until(lambda: server.cancels)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    slow_cancel.set()
    # Not before the first turn is out of the way, and not never.
    await stopped_once(session, server)


async def test_cancel_while_waiting_in_the_queue(server: Server, client: AsyncLettaClient) -> None:
    go_on = threading.Event()
    server.script(stream(ev.ping(), held(go_on), ev.text("done"), ev.ending()))
    session = resume(client)
    first = asyncio.create_task(session.run_turn("hello"))
    await until(lambda: server.active)
    waiting = asyncio.create_task(resume(client).run_turn("never sent"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert (await first).result == "done"
    assert (await session.run_turn("again")).success
    assert server.texts() == ["hello", "again"]
    assert server.cancels == 0


async def test_cancel_while_finding_out_what_became_of_a_turn(
    server: Server, rest: MakeRest
) -> None:
    """The connection is lost, the run goes on, and the caller has no time to wait for it."""
    from tests.faults._wire import broken

    server.script(stream(ev.ping(), broken(run="running", keep=False)))
    async with AsyncLettaClient(rest(settle_timeout=3600)) as client:
        session = resume(client)
        turn = asyncio.create_task(session.run_turn("hello"))
        await until(lambda: server.count("GET", r"/v1/runs/run-"))
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        await stopped_once(session, server)


# -- the turn limit -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["turn", "session", "backend"])
async def test_turn_timeout(server: Server, rest: MakeRest, face: Any, where: str) -> None:
    """Pings reset the idle limit, not this one."""

    def alive(wire: Wire) -> None:
        while not wire.run.over.wait(0.02):
            wire.chunk(ev.ping())
        wire.chunk(ev.CANCELLED)

    server.script(stream(ev.ping(), alive))
    backend = rest(turn_timeout=0.3 if where == "backend" else None)
    async with face(backend) as client:
        # The limit of the one turn counts, where there are several.
        options = {"turn": {"turn_timeout": 60}, "session": {"turn_timeout": 0.3}}.get(where, {})
        session = resume(client, **options)
        limit = {"timeout": 0.3} if where == "turn" else {}
        result = await session.run_turn("hello", **limit)
        assert result.error_code == "timeout_after_acceptance"
        assert "longer than 0.3 seconds" in (result.error_detail or "")
        with pytest.raises(TimeoutAfterAcceptanceError):
            result.raise_for_status()
        assert [run.status for run in server.runs] == ["cancelled"]
        assert server.cancels == 1
        result = await resume(client).run_turn("again")
        assert result.success


async def test_turn_timeout_does_not_interrupt_the_consumer(
    server: Server, client: AsyncLettaClient
) -> None:
    """Time that runs out in the consumer's own code ends the turn at its next message."""
    server.script(LONG)
    session = resume(client, turn_timeout=0.05, include_partial_messages=True)
    await session.send("hello")
    messages = []
    async for message in session.stream():
        messages.append(message)
        if isinstance(message, InitMessage):
            await asyncio.sleep(0.2)
    assert messages[-1].error_code == "timeout_after_acceptance"
    await stopped_once(resume(client), server)


async def test_turn_timeout_in_a_task_that_caught_a_cancel_before(
    server: Server, client: AsyncLettaClient
) -> None:
    async def hardened() -> Any:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return await resume(client, turn_timeout=0.1).run_turn("hello")

    server.script(LONG)
    task = asyncio.create_task(hardened())
    await asyncio.sleep(0)
    task.cancel()
    assert (await task).error_code == "timeout_after_acceptance"
    await stopped_once(resume(client), server)


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="a task of Python 3.10 does not count its cancellations"
)
async def test_cancel_and_turn_timeout_together_is_a_cancel(
    server: Server, client: AsyncLettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from letta_adapters._utils import tasks

    fire = tasks.Deadline._fire

    def both(self: Any) -> None:
        fire(self)
        turn.cancel()

    monkeypatch.setattr(tasks.Deadline, "_fire", both)
    server.script(LONG)
    session = resume(client, turn_timeout=0.1)
    turn = asyncio.create_task(session.run_turn("hello"))
    with pytest.raises(asyncio.CancelledError):
        await turn
    await stopped_once(resume(client), server)
