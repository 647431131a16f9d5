"""A cancellation is never lost, at whichever moment it comes (Python 3.10 and 3.11 lose some)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters._utils.tasks import end_task, run_within


async def test_what_comes_in_time_is_returned() -> None:
    assert await run_within(5, asyncio.sleep(0, "here")) == "here"


async def test_what_is_late_is_cancelled_and_has_ended() -> None:
    ends: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ends.append("ended")

    with pytest.raises(asyncio.TimeoutError):
        await run_within(0.01, slow())
    assert ends == ["ended"]


async def test_what_it_raises_is_raised() -> None:
    async def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await run_within(5, broken())


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancellation_at_any_step_ends_the_caller(steps: int) -> None:
    over = asyncio.Event()

    async def caller() -> str:
        await run_within(5, over.wait())
        return "went on"

    task = asyncio.create_task(caller())
    await asyncio.sleep(0.01)
    over.set()  # the work ends, and the cancellation comes so many steps later
    for _ in range(steps):
        await asyncio.sleep(0)
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        assert task.result() == "went on"


async def test_a_cancellation_while_something_else_is_being_ended_is_not_lost() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)

    work = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task = asyncio.create_task(end_task(work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await work


class _Asking(httpx.AsyncByteStream):
    """A stream that asks for a tool, and runs ``at_end`` as its last chunk was read."""

    def __init__(self, number: int, task: asyncio.Task[object] | None) -> None:
        self._number, self._task = number, task

    async def __aiter__(self) -> AsyncIterator[bytes]:
        n = self._number
        call = {"name": "f", "tool_call_id": f"call_{n}", "arguments": "{}"}
        events = (
            {
                "message_type": "approval_request_message",
                "id": f"message-{n}",
                "run_id": f"run-{n}",
                "tool_call": call,
            },
            {"message_type": "stop_reason", "stop_reason": "requires_approval"},
        )
        for event in events:
            yield b"data: " + json.dumps(event).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"
        await asyncio.sleep(0)
        if self._task is not None:
            self._task.cancel()


async def test_a_turn_cancelled_as_its_stream_ends_sends_nothing_more() -> None:
    sends = 0
    turn: asyncio.Task[object]

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal sends
        if request.method == "POST" and request.url.path.endswith("/messages"):
            sends += 1
            stream = _Asking(sends, turn if sends == 2 else None)
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)
        if request.url.path.endswith("/cancel"):
            return httpx.Response(409, json={"detail": "No active runs"})
        if request.url.path.startswith("/v1/runs/run"):
            return httpx.Response(200, json={"id": "run-1", "status": "completed"})
        return httpx.Response(200, json=[])

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        async with AsyncLettaClient(Rest(base_url="http://x.test"), http_client=http) as client:
            session = client.resume_session(agent_id="agent-1", conversation_id="conv-1")
            turn = asyncio.create_task(session.run_turn("hi"))
            with pytest.raises(asyncio.CancelledError):
                await turn
            asked = sends
            await asyncio.sleep(0.1)
    assert asked == sends <= 3  # the second question's denial at most, to leave nothing pending
