"""The sync face: in running loops, in threads, with slow consumers and impatient users."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters.errors import (
    ConnectionFailedError,
    InvalidInputError,
    LettaTimeoutError,
    SessionClosedError,
)
from letta_adapters.messages import StreamEvent
from letta_adapters.sync import bridge as bridge_module
from letta_adapters.sync.bridge import Bridge, get_bridge
from letta_adapters.sync.handoff import HIGH_WATER, LOW_WATER
from letta_adapters.tools.client_side import tool
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import (
    Wire,
    asks,
    broken,
    deaf,
    echo,
    hang,
    stream,
)
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


def wait_until(met: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for another thread; giving up is a failure."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


class Numbers:
    """A stream of its own: ``count`` numbers, then ``error`` if one is given."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.closed = 0
        self.produced = 0
        self._numbers = self._generate(count, error)

    async def _generate(self, count: int, error: Exception | None) -> AsyncIterator[int]:
        for number in range(count):
            self.produced += 1
            yield number
        if error is not None:
            raise error

    def __aiter__(self) -> AsyncIterator[int]:
        return self._numbers

    async def aclose(self) -> None:
        self.closed += 1


# -- where it can be used -------------------------------------------------------------------------


async def test_inside_a_running_event_loop(server: Server, client: LettaClient) -> None:
    """Notebooks run one, and the sync API must not need it."""
    with resume(client) as session:
        assert session.run_turn("hello").result == "You said: hello"
        session.send("again")
        assert [m.type for m in session.stream()] == ["assistant", "result"]
    assert client.prompt("more", ev.AGENT).success


def test_in_one_event_loop_after_another(server: Server, client: LettaClient) -> None:
    session = resume(client)

    async def use(text: str) -> None:
        assert session.run_turn(text).success

    for number in range(3):
        asyncio.run(use(str(number)))
    assert server.texts() == ["0", "1", "2"]


def test_from_many_threads(server: Server, client: LettaClient) -> None:
    """Each with a conversation of its own, all at once."""
    together = threading.Barrier(12)

    def work(number: int) -> list[str | None]:
        with client.create_session(ev.AGENT) as session:
            together.wait(20)
            answers = [session.run_turn(f"{number}/{n}").result for n in range(3)]
            session.send(f"{number}/3")
            answers += [m.result for m in session.stream() if m.type == "result"]
            return answers

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(work, range(12)))
    assert found == [[f"You said: {i}/{n}" for n in range(4)] for i in range(12)]
    assert len(server.sent()) == 48


def test_one_thread_sends_and_another_reads(server: Server, client: LettaClient) -> None:
    session = resume(client)
    session.send("hello")
    with ThreadPoolExecutor(1) as pool:
        types = pool.submit(lambda: [m.type for m in session.stream()]).result(20)
    assert types == ["init", "assistant", "result"]


def test_one_bridge_for_all_clients(rest: MakeRest) -> None:
    with LettaClient(rest()), LettaClient(rest()):
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("letta-adapters") == 1
    assert get_bridge() is get_bridge()


# -- what crosses it ------------------------------------------------------------------------------


def test_exceptions_cross(server: Server, rest: MakeRest) -> None:
    with LettaClient(Rest(base_url="http://127.0.0.1:9", api_key="", connect_timeout=5)) as client:
        with pytest.raises(ConnectionFailedError):
            resume(client).send("hello")
    server.script(deaf)
    with LettaClient(rest(idle_timeout=0.1)) as client:
        # A TimeoutError from the loop is not the bridge's own.
        with pytest.raises(LettaTimeoutError):
            resume(client).send("hello")
        with pytest.raises(InvalidInputError):
            resume(client).stream()


