"""The sync face is left: by a break, an exception, Ctrl-C, another thread."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from letta_adapters import LettaClient
from letta_adapters.errors import (
    TurnCancelledError,
)
from letta_adapters.sync.bridge import get_bridge
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import deaf, hang, held, stream
from tests.faults.conftest import resume

LONG = stream(ev.ping(), ev.text("You sa"), hang)


def wait_until(met: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for another thread; giving up is a failure."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


# -- leaving --------------------------------------------------------------------------------------


def stopped_once(session: Any, server: Server) -> None:
    assert session.run_turn("again").success
    assert [run.status for run in server.runs] == ["cancelled", "completed"]
    assert server.cancels == 1
    assert server.texts() == ["hello", "again"]


def test_break_stops_the_agent(server: Server, client: LettaClient) -> None:
    """Dropping the generator closes it, and closing it waits until the agent has stopped."""
    server.script(LONG)
    session = resume(client)
    session.send("hello")
    for _ in session.stream():
        break
    gc.collect()
    assert not server.active
    stopped_once(session, server)


def test_closed_early(server: Server, client: LettaClient) -> None:
    server.script(LONG)
    session = resume(client, include_partial_messages=True)
    session.send("hello")
    items = session.stream()
    assert next(items).type == "init"
    assert next(items).type == "stream_event"
    items.close()
    items.close()
    assert not server.active
    stopped_once(session, server)


def test_closed_before_it_was_read(server: Server, client: LettaClient) -> None:
    server.script(LONG)
    session = resume(client)
    session.send("hello")
    session.stream().close()
    assert not server.active
    stopped_once(session, server)


def test_an_exception_in_the_loop_body(server: Server, client: LettaClient) -> None:
    server.script(LONG)
    session = resume(client)
    session.send("hello")
    with pytest.raises(ZeroDivisionError):
        for _ in session.stream():
            raise ZeroDivisionError
    stopped_once(session, server)


def test_a_stream_that_is_collected_on_the_loop_thread(server: Server, client: LettaClient) -> None:
    """The garbage collector runs anywhere: it must not make the loop wait for itself."""
    server.script(LONG)
    session = resume(client)
    session.send("hello")
    items = session.stream()
    next(items)
    cycle: list[Any] = [items]
    cycle.append(cycle)

    async def collect() -> None:
        gc.collect()

    gc.disable()
    try:
        del items, cycle
        get_bridge().call(collect())
    finally:
        gc.enable()
    wait_until(lambda: not server.active)
    stopped_once(session, server)


def test_abort_from_another_thread(server: Server, client: LettaClient) -> None:
    server.script(LONG)
    session = resume(client)
    session.initialize()
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(session.run_turn, "hello")
        server.wait_for(lambda: server.active)
        session.abort()
        result = turn.result(20)
    with pytest.raises(TurnCancelledError):
        result.raise_for_status()
    stopped_once(session, server)


def test_closing_the_session_ends_a_stream_read_by_another_thread(
    server: Server, client: LettaClient
) -> None:
    server.script(LONG)
    session = resume(client, include_partial_messages=True)
    session.send("hello")
    seen: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: seen.extend(iter_into(session.stream(), seen)))
        wait_until(lambda: len(seen) >= 2)
        session.close()
        reading.result(20)
    assert [m.type for m in seen][-2:] == ["error", "result"]
    stopped_once(resume(client), server)


def iter_into(items: Iterator[Any], seen: list[Any]) -> list[Any]:
    seen.extend(items)  # one by one: what has come is seen while it goes on
    return []


# -- Ctrl-C ---------------------------------------------------------------------------------------


ctrl_c = pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one process")


@pytest.fixture
def interrupt() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Presses Ctrl-C once a condition is met."""
    threads: list[threading.Thread] = []

    def press(met: Callable[[], Any]) -> None:
        wait_until(met)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    def make(met: Callable[[], Any]) -> None:
        threads.append(threading.Thread(target=press, args=(met,)))
        threads[-1].start()

    yield make
    for thread in threads:
        thread.join(30)


@ctrl_c
def test_ctrl_c_while_streaming(server: Server, client: LettaClient, interrupt: Any) -> None:
    server.script(LONG)
    session = resume(client)
    session.send("hello")
    interrupt(lambda: server.active)
    with pytest.raises(KeyboardInterrupt):
        for _ in session.stream():
            pass
    stopped_once(session, server)


@ctrl_c
def test_ctrl_c_in_run_turn(server: Server, client: LettaClient, interrupt: Any) -> None:
    """The agent has stopped when the exception arrives."""
    server.script(LONG)
    session = resume(client)
    interrupt(lambda: server.active)
    with pytest.raises(KeyboardInterrupt):
        session.run_turn("hello")
    assert not server.active
    stopped_once(session, server)


@ctrl_c
def test_ctrl_c_while_sending(server: Server, client: LettaClient, interrupt: Any) -> None:
    server.script(deaf)
    session = resume(client)
    interrupt(lambda: server.active)
    with pytest.raises(KeyboardInterrupt):
        session.send("hello")
    assert not server.active
    stopped_once(session, server)


@ctrl_c
def test_ctrl_c_waits_for_its_own_turn_only(
    server: Server, client: LettaClient, interrupt: Any
) -> None:
    """Another thread's turn goes on, and is not waited for."""
    go_on = threading.Event()
    server.script(stream(ev.ping(), held(go_on), ev.text("done"), ev.ending()))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(client.prompt, "other", ev.AGENT)
        server.wait_for(lambda: server.active)
        server.script(LONG)
        session = resume(client)
        interrupt(lambda: len(server.active) == 2)
        with pytest.raises(KeyboardInterrupt):
            session.run_turn("hello")
        assert [run.conversation for run in server.active] != [ev.CONV]
        assert not other.done()
        go_on.set()
        assert other.result(20).success
