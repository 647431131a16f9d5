"""Measure many turns at once: CPU a turn, its growth with their number, memory and connections.

Each row runs in a process of its own, against a server process, and has so many seconds: it makes
as many rounds as fit. In each round every contestant runs its turns once, all at the same moment; a
ratio is taken between contestants of the same round. CPU is that of the whole process, all threads.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

import httpx

from benchmarks import crowd_server, crowds, sessions
from benchmarks.memory import peak_mb, rss_mb
from benchmarks.report import show, spread, versions
from letta_adapters.backends.runtime.find import find_installation
from letta_adapters.errors import LettaError

AT_ONCE = 100
SIZES = (1, 10, 100, 1000)
#: The rows, each with the seconds that it has: together less than eight minutes.
ROWS = {"at-once": 150, "growth": 170, "memory": 60, "tls": 40, "embedded": 50}
QUICK = {"at-once": 60, "growth": 30, "memory": 20, "tls": 20, "embedded": 20}
RAW, LETTA_CLIENT, OPENAI = "httpx, keeps 10", "letta-client", "ChatOpenAI.abatch"
RAW_HUNDRED, OPENAI_THREADS = "httpx, keeps 100", "ChatOpenAI, threads"
OURS, CHAT_LETTA, OUR_THREADS = "letta-adapters", "ChatLetta.abatch", "LettaClient, threads"
CHAT_LETTA_STREAM, OPENAI_STREAM = "ChatLetta.astream", "ChatOpenAI.astream"
UNCOLLECTED = "letta-adapters, garbage collector off"
# Each against another: CPU, and wall where it is bounded too.
BARS = (
    (OURS, LETTA_CLIENT, 0.9, 1.0),
    (CHAT_LETTA, OPENAI, 1.2, None),
    (OUR_THREADS, OPENAI_THREADS, 1.2, None),
)
SLOPE_BAR = 1.05
# They wait more than they work, so two rounds of them are enough.
_SLOW = (RAW_HUNDRED, OPENAI)
# Of a thousand turns they make one round, cold: it takes many of them most of a minute.
_ONCE = (LETTA_CLIENT, CHAT_LETTA_STREAM, OPENAI_STREAM)

Maker = Callable[[str], crowds.Made]


class _Samples:
    """Of one contestant with one number of turns, by round."""

    def __init__(self) -> None:
        self.cpu: dict[int, float] = {}  # ms a turn
        self.wall: dict[int, float] = {}  # seconds
        self.first: list[float] = []  # seconds, of each turn

    def take(self, crowd: crowds.Crowd, turns: int, *, warm: int = 1) -> None:
        """Run the turns once, after ``warm`` rounds that are not measured.

        The connections have been unused while others had their turn.
        """
        for _ in range(warm):
            crowd(turns)
        gc.collect()
        number = len(self.cpu)
        cpu, wall = time.process_time(), time.perf_counter()
        first = crowd(turns)
        self.cpu[number] = (time.process_time() - cpu) / turns * 1e3
        self.wall[number] = time.perf_counter() - wall
        self.first += first


class _Clock:
    """The time that a row has."""

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds

    @property
    def spent(self) -> float:
        return time.monotonic() - self._began

    def has(self, seconds: float, share: float = 1.0) -> bool:
        """Return whether so many seconds fit into a share of the time."""
        return self.spent + seconds <= self._seconds * share


def run(*, quick: bool = False, rows: Sequence[str] = ()) -> bool:
    """Measure and print.

    Args:
        quick: Whether few rounds are enough.
        rows: The names of the rows; none means all of them.

    Returns:
        Whether every row came to its end, with the texts that were sent.
    """
    packages = ["httpx", "httpcore", "letta-client", "langchain-core", "langchain-openai", "letta"]
    known = [name for name in packages if find_spec(name.replace("-", "_")) is not None]
    seconds = QUICK if quick else ROWS
    print(f"\nMany turns at once: {versions(*known)}, load {os.getloadavg()[0]:.1f}")
    ended = [_run_row(name, seconds[name]) for name in rows or ROWS]
    return all(ended)


def _run_row(name: str, seconds: int) -> bool:
    """Run a row in a process of its own; return whether it came to its end."""
    print(f"\n== {name}: {seconds} s, load {os.getloadavg()[0]:.1f}", flush=True)
    command = [sys.executable, "-m", "benchmarks.concurrency", name, str(seconds)]
    began = time.monotonic()
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent) as process:
        try:
            # On a loaded machine a row takes longer; this is for one that would never end.
            code = process.wait(4 * seconds + crowds.LIMIT)
        except subprocess.TimeoutExpired:
            code = None
            process.send_signal(signal.SIGINT)  # so that it ends what it has started
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    print(f"\n   {name}: took {time.monotonic() - began:.0f} s", flush=True)
    if code != 0:
        print(f"   {name}: NOT MEASURED (again: python -m benchmarks concurrency --rows {name})")
    return code == 0


def _on_loops() -> dict[str, Maker]:
    made: dict[str, Maker] = {RAW: partial(crowds.httpx_crowd, kept=10), OURS: crowds.our_crowd}
    if find_spec("letta_client") is not None:
        made[LETTA_CLIENT] = crowds.letta_client_crowd
    return made


def _all() -> dict[str, Maker]:
    made = {
        **_on_loops(),
        RAW_HUNDRED: partial(crowds.httpx_crowd, kept=100),
        OUR_THREADS: crowds.our_threads,
        "httpx, threads": crowds.httpx_threads,
    }
    if find_spec("letta_client") is not None:
        made["letta-client, threads"] = crowds.letta_client_threads
    if find_spec("langchain_core") is not None:
        made[CHAT_LETTA] = lambda url: crowds.abatch_crowd(crowds.chat_letta(url))
    if find_spec("langchain_openai") is not None:
        made[OPENAI] = lambda url: crowds.abatch_crowd(crowds.chat_openai(url))
        made[OPENAI_THREADS] = lambda url: crowds.invoke_threads(crowds.chat_openai(url))
    return made


def _by_tokens() -> dict[str, Maker]:
    """Return those whose answers come token by token, on event loops."""
    made = _on_loops()
    if find_spec("langchain_core") is not None:
        made[CHAT_LETTA_STREAM] = lambda url: crowds.astream_crowd(crowds.chat_letta(url))
    if find_spec("langchain_openai") is not None:
        made[OPENAI_STREAM] = lambda url: crowds.astream_crowd(crowds.chat_openai(url))
    return made


def _cell(values: Iterable[float]) -> str:
    found = list(values)
    if len(found) < 2:
        return f"{found[0]:.2f}" if found else ""
    return spread(found, 2)


# -- a hundred at once ----------------------------------------------------------------------------


def at_once(seconds: float) -> None:
    """Show a hundred turns at once: on event loops, in threads, and through LangChain."""
    with crowd_server.running() as url:
        _show_at_once("plain HTTP", url, _all(), _Clock(seconds))


def tls(seconds: float) -> None:
    """Show the same on event loops over TLS, with a certificate that is made for it."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command += ["-keyout", str(key), "-out", str(certificate)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            print("TLS: left out, there is no openssl command")
            return
        os.environ["SSL_CERT_FILE"] = str(certificate)
        with crowd_server.running((certificate, key)) as url:
            _show_at_once("TLS", url, _on_loops(), _Clock(seconds))