def test_exceptions_in_a_stream_cross_after_what_came_before() -> None:
    numbers = Numbers(3, ValueError("broken"))
    seen: list[Any] = []
    with pytest.raises(ValueError, match="broken"):
        seen.extend(get_bridge().iterate(numbers))  # which keeps what came before
    assert seen == [0, 1, 2]
    assert numbers.closed


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("way", ["run_turn", "stream"])
def test_context_variables_reach_tools_and_callbacks(
    server: Server, client: LettaClient, kind: str, way: str
) -> None:
    seen: list[str] = []

    def plain() -> str:
        seen.append(variable.get())
        return "ok"

    async def coroutine() -> str:
        seen.append(variable.get())
        return "ok"

    def can_use_tool(*_: Any) -> bool:
        seen.append(variable.get())
        return True

    handler = tool(plain if kind == "plain" else coroutine, name="looks")
    server.script(asks(ev.call("looks", arguments="{}")))
    session = resume(client, tools=[handler], can_use_tool=can_use_tool)
    token = variable.set("mine")
    try:
        if way == "run_turn":
            assert session.run_turn("hello").success
        else:
            session.send("hello")
            assert [m.type for m in session.stream()][-1] == "result"
    finally:
        variable.reset(token)
    assert seen == ["mine", "mine"]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_callbacks_never_run_on_the_loop_thread(
    server: Server, client: LettaClient, kind: str
) -> None:
    """A callback may block for as long as it likes: other conversations go on."""
    threads: list[str] = []
    started, go_on = threading.Event(), threading.Event()

    def blocks(*_: Any) -> bool:
        threads.append(threading.current_thread().name)
        started.set()
        assert go_on.wait(20)
        return True

    async def blocks_too(*_: Any) -> bool:
        return blocks()

    def works() -> str:
        return str(blocks())

    server.script(asks(ev.call("works", arguments="{}")))
    callback = blocks if kind == "plain" else blocks_too
    session = resume(client, can_use_tool=callback, tools=[works])
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(session.run_turn, "hello")
        assert started.wait(20)
        assert client.prompt("meanwhile", ev.AGENT).success
        go_on.set()
        assert turn.result(20).success
    assert len(threads) == 2
    assert "letta-adapters" not in threads
    assert threading.main_thread().name not in threads


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_the_sync_api_inside_a_callback(server: Server, client: LettaClient, kind: str) -> None:
    """Agents that ask agents; also from a coroutine, which has an event loop of its own."""

    def asks_another() -> str:
        listed = len(session.list_messages().raw)
        return f"{client.prompt('inner', ev.AGENT).result} ({listed})"

    async def asks_another_too() -> str:
        return asks_another()

    handler = tool(asks_another if kind == "plain" else asks_another_too, name="asks_another")
    server.script(asks(ev.call("asks_another", arguments="{}")))
    session = resume(client, tools=[handler])
    session.send("outer")
    result = next(m for m in session.stream() if m.type == "tool_result")
    assert result.content == "You said: inner (3)"


def test_the_sync_api_on_its_own_loop_is_refused(client: LettaClient) -> None:
    """It would wait for itself for ever."""

    async def mistake() -> None:
        client.models.list()

    with pytest.raises(RuntimeError, match="on its own event loop"):
        get_bridge().call(mistake())


# -- back-pressure --------------------------------------------------------------------------------


def undelivered(items: Any) -> int:
    """How many items wait in the hand-off of a generator."""
    return len(items.gi_frame.f_locals["items"])


def test_a_slow_consumer_bounds_what_is_undelivered_and_loses_nothing() -> None:
    numbers = Numbers(20 * HIGH_WATER)
    items = get_bridge().iterate(numbers)
    seen = [next(items)]
    wait_until(lambda: numbers.produced >= HIGH_WATER)
    most = 0
    for number in items:
        most = max(most, undelivered(items))
        if number % 50 == 0:
            time.sleep(0.002)
        # What is produced is delivered, waits in the hand-off, or is the one in between.
        assert numbers.produced - len(seen) <= HIGH_WATER + 2
        seen.append(number)
    assert seen == list(range(20 * HIGH_WATER))
    assert LOW_WATER < most <= HIGH_WATER


