"""Measure CPU per streamed event, from socket to message: raw httpx, letta-client and this package.

Everything runs in this one process against one server process. In each round every contestant reads
the same stream once; a ratio is taken between contestants of the same round. CPU is that of the
whole process, all threads, with the request and the clean-up of the turn included.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from unittest import mock

from benchmarks import server, wire
from benchmarks.clients import Turn, contestants
from benchmarks.report import show, spread, versions

EVENTS = 2000
ROUNDS = {"chunks": 15, "paced": 7, "burst": 7}
JUDGED = "chunks"
# Ours against the baseline, and letta-client against ours.
BARS = {"sync": 1.8, "async": 1.6}
LETTA_CLIENT_BAR = 2.0
# Of one event a read: everything on the thread, and each text handed to the caller's thread.
PACED_BARS = {"httpx lines, async on a thread": 1.1, "httpx lines, handed over": 1.1}
BASELINE, OURS, LETTA_CLIENT = "httpx lines", "letta-adapters", "letta-client"

Samples = dict[str, list[float]]


def run(*, quick: bool = False) -> bool:
    """Measure and print; return ``False`` if a contestant got another text than was sent."""
    print(f"\nStreaming: {versions('httpx', 'httpcore', 'h11', 'letta-client', 'pydantic')}")
    with server.running() as url, contestants(url) as turns:
        for mode, rounds in ROUNDS.items():
            conversation = wire.conversation_id(mode, EVENTS)
            expected = wire.answer(EVENTS)
            reads: dict[str, float] = {}
            for name, turn in turns.items():  # the warm-up
                with _counting_reads() as count:
                    text = turn(conversation)
                reads[name] = count() / EVENTS
                if text != expected:
                    print(f"{name}: got another text than was sent")
                    return False
            samples = _measure(turns, conversation, 3 if quick else rounds)
            _show(mode, samples, reads)
            if mode == JUDGED:
                _judge(samples)
            elif mode == "paced":
                _judge_paced(samples)
    return True


def _measure(turns: dict[str, Turn], conversation: str, rounds: int) -> Samples:
    samples: Samples = {name: [] for name in turns}
    names = list(turns)
    for round_number in range(rounds):
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            start = time.process_time()
            turns[name](conversation)
            samples[name].append((time.process_time() - start) / EVENTS * 1e6)
    return samples


def _ratios(samples: Samples, name: str, baseline: str) -> list[float]:
    return [a / b for a, b in zip(samples[name], samples[baseline], strict=True)]


def _show(mode: str, samples: Samples, reads: dict[str, float]) -> None:
    rows = []
    for name, values in samples.items():
        kind = name.split()[0]
        ratios = _ratios(samples, name, f"{kind} {BASELINE}")
        rows.append((name, spread(values), spread(ratios, 2), f"{reads[name]:.2f}"))
    rounds = len(next(iter(samples.values())))
    title = f"mode {mode!r}: {EVENTS} events, {rounds} rounds, median [quartiles]"
    show(title, ("", "CPU µs/event", "x httpx lines", "socket reads/event"), rows)


def _judge(samples: Samples) -> None:
    rows = []
    for kind, bar in BARS.items():
        ratios = _ratios(samples, f"{kind} {OURS}", f"{kind} {BASELINE}")
        met = "yes" if median(ratios) <= bar else "NO"
        rows.append((f"{kind}: ours / raw httpx + json.loads", f"<= {bar}", spread(ratios, 2), met))
        ratios = _ratios(samples, f"{kind} {LETTA_CLIENT}", f"{kind} {OURS}")
        met = "yes" if median(ratios) >= LETTA_CLIENT_BAR else "NO"
        bar_text = f">= {LETTA_CLIENT_BAR}"
        rows.append((f"{kind}: letta-client / ours", bar_text, spread(ratios, 2), met))
    show(f"the bars, mode {JUDGED!r}", ("", "bar", "measured", "met"), rows)


def _judge_paced(samples: Samples) -> None:
    """Show the sync client beside what it is made of: async httpx on a thread of its own."""
    rows = []
    for name, bar in PACED_BARS.items():
        ratios = _ratios(samples, f"sync {OURS}", f"sync {name}")
        met = "yes" if median(ratios) <= bar else "NO"
        rows.append((f"sync: ours / {name}", f"<= {bar}", spread(ratios, 2), met))
    show("the bars, mode 'paced'", ("", "bar", "measured", "met"), rows)


@contextmanager
def _counting_reads() -> Iterator[Callable[[], int]]:
    """Count reads of sockets that brought data (not while times are taken)."""
    from anyio._backends._asyncio import StreamProtocol
    from httpcore._backends.sync import SyncStream

    from letta_adapters.backends.rest.wire import Socket

    reads = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal reads
            reads += 1
            return original(*args, **kwargs)

        return wrapper

    with (
        mock.patch.object(StreamProtocol, "data_received", counted(StreamProtocol.data_received)),
        mock.patch.object(Socket, "data_received", counted(Socket.data_received)),
        mock.patch.object(SyncStream, "read", counted(SyncStream.read)),
    ):
        yield lambda: reads
