"""What a tool reports while it runs is in the stream at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from letta_adapters import Message, ToolContext, ToolProgressMessage, ToolResultMessage, tool
from letta_adapters.client.reports import MOST_WAITING
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.live.faces import AsyncProxy
from letta_adapters.testing.scripted_model import Reply, ToolUse

SECONDS = 20.0
ORDER = ["tool_call", "tool_progress", "tool_progress", "tool_result", "assistant", "result"]


@pytest.fixture
def letta() -> FakeLetta:
    return FakeLetta(Reply(tool_calls=[ToolUse("work", {"name": "x"})]), Reply("Done."))


@pytest.fixture(params=["async", "sync"])
async def client(letta: FakeLetta, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """An asynchronous client, or a synchronous one that looks like it."""
    client: Any = letta.async_client() if request.param == "async" else AsyncProxy(letta.client())
    async with client:
        yield client


def of_tools(messages: list[Message]) -> list[ToolProgressMessage]:
    return [m for m in messages if isinstance(m, ToolProgressMessage)]


def returned(messages: list[Message]) -> list[tuple[str, bool]]:
    return [(m.content, m.is_error) for m in messages if isinstance(m, ToolResultMessage)]


async def run(client: Any, *tools: Any, **options: Any) -> list[Message]:
    async with client.create_session(tools=tools, **options) as session:
        await session.send("Go")
        return [message async for message in session.stream()]


async def test_reports_are_read_while_the_tool_runs(client: Any, letta: FakeLetta) -> None:
    read = threading.Event()

    def work(name: str, context: ToolContext) -> str:
        """Works."""
        context.report(f"Looking for {name}", progress=1, total=2)
        assert read.wait(SECONDS), "the first report was not read while the tool ran"
        context.report(progress=2.0)
        return "found"

    seen: list[Message] = []
    async with client.create_session(tools=[work]) as session:
        await session.send("Go")
        async for message in session.stream():
            seen.append(message)
            if message.type == "tool_progress":
                read.set()
        page = await session.list_messages()
    assert [m.type for m in seen if m.type != "init"] == ORDER
    first, second = of_tools(seen)
    (call,) = [m for m in seen if m.type == "tool_call"]
    told = (call.tool_call_id, "work", "Looking for x", 1, 2, 1)
    assert first == ToolProgressMessage(*told)
    assert second == ToolProgressMessage(call.tool_call_id, "work", "", 2.0, None, 2)
    # The agent learns nothing of it, neither now nor later.
    assert "Looking for" not in str(letta.requests)
    assert "Looking for" not in str(page.raw)


async def test_a_coroutine_reports_while_it_runs(client: Any) -> None:
    read = threading.Event()

    async def work(name: str, context: ToolContext) -> str:
        """Works."""
        context.report("one")
        while not read.is_set():
            await asyncio.sleep(0.01)
        context.report("two")
        return name

    seen: list[Message] = []
    async with client.create_session(tools=[work]) as session:
        await session.send("Go")
        async for message in session.stream():
            seen.append(message)
            if message.type == "tool_progress":
                read.set()
    assert [m.type for m in seen if m.type != "init"] == ORDER


async def test_the_context_says_which_call_it_is(client: Any) -> None:
    known: list[ToolContext] = []

    def work(context: ToolContext, name: str) -> str:
        """Works."""
        known.append(context)
        return name

    made = tool(work)
    assert made.parameters["properties"] == {"name": {"type": "string"}}
    async with client.create_session(tools=[made]) as session:
        await session.send("Go")
        seen = [message async for message in session.stream()]
        (call,) = [m for m in seen if m.type == "tool_call"]
        (context,) = known
        assert (context.tool_call_id, context.tool_name) == (call.tool_call_id, "work")
        assert context.agent_id == session.agent_id
        assert context.conversation_id == session.conversation_id


async def test_calls_at_once_report_each_for_itself(client: Any, letta: FakeLetta) -> None:
    letta.script(
        Reply(tool_calls=[ToolUse("work", {"name": "x"}), ToolUse("work", {"name": "y"})]),
        Reply("Done."),
    )
    both = threading.Barrier(2, timeout=SECONDS)

    def work(name: str, context: ToolContext) -> str:
        """Works."""
        context.report(f"{name}1")
        both.wait()
        context.report(f"{name}2")
        return name

    seen = await run(client, work)
    assert [m.type for m in seen if m.type.startswith("tool")][:6] == [
        *["tool_call"] * 2,
        *["tool_progress"] * 4,
    ]
    ids = {m.tool_call_id: m.tool_input["name"] for m in seen if m.type == "tool_call"}
    for id_, name in ids.items():
        told = [(m.content, m.number) for m in of_tools(seen) if m.tool_call_id == id_]
        assert told == [(f"{name}1", 1), (f"{name}2", 2)]


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
async def test_more_reports_than_anybody_reads(client: Any, kind: str) -> None:
    """Memory is bounded, the last report is never lost, and the gaps show."""

    def work(name: str, context: ToolContext) -> str:
        """Works."""
        for number in range(1, 100_001):
            context.report(str(number))
        return name

    async def awork(name: str, context: ToolContext) -> str:
        """Works."""
        return work(name, context)

    seen = await run(client, work if kind == "thread" else tool(awork, name="work"))
    numbers = [m.number for m in of_tools(seen)]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 100_000
    assert all(m.content == str(m.number) for m in of_tools(seen))
    # The coroutine never lets its reader run (with the sync client it has a thread of its own).
    if kind == "coroutine" and not isinstance(client, AsyncProxy):
        assert numbers == [*range(100_001 - MOST_WAITING, 100_001)]
    assert returned(seen) == [("x", False)]


async def test_a_report_after_the_end_is_dropped(client: Any) -> None:
    kept: list[ToolContext] = []

    def work(name: str, context: ToolContext) -> str:
        """Works."""
        kept.append(context)
        assert not context.stopped
        return name

    async with client.create_session(tools=[work]) as session:
        await session.send("Go")
        seen = []
        async for message in session.stream():
            seen.append(message)
            if message.type == "tool_result":
                assert kept[0].stopped
                kept[0].report("late")
        await session.send("Again")
        seen += [message async for message in session.stream()]
    assert of_tools(seen) == []


async def test_what_is_no_report_is_the_tools_error(client: Any) -> None:
    def work(name: str, context: ToolContext) -> str:
        """Works."""
        context.report(3)  # type: ignore[arg-type]
        return name

    seen = await run(client, work)
    ((text, is_error),) = returned(seen)
    assert is_error
    assert "report() takes a text, not int" in text
    assert of_tools(seen) == []


async def test_other_threads_report_too(client: Any) -> None:
    def work(name: str, context: ToolContext) -> str:
        """Works."""
        threads = [threading.Thread(target=context.report, args=(f"{n}",)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return name

    told = of_tools(await run(client, work))
    assert [m.number for m in told] == [*range(1, 21)]
    assert {m.content for m in told} == {str(n) for n in range(20)}


@pytest.mark.parametrize("how", ["leave", "abort", "timeout"])
async def test_a_turn_that_stops_between_two_reports_stops_the_tool(client: Any, how: str) -> None:
    """The plain function sees it, as nobody can stop its thread."""
    ended = threading.Event()

    def work(name: str, context: ToolContext) -> str:
        """Works."""
        context.report("one")
        while not context.stopped:
            threading.Event().wait(0.01)
        context.report("two")
        ended.set()
        return name

    options = {"turn_timeout": 0.3} if how == "timeout" else {}
    seen: list[Message] = []
    async with client.create_session(tools=[work], **options) as session:
        await session.send("Go")
        stream = session.stream()
        async for message in stream:
            seen.append(message)
            if message.type == "tool_progress" and how == "leave":
                break
            if message.type == "tool_progress" and how == "abort":
                await session.abort()
            if message.type == "tool_progress" and how == "timeout":
                await asyncio.sleep(0.5)  # the time is up while the reader is elsewhere
        await stream.aclose()
        assert await asyncio.to_thread(ended.wait, SECONDS)
    assert [m.content for m in of_tools(seen)] == ["one"]
    if how != "leave":
        assert seen[-1].type == "result"
        code = "cancelled" if how == "abort" else "timeout_after_acceptance"
        assert seen[-1].error_code == code
    assert returned(seen) == []


async def test_a_coroutine_is_cancelled_between_two_reports(client: Any) -> None:
    cancelled = threading.Event()

    async def work(name: str, context: ToolContext) -> str:
        """Works."""
        try:
            while True:
                context.report("again")
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            assert context.stopped
            cancelled.set()
            context.report("cancelled")
            raise

    async with client.create_session(tools=[work]) as session:
        await session.send("Go")
        seen = []
        async for message in session.stream():
            seen.append(message)
            if message.type == "tool_progress" and len(of_tools(seen)) == 3:
                await session.abort()
    assert cancelled.is_set()
    assert seen[-1].type == "result"
    assert seen[-1].error_code == "cancelled"
    assert {m.content for m in of_tools(seen)} == {"again"}


async def test_a_tool_that_never_pauses_does_not_hold_the_loop(letta: FakeLetta) -> None:
    """Its reader takes what there is, and everything else gets its turn between."""
    stop = threading.Event()

    def work(name: str, context: ToolContext) -> str:
        """Works."""
        while not stop.is_set():
            context.report(name)
        return name

    async with letta.async_client() as client, client.create_session(tools=[work]) as session:
        await session.send("Go")
        asyncio.get_running_loop().call_later(0.05, stop.set)
        seen = [message async for message in session.stream()]
    assert seen[-1].type == "result"
    assert seen[-1].success


async def test_calls_that_are_answered_later_report_first(letta: FakeLetta) -> None:
    """respond() runs the tools before there is a stream; it begins with what they reported."""
    from letta_adapters import Allow, Postpone

    async def work(name: str, context: ToolContext) -> str:
        """Works."""
        context.report("one")
        return name

    async with letta.async_client() as client:
        agent = await client.create_agent()
        session = client.create_session(agent, tools=[work], can_use_tool=lambda *_: Postpone())
        async with session:
            await session.send("Go")
            assert [m async for m in session.stream()][-1].type == "result"
            waiting = await session.pending_approvals()
            await session.respond({call.tool_call_id: Allow() for call in waiting})
            seen = [message async for message in session.stream()]
    assert [m.type for m in seen] == ["tool_progress", "tool_result", "assistant", "result"]
