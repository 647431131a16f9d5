"""A message that a call left open has blocked, and that is stopped before it is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from letta_adapters import AsyncSession
from letta_adapters.errors import PendingApprovalError
from letta_adapters.messages import ResultMessage, Usage
from letta_adapters.web.access import Viewer
from letta_adapters.web.hub import Hub

pytestmark = pytest.mark.timeout(20)
ADA = Viewer(name="ada", may_send=True)
BLOCKED = ResultMessage(False, None, None, Usage(), 0, error_code="pending_approval")
DONE = ResultMessage(True, "done", None, Usage(), 0)
Moment = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """Let the moment pass."""


class Session:
    """A session whose first message is blocked; what happens at its moments is up to the test."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.sent: list[str] = []
        self.aborted = 0
        self.before_the_end: Moment = nothing
        self.after_the_end: Moment = nothing
        self.while_it_recovers: Moment = nothing
        self._refuses = refuses

    async def initialize(self) -> None:
        pass

    async def list_messages(self, limit: int) -> Any:
        return SimpleNamespace(order="asc", messages=())

    async def send(self, text: str, otid: str) -> None:
        if self._refuses and not self.sent:
            self.sent.append(text)
            raise PendingApprovalError("A call waits.", accepted=False)
        self.sent.append(text)

    def stream(self) -> Any:
        return Stream(self)

    async def abort(self) -> None:
        self.aborted += 1

    async def recover_pending_approvals(self) -> None:
        await self.while_it_recovers()

    async def close(self) -> None:
        pass


class Stream:
    """The answer to the session's last message."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._first = len(session.sent) == 1

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._first:
            await self._session.after_the_end()

    async def __aiter__(self) -> AsyncIterator[ResultMessage]:
        if self._first:
            await self._session.before_the_end()
        yield BLOCKED if self._first else DONE


async def say_hello(session: Session, moment: str = "", stops: int = 0) -> list[dict[str, Any]]:
    """Send a message; stop it so often in a moment; return how the room says that it has ended."""

    async def opened() -> AsyncSession:
        return cast("AsyncSession", session)

    async def stop() -> None:
        for _ in range(stops):
            assert await hub.stop(ADA) is True
        # Where a stop ends the wait at once, it does so here.
        await asyncio.sleep(0)

    if moment:
        setattr(session, moment, stop)
    hub = Hub(lambda room, ask: opened())
    watch = await hub.watch(ADA)
    await hub.send(ADA, "hello")
    ends = []
    async for event in watch:
        if event.kind == "failed" or (event.kind == "message" and event.data["type"] == "result"):
            ends.append(dict(event.data))
        if ends and event.kind == "queue" and event.data["running"] is None:
            break
    watch.close()
    await hub.close()
    return ends


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("stops", [1, 2])
async def test_it_is_not_sent_if_it_is_stopped_while_the_call_is_ended(
    refuses: bool, stops: int
) -> None:
    session = Session(refuses=refuses)
    (end,) = await say_hello(session, "while_it_recovers", stops)
    assert session.sent == ["hello"]
    assert end["code"] == "cancelled"


@pytest.mark.parametrize("moment", ["before_the_end", "after_the_end"])
@pytest.mark.parametrize("stops", [1, 2])
async def test_it_is_not_sent_if_the_stop_meets_the_end_of_the_blocked_turn(
    moment: str, stops: int
) -> None:
    session = Session()
    (end,) = await say_hello(session, moment, stops)
    assert session.sent == ["hello"]
    assert end["code"] == "cancelled"


@pytest.mark.parametrize("refuses", [False, True])
async def test_it_is_sent_again_if_nobody_stops_it(refuses: bool) -> None:
    session = Session(refuses=refuses)
    (end,) = await say_hello(session)
    assert session.sent == ["hello", "hello"]
    assert end["result"] == "done"
    assert session.aborted == 0
