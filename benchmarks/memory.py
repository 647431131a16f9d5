"""Measure memory over 100,000 events with a consumer that is slower than the server.

Each measurement is a process of its own: a short turn as warm-up, then the long one. The server
writes as fast as the client lets it; the consumer sleeps for a moment every hundred messages, and
for half a second ten times. Every token contains its number, so that a lost, repeated or swapped
one is noticed.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks import server, wire
from benchmarks.report import show, versions

EVENTS = 100_000
QUICK_EVENTS = 20_000
BAR_MB = 64
_WARM_UP = 2000
_NAPS = 10
_NAP_SECONDS = 0.5
_MOMENT = 100
_MOMENT_SECONDS = 0.001
_FACE = {"sync": "LettaClient", "async": "AsyncLettaClient"}


def run(*, quick: bool = False) -> bool:
    """Measure and print; return ``False`` if anything was lost."""
    events = QUICK_EVENTS if quick else EVENTS
    print(f"\nMemory: {versions('httpx')}, {events} events, a slow consumer")
    rows = []
    complete = True
    with server.running() as url:
        for kind, face in _FACE.items():
            command = [sys.executable, "-m", "benchmarks.memory", kind, url, str(events)]
            here = Path(__file__).parent.parent
            done = subprocess.run(command, cwd=here, stdout=subprocess.PIPE, check=True, text=True)
            found = json.loads(done.stdout)
            complete = complete and found["complete"]
            growth = found["growth_mb"]
            whole = "nothing" if found["complete"] else "DATA"
            met = "yes" if growth < BAR_MB and found["complete"] else "NO"
            rows.append((face, whole, f"{growth:.1f} MB", f"{found['seconds']:.1f} s", met))
    head = ("", "lost", "peak RSS growth", "wall", f"< {BAR_MB} MB")
    show("one turn", head, rows)
    return complete


class _Consumer:
    """A consumer that checks the messages, and says when to sleep."""

    def __init__(self, events: int) -> None:
        self.expected = wire.tokens(events)
        self.complete = True
        self.seen = 0
        self.result: str | None = None
        self._nap_every = max(1, events // _NAPS)

    def take(self, message: object) -> float:
        """Check a message, and return the seconds to sleep now."""
        from letta_adapters import ResultMessage, StreamEvent

        if isinstance(message, ResultMessage):
            self.result = message.result
        if not isinstance(message, StreamEvent):
            return 0.0
        self.complete = self.complete and message.event["content"] == next(self.expected, None)
        self.seen += 1
        if self.seen % self._nap_every == 0:
            return _NAP_SECONDS
        return _MOMENT_SECONDS if self.seen % _MOMENT == 0 else 0.0

    def all_there(self, events: int) -> bool:
        """Return whether every token came, in order, and the final answer is complete."""
        return (
            self.complete
            and next(self.expected, None) is None
            and self.result == wire.answer(events)
        )


def _sync(url: str, events: int) -> Iterator[_Consumer]:
    from letta_adapters import LettaClient, Rest

    with LettaClient(Rest(base_url=url, api_key="")) as client:
        for count in (_WARM_UP, events):
            consumer = _Consumer(count)
            where = wire.conversation_id("chunks", count)
            with client.resume_session(
                agent_id=wire.AGENT_ID, conversation_id=where, include_partial_messages=True
            ) as session:
                session.send("Go on.")
                for message in session.stream():
                    pause = consumer.take(message)
                    if pause:
                        time.sleep(pause)
            yield consumer


def _async(url: str, events: int) -> Iterator[_Consumer]:
    from letta_adapters import AsyncLettaClient, Rest

    async def turn(client: AsyncLettaClient, count: int) -> _Consumer:
        consumer = _Consumer(count)
        where = wire.conversation_id("chunks", count)
        async with client.resume_session(
            agent_id=wire.AGENT_ID, conversation_id=where, include_partial_messages=True
        ) as session:
            await session.send("Go on.")
            async for message in session.stream():
                pause = consumer.take(message)
                if pause:
                    await asyncio.sleep(pause)
        return consumer

    loop = asyncio.new_event_loop()
    client = AsyncLettaClient(Rest(base_url=url, api_key=""))
    for count in (_WARM_UP, events):
        yield loop.run_until_complete(turn(client, count))
    loop.run_until_complete(client.close())
    loop.close()


def rss_mb() -> float:
    """Return the resident memory in MB; where that cannot be read, its peak so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_mb()
    return pages * resource.getpagesize() / 2**20


def peak_mb() -> float:
    """Return the greatest resident memory so far, in MB."""
    # On Linux `ru_maxrss` of a process begins with that of the process which has started it.
    with suppress(OSError, IndexError):
        kib = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
        return int(kib) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _child(kind: str, url: str, events: int) -> None:
    turns = (_sync if kind == "sync" else _async)(url, events)
    next(turns)
    before, start = rss_mb(), time.perf_counter()
    consumer = next(turns)
    found = {
        "growth_mb": peak_mb() - before,
        "seconds": time.perf_counter() - start,
        "complete": consumer.all_there(events),
    }
    next(turns, None)
    print(json.dumps(found))


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2], int(sys.argv[3]))
