"""Two sends at once: of one client they queue; a conversation busy elsewhere is an error."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters._utils import locks
from letta_adapters.client.client import AsyncLettaClient, get_slots
from letta_adapters.errors import ConversationBusyError, SessionClosedError
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._turns import until
from tests.faults._wire import (
    Wire,
    asks,
    echo,
    hang,
    held,
    status,
    stream,
)
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


def alone(server: Server) -> Callable[[Wire], None]:
    """An echo that notices whether another run of its conversation is active."""

    def play(wire: Wire) -> None:
        assert [run for run in server.active if run.conversation == wire.run.conversation] == [
            wire.run
        ], "two turns of one conversation at the same time"
        echo(wire)

    return play


async def test_sends_of_one_session_queue_in_order(
    server: Server, client: AsyncLettaClient
) -> None:
    texts = [f"message {n}" for n in range(10)]
    server.script(*[alone(server)] * 10)
    session = resume(client)
    results = await asyncio.gather(*(session.run_turn(text) for text in texts))
    assert [result.result for result in results] == [f"You said: {text}" for text in texts]
    assert server.texts() == texts


async def test_sends_of_two_sessions_of_one_client_queue(
    server: Server, rest: MakeRest, face: Any
) -> None:
    server.script(*[alone(server)] * 12)
    async with face(rest()) as client:
        sessions = [resume(client) for _ in range(4)]
        await asyncio.gather(*(s.run_turn(str(n)) for n, s in enumerate(sessions * 3)))
    assert sorted(map(int, server.texts())) == list(range(12))
    assert server.cancels == 0


async def test_threads_of_one_client_queue(server: Server, rest: MakeRest) -> None:
    server.script(*[alone(server)] * 20)

    def work(number: int) -> str | None:
        return resume(client).run_turn(str(number)).result

    with LettaClient(rest()) as client, ThreadPoolExecutor(8) as pool:
        answers = await asyncio.to_thread(lambda: list(pool.map(work, range(20))))
    assert answers == [f"You said: {n}" for n in range(20)]
    assert len(server.texts()) == 20
    assert server.cancels == 0


async def test_different_conversations_run_in_parallel(
    server: Server, client: AsyncLettaClient
) -> None:
    together = threading.Barrier(4)

    def meets(wire: Wire) -> None:
        together.wait(20)
        echo(wire)

    server.script(*[meets] * 4)
    results = await asyncio.gather(*(client.prompt(str(n), ev.AGENT) for n in range(4)))
    assert all(result.success for result in results)


async def test_a_send_waits_for_the_turn_of_another_task(
    server: Server, client: AsyncLettaClient
) -> None:
    go_on = threading.Event()
    server.script(stream(ev.ping(), held(go_on), ev.text("first"), ev.ending()))
    session = resume(client)
    first = asyncio.create_task(session.run_turn("one"))
    await until(lambda: server.active)
    second = asyncio.create_task(session.run_turn("two"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert server.texts() == ["one"]
    go_on.set()
    assert (await first).result == "first"
    assert (await second).result == "You said: two"
    assert server.cancels == 0


async def test_a_turn_sent_by_a_task_that_ended_belongs_to_its_reader(
    server: Server, client: AsyncLettaClient
) -> None:
    """``wait_for(session.send(...))`` sends in a task of its own on Python 3.10 and 3.11."""
    go_on = threading.Event()
    server.script(stream(ev.ping(), held(go_on), ev.text("first"), ev.ending()))
    session = resume(client)
    await asyncio.wait_for(session.send("one"), 30)
    reading = session.stream()
    await anext(reading)
    second = asyncio.create_task(session.run_turn("two"))
    for _ in range(20):
        await asyncio.sleep(0)
    go_on.set()
    assert [m.type async for m in reading] == ["assistant", "result"]
    assert (await second).result == "You said: two"
    assert server.cancels == 0


async def test_a_reader_whose_task_ended_has_left_its_turn_behind(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(stream(ev.ping(), hang))
    session = resume(client)
    kept: list[Any] = []

    async def begins() -> None:
        await session.send("one")
        kept.append(session.stream())
        await anext(kept[0])

    await asyncio.create_task(begins())
    assert (await resume(client).run_turn("two")).success
    assert [run.status for run in server.runs] == ["cancelled", "completed"]


def test_a_reader_whose_thread_ended_has_left_its_turn_behind(
    server: Server, rest: MakeRest
) -> None:
    server.script(stream(ev.ping(), hang))
    kept: list[Any] = []
    with LettaClient(rest()) as client:
        session = resume(client)

        def begins() -> None:
            session.send("one")
            kept.append(session.stream())

        thread = threading.Thread(target=begins)
        thread.start()
        thread.join()
        assert session.run_turn("two").success
    assert [run.status for run in server.runs] == ["cancelled", "completed"]


async def test_closing_a_session_that_waits_in_the_queue(
    server: Server, client: AsyncLettaClient
) -> None:
    go_on = threading.Event()
    server.script(stream(ev.ping(), held(go_on), ev.text("first"), ev.ending()))
    first = asyncio.create_task(resume(client).run_turn("one"))
    await until(lambda: server.active)
    waiting = resume(client)
    second = asyncio.create_task(waiting.run_turn("never sent"))
    await asyncio.sleep(0)
    await waiting.close()
    go_on.set()
    assert (await first).success
    with pytest.raises(SessionClosedError):
        await second
    assert (await resume(client).run_turn("again")).success
    assert server.texts() == ["one", "again"]


@pytest.mark.parametrize("how", ["http", "event"])
async def test_busy_elsewhere(server: Server, rest: MakeRest, face: Any, how: str) -> None:
    """Another client's run is active: an error at once, not a wait, and no second try."""
    busy = ev.BUSY.format(run=ev.run_id(7))
    refusal = status(409, {"detail": busy, "run_id": ev.run_id(7)})
    server.script(refusal if how == "http" else stream(ev.internal_error(busy), keep=False))
    async with face(rest()) as client:
        session = resume(client)
        with pytest.raises(ConversationBusyError) as caught:
            (await session.run_turn("hello")).raise_for_status()
        assert caught.value.accepted is False
        assert server.texts() == ["hello"]
        assert server.cancels == 0
        assert (await session.run_turn("again")).success


