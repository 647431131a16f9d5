"""Connections are used again, and the limits that were set for them hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters.backends.rest.connections import Connections
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import InvalidInputError, TimeoutBeforeAcceptanceError
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._turns import LONG, first_fragment, until
from tests.faults._wire import broken, hang, held, status, stream

MakeRest = Callable[..., Rest]


def session(client: Any, number: int) -> Any:
    """One of many conversations of the agent."""
    conversation = f"conv-00000000-0000-4000-8000-{number:012d}"
    return client.resume_session(
        agent_id=ev.AGENT, conversation_id=conversation, include_partial_messages=True
    )


async def turns_at_once(client: AsyncLettaClient, server: Server, count: int) -> None:
    """Run turns that are all under way before the first of them ends."""
    together = threading.Event()
    server.script(*[stream(ev.ping(), held(together), ev.text("Yes"), ev.ending())] * count)
    before = len(server.runs)
    turns = [
        asyncio.create_task(session(client, number).run_turn("hello")) for number in range(count)
    ]
    await until(lambda: len(server.runs) == before + count)
    together.set()
    assert [turn.result for turn in await asyncio.gather(*turns)] == ["Yes"] * count


async def test_turns_at_once_use_the_connections_of_earlier_ones(
    server: Server, client: AsyncLettaClient
) -> None:
    for _ in range(3):
        await turns_at_once(client, server, 30)
    assert server.connections == 30


async def test_a_crowd_finds_the_connections_of_the_crowd_before_it(
    server: Server, client: AsyncLettaClient
) -> None:
    for _ in range(2):
        await turns_at_once(client, server, 110)
    assert server.connections == 110


async def test_a_connection_that_nobody_uses_is_closed_though_nothing_is_sent(
    server: Server, rest: MakeRest
) -> None:
    async with AsyncLettaClient(rest(keepalive_expiry=0.2)) as client:
        await turns_at_once(client, server, 3)
        await until(lambda: server.open_connections() == 0)
        await turns_at_once(client, server, 2)
        await until(lambda: server.open_connections() == 0)
    assert server.connections == 3 + 2


async def test_close_waits_for_a_connection_that_is_being_closed() -> None:
    let_go = asyncio.Event()
    closed = []

    class Slow:
        async def aclose(self) -> None:
            closed.append("begun")
            await let_go.wait()
            closed.append("done")

    connections = Connections(Slow, most=None, kept=None, seconds=0.01)
    await (await connections.take()).give_back()
    await until(lambda: closed == ["begun"])
    closing = asyncio.create_task(connections.aclose())
    await asyncio.sleep(0.02)
    assert not closing.done()
    let_go.set()
    await closing
    assert closed == ["begun", "done"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_connection_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    made = []

    class Broken:
        closed = False

        def __init__(self) -> None:
            made.append(self)

        async def aclose(self) -> None:
            self.closed = True
            raise OSError("broken")

    connections = Connections(Broken, most=None, kept=None, seconds=0.01)
    for lease in [await connections.take() for _ in range(3)]:
        await lease.give_back()
    await until(lambda: [one.closed for one in made] == [True] * 3)
    await connections.aclose()


async def test_turns_one_after_the_other_use_one_connection(
    server: Server, client: AsyncLettaClient
) -> None:
    for number in range(5):
        await session(client, number).run_turn("hello")
    assert server.connections == 1


async def test_threads_use_the_connections_of_earlier_ones(server: Server, rest: MakeRest) -> None:
    with LettaClient(rest()) as client:
        for _ in range(2):
            together = threading.Event()
            server.script(*[stream(ev.ping(), held(together), ev.text("Yes"), ev.ending())] * 10)
            before = len(server.runs)
            turns = [
                asyncio.create_task(asyncio.to_thread(session(client, n).run_turn, "hello"))
                for n in range(4)
            ]
            await until(lambda before=before: len(server.runs) == before + 4)
            together.set()
            await asyncio.gather(*turns)
    assert server.connections == 4


async def test_as_many_are_kept_as_was_said(server: Server, rest: MakeRest) -> None:
    async with AsyncLettaClient(rest(max_keepalive_connections=2)) as client:
        await turns_at_once(client, server, 5)
        await turns_at_once(client, server, 5)
    assert server.connections == 5 + 3


async def test_none_is_kept_longer_than_was_said(server: Server, rest: MakeRest) -> None:
    async with AsyncLettaClient(rest(keepalive_expiry=0)) as client:
        for number in range(3):
            await session(client, number).run_turn("hello")
    assert server.connections == 3


async def test_more_turns_than_connections_wait_for_each_other(
    server: Server, rest: MakeRest
) -> None:
    async with AsyncLettaClient(rest(max_connections=3)) as client:
        results = await asyncio.gather(*(session(client, n).run_turn("hello") for n in range(10)))
    assert [result.result for result in results] == ["You said: hello"] * 10
    assert server.connections <= 3


async def test_turns_that_use_all_connections_can_be_aborted(
    server: Server, rest: MakeRest
) -> None:
    server.script(LONG)
    async with AsyncLettaClient(rest(max_connections=2)) as client:
        running = session(client, 1)
        await running.send("hello")
        reading = running.stream()
        await first_fragment(reading)
        waiting = asyncio.create_task(session(client, 2).run_turn("after it"))
        await running.abort()
        assert [m async for m in reading][-1].error_code == "cancelled"
        assert (await waiting).result == "You said: after it"
    assert server.cancels == 1
    assert server.connections == 2


async def test_a_turn_that_finds_no_connection_was_not_sent(server: Server, rest: MakeRest) -> None:
    server.script(LONG)
    # The first turn's silence must not count as too long, so it says something before.
    async with AsyncLettaClient(rest(max_connections=2, idle_timeout=0.3)) as client:
        running = session(client, 1)
        await running.send("hello")
        with pytest.raises(TimeoutBeforeAcceptanceError, match="became free") as caught:
            await session(client, 2).send("too many")
        assert caught.value.accepted is False
        assert "max_connections" in str(caught.value.hint)
        assert server.texts() == ["hello"]
        await running.abort()


async def test_a_turn_cancelled_while_it_waits_takes_no_connection(
    server: Server, rest: MakeRest
) -> None:
    server.script(LONG)
    async with AsyncLettaClient(rest(max_connections=2)) as client:
        running = session(client, 1)
        await running.send("hello")
        waiting = [asyncio.create_task(session(client, n).run_turn("no")) for n in range(2, 5)]
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await running.abort()
        await running.close()
        assert (await session(client, 6).run_turn("yes")).success
    assert server.texts() == ["hello", "yes"]


@pytest.mark.parametrize(
    "fault",
    [
        status(500, {"detail": "broken"}),
        stream(ev.ping(), broken()),
        stream(ev.ping(), broken(reset=True)),
        lambda wire: wire.drop(),
        lambda wire: wire.answer(200, {"no": "stream"}),
    ],
    ids=["status", "cut", "reset", "no answer", "no stream"],
)
async def test_a_turn_that_fails_gives_its_connection_back(
    server: Server, rest: MakeRest, fault: Any
) -> None:
    async with AsyncLettaClient(rest(max_connections=2)) as client:
        server.script(*[fault] * 3)
        for number in range(3):
            await asyncio.gather(session(client, number).run_turn("hello"), return_exceptions=True)
        assert (await session(client, 9).run_turn("again")).result == "You said: again"
    assert server.texts() == ["hello"] * 3 + ["again"]


async def test_a_turn_cancelled_before_its_answer_gives_its_connection_back(
    server: Server, rest: MakeRest
) -> None:
    async with AsyncLettaClient(rest(max_connections=2)) as client:
        for number in range(3):
            server.script(stream(hang))
            turn = asyncio.create_task(session(client, number).run_turn("hello"))
            await until(lambda: server.active)
            turn.cancel()
            with pytest.raises(asyncio.CancelledError):
                await turn
        assert (await session(client, 9).run_turn("again")).result == "You said: again"


async def test_a_connection_that_the_server_closed_is_opened_anew(
    server: Server, client: AsyncLettaClient
) -> None:
    await session(client, 1).run_turn("hello")
    server.hang_up()
    assert (await session(client, 1).run_turn("again")).result == "You said: again"
    assert server.texts() == ["hello", "again"]


@pytest.mark.parametrize(
    "option",
    [{"max_connections": 5}, {"max_keepalive_connections": 5}, {"keepalive_expiry": 5.0}],
    ids=str,
)
async def test_an_injected_client_has_limits_of_its_own(option: dict[str, Any]) -> None:
    async with httpx.AsyncClient() as mine:
        with pytest.raises(InvalidInputError, match=next(iter(option))):
            AsyncLettaClient(Rest(base_url="http://127.0.0.1:9", **option), http_client=mine)


async def test_the_limits_of_an_injected_client_hold(server: Server, rest: MakeRest) -> None:
    limits = httpx.Limits(max_connections=2)
    async with httpx.AsyncClient(limits=limits) as mine:
        async with AsyncLettaClient(rest(), http_client=mine) as client:
            await asyncio.gather(*(session(client, n).run_turn("hello") for n in range(6)))
        assert not mine.is_closed
    assert server.connections <= 2


@pytest.mark.parametrize(
    "option",
    [
        {"max_connections": 1},
        {"max_keepalive_connections": -1},
        {"keepalive_expiry": -0.1},
    ],
    ids=str,
)
def test_a_limit_that_is_none_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(option))):
        Rest(**option)