def test_a_consumer_that_pauses_stops_the_socket(server: Server, client: LettaClient) -> None:
    total = 60_000
    progress = [0]

    def much(wire: Wire) -> None:
        for number in range(total):
            wire.chunk(ev.text(f"{number} " + "x" * 500))
            progress[0] = number + 1

    server.script(stream(ev.ping(), much, ev.ending()))
    session = resume(client, include_partial_messages=True)
    session.send("hello")
    items = session.stream()
    assert next(items).type == "init"
    last = -1
    while progress[0] != last:
        last = progress[0]
        time.sleep(0.3)
    assert 0 < last < total
    seen = [m.event["content"].split()[0] for m in items if isinstance(m, StreamEvent)]
    assert seen == [str(number) for number in range(total)]


def test_blocked_and_closed(server: Server) -> None:
    """A consumer that leaves while the hand-off is full."""
    numbers = Numbers(10 * HIGH_WATER)
    items = get_bridge().iterate(numbers)
    next(items)
    wait_until(lambda: numbers.produced >= HIGH_WATER)
    items.close()
    assert numbers.closed
    assert list(items) == []


# -- the bridge by itself -------------------------------------------------------------------------


def test_a_bridge_that_is_closed_cancels_what_runs() -> None:
    bridge = Bridge()
    cleaned_up: list[str] = []
    running = threading.Event()

    async def work() -> None:
        try:
            running.set()
            await asyncio.sleep(3600)
        finally:
            cleaned_up.append("yes")

    def call() -> None:
        with pytest.raises(CancelledError):
            bridge.call(work())

    thread = threading.Thread(target=call)
    thread.start()
    assert running.wait(20)
    bridge.close()
    thread.join(20)
    assert cleaned_up == ["yes"]
    bridge.close()
    bridge.loop.close()


def test_after_fork_a_child_has_a_bridge_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hook does, without forking the test process."""
    mine = get_bridge()
    monkeypatch.setattr(bridge_module, "_lock", bridge_module._lock)
    monkeypatch.setattr(bridge_module, "_inherited", [])
    monkeypatch.setattr(bridge_module, "_bridge", mine)
    bridge_module._after_fork()
    child = get_bridge()
    assert child is not mine
    assert [inherited for inherited, _ in bridge_module._inherited] == [mine]
    child.close()
    child.loop.close()


def test_a_session_goes_on_with_another_bridge(
    server: Server, client: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client.create_session(ev.AGENT)
    assert session.run_turn("hello").success
    conversation = session.conversation_id
    parents = client._made
    child = Bridge()
    with monkeypatch.context() as patch:
        patch.setattr(bridge_module, "_bridge", child)
        assert session.run_turn("again").success
        assert session.conversation_id == conversation
        assert client.agents.retrieve(ev.AGENT)["id"] == ev.AGENT
        session.close()
        client.close()
    get_bridge().call(parents.close())
    child.close()
    child.loop.close()
    assert server.texts() == ["hello", "again"]
    assert server.count("POST", "/v1/conversations/$") == 1


def test_an_injected_client_does_not_cross_a_fork(
    rest: MakeRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    client = LettaClient(rest(), http_client=httpx.AsyncClient())
    child = Bridge()
    with monkeypatch.context() as patch:
        patch.setattr(bridge_module, "_bridge", child)
        with pytest.raises(InvalidInputError, match=r"after fork\(\)"):
            client.models.list()
    child.close()
    child.loop.close()


def test_lost_connection_then_leaving(server: Server, client: LettaClient) -> None:
    server.script(stream(ev.ping(), broken(keep=False, run="failed")), echo)
    session = resume(client)
    session.send("hello")
    assert [m.type for m in session.stream()] == ["init", "error", "result"]
    assert session.run_turn("again").success


def test_a_bridge_that_has_ended_says_so(server: Server, rest: MakeRest) -> None:
    """In an exit handler that runs after ours: an error, not a wait for ever."""
    bridge = Bridge()
    bridge.close()
    bridge.loop.close()
    with pytest.raises(SessionClosedError, match="process is ending"):
        bridge.call(Numbers(0).aclose())
    bridge.hold()()


def test_the_loop_is_held_while_the_process_forks() -> None:
    """Between two callbacks, where it can hold no lock."""
    ran = threading.Event()
    bridge_module._before_fork()
    get_bridge().loop.call_soon_threadsafe(ran.set)
    assert not ran.wait(0.05)
    bridge_module._after_fork_in_parent()
    assert ran.wait(20)
    bridge_module._after_fork_in_parent()


async def test_names_are_looked_up_at_exit_too() -> None:
    found = await bridge_module._getaddrinfo_at_exit("localhost", 80, type=socket.SOCK_STREAM)
    assert found == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


def test_exit_closes_clients_and_their_turns(
    server: Server, rest: MakeRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the exit handler does, without ending the test process."""
    server.script(stream(ev.ping(), hang))
    own = Bridge()
    with monkeypatch.context() as patch:
        patch.setattr(bridge_module, "_bridge", own)
        client = LettaClient(rest())
        resume(client).send("hello")
        bridge_module._at_exit()
        assert [run.status for run in server.runs] == ["cancelled"]
        with pytest.raises(SessionClosedError):
            client.models.list()
    own.loop.close()