def _show_at_once(title: str, url: str, makers: dict[str, Maker], clock: _Clock) -> None:
    opened: dict[str, int] = {}
    samples = {name: _Samples() for name in makers}
    with crowds.crowds(url, makers) as made:
        for name, crowd in made.items():  # four rounds on end, the last of which is measured
            before = _opened(url)
            samples[name].take(crowd, AT_ONCE, warm=3)
            opened[name] = _opened(url) - before - 1  # the question itself opens one
        names, number, took = list(made), 1, clock.spent / 2
        while clock.has(took):
            began, turned = clock.spent, number % len(names)
            for name in names[turned:] + names[:turned]:
                if number < 2 or name not in _SLOW:
                    samples[name].take(made[name], AT_ONCE)
            number, took = number + 1, clock.spent - began
    rows = [
        (
            name,
            _cell(one.cpu.values()),
            _cell(one.wall.values()),
            _first(one.first),
            str(opened[name]),
        )
        for name, one in samples.items()
    ]
    head = ("", "CPU ms/turn", "wall s", "first token s: median, p95", "opened in 4 rounds")
    show(f"{AT_ONCE} turns at once, {title}, {number} rounds, median [quartiles]", head, rows)
    judged = []
    for ours, other, bar, wall_bar in BARS:
        if ours in samples and other in samples:
            mine, theirs = samples[ours], samples[other]
            judged.append(_judge(f"CPU: {ours} / {other}", mine.cpu, theirs.cpu, bar))
            if wall_bar is not None:
                judged.append(_judge(f"wall: {ours} / {other}", mine.wall, theirs.wall, wall_bar))
    show("the bars", ("", "bar", "measured", "met"), judged)


