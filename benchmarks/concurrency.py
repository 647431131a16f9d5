"""Measure many turns at once: CPU a turn, its growth with their number, memory and connections.

Everything runs in this one process against one server process. In each round every contestant runs
its turns once, all at the same moment; a ratio is taken between contestants of the same round. CPU
is that of the whole process, all threads.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx
import psutil

from benchmarks import crowd_server, crowds, sessions
from benchmarks.report import show, spread, versions
from letta_adapters.backends.runtime.find import find_installation
from letta_adapters.errors import LettaError

AT_ONCE = 100
ROUNDS = 9
SIZES = (10, 100, 1000)
GROWTH_ROUNDS = 7
LETTA_CLIENT, OPENAI, OPENAI_THREADS = "letta-client", "ChatOpenAI.abatch", "ChatOpenAI, threads"
OURS, CHAT_LETTA, OUR_THREADS = "letta-adapters", "ChatLetta.abatch", "LettaClient, threads"
# Each against another: CPU, and wall where it is bounded too.
BARS = (
    (OURS, LETTA_CLIENT, 0.9, 1.0),
    (CHAT_LETTA, OPENAI, 1.2, None),
    (OUR_THREADS, OPENAI_THREADS, 1.2, None),
)
SLOPE_BAR = 1.05

Maker = Callable[[str], crowds.Made]


@dataclass
class _Samples:
    """Of one contestant, by round."""

    cpu: list[float] = field(default_factory=list)  # ms a turn
    wall: list[float] = field(default_factory=list)  # seconds
    first: list[float] = field(default_factory=list)  # seconds, of each turn


def run(*, quick: bool = False) -> bool:
    """Measure and print; a contestant that gets another text than was sent stops it."""
    warnings.simplefilter("ignore")  # what the frameworks say of pydantic
    crowd_server.more_files()
    packages = ["httpx", "httpcore", "letta-client", "langchain-core", "langchain-openai"]
    known = [name for name in packages if find_spec(name.replace("-", "_")) is not None]
    print(f"\nMany turns at once: {versions(*known)}, load {os.getloadavg()[0]:.1f}")
    rounds, sizes = (3, SIZES[:2]) if quick else (ROUNDS, SIZES)
    with crowd_server.running() as url:
        _show_at_once("plain HTTP", url, {**_on_loops(), **_frameworks()}, rounds)
        _show_growth(url, sizes, 3 if quick else GROWTH_ROUNDS)
        _show_memory(url, sizes[-1])
    _show_tls(rounds)
    return _show_embedded(quick)


def _on_loops() -> dict[str, Maker]:
    made: dict[str, Maker] = {
        "httpx, keeps 10": partial(crowds.httpx_crowd, kept=10),
        "httpx, keeps 100": partial(crowds.httpx_crowd, kept=100),
        OURS: crowds.our_crowd,
    }
    if find_spec("letta_client") is not None:
        made[LETTA_CLIENT] = crowds.letta_client_crowd
    return made


def _frameworks() -> dict[str, Maker]:
    made: dict[str, Maker] = {OUR_THREADS: crowds.our_threads}
    if find_spec("letta_client") is not None:
        made["letta-client, threads"] = crowds.letta_client_threads
    if find_spec("langchain_core") is not None:
        made[CHAT_LETTA] = lambda url: crowds.abatch_crowd(crowds.chat_letta(url))
    if find_spec("langchain_openai") is not None:
        made[OPENAI] = lambda url: crowds.abatch_crowd(crowds.chat_openai(url))
        made[OPENAI_THREADS] = lambda url: crowds.invoke_threads(crowds.chat_openai(url))
    return made


# -- a hundred at once ----------------------------------------------------------------------------


def _show_at_once(title: str, url: str, makers: dict[str, Maker], rounds: int) -> None:
    with crowds.crowds(url, makers) as made:
        opened: dict[str, int] = {}
        for name, crowd in made.items():
            before = _opened(url)
            for _ in range(4):  # the warm-up
                crowd(AT_ONCE)
            opened[name] = _opened(url) - before - 1  # the question itself opens one
        samples = _measure(made, AT_ONCE, rounds)
    rows = [
        (
            name,
            spread(one.cpu, 2),
            spread(one.wall, 2),
            f"{median(one.first):.2f}" if one.first else "",
            str(opened[name]),
        )
        for name, one in samples.items()
    ]
    head = ("", "CPU ms/turn", "wall s", "first token s", "connections opened in 4 rounds")
    show(f"{AT_ONCE} turns at once, {title}, {rounds} rounds, median [quartiles]", head, rows)
    judged = []
    for ours, other, bar, wall_bar in BARS:
        if ours in samples and other in samples:
            mine, theirs = samples[ours], samples[other]
            judged.append(_judge(f"CPU: {ours} / {other}", mine.cpu, theirs.cpu, bar))
            if wall_bar is not None:
                judged.append(_judge(f"wall: {ours} / {other}", mine.wall, theirs.wall, wall_bar))
    show("the bars", ("", "bar", "measured", "met"), judged)


def _judge(name: str, mine: list[float], theirs: list[float], bar: float) -> tuple[str, ...]:
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    met = "yes" if median(ratios) <= bar else "NO"
    return name, f"<= {bar}", spread(ratios, 2), met


def _measure(made: dict[str, crowds.Crowd], turns: int, rounds: int) -> dict[str, _Samples]:
    samples = {name: _Samples() for name in made}
    names = list(made)
    for number in range(rounds):
        turned = number % len(names)
        for name in names[turned:] + names[:turned]:
            _sample(made[name], turns, samples[name])
    return samples


def _sample(crowd: crowds.Crowd, turns: int, into: _Samples, *, warm: bool = True) -> None:
    if warm:  # its connections have been unused while the others had their turn
        crowd(turns)
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    first = crowd(turns)
    into.cpu.append((time.process_time() - cpu) / turns * 1e3)
    into.wall.append(time.perf_counter() - wall)
    into.first += first


def _opened(url: str) -> int:
    return int(httpx.get(f"{url}/opened").json())


# -- growth and memory ----------------------------------------------------------------------------


def _show_growth(url: str, sizes: tuple[int, ...], rounds: int) -> None:
    makers = _on_loops()
    samples: dict[str, dict[int, _Samples]] = {
        name: {size: _Samples() for size in sizes} for name in makers
    }
    with crowds.crowds(url, makers) as made:
        for crowd in made.values():  # the warm-up
            crowd(AT_ONCE)
        for size in sizes:
            for number in range(rounds):
                for name, crowd in made.items():
                    # A thousand turns take a pool of a hundred connections minutes.
                    slow = size > AT_ONCE and name in ("httpx, keeps 100", LETTA_CLIENT)
                    if not slow or number == 0:
                        _sample(crowd, size, samples[name][size], warm=not slow)
    rows = []
    for name, by_size in samples.items():
        totals = [median(by_size[size].cpu) * size for size in sizes]
        slopes = [
            math.log(late / early) / math.log(sizes[n + 1] / sizes[n])
            for n, (early, late) in enumerate(pairwise(totals))
        ]
        first = median(by_size[sizes[-1]].first)
        cells = [f"{median(by_size[size].cpu):.2f}" for size in sizes]
        met = f"<= {SLOPE_BAR}: {'yes' if slopes[-1] <= SLOPE_BAR else 'NO'}"
        last = met if name == OURS else ""
        rows.append((name, *cells, *(f"{slope:.2f}" for slope in slopes), f"{first:.2f}", last))
    steps = [f"slope {a} to {b}" for a, b in pairwise(sizes)]
    head = ("", *(f"{size}: CPU ms/turn" for size in sizes), *steps, "first token s", "bar")
    show(f"growth, {rounds} rounds, medians; first token with {sizes[-1]}", head, rows)


def _show_memory(url: str, turns: int) -> None:
    rows = []
    for name in _on_loops():
        found = float(_in_a_process("memory", url, str(turns), name, capture=True))
        rows.append((name, f"{found:.1f} kB"))
    show(f"peak resident memory a turn, {turns} at once", ("", "more than before"), rows)


def _memory(name: str, url: str, turns: int) -> float:
    """Return how much more memory each turn takes than ten turns leave, in kB."""
    over, seen = threading.Event(), []

    def watch() -> None:
        # The process' own record would be that of the process which started it, if that is larger.
        while not over.wait(0.02):
            seen.append(psutil.Process().memory_info().rss)

    with crowds.crowds(url, {name: _on_loops()[name]}) as made:
        made[name](10)
        gc.collect()
        before = psutil.Process().memory_info().rss
        watcher = threading.Thread(target=watch)
        watcher.start()
        made[name](turns)
        over.set()
        watcher.join()
    return (max(seen) - before) / turns / 1024


# -- TLS ------------------------------------------------------------------------------------------


def _show_tls(rounds: int) -> None:
    """Show the same over TLS, measured in a process that trusts a certificate of its own."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command += ["-keyout", str(key), "-out", str(certificate)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            print("\nTLS: left out, there is no openssl command")
            return
        with crowd_server.running((certificate, key)) as url:
            _in_a_process("tls", url, str(rounds), SSL_CERT_FILE=str(certificate))


