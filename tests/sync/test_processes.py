"""What only a process of its own shows: fork, exit, Ctrl-C from a terminal, memory."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import Wire, deaf, hang, held, stream
from tests.sync.conftest import finish, start

pytestmark = pytest.mark.slow

LONG = stream(ev.ping(), ev.text("You sa"), hang)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork() here")

FORK = """
client = make()
session = client.create_session(AGENT, include_partial_messages=True)
session.send("parent")
items = session.stream()
while next(items).type != "stream_event":
    pass
other = client.create_session(AGENT)
assert other.run_turn("before the fork").success
pid = os.fork()
if pid == 0:
    # The parent's turn is not the child's; its conversations are.
    assert other.run_turn("child").result == "You said: child"
    assert client.prompt("child, fresh", AGENT).success
    session.close()
    client.close()
    say("child", other.conversation_id)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
say("parent", other.conversation_id)
last = list(items)[-1]
say("parent", last.success, last.result)
assert other.run_turn("after the fork").success
client.close()
"""


@needs_fork
def test_a_session_goes_on_in_the_child_and_the_parent_does_not_notice(server: Server) -> None:
    go_on = threading.Event()
    server.script(stream(ev.ping(), ev.text("par"), held(go_on), ev.text("ent"), ev.ending()))
    process = start(FORK, server.url)
    server.wait_for(lambda: "child, fresh" in server.texts())
    go_on.set()
    lines = finish(process)
    assert lines[0].split()[1] == lines[1].split()[1]
    assert lines[2] == "parent True parent"
    expected = ["parent", "before the fork", "child", "child, fresh", "after the fork"]
    assert server.texts() == expected
    assert server.cancels == 0
    assert server.active == []


@needs_fork
def test_fork_while_other_threads_use_the_bridge(server: Server) -> None:
    """Locks and loops of the parent's threads are not the child's problem."""
    script = """
client = make()
stop = threading.Event()
def busy():
    while not stop.is_set():
        client.prompt("busy", AGENT)
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()
for number in range(3):
    pid = os.fork()
    if pid == 0:
        ok = client.prompt(f"child {number}", AGENT).success
        say("child", ok)
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
for thread in threads:
    thread.join()
client.close()
say("parent done")
"""
    assert finish(start(script, server.url)) == ["child True"] * 3 + ["parent done"]


@needs_fork
def test_multiprocessing_with_fork(server: Server) -> None:
    script = """
import multiprocessing
client = make()
assert client.prompt("parent", AGENT).success
def work(number):
    return client.prompt(f"worker {number}", AGENT).result
with multiprocessing.get_context("fork").Pool(3) as pool:
    for line in pool.map(work, range(6)):
        say(line)
client.close()
"""
    lines = finish(start(script, server.url))
    assert lines == [f"You said: worker {number}" for number in range(6)]


UNFINISHED = """
client = make()
session = resume(client, include_partial_messages=True)
session.send("hello")
items = session.stream()
while next(items).type != "stream_event":
    pass
say("leaving")
"""


def by_name(url: str) -> str:
    """The same server, by a name that has to be looked up."""
    return url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("name", [False, True], ids=["address", "name"])
def test_exit_stops_the_agent_and_leaves_nothing_hanging(server: Server, name: bool) -> None:
    server.script(LONG)
    url = by_name(server.url) if name else server.url
    assert finish(start(UNFINISHED, url)) == ["leaving"]
    assert [run.status for run in server.runs] == ["cancelled"]
    assert server.cancels == 1


def test_exit_with_a_server_that_does_not_answer(server: Server) -> None:
    server.script(stream(ev.ping(), ev.text("You sa"), deaf))
    server.override("POST", "/cancel$", deaf, 9)
    impatient = "from letta_adapters.sync import bridge; bridge._EXIT_SECONDS = 0.5"
    assert finish(start(impatient + UNFINISHED, server.url)) == ["leaving"]


def test_exit_while_threads_wait(server: Server) -> None:
    """A daemon thread in a turn does not keep the process."""
    server.script(LONG)
    script = """
