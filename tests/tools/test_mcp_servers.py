"""MCP servers as client-side tools, against real servers: processes over stdio, HTTP and SSE."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the mcp package is not installed (extra: mcp)")

from letta_adapters import ToolContext, ToolProgressMessage, errors
from letta_adapters.sync.bridge import get_bridge
from letta_adapters.tools.client_side import Tool, as_tools
from letta_adapters.tools.mcp import connection
from letta_adapters.tools.mcp import host as mcp_servers
from letta_adapters.tools.mcp.config import McpHttp, McpStdio, list_secrets, parse_servers
from letta_adapters.tools.mcp.connection import to_result
from letta_adapters.tools.mcp.host import McpHost, tool_names
from letta_adapters.tools.result import ToolResult

HERE = Path(__file__).parents[1] / "mcp_fixtures"
EVERYTHING = str(HERE / "everything.py")
ODD = str(HERE / "odd.py")
# 1.x of the mcp package drops streams of failed HTTP connections without closing them.
LEAKY = not hasattr(sys.modules["mcp"], "Client")
UNRAISABLE = "ignore::pytest.PytestUnraisableExceptionWarning"
pytestmark = [pytest.mark.slow, *([pytest.mark.filterwarnings(UNRAISABLE)] if LEAKY else [])]
SECRET = "sk-very-secret-value"


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    """What 1.x leaks is found here, not in a test of something else."""
    yield
    if LEAKY:
        gc.collect()


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """The processes that the servers of this test noted; none may be left at its end."""
    file = tmp_path / "pids"

    def read() -> list[int]:
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    yield read
    none_alive(read())
    left = [pid for pid in read() if alive(pid)]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"processes left behind: {left}"


def none_alive(pids: list[int]) -> bool:
    """A killed process of another parent takes a moment to end."""
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, pids))


@pytest.fixture
async def host(pids: Any) -> AsyncIterator[McpHost]:
    made = McpHost()
    yield made
    await made.aclose()


@pytest.fixture
def stdio(tmp_path: Path, pids: Any) -> Callable[..., dict[str, Any]]:
    """The configuration of a server in one of the scripts."""

    def make(script: str = EVERYTHING, *args: str, **more: Any) -> dict[str, Any]:
        env = {"PID_FILE": str(tmp_path / "pids"), **more.pop("env", {})}
        given = args or (("stdio",) if script == EVERYTHING else ())
        return {"command": sys.executable, "args": [script, *given], "env": env, **more}

    return make


def alive(pid: int) -> bool:
    """Is it a process that runs? (One that ended and waits for its parent does not.)"""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return sys.platform != "linux"


def by_name(tools: tuple[Tool, ...]) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools}


# -- configurations -----------------------------------------------------------------------------


def test_the_usual_shapes() -> None:
    servers = parse_servers(
        {
            "a": {"command": "npx", "args": ["-y", "x"], "env": {"K": SECRET}, "cwd": "/tmp"},
            "b": {"type": "stdio", "command": "x"},
            "c": {"type": "http", "url": "https://h/mcp", "headers": {"Authorization": SECRET}},
            "d": {"type": "sse", "url": "http://localhost:1/sse"},
            "e": {"url": "https://h/mcp"},
            "f": McpStdio(command="x"),
        }
    )
    assert [type(server) for server in servers.values()] == [
        McpStdio,
        McpStdio,
        McpHttp,
        McpHttp,
        McpHttp,
        McpStdio,
    ]
    assert [server.type for server in servers.values()] == [
        "stdio",
        "stdio",
        "http",
        "sse",
        "http",
        "stdio",
    ]


def test_no_secret_in_a_repr() -> None:
    url = f"https://user:{SECRET}@h/mcp?key={SECRET}"
    made = [
        McpStdio(command="x", args=("--key", SECRET), env={"K": SECRET}),
        McpHttp(url=url, headers={"Authorization": f"Bearer {SECRET}"}),
    ]
    for server in made:
        assert SECRET not in repr(server) + str(server) + repr({"x": server})


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ("npx", "mcp_servers"),
        (["npx"], "mcp_servers"),
        ({"": {"command": "x"}}, "name"),
        ({1: {"command": "x"}}, "name"),
        ({"a": "npx x"}, "'a'"),
        ({"a": {}}, "'a': .*command"),
        ({"a": {"command": ""}}, "command"),
        ({"a": {"command": "x", "args": "-y x"}}, "args"),
        ({"a": {"command": "x", "env": {"PORT": 1}}}, r"env\.PORT"),
        ({"a": {"command": "x", "tool_timeout": 0}}, "tool_timeout"),
        ({"a": {"command": "x", "timeout": 5}}, "timeout: is not an option"),
        ({"a": {"type": "grpc", "url": "x"}}, "type"),
        ({"a": {"type": "http"}}, "url"),
        ({"a": {"type": "http", "url": "ftp://h"}}, "url"),
        ({"a": {"type": "sse", "url": "https://h", "command": "x"}}, "command"),
    ],
)
def test_a_wrong_configuration_names_the_server_and_the_field(servers: Any, words: str) -> None:
    with pytest.raises(errors.InvalidInputError, match=words) as caught:
        parse_servers(servers)
    assert SECRET not in str(caught.value)


def test_a_mistake_does_not_show_the_secrets_beside_it() -> None:
    with pytest.raises(errors.InvalidInputError) as caught:
        parse_servers({"a": {"command": "x", "env": {"K": SECRET, "L": 1}, "nope": SECRET}})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_without_the_mcp_package(host: McpHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_servers, "find_spec", lambda _: None)
    assert await host.start({}) == ()
    with pytest.raises(errors.ConfigurationError, match=r"letta-adapters\[mcp\]"):
        await host.start({"a": {"command": "x"}})


def test_importing_does_not_import_mcp() -> None:
    code = "import sys, letta_adapters.tools.mcp.host; sys.exit('mcp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- names --------------------------------------------------------------------------------------


def test_names() -> None:
    pairs = [("git", "log"), ("my server", "get.weather"), ("ü", "x")]
    assert tool_names(pairs) == ["mcp__git__log", "mcp__my_server__get_weather", "mcp_____x"]


def test_names_that_would_be_the_same_or_too_long_stay_different() -> None:
    pairs = [
        ("s", "a.b"),
        ("s", "a_b"),
        ("a", "b__c"),
        ("a__b", "c"),
        ("s", "x" * 100),
        ("s", "x" * 99 + "y"),
        ("s", "plain"),
    ]
    names = tool_names(pairs)
    assert len(set(names)) == len(pairs)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names)
    assert names[-1] == "mcp__s__plain"
    assert names[0].startswith("mcp__s__a_b_")
    assert tool_names(pairs[::-1]) == names[::-1]  # whatever the order


# -- results ------------------------------------------------------------------------------------


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ({"content": [said("a"), said("b")]}, "a\nb"),
        ({"content": []}, ""),
        ({"content": None}, ""),
        ({"content": [said("5")], "structuredContent": {"result": 5}}, "5"),
        ({"content": [said("5")], "structuredContent": {"result": "5"}}, "5"),
        ({"content": [said("x"), said("y")], "structuredContent": {"result": ["x", "y"]}}, "x\ny"),
        ({"content": [said('{"a": 1}')], "structuredContent": {"a": 1}}, '{"a": 1}'),
        ({"content": [said("one")], "structuredContent": {"a": "ü"}}, 'one\n{"a": "ü"}'),
        ({"content": [], "structuredContent": {"result": []}}, '{"result": []}'),
        ({"content": [{"type": "hologram"}]}, "[hologram (unknown type), not shown]"),
        ({"content": [said("\ud800")]}, "?"),
    ],
)
def test_results(result: dict[str, Any], content: str) -> None:
    outcome = to_result(result)
    assert (outcome.content, outcome.is_error) == (content, False)


# -- stdio --------------------------------------------------------------------------------------


async def test_a_stdio_server(host: McpHost, stdio: Any, tmp_path: Path, pids: Any) -> None:
    tools = as_tools(await host.start({"every": stdio(cwd=tmp_path, env={"TOKEN": SECRET})}))
    named = by_name(tools)
    assert host.errors == {}
    add = named["mcp__every__add"]
    assert add.description == "Add two numbers."
    assert add.parameters["required"] == ["a"]
    assert (await add.run({"a": 1, "b": 2})).content == "3"
    assert (await add.run('{"a": 1}')).content == "2"
    assert (await add.run({})).content == "Invalid arguments for mcp__every__add: a: is required"
    assert (await named["mcp__every__dotted_name"].run({})).content == "dotted"
    long = [name for name in named if name.startswith("mcp__every__long_")]
    assert (await named[long[0]].run({})).content == "long"
    where = str((await named["mcp__every__where"].run({})).content)
    assert where.startswith(f"{pids()[0]} {tmp_path} ")
    assert where.endswith("['TOKEN', 'PATH']")


async def test_images_structured_content_and_errors(host: McpHost, stdio: Any) -> None:
    tools = by_name(await host.start({"e": stdio()}))
    rows = await tools["mcp__e__rows"].run({})
    assert '"note": null' in str(rows.content) or '"note":null' in str(rows.content)
    assert str(rows.content).count("rows") == 1
    picture = await tools["mcp__e__picture"].run({})
    assert picture.content[0]["source"]["media_type"] == "image/png"
    both = (await tools["mcp__e__both"].run({})).content
    assert [part["type"] for part in both] == ["text", "image"]
    fail = await tools["mcp__e__fail"].run({})
    assert fail.is_error
    assert "fail" in str(fail.content)
    wrong = await tools["mcp__e__add"].run({"a": "many"})
    assert wrong.is_error


COUNTED = [("step 1", 1, 3, 1), ("", 2, 3, 2), ("step 3", 3, 3, 3)]


@pytest.mark.parametrize("in_thread_loop", [False, True])
async def test_what_a_server_reports_while_it_works(
    host: McpHost, stdio: Any, in_thread_loop: bool
) -> None:
    (count,) = [t for t in await host.start({"e": stdio()}) if t.name == "mcp__e__count"]
    # What the server's own code is given is not in its schema, and never was.
    assert list(count.parameters["properties"]) == ["steps"]
    told: list[ToolProgressMessage] = []
    context = ToolContext("call-1", count.name, on_report=told.append)
    result = await count.run({"steps": 3}, context=context, in_thread_loop=in_thread_loop)
    assert result.content == "counted"
    assert [(m.content, m.progress, m.total, m.number) for m in told] == COUNTED
    assert {(m.tool_call_id, m.tool_name) for m in told} == {("call-1", "mcp__e__count")}
    # Nobody has to listen.
    assert (await count.run({"steps": 2})).content == "counted"


async def test_what_servers_of_other_makers_do(host: McpHost, stdio: Any) -> None:
    tools = by_name(await host.start({"odd": stdio(ODD)}))
    expected = {
        "svg": "[An image (image/svg+xml) that cannot be shown. "
        "This is not a PNG, JPEG, GIF or WebP image.]",
        "audio": "[audio (audio/wav), not shown]",
        "link": "[resource_link (unknown type), not shown: a file:///a.txt]",
        "file": "file:///a.txt:\ninside\n[resource (unknown type), not shown: file:///b]",
        "mute_failure": "The tool failed.",
        "data": '{"a": null, "b": [1]}',
        "summary": '2 rows\n{"rows": [1, 2]}',
        "nothing": "",
        "null": "null",
        "refuse": "no such method",
    }
    assert set(tools) == {f"mcp__odd__{name}" for name in expected}  # all pages, each tool once
    for name, content in expected.items():
        outcome = await tools[f"mcp__odd__{name}"].run({})
        assert outcome.content == content
        assert outcome.is_error is (name in ("mute_failure", "refuse"))


async def test_a_tool_whose_schema_is_wrong_is_left_out(
    host: McpHost, stdio: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """2.x of the mcp package refuses the whole list, 1.x does not look."""

    async def listing(_: Any) -> list[dict[str, Any]]:
        return [{"name": "good"}, {"name": "bad", "inputSchema": {"type": "array"}}]

    monkeypatch.setattr(connection, "_list_tools", listing)
    tools = await host.start({"odd": stdio(ODD)})
    assert [tool.name for tool in tools] == ["mcp__odd__good"]
    assert "A tool of MCP server 'odd' is left out" in caplog.text


async def test_a_server_without_tools(host: McpHost, stdio: Any) -> None:
    assert await host.start({"odd": stdio(ODD, "toolless")}) == ()
    assert host.errors == {}


async def test_a_server_that_prints_other_things(host: McpHost, stdio: Any) -> None:
    tools = by_name(await host.start({"odd": stdio(ODD, "garbage")}))
    assert (await tools["mcp__odd__data"].run({})).content == '{"a": null, "b": [1]}'


async def test_a_talkative_server_does_not_fill_the_disk(
    host: McpHost, stdio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = by_name(await host.start({"e": stdio()}))
    file = host._connections["e"]._stderr
    file.write(b"x" * 5000)
    file.flush()
    monkeypatch.setattr(connection, "_MAX_STDERR", 1000)
    assert (await tools["mcp__e__add"].run({"a": 1})).content == "2"
    assert file.seek(0, 2) < 5000


async def test_calls_run_at_the_same_time(host: McpHost, stdio: Any) -> None:
    tools = by_name(await host.start({"e": stdio()}))
    started = time.monotonic()
    await asyncio.gather(*(tools["mcp__e__sleep"].run({"seconds": 2}) for _ in range(6)))
    assert time.monotonic() - started < 10  # one after the other: 12


# -- broken servers -----------------------------------------------------------------------------


async def test_broken_servers_do_not_stop_the_others(
    host: McpHost, stdio: Any, caplog: pytest.LogCaptureFixture
) -> None:
    crash = "import sys, os; sys.stderr.write('bad ' + os.environ['K']); sys.exit('no config')"
    servers = {
        "missing": {"command": "no-such-command-anywhere"},
        "crash": {"command": sys.executable, "args": ["-c", crash], "env": {"K": SECRET}},
        "silent": stdio(ODD, "mute", connect_timeout=0.7),
        "nobody": {"type": "http", "url": f"http://127.0.0.1:{free_port()}/mcp?key={SECRET}"},
        "nobody_sse": {"type": "sse", "url": f"http://127.0.0.1:{free_port()}/sse?key={SECRET}"},
        "good": stdio(),
    }
    with caplog.at_level(logging.WARNING, "letta_adapters"):
        tools = await host.start(servers)
    assert {tool.name.split("__")[1] for tool in tools} == {"good"}
    assert (await by_name(tools)["mcp__good__add"].run({"a": 1})).content == "2"
    assert set(host.errors) == set(servers) - {"good"}
    assert isinstance(host.errors["missing"], errors.ConnectionFailedError)
    assert "No such file or directory: 'no-such-command-anywhere'" in str(host.errors["missing"])
    assert isinstance(host.errors["crash"], errors.ConnectionFailedError)
    assert "bad ***" in str(host.errors["crash"])
    assert "no config" in str(host.errors["crash"])
    assert isinstance(host.errors["silent"], errors.LettaTimeoutError)
    assert "did not answer within 0.7 s" in str(host.errors["silent"])
    for name in ("nobody", "nobody_sse"):
        assert isinstance(host.errors[name], errors.ConnectionFailedError)
    ours = [record for record in caplog.records if record.name == "letta_adapters.mcp"]
    assert len(ours) == 5
    assert SECRET not in "".join(str(problem) for problem in host.errors.values())
    assert SECRET not in "".join(record.getMessage() for record in ours)


async def test_servers_connect_at_the_same_time(host: McpHost, stdio: Any) -> None:
    started = time.monotonic()
    await host.start({f"s{i}": stdio(ODD, "mute", connect_timeout=3) for i in range(5)})
    assert time.monotonic() - started < 12  # one after the other: 15
    assert len(host.errors) == 5


async def test_a_server_that_dies_is_started_again(host: McpHost, stdio: Any, pids: Any) -> None:
    tools = by_name(await host.start({"e": stdio(), "other": stdio()}))
    outcome = await tools["mcp__e__die"].run({})
    assert outcome.is_error
    assert "'e' was lost" in str(outcome.content)
    assert "unknown" in str(outcome.content)
    assert (await tools["mcp__other__add"].run({"a": 1})).content == "2"
    before = pids()
    results = await asyncio.gather(*(tools["mcp__e__add"].run({"a": i}) for i in range(3)))
    assert [result.content for result in results] == ["1", "2", "3"]
    assert len(pids()) == len(before) + 1


async def test_a_server_that_died_between_calls(host: McpHost, stdio: Any, pids: Any) -> None:
    tools = by_name(await host.start({"e": stdio()}))
    os.kill(pids()[0], signal.SIGKILL)
    await asyncio.sleep(0.3)
    assert (await tools["mcp__e__add"].run({"a": 1})).content == "2"


async def test_a_server_that_cannot_be_started_again(
    host: McpHost, stdio: Any, tmp_path: Path
) -> None:
    script = tmp_path / "server.py"
    shutil.copy(EVERYTHING, script)
    tools = by_name(await host.start({"e": stdio(str(script), "stdio")}))
    script.rename(tmp_path / "gone.py")
    await tools["mcp__e__die"].run({})
    for _ in range(2):
        outcome = await tools["mcp__e__add"].run({"a": 1})
        assert outcome.is_error
        assert "The MCP server 'e' could not be connected" in str(outcome.content)
    assert set(host.errors) == {"e"}
    (tmp_path / "gone.py").rename(script)
    assert (await tools["mcp__e__add"].run({"a": 1})).content == "2"
    assert host.errors == {}


async def test_a_slow_tool_times_out_and_the_server_goes_on(host: McpHost, stdio: Any) -> None:
    tools = by_name(await host.start({"e": stdio(tool_timeout=0.5)}))
    outcome = await tools["mcp__e__sleep"].run({"seconds": 30})
    assert outcome.is_error
    assert "timed out after 0.5 s; its outcome is unknown" in str(outcome.content)
    assert (await tools["mcp__e__add"].run({"a": 1})).content == "2"
    assert len(pid_set(await tools["mcp__e__where"].run({}))) == 1


def pid_set(outcome: Any) -> set[str]:
    return {str(outcome.content).split()[0]}


async def test_a_cancelled_call(host: McpHost, stdio: Any) -> None:
    tools = by_name(await host.start({"e": stdio()}))
    task = asyncio.create_task(tools["mcp__e__sleep"].run({"seconds": 30}))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await tools["mcp__e__add"].run({"a": 1})).content == "2"


# -- the end ------------------------------------------------------------------------------------


async def test_closing_ends_everything(stdio: Any, pids: Any) -> None:
    host = McpHost()
    tools = by_name(await host.start({"a": stdio(), "b": stdio(), "odd": stdio(ODD, "child")}))
    assert len([pid for pid in pids() if alive(pid)]) == 4
    running = asyncio.create_task(tools["mcp__a__sleep"].run({"seconds": 30}))
    await asyncio.sleep(0.2)
    await asyncio.gather(host.aclose(), host.aclose())
    assert none_alive(pids())
    assert (await running).is_error
    await host.aclose()
    outcome = await tools["mcp__a__add"].run({"a": 1})
    assert outcome.is_error
    assert "closed" in str(outcome.content)
    assert host.errors == {}


async def test_a_server_that_does_not_want_to_end(stdio: Any, pids: Any) -> None:
    host = McpHost()
    await host.start({"odd": stdio(ODD, "stubborn", "child")})
    assert len(pids()) == 2
    await host.aclose()
    assert none_alive(pids())


async def test_cancelling_the_close_leaves_nothing_behind(stdio: Any, pids: Any) -> None:
    host = McpHost()
    await host.start({"odd": stdio(ODD, "stubborn"), "e": stdio()})
    closing = asyncio.create_task(host.aclose())
    for _ in range(3):
        await asyncio.sleep(0.1)
        closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert none_alive(pids())


@pytest.mark.parametrize("after", [0.0, 0.02, 0.3, 0.9])
async def test_cancelling_the_start_leaves_nothing_behind(
    stdio: Any, pids: Any, after: float
) -> None:
    host = McpHost()
    servers = {"e": stdio(), "silent": stdio(ODD, "mute"), "child": stdio(ODD, "mute", "child")}
    starting = asyncio.create_task(host.start(servers))
    await asyncio.sleep(after)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.sleep(0.1)
    assert none_alive(pids())
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("mcp server")]


async def test_closing_while_it_starts(stdio: Any, pids: Any) -> None:
    host = McpHost()
    starting = asyncio.create_task(host.start({"silent": stdio(ODD, "mute")}))
    await asyncio.sleep(0.3)
    await host.aclose()
    assert await starting == ()
    assert none_alive(pids())


@pytest.mark.parametrize("how", ["forgotten", "ctrl_c", "sync"])
def test_a_program_that_does_not_close(tmp_path: Path, stdio: Any, pids: Any, how: str) -> None:
    spec = stdio()
    program = f"""
        import asyncio
        from letta_adapters.sync.bridge import get_bridge
        from letta_adapters.tools.mcp.host import McpHost

        async def main():
            await McpHost().start({{"e": {spec!r}}})
            print("started", flush=True)
            await asyncio.sleep({30 if how == "ctrl_c" else 0})

        {"get_bridge().call" if how == "sync" else "asyncio.run"}(main())
    """
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(program))
    with subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        if how == "ctrl_c":
            process.send_signal(signal.SIGINT)
        _, said_last = process.communicate(timeout=20)
    assert "never retrieved" not in said_last
    assert "cancel scope" not in said_last
    assert len(pids()) == 1


def test_from_the_sync_client_s_loop(stdio: Any) -> None:
    bridge = get_bridge()
    host = McpHost()
    tools = by_name(bridge.call(host.start({"e": stdio(tool_timeout=2)})))
    add, sleep = tools["mcp__e__add"], tools["mcp__e__sleep"]
    assert bridge.call(add.run({"a": 1}, in_thread_loop=True)).content == "2"
    assert "timed out" in str(bridge.call(sleep.run({"seconds": 9}, in_thread_loop=True)).content)
    assert asyncio.run(add.run({"a": 2})).content == "3"  # another loop, another thread
    assert bridge.call(tools["mcp__e__die"].run({}, in_thread_loop=True)).is_error
    assert bridge.call(add.run({"a": 3}, in_thread_loop=True)).content == "4"
    bridge.call(host.aclose())
    assert "closed" in str(asyncio.run(add.run({"a": 2})).content)


# -- HTTP and SSE -------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """The same server as a process that listens on loopback."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.port = free_port()
        path = "sse" if transport == "sse" else "mcp"
        self.spec = {"type": transport, "url": f"http://127.0.0.1:{self.port}/{path}"}

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, EVERYTHING, self.transport, str(self.port)],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(params=["http", "sse"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    server = Served(request.param)
    server.start()
    yield server
    server.stop()


async def test_a_server_at_a_url(host: McpHost, served: Served) -> None:
    tools = by_name(await host.start({"e": served.spec}))
    assert host.errors == {}
    assert (await tools["mcp__e__add"].run({"a": 1, "b": 2})).content == "3"
    assert (await tools["mcp__e__fail"].run({})).is_error
    picture = (await tools["mcp__e__picture"].run({})).content
    assert picture[0]["type"] == "image"
    results = await asyncio.gather(*(tools["mcp__e__add"].run({"a": i}) for i in range(5)))
    assert [result.content for result in results] == ["1", "2", "3", "4", "5"]
    told: list[ToolProgressMessage] = []
    count = ToolContext("call-1", "count", on_report=told.append)
    assert (await tools["mcp__e__count"].run({"steps": 3}, context=count)).content == "counted"
    # Over HTTP the last of them may come beside the result, when nobody waits any more.
    assert [(m.content, m.progress, m.total, m.number) for m in told][:2] == COUNTED[:2]


async def test_a_url_whose_server_is_restarted(host: McpHost, served: Served) -> None:
    tools = by_name(await host.start({"e": {**served.spec, "tool_timeout": 20}}))
    running = asyncio.create_task(tools["mcp__e__sleep"].run({"seconds": 30}))
    await asyncio.sleep(0.5)
    served.stop()
    outcome = await running
    assert outcome.is_error
    outcome = await tools["mcp__e__add"].run({"a": 1})
    assert outcome.is_error
    served.start()
    answers = [await tools["mcp__e__add"].run({"a": 1}) for _ in range(2)]
    assert answers[-1].content == "2"
    assert answers[0].content == "2" or "next call connects again" in str(answers[0].content)


async def test_a_url_restarted_between_calls(host: McpHost, served: Served) -> None:
    tools = by_name(await host.start({"e": {**served.spec, "tool_timeout": 20}}))
    served.stop()
    served.start()
    await asyncio.sleep(0.3)
    answers = [await tools["mcp__e__add"].run({"a": 1}) for _ in range(2)]
    assert answers[-1].content == "2"


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_refused_key(host: McpHost, transport: str) -> None:
    heads: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    headers = {"Authorization": f"Bearer {SECRET}", "X-Team": "seven-7"}
    spec = {"type": transport, "url": f"http://127.0.0.1:{port}/x?key={SECRET}", "headers": headers}
    assert await host.start({"closed": spec}) == ()
    server.close()
    assert SECRET.encode() in heads[0]
    assert b"seven-7" in heads[0]
    problem = str(host.errors["closed"])
    assert "401" in problem
    assert SECRET not in problem


def test_a_text_nested_by_the_thousand_is_a_result() -> None:
    text = "[" * 100_000
    wire = {"content": [{"type": "text", "text": text}], "structuredContent": {"a": 1}}
    assert to_result(wire) == ToolResult(f'{text}\n{{"a": 1}}')


def test_secrets_of_an_address_are_hidden_as_the_server_reads_them() -> None:
    url = "https://me:p%40ssword@example.com/mcp?key=a%2Bb%2Fcdefgh&word=blue+whale"
    hidden = list_secrets(parse_servers({"docs": {"url": url}})["docs"])
    for secret in ("a%2Bb%2Fcdefgh", "a+b/cdefgh", "p%40ssword", "p@ssword", "blue whale"):
        assert secret in hidden