def _in_a_process(*arguments: str, capture: bool = False, **environment: str) -> str:
    """Run a part of this benchmark in a process of its own; return what it printed, if captured."""
    sys.stdout.flush()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.concurrency", *arguments],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE if capture else None,
        check=True,
        text=True,
    )
    return done.stdout or ""


# -- the embedded runtime -------------------------------------------------------------------------


def _show_embedded(quick: bool) -> bool:
    """Return whether no session of the embedded runtime failed or lost anything."""
    try:
        find_installation()
    except LettaError:
        print("\nEmbedded sessions: left out, Letta Code is not installed")
        return True
    whole, rows, totals = True, [], []
    sizes = (5, 20) if quick else (10, AT_ONCE)
    with sessions.model() as url:
        for size in sizes:
            found = asyncio.run(sessions.together(url, size))
            whole = whole and found["failed"] == 0 and found["lost"] == 0
            totals.append(found["cpu"])
            rows.append(
                (
                    str(size),
                    f"{found['cpu'] / size * 1e3:.1f}",
                    f"{found['seconds']:.1f}",
                    f"{found['first']:.2f}",
                    f"{found['pss']:.0f} MB",
                )
            )
    slope = math.log(totals[1] / totals[0]) / math.log(sizes[1] / sizes[0])
    head = ("sessions", "client CPU ms/turn", "wall s", "first token s", "PSS, runtime and client")
    show(f"embedded, one round, slope of the CPU {slope:.2f}", head, rows)
    return whole


def main(part: str, url: str, number: str, *names: str) -> None:
    """Measure one part, in a process of its own."""
    crowd_server.more_files()
    if part == "tls":
        _show_at_once("TLS", url, _on_loops(), int(number))
    else:
        print(_memory(*names, url, int(number)))


if __name__ == "__main__":
    main(*sys.argv[1:])