client = make()
thread = threading.Thread(target=lambda: resume(client).run_turn("hello"), daemon=True)
thread.start()
while client.request("GET", "/v1/runs/", params={"conversation_id": CONV}) == []:
    time.sleep(0.01)
threading.excepthook = lambda args: None
say("leaving")
"""
    assert finish(start(script, server.url)) == ["leaving"]
    assert [run.status for run in server.runs] == ["cancelled"]


def test_exit_by_an_exception_in_the_loop_body(server: Server) -> None:
    server.script(LONG)
    script = """
sys.excepthook = lambda kind, error, tb: say(kind.__name__)
client = make()
with resume(client) as session:
    session.send("hello")
    for message in session.stream():
        1 / 0
"""
    process = start(script, server.url)
    out, err = process.communicate(timeout=60)
    assert (out.split(), err) == (["ZeroDivisionError"], "")
    assert [run.status for run in server.runs] == ["cancelled"]


def test_nothing_open_at_exit(server: Server) -> None:
    """No warning about what was not closed, even if nothing was."""
    script = """
client = make()
say(client.prompt("hello", AGENT).result)
"""
    assert finish(start(script, server.url)) == ["You said: hello"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_in_a_terminal(server: Server) -> None:
    """The turn is aborted, the exception reaches the program, the session can be used."""
    server.script(LONG)
    script = """
client = make()
session = resume(client, include_partial_messages=True)
session.send("hello")
try:
    for message in session.stream():
        if message.type == "stream_event":
            say("ready")
except KeyboardInterrupt:
    say("interrupted")
say(session.run_turn("again").result)
client.close()
"""
    process = start(script, server.url)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert finish(process) == ["interrupted", "You said: again"]
    assert [run.status for run in server.runs] == ["cancelled", "completed"]
    assert server.cancels == 1


MEMORY = """
import asyncio, resource
from letta_adapters.client.client import AsyncLettaClient
unit = 1 if sys.platform == "darwin" else 1024
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
def check(index, message):
    assert message.event["content"] == f"{index} ", (index, message)
def read_sync():
    client = make()
    session = resume(client, include_partial_messages=True)
    assert session.run_turn("warm up").success
    before, count = peak(), 0
    session.send("hello")
    for message in session.stream():
        if message.type == "stream_event":
            check(count, message)
            count += 1
            if count % 1000 == 0:
                time.sleep(0.005)
    client.close()
    return before, count, message
async def read_async():
    async with AsyncLettaClient(Rest(base_url=sys.argv[1], api_key="")) as client:
        session = resume(client, include_partial_messages=True)
        assert (await session.run_turn("warm up")).success
        before, count = peak(), 0
        await session.send("hello")
        async for message in session.stream():
            if message.type == "stream_event":
                check(count, message)
                count += 1
                if count % 1000 == 0:
                    await asyncio.sleep(0.005)
        return before, count, message
before, count, last = FACE
say(count, last.success, last.result.count(" "), peak() - before < 64_000_000 or peak() - before)
"""


@pytest.mark.parametrize("face", ["read_sync()", "asyncio.run(read_async())"])
def test_a_hundred_thousand_events_lose_nothing_and_cost_little(server: Server, face: str) -> None:
    pytest.importorskip("resource", reason="Windows does not tell the peak of memory")

    def much(wire: Wire) -> None:
        for start_ in range(0, 100_000, 100):
            wire.chunk(b"".join(ev.text(f"{n} ") for n in range(start_, start_ + 100)))

    server.script(stream(ev.ping(), ev.text("warm"), ev.ending()))
    server.script(stream(ev.ping(2), much, ev.ending()))
    assert finish(start(MEMORY.replace("FACE", face), server.url)) == ["100000 True 100000 True"]


def test_importing_starts_nothing(server: Server) -> None:
    """No thread, no event loop, before the first client."""
    script = """
import letta_adapters.sync.client, letta_adapters.aio
say([t.name for t in threading.enumerate()])
"""
    assert finish(start(script, server.url)) == ["['MainThread']"]
