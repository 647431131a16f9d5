"""The bridge's streams and calls for tasks of another event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from letta_adapters.sync.bridge import get_bridge
from letta_adapters.sync.handoff import HIGH_WATER


class Numbers:
    """Counts, on the bridge's loop; notes when it was closed."""

    def __init__(self, count: int, fail: bool = False) -> None:
        self.closed = False
        self.given = 0
        self._items = self._count(count, fail)

    async def _count(self, count: int, fail: bool) -> AsyncIterator[int]:
        for n in range(count):
            if n % 50 == 0:
                await asyncio.sleep(0)
            self.given += 1
            yield n
        if fail:
            raise ValueError("no more")

    def __aiter__(self) -> AsyncIterator[int]:
        return self._items

    async def aclose(self) -> None:
        self.closed = True


async def test_nothing_is_lost_and_all_is_in_order() -> None:
    numbers = Numbers(5000)
    got = []
    async for n in get_bridge().aiterate(numbers):
        got.append(n)
        if n % 500 == 0:
            await asyncio.sleep(0.001)
    assert got == list(range(5000))
    assert numbers.closed


async def test_a_slow_consumer_stops_the_producer() -> None:
    numbers = Numbers(100_000)
    stream = get_bridge().aiterate(numbers)
    assert await stream.__anext__() == 0
    await asyncio.sleep(0.1)
    assert numbers.given <= HIGH_WATER + 1
    await stream.aclose()
    assert numbers.closed


async def test_an_error_comes_through() -> None:
    stream = get_bridge().aiterate(Numbers(3, fail=True))
    assert [await stream.__anext__() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no more"):
        await stream.__anext__()


async def test_a_call_and_its_cancellation() -> None:
    async def answer() -> int:
        return 42

    assert await get_bridge().acall(answer()) == 42
    cleaned: list[str] = []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        loop.call_soon_threadsafe(begun.set)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("cleaned")

    task = asyncio.ensure_future(get_bridge().acall(wait()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == ["cleaned"]
