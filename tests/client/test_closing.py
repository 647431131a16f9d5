"""A client or a session that is being closed is closed to the end, however its caller fares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, AsyncSession
from letta_adapters.backends.app_server.backend import AppServerBackend
from letta_adapters.backends.app_server.connection import Endpoint
from letta_adapters.backends.app_server.server import Setup, Timeouts
from letta_adapters.backends.app_server.switches import Stateless
from letta_adapters.backends.rest.connections import Connections
from letta_adapters.client.client import get_slots
from letta_adapters.client.turn import Turn
from letta_adapters.errors import SessionClosedError
from letta_adapters.testing import FakeLetta


@pytest.fixture
async def client() -> AsyncIterator[AsyncLettaClient]:
    async with FakeLetta("First.", "Second.").async_client() as made:
        yield made


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when turns may stop: until then whoever stops one waits."""
    may_stop = asyncio.Event()
    stop = Turn._stop

    async def late(turn: Turn, *given: Any) -> None:
        await may_stop.wait()
        await stop(turn, *given)

    monkeypatch.setattr(Turn, "_stop", late)
    return may_stop


async def running(client: AsyncLettaClient, *messages: str) -> AsyncSession:
    """Return a session whose first message has a turn that nobody has read yet."""
    agent = await client.create_agent(model="fake/model")
    session = client.create_session(agent)
    for message in messages:
        await session.send(message)
    return session


async def cancelled_in(closing: asyncio.Task[None]) -> None:
    """Cancel a task once it waits for a turn to stop."""
    for _ in range(20):
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_a_client_whose_close_was_cancelled_gives_up_its_connections(
    client: AsyncLettaClient, stops: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[bool] = []

    async def give_up() -> None:
        given_up.append(stops.is_set())

    monkeypatch.setattr(client.backend, "aclose", give_up)
    await running(client, "one")
    await cancelled_in(asyncio.ensure_future(client.close()))
    assert client.closed and not given_up
    stops.set()
    await client.close()
    # The turn was stopped first, through the connection.
    assert given_up == [True] and not get_slots(client).turns
    await client.close()
    assert given_up == [True]


@pytest.mark.parametrize("messages", [("one",), ("one", "two")], ids=["runs", "runs and waits"])
async def test_a_session_whose_close_was_cancelled_stops_what_runs(
    client: AsyncLettaClient, stops: asyncio.Event, messages: tuple[str, ...]
) -> None:
    session = await running(client, *messages)
    await cancelled_in(asyncio.ensure_future(session.close()))
    with pytest.raises(SessionClosedError):
        await session.send("three")
    stops.set()
    await session.close()
    slots = get_slots(client)
    assert not slots.turns and not slots.queue


async def test_whoever_closes_while_another_does_waits_for_the_end(
    client: AsyncLettaClient, stops: asyncio.Event
) -> None:
    session = await running(client, "one")
    closing = [asyncio.ensure_future(one.close()) for one in (session, session, client, client)]
    await asyncio.wait(closing, timeout=0.05)
    assert not any(task.done() for task in closing)
    stops.set()
    await asyncio.gather(*closing)
    assert not get_slots(client).turns


async def test_a_loop_that_ends_while_a_client_is_closed_closes_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``asyncio.run`` cancels what still runs, here a close whose caller was cancelled."""
    given_up: list[str] = []

    async def main() -> None:
        client = FakeLetta("First.").async_client()

        async def give_up() -> None:
            given_up.append("backend")

        monkeypatch.setattr(client.backend, "aclose", give_up)
        await running(client, "one")
        monkeypatch.setattr(Turn, "_stop", lambda *_: asyncio.sleep(60))
        await cancelled_in(asyncio.ensure_future(client.close()))

    await asyncio.to_thread(asyncio.run, main())
    assert given_up == ["backend"]


@pytest.mark.parametrize("rounds", range(12))
async def test_a_message_is_taken_out_of_the_queue_or_sent_and_never_both(rounds: int) -> None:
    """Whatever the round of the event loop in which the conversation becomes free."""
    letta = FakeLetta("First.", "Second.")
    async with letta.async_client() as client:
        session = await running(client, "one")
        await session.send("two", otid="otid-two")
        async for _ in session.stream():
            pass
        for _ in range(rounds):
            await asyncio.sleep(0)
        removed = await session.remove_queued("otid-two")
        said = [] if removed else [message.type async for message in session.stream()]
        assert said[-1:] == ([] if removed else ["result"])
        stored = [m for m in (await session.list_messages()).messages if m.type == "user"]
        said_by_user = {message.content for message in stored}
        assert said_by_user == {"one"} | (set() if removed else {"two"})


async def test_a_share_in_the_runtime_is_given_up_though_something_else_fails_to_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_up: list[str] = []

    class Shared:
        status = None

        def on_retire(self, listener: Callable[[], None]) -> None:
            """Nobody exchanges it."""

        async def release(self) -> None:
            given_up.append("share")

        async def endpoint(self) -> Endpoint:
            raise NotImplementedError

    def fail(_: Stateless) -> None:
        raise OSError("The directory cannot be removed.")

    monkeypatch.setattr(Stateless, "close", fail)
    backend = AppServerBackend(Setup("local", Timeouts()), Shared())
    with pytest.raises(OSError, match="cannot be removed"):
        await backend.aclose()
    assert given_up == ["share"]


async def test_a_connection_that_fails_to_close_does_not_keep_others_open() -> None:
    closed: list[object] = []

    class Broken:
        async def aclose(self) -> None:
            closed.append(self)
            raise OSError("broken")

    connections = Connections(Broken, most=None, kept=None, seconds=60)
    leases = [await connections.take() for _ in range(3)]
    await connections.aclose()
    assert set(closed) == {lease.connection for lease in leases}