async def test_two_clients_at_once_on_a_server_that_locks(server: Server, rest: MakeRest) -> None:
    go_on = threading.Event()
    busy = {"detail": ev.BUSY.format(run=ev.run_id(1)), "run_id": ev.run_id(1)}
    server.script(stream(ev.ping(), held(go_on), ev.text("first"), ev.ending()))
    async with AsyncLettaClient(rest()) as one, AsyncLettaClient(rest()) as two:
        get_slots(two).place = id(two)  # as in another process: those of one process take turns
        first = asyncio.create_task(resume(one).run_turn("one"))
        await until(lambda: server.active)
        server.script(status(409, busy))
        with pytest.raises(ConversationBusyError):
            await resume(two).run_turn("two")
        go_on.set()
        assert (await first).result == "first"
        assert (await resume(two).run_turn("again")).success
    assert server.texts() == ["one", "two", "again"]


async def test_aborting_one_turn_lets_the_next_go(server: Server, client: AsyncLettaClient) -> None:
    server.script(stream(ev.ping(), hang))
    session = resume(client)
    first = asyncio.create_task(session.run_turn("one"))
    await until(lambda: server.active)
    second = asyncio.create_task(session.run_turn("two"))
    await asyncio.sleep(0)
    await session.abort()
    assert (await first).error_code == "cancelled"
    assert (await second).success


async def test_a_failed_send_lets_the_next_go(server: Server, client: AsyncLettaClient) -> None:
    server.script(status(422, {"detail": "Messages must not be empty"}), echo)
    session = resume(client)
    first, second = await asyncio.gather(
        session.run_turn("one"), session.run_turn("two"), return_exceptions=True
    )
    assert isinstance(first, ValueError)
    assert not isinstance(second, BaseException) and second.success


async def test_reads_do_not_queue(server: Server, rest: MakeRest, face: Any) -> None:
    """History and state are there while a turn runs."""
    go_on = threading.Event()
    server.script(stream(ev.ping(), held(go_on), ev.text("done"), ev.ending()))
    async with face(rest()) as client:
        session = resume(client)
        await session.send("hello")
        assert len((await session.list_messages()).raw) == 1
        state = await session.bootstrap_state()
        assert not state.has_pending_approval
        go_on.set()
        assert [m.type async for m in session.stream()][-1] == "result"


async def test_recovery_queues_behind_a_turn(server: Server, client: AsyncLettaClient) -> None:
    go_on = threading.Event()
    server.script(stream(ev.ping(), held(go_on), ev.text("first"), ev.ending()))
    session = resume(client)
    first = asyncio.create_task(session.run_turn("one"))
    await until(lambda: server.active)
    recovering = asyncio.create_task(resume(client).recover_pending_approvals())
    for _ in range(20):
        await asyncio.sleep(0)
    server.leave_pending()
    go_on.set()
    assert (await first).success
    # The turn's own messages came after: nothing waits any more.
    assert not (await recovering).recovered


async def test_locks_of_conversations_that_are_done_are_forgotten(
    server: Server, client: AsyncLettaClient
) -> None:
    others = set(locks._queues)
    for _ in range(5):
        await client.prompt("hello", ev.AGENT)
    gc.collect()
    assert not get_slots(client).turns
    assert set(locks._queues) <= others


async def test_two_sessions_answer_tool_calls_one_after_the_other(
    server: Server, client: AsyncLettaClient
) -> None:
    """A turn holds its conversation while its tools run."""
    order: list[str] = []

    async def get_weather(city: str) -> str:
        order.append("starts")
        await asyncio.sleep(0.05)
        order.append("ends")
        return "sunny"

    server.script(asks(ev.call()), echo, asks(ev.call()), echo)
    results = await asyncio.gather(
        *(resume(client, tools=[get_weather]).run_turn(str(n)) for n in range(2))
    )
    assert all(result.success for result in results)
    assert order == ["starts", "ends"] * 2