def _judge(
    name: str, mine: dict[int, float], theirs: dict[int, float], bar: float
) -> tuple[str, ...]:
    ratios = [mine[number] / theirs[number] for number in mine.keys() & theirs.keys()]
    met = "yes" if median(ratios) <= bar else "NO"
    return name, f"<= {bar}", _cell(ratios), met


def _opened(url: str) -> int:
    return int(httpx.get(f"{url}/opened").json()["connections"])


def _first(values: list[float]) -> str:
    if not values:
        return ""
    late = quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    return f"{median(values):.2f}, {late:.2f}"


# -- growth ---------------------------------------------------------------------------------------


def _uncollected(url: str) -> crowds.Made:
    """Our turns while nothing looks for circles of objects: what the rest of the growth is."""
    crowd, close = crowds.our_crowd(url)

    def run_turns(turns: int) -> list[float]:
        gc.disable()
        try:
            return crowd(turns)
        finally:
            gc.enable()

    return run_turns, close


def growth(seconds: float) -> None:
    """Show 1, 10, 100 and 1,000 turns at once: CPU, its growth, and the time to a first token."""
    clock, makers = _Clock(seconds), {**_by_tokens(), UNCOLLECTED: _uncollected}
    samples = {name: {size: _Samples() for size in SIZES} for name in makers}
    with crowd_server.running() as url, crowds.crowds(url, makers) as made:
        for crowd in made.values():  # the warm-up
            crowd(SIZES[1])
        for size, share in zip(SIZES, (0.15, 0.25, 0.45, 1.0), strict=True):
            number, took = 0, 0.0
            while number < 1 or (number < 9 and clock.has(took, share)):
                began = clock.spent
                for name, crowd in made.items():
                    if size < SIZES[-1] or name not in _ONCE or number == 0:
                        _take(name, crowd, size, samples[name][size])
                # What is made once says nothing about how long the next round takes.
                slow = sum(by[size].wall.get(0, 0.0) for n, by in samples.items() if n in _ONCE)
                took = clock.spent - began - (slow if number == 0 and size == SIZES[-1] else 0.0)
                number += 1
    _show_growth(samples)
    rows = [(name, *(_first(by[size].first) for size in SIZES)) for name, by in samples.items()]
    title = f"seconds to the first token (the server waits {crowd_server.DELAY} s): median, p95"
    show(title, ("", *(f"{size} at once" for size in SIZES)), rows)


def _take(name: str, crowd: crowds.Crowd, size: int, into: _Samples) -> None:
    try:
        into.take(crowd, size, warm=int(size >= AT_ONCE and name not in _ONCE))
    except TimeoutError:
        print(f"   {name}: {size} turns are not done after {crowds.LIMIT:.0f} s", flush=True)


