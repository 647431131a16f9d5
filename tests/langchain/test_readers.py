"""Several readers of one turn, in threads and tasks, and a turn that is left while one reads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from letta_adapters.langchain import LettaRunnable
from letta_adapters.langchain.turn_stream import AsyncTurnStream, TurnStream
from letta_adapters.testing import FakeLetta

# LangChain says so of its v3 protocol, once in a process.
pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)
TEXT = " ".join(str(n) for n in range(30))


@pytest.fixture
def agent() -> LettaRunnable:
    return LettaRunnable(client=FakeLetta(TEXT).client(), output="text")


def start(id_: str) -> dict[str, Any]:
    return {"event": "message-start", "id": id_, "role": "ai", "metadata": {}}


async def test_tasks_may_read_a_turn_side_by_side(agent: LettaRunnable) -> None:
    turn = await agent.astream_events("hi", version="v3")

    async def read_events() -> list[str]:
        return [event["event"] async for event in turn]

    async def read_text() -> str:
        return "".join([token async for message in turn.messages async for token in message.text])

    events, text, other = await asyncio.gather(read_events(), read_text(), read_text())
    assert (events[0], events[-1]) == ("message-start", "message-finish")
    assert (text, other) == (TEXT, TEXT)
    assert await turn.output == TEXT


def test_threads_may_read_a_turn_side_by_side(agent: LettaRunnable) -> None:
    turn = agent.stream_events("hi", version="v3")

    def read_events() -> list[str]:
        return [event["event"] for event in turn]

    def read_text() -> str:
        return "".join(token for message in turn.messages for token in message.text)

    with ThreadPoolExecutor(3) as threads:
        events, *texts = [threads.submit(read) for read in (read_events, read_text, read_text)]
        assert [done.result(timeout=10) for done in texts] == [TEXT, TEXT]
        assert events.result(timeout=10)[-1] == "message-finish"
    assert turn.output == TEXT


async def test_an_item_reaches_whoever_waits_for_it_before_the_next_one_comes() -> None:
    more = asyncio.Event()

    async def items() -> AsyncIterator[Any]:
        yield start("one")
        await more.wait()
        yield "result"

    turn = AsyncTurnStream(items())  # type: ignore[arg-type]
    one, other = aiter(turn), aiter(turn)
    first = await asyncio.wait_for(asyncio.gather(anext(one), anext(other)), 5)
    assert [event["id"] for event in first] == ["one", "one"]
    more.set()
    assert await turn.output == "result"


async def test_a_reader_that_is_cancelled_cancels_no_other_one() -> None:
    async def items() -> AsyncIterator[Any]:
        yield start("one")
        await asyncio.Event().wait()

    turn = AsyncTurnStream(items())  # type: ignore[arg-type]

    async def read() -> None:
        async for _ in turn:
            pass

    driver = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    other = asyncio.ensure_future(read())
    await asyncio.sleep(0.01)
    driver.cancel()
    await asyncio.wait({driver, other}, timeout=5)
    assert driver.cancelled()
    with pytest.raises(RuntimeError, match="closed before its end"):
        await other


async def test_a_turn_can_be_left_while_a_task_reads_it() -> None:
    more, closed = asyncio.Event(), []

    async def items() -> AsyncIterator[Any]:
        try:
            yield start("one")
            await more.wait()
            yield start("two")
            yield "result"
        finally:
            closed.append(True)

    turn = AsyncTurnStream(items())  # type: ignore[arg-type]
    seen: list[Any] = []

    async def read() -> None:
        async for event in turn:
            seen.append(event["id"])  # noqa: PERF401  # also what was read before it fails

    reader = asyncio.ensure_future(read())
    await asyncio.sleep(0.01)
    leaving = asyncio.ensure_future(turn.aclose())
    await asyncio.sleep(0.01)
    more.set()
    await asyncio.wait({leaving, reader}, timeout=5)
    await leaving
    assert (seen, closed) == (["one"], [True])
    with pytest.raises(RuntimeError, match="closed before its end"):
        await reader


def test_a_turn_can_be_left_while_a_thread_reads_it() -> None:
    more, waits, closed = threading.Event(), threading.Event(), []

    def items() -> Iterator[Any]:
        try:
            yield start("one")
            waits.set()
            more.wait(10)
            yield start("two")
            yield "result"
        finally:
            closed.append(True)

    turn = TurnStream(items())
    seen: list[Any] = []

    def read() -> None:
        with suppress(RuntimeError):
            seen.extend(event["id"] for event in turn)

    with ThreadPoolExecutor(2) as threads:
        reader = threads.submit(read)
        assert waits.wait(10)
        leaving = threads.submit(turn.close)
        threading.Timer(0.05, more.set).start()
        leaving.result(timeout=10)
        reader.result(timeout=10)
    assert (seen, closed) == (["one"], [True])
