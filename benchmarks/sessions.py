"""Measure a hundred sessions in one embedded runtime, with a turn each at once, and its start.

It is compared with running without an App Server: one ``letta -p --input-format stream-json``
process for each session, measured on five and extrapolated; and with the bare runtime, started
without this package. All talk to the same scripted model, which is a process of its own. It needs
Linux (``smaps_rollup``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.report import show, spread, versions
from letta_adapters import (
    AsyncLettaClient,
    Local,
    ResultMessage,
    StreamEvent,
    extract_stream_text_delta,
)
from letta_adapters.backends.runtime.environment import runtime_environment
from letta_adapters.backends.runtime.find import find_installation

SESSIONS = 100
PROCESSES = 5
STARTS = 5
MEMORY_BAR, START_BAR = 1 / 20, 1.3
MODEL = "lmstudio/scripted"
_TOKENS = 20
_ANSWER = "word " * _TOKENS
_PROMPT = "You are a benchmark."


def run(*, quick: bool = False) -> bool:
    """Measure and print; return ``False`` if a session failed or lost anything."""
    sessions, starts = (20, 2) if quick else (SESSIONS, STARTS)
    print(f"\nSessions: {versions('letta', 'websockets')}, {os.cpu_count()} cores")
    with model() as url:
        _show_starts(url, starts)
        found = asyncio.run(together(url, sessions))
        pss = _processes(url) / PROCESSES * sessions
    whole = found["failed"] == 0 and found["lost"] == 0
    share = found["pss"] / pss
    rows = [
        (f"{sessions} turns at once", f"{found['seconds']:.1f} s"),
        ("turns a second", f"{sessions / found['seconds']:.1f}"),
        ("failed, lost", f"{found['failed']}, {found['lost']}"),
        ("client CPU per event", f"{found['cpu'] / found['events'] * 1e6:.0f} µs"),
        ("memory (PSS), runtime and client", f"{found['pss']:.0f} MB"),
        (f"the same in {sessions} processes ({PROCESSES} measured)", f"{pss:.0f} MB"),
        (f"share <= 1/20: {'yes' if share <= MEMORY_BAR else 'NO'}", f"1/{1 / share:.0f}"),
    ]
    show("one runtime", ("", ""), rows)
    return whole


# -- the start ----------------------------------------------------------------------------------


def _show_starts(url: str, rounds: int) -> None:
    ours, bare = [], []
    for _ in range(rounds):
        bare.append(asyncio.run(_bare_start(url)))
        ours.append(asyncio.run(_our_start(url)))
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    met = "yes" if sorted(ratios)[len(ratios) // 2] <= START_BAR else "NO"
    rows = [
        ("the bare runtime", spread(bare, 2), ""),
        ("Local(...)", spread(ours, 2), f"{spread(ratios, 2)} <= {START_BAR}: {met}"),
    ]
    show("from spawn to the first answered request", ("", "seconds", "ratio"), rows)


async def _our_start(url: str) -> float:
    with _home() as home:
        spec = Local(data_dir=home, openai_compatible={"base_url": url})
        started = time.monotonic()
        async with AsyncLettaClient(spec) as client:
            await client.models.list()
            return time.monotonic() - started


async def _bare_start(url: str) -> float:
    """Start the same command without this package, and measure it."""
    from websockets.asyncio.client import connect

    with _home() as home:
        started = time.monotonic()
        server = await asyncio.create_subprocess_exec(
            *_letta("server", "--listen"),
            env=_environment(home, url),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert server.stdout is not None
            while not (found := re.search(rb"ws://\S+/ws", await server.stdout.readline())):
                pass
            async with connect(found[0].decode(), max_size=None) as socket:
                await socket.send(json.dumps({"type": "list_models", "request_id": "1"}))
                while json.loads(await socket.recv()).get("request_id") != "1":
                    pass
            return time.monotonic() - started
        finally:
            server.terminate()
            await server.wait()


# -- many sessions ------------------------------------------------------------------------------


async def together(url: str, sessions: int) -> dict[str, float]:
    """Run a turn in each of many sessions at once.

    Returns:
        ``seconds`` of all turns and of ``cpu``, ``first`` and ``late`` (seconds to the first token,
        median and 95th percentile), the numbers of ``events``, of ``failed`` turns and of those
        that ``lost`` a token, and ``pss``, the memory of runtime and client in MB.
    """
    with _home() as home:
        spec = Local(data_dir=home, openai_compatible={"base_url": url})
        async with AsyncLettaClient(spec) as client:
            agent = await client.create_agent(name="b", model=MODEL, system_prompt=_PROMPT)
            async with contextlib.AsyncExitStack() as stack:
                made = [
                    await stack.enter_async_context(
                        client.create_session(agent, include_partial_messages=True)
                    )
                    for _ in range(sessions)
                ]
                cpu, started = time.process_time(), time.monotonic()
                turns = await asyncio.gather(*(_turn(s, n) for n, s in enumerate(made)))
                seconds, cpu = time.monotonic() - started, time.process_time() - cpu
                pss = _pss([psutil.Process()])
    firsts = [first for *_, first in turns]
    return {
        "seconds": seconds,
        "cpu": cpu,
        "first": median(firsts),
        "late": sorted(firsts)[int(0.95 * (len(firsts) - 1))],
        "events": float(sum(events for events, *_ in turns)),
        "failed": float(sum(not good for _, good, *_ in turns)),
        "lost": float(sum(not whole for *_, whole, _ in turns)),
        "pss": pss,
    }


async def _turn(session: Any, number: int) -> tuple[int, bool, bool, float]:
    """Run a turn; return its number of events, whether it succeeded and lost nothing, and when.

    The last is the seconds to the first token.
    """
    events, text, good = 0, "", False
    started, first = time.monotonic(), 0.0
    await session.send(f"number {number}")
    async for message in session.stream():
        events += 1
        if isinstance(message, StreamEvent):
            delta = extract_stream_text_delta(message)
            first = first or time.monotonic() - started
            text += delta.text if delta is not None else ""
        elif isinstance(message, ResultMessage):
            good = message.success
    return events, good, text == f"number {number}: {_ANSWER}", first


# -- one process for each session ---------------------------------------------------------------


def _processes(url: str) -> float:
    """Return the memory of five of them after a turn each, in MB."""
    with _home() as home, contextlib.ExitStack() as stack:
        command = _letta(
            *("-p", "--input-format", "stream-json", "--output-format", "stream-json"),
            *("--new-agent", "-m", MODEL, "--permission-mode", "standard"),
        )
        made = []
        for number in range(PROCESSES):
            process = subprocess.Popen(
                command,
                env=_environment(home, url),
                cwd=home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            made.append(process)
            message = {"type": "user", "message": {"role": "user", "content": f"number {number}"}}
            assert process.stdin is not None
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        for process in made:
            assert process.stdout is not None
            while json.loads(process.stdout.readline() or b'{"type":"result"}')["type"] != "result":
                pass
        return _pss([psutil.Process(process.pid) for process in made])


# -- what both need -----------------------------------------------------------------------------


def _letta(*arguments: str) -> list[str]:
    found = find_installation()
    return [str(found.node), str(found.app), "--backend", "local", *arguments]


def _environment(home: Path, url: str) -> dict[str, str]:
    config = Local(data_dir=home, openai_compatible={"base_url": url})
    env = runtime_environment(config) | {"LETTA_CODE_DISTRIBUTION": "pypi"}
    return env | {"PATH": os.pathsep.join([str(find_installation().node.parent), env["PATH"]])}


def _pss(roots: Sequence[psutil.Process]) -> float:
    """Return the proportional memory of processes and all below them, in MB."""
    total = 0
    for root in roots:
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0])
    return total / 1024


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        yield Path(home)


@contextlib.contextmanager
def model() -> Iterator[str]:
    """Yield the address of a model in a process of its own, so its CPU and memory do not count."""
    command = [sys.executable, "-m", "benchmarks.sessions"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        try:
            yield one.stdout.readline().strip()
        finally:
            one.terminate()


def _serve() -> None:
    from letta_adapters.testing.scripted_model import Reply, ScriptedModel

    def answer(request: Any) -> Reply:
        text = f"{re.findall(r'number [0-9]+', request.last_user_text)[0]}: {_ANSWER}"
        return Reply(text, token_delay=0.4 / _TOKENS)

    with ScriptedModel(respond=answer) as model:
        print(model.base_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve()