def _show_growth(samples: dict[str, dict[int, _Samples]]) -> None:
    sizes, rows = SIZES[1:], []
    for name, by_size in samples.items():
        means = [median(by_size[size].cpu.values() or [math.nan]) for size in sizes]
        totals = [mean * size for mean, size in zip(means, sizes, strict=True)]
        slopes = [
            math.log(late / early) / math.log(sizes[n + 1] / sizes[n])
            for n, (early, late) in enumerate(pairwise(totals))
        ]
        met = f"<= {SLOPE_BAR}: {'yes' if slopes[-1] <= SLOPE_BAR else 'NO'}"
        rounds = "/".join(str(len(by_size[size].cpu)) for size in sizes)
        cells = [f"{number:.2f}" for number in (*means, *slopes)]
        rows.append((name, *cells, rounds, met if name == OURS else ""))
    steps = [f"exponent {a} to {b}" for a, b in pairwise(sizes)]
    head = ("", *(f"{size}: CPU ms/turn" for size in sizes), *steps, "rounds", "bar")
    show("growth, medians", head, rows)


# -- memory ---------------------------------------------------------------------------------------


def memory(seconds: float) -> None:
    """Show what each of a thousand turns at once takes, every contestant in a fresh process."""
    turns = SIZES[-1] if seconds == ROWS["memory"] else AT_ONCE
    rows = []
    with crowd_server.running() as url:
        # All at the same moment: how long they take is not what is measured.
        processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", "benchmarks.concurrency", "one", str(turns), name, url],
                cwd=Path(__file__).parent.parent,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in _by_tokens()
        }
        try:
            for name, process in processes.items():
                found, _ = process.communicate()
                rows.append((name, found.strip() or f"not done after {crowds.LIMIT:.0f} s"))
        finally:
            for process in processes.values():
                process.kill()
    show(f"memory a session, {turns} at once", ("", "peak more than before, kB"), rows)


def one(turns: float, name: str, url: str) -> None:
    """Print how much more memory each turn takes than ten turns leave, in kB."""
    with crowds.crowds(url, {name: _by_tokens()[name]}) as made:
        made[name](10)
        gc.collect()
        before = rss_mb()
        try:
            made[name](int(turns))
        except TimeoutError:
            return
        print(f"{(peak_mb() - before) / turns * 1024:.1f}")


# -- the embedded runtime -------------------------------------------------------------------------


def embedded(seconds: float) -> None:
    """Show sessions of one embedded runtime; fail if one failed or lost anything."""
    try:
        find_installation()
    except LettaError:
        print("Embedded sessions: left out, Letta Code is not installed")
        return
    rows, totals = [], []
    sizes = (10, AT_ONCE) if seconds == ROWS["embedded"] else (5, 20)
    with sessions.model() as url:
        for size in sizes:
            found = asyncio.run(sessions.together(url, size))
            assert found["failed"] == found["lost"] == 0, found
            totals.append(found["cpu"])
            rows.append(
                (
                    str(size),
                    f"{found['cpu'] / size * 1e3:.1f}",
                    f"{found['seconds']:.1f}",
                    f"{found['first']:.2f}, {found['late']:.2f}",
                    f"{found['pss']:.0f} MB",
                )
            )
    slope = math.log(totals[1] / totals[0]) / math.log(sizes[1] / sizes[0])
    head = ("sessions", "client CPU ms/turn", "wall s", "first token s: median, p95", "PSS, both")
    show(f"embedded, one round, exponent of the CPU {slope:.2f}", head, rows)


def main(row: str, seconds: str, *arguments: str) -> None:
    """Measure one row, in a process of its own."""
    warnings.simplefilter("ignore")  # what the frameworks say of pydantic
    crowd_server.more_files()
    parts: dict[str, Callable[..., None]] = {
        "at-once": at_once,
        "growth": growth,
        "memory": memory,
        "tls": tls,
        "embedded": embedded,
        "one": one,
    }
    parts[row](float(seconds), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