def test_what_was_closed_stays_closed_after_a_fork(
    server: Server, client: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client.create_session(ev.AGENT)
    session.close()
    client.close()
    child = Bridge()
    with monkeypatch.context() as patch:
        patch.setattr(bridge_module, "_bridge", child)
        assert (session.closed, client.closed) == (True, True)
        with pytest.raises(SessionClosedError):
            session.run_turn("hello")
        with pytest.raises(SessionClosedError):
            client.agents.list()
        session.close()
        client.close()
    child.close()
    child.loop.close()
    assert server.texts() == []


def test_a_stream_that_is_cancelled_tells_a_thread_by_the_exception_for_threads() -> None:
    class Stream:
        async def __aiter__(self) -> AsyncIterator[int]:
            yield 1
            raise asyncio.CancelledError

        async def aclose(self) -> None: ...

    items = get_bridge().iterate(Stream())
    assert next(items) == 1
    with pytest.raises(CancelledError):
        next(items)


def test_a_failure_that_nobody_waits_for_any_more_is_not_reported_as_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A signal may come just as the work ends; the exception it raises goes on, not the other."""

    async def fail() -> None:
        raise SessionClosedError("This session is closed.")

    def interrupted(_: object, seconds: float | None = None) -> None:
        wait_until(lambda: jobs and jobs[0].over)
        raise KeyboardInterrupt

    jobs: list[Any] = []
    begin = bridge_module._Job.begin

    def keep(job: Any) -> None:
        jobs.append(job)
        begin(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bridge_module._Job, "begin", keep)
        patch.setattr(bridge_module._Job, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get_bridge().call(fail())
    jobs.clear()
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("late", [True, False], ids=["as it has begun", "before it begins"])
def test_an_interrupt_that_comes_as_a_call_begins_ends_it(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    begin = bridge_module._Job.begin

    def interrupted(job: Any) -> None:
        if late:
            begin(job)
            wait_until(lambda: seen)
        raise KeyboardInterrupt

    async def work() -> None:
        seen.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")

    ends: list[type[BaseException]] = []
    wait = bridge_module._Job.wait

    def watched(job: Any, seconds: float | None = None) -> Any:
        try:
            return wait(job, seconds)
        except BaseException as error:
            ends.append(type(error))
            raise

    monkeypatch.setattr(bridge_module._Job, "begin", interrupted)
    monkeypatch.setattr(bridge_module._Job, "wait", watched)
    with pytest.raises(KeyboardInterrupt):
        get_bridge().call(work())
    assert seen == (["begun", "ended"] if late else [])
    # It is over by then, also where it never began: nobody waits until the time is up.
    assert ends == [CancelledError]
