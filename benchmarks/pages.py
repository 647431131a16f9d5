"""Measure reading a long conversation page by page: requests, and CPU beside raw httpx and JSON.

Everybody reads the same 10,000 stored messages, a hundred a page, in this one process from a server
in a process of its own. In each round every contestant reads all of them once; a ratio is taken
between contestants of the same round, sync against sync and async against async.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import httpx
from letta_client import AsyncLetta, Letta

from benchmarks import crowd_server
from benchmarks.clients import loop_on_a_thread
from benchmarks.report import show, spread, versions
from letta_adapters import AsyncLettaClient, LettaClient, Rest

ROUNDS, QUICK_ROUNDS = 9, 3
PAGE = 100
BAR, REQUESTS_BAR = 1.5, crowd_server.STORED // PAGE + 1
RAW, OURS = "raw httpx + json", "letta-adapters"
# What the sync client, which runs on an event loop in a thread, is judged by.
THREAD = "raw httpx + json, async on a thread"
_PATH = f"/v1/conversations/{crowd_server.STORED_IN}/messages"

Read = Callable[[], int]


def run(*, quick: bool = False) -> bool:
    """Measure and print; return ``False`` if a message was lost."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    print(f"\nPages: {versions('httpx', 'letta-client', 'pydantic')}, about {4 * rounds} s")
    with crowd_server.running() as url, _contestants(url) as reads:
        asked: dict[str, int] = {}
        for name, read in reads.items():  # the warm-up
            before = _asked(url)
            found = read()
            asked[name] = _asked(url) - before
            if found != crowd_server.STORED:
                print(f"{name}: found {found} messages of {crowd_server.STORED}")
                return False
        samples = _measure(reads, rounds)
    rows = []
    for name, values in samples.items():
        raw = samples[f"{name.split()[0]} {RAW}"]
        ratios = [a / b for a, b in zip(values, raw, strict=True)]
        met = ""
        if name.endswith(OURS):
            base = samples.get(f"{name.split()[0]} {THREAD}", raw)
            judged = [a / b for a, b in zip(values, base, strict=True)]
            good = median(judged) <= BAR and asked[name] <= REQUESTS_BAR
            met = f"{spread(judged, 2)} <= {BAR}: {'yes' if good else 'NO'}"
        rows.append((name, str(asked[name]), spread(values), spread(ratios, 2), met))
    title = f"{crowd_server.STORED} messages, {PAGE} a page, {rounds} rounds, median [quartiles]"
    show(
        title, ("", "requests", "CPU µs/message", f"x {RAW}", "judged (sync: x on a thread)"), rows
    )
    return True


def _asked(url: str) -> int:
    return int(httpx.get(f"{url}/opened").json()["pages"])


def _measure(reads: dict[str, Read], rounds: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in reads}
    names = list(reads)
    for number in range(rounds):
        turned = number % len(names)
        for name in names[turned:] + names[:turned]:
            gc.collect()
            start = time.process_time()
            reads[name]()
            spent = time.process_time() - start
            samples[name].append(spent / crowd_server.STORED * 1e6)
    return samples


def _query(last: str | None) -> dict[str, Any]:
    return {"order": "desc", "limit": PAGE, **({"before": last} if last else {})}


def _raw(client: httpx.Client) -> int:
    """Read as one does by hand: up to a page that is not full, keeping the ids."""
    ids: list[str] = []
    while True:
        last = ids[-1] if ids else None
        page = json.loads(client.get(_PATH, params=_query(last)).content)
        ids += [item["id"] for item in page]
        if len(page) < PAGE:
            return len(set(ids))


async def _async_raw(client: httpx.AsyncClient) -> int:
    ids: list[str] = []
    while True:
        last = ids[-1] if ids else None
        response = await client.get(_PATH, params=_query(last))
        page = json.loads(response.content)
        ids += [item["id"] for item in page]
        if len(page) < PAGE:
            return len(set(ids))


def _ours(client: LettaClient) -> int:
    ids: list[str | None] = []
    page = client.list_messages(conversation_id=crowd_server.STORED_IN, limit=PAGE)
    while True:
        ids += [message.id for message in page.messages]
        if not page.has_more:
            return len(set(ids))
        page = client.list_messages(
            conversation_id=crowd_server.STORED_IN, limit=PAGE, before=page.next_before
        )


async def _async_ours(client: AsyncLettaClient) -> int:
    ids: list[str | None] = []
    page = await client.list_messages(conversation_id=crowd_server.STORED_IN, limit=PAGE)
    while True:
        ids += [message.id for message in page.messages]
        if not page.has_more:
            return len(set(ids))
        page = await client.list_messages(
            conversation_id=crowd_server.STORED_IN, limit=PAGE, before=page.next_before
        )


def _letta_client(client: Letta) -> int:
    # Oldest first: its pages go on with `after`, which newest first leads back to the newest.
    listed = client.conversations.messages.list(crowd_server.STORED_IN, order="asc", limit=PAGE)
    return len({message.id for message in listed})


async def _async_letta_client(client: AsyncLetta) -> int:
    listed: AsyncIterator[Any] = client.conversations.messages.list(
        crowd_server.STORED_IN, order="asc", limit=PAGE
    )
    return len({message.id async for message in listed})


@contextmanager
def _contestants(url: str) -> Iterator[dict[str, Read]]:
    with loop_on_a_thread() as in_thread, _in_order(url, in_thread) as reads:
        yield reads


@contextmanager
def _in_order(url: str, in_thread: Callable[[Any], Any]) -> Iterator[dict[str, Read]]:
    threads_raw = httpx.AsyncClient(base_url=url)
    loop, rest = asyncio.new_event_loop(), Rest(base_url=url, api_key="")
    raw, async_raw = httpx.Client(base_url=url), httpx.AsyncClient(base_url=url)
    letta, async_letta = Letta(base_url=url, api_key="n"), AsyncLetta(base_url=url, api_key="n")
    ours, async_ours = LettaClient(rest), AsyncLettaClient(rest)

    def in_loop(read: Coroutine[Any, Any, int]) -> int:
        return loop.run_until_complete(read)

    yield {
        f"sync {RAW}": lambda: _raw(raw),
        f"sync {THREAD}": lambda: in_thread(_async_raw(threads_raw)),
        f"sync {OURS}": lambda: _ours(ours),
        "sync letta-client": lambda: _letta_client(letta),
        f"async {RAW}": lambda: in_loop(_async_raw(async_raw)),
        f"async {OURS}": lambda: in_loop(_async_ours(async_ours)),
        "async letta-client": lambda: in_loop(_async_letta_client(async_letta)),
    }
    raw.close()
    letta.close()
    ours.close()
    in_thread(threads_raw.aclose())
    for closing in (async_raw.aclose(), async_letta.close(), async_ours.close()):
        loop.run_until_complete(closing)
    loop.close()
