"""What tests of interrupted turns have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from letta_adapters.messages import StreamEvent
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import hang, stream

LONG = stream(ev.ping(), ev.text("You sa"), hang)


async def until(met: Callable[[], Any]) -> None:
    """Wait for what another task or the server does; bounded by the test's own time limit."""
    while not met():
        await asyncio.sleep(0.005)


async def stopped_once(session: Any, server: Server, sent: int = 1) -> None:
    """The run was cancelled with one request, and the conversation goes on."""
    assert (await session.run_turn("again")).result == "You said: again"
    assert [run.status for run in server.runs] == ["cancelled"] * sent + ["completed"]
    assert server.cancels == sent
    assert server.texts() == ["hello"] * sent + ["again"]


async def first_fragment(stream: Any) -> StreamEvent:
    """Read up to the first fragment: the turn is under way then."""
    async for message in stream:
        if isinstance(message, StreamEvent):
            return message
    raise AssertionError("no fragment came")
