"""The wait for the answer to a permission question: who was cancelled, and what comes too late."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from letta_adapters.permissions import Deny
from letta_adapters.permissions.asking import Patience, ask_in_time
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

NO: Patience = (20.0, Deny("no"))


async def cancelled_inside() -> None:
    """Waits for something of its own that is cancelled."""
    work = asyncio.ensure_future(asyncio.sleep(20))
    work.cancel()
    await work


def cancelled_in_a_thread(*_: Any) -> bool:
    raise asyncio.CancelledError


async def cancelled_on_the_loop(*_: Any) -> bool:
    await cancelled_inside()
    return True


@pytest.mark.parametrize("patience", [None, NO], ids=["no limit", "limit"])
async def test_a_callback_that_is_cancelled_does_not_cancel_who_asks(
    patience: Patience | None,
) -> None:
    with pytest.raises(RuntimeError, match="cancelled"):
        await ask_in_time(cancelled_inside(), patience)


@pytest.mark.parametrize("patience", [None, NO], ids=["no limit", "limit"])
async def test_who_asks_is_cancelled_and_the_callback_with_it(patience: Patience | None) -> None:
    ended = []

    async def ask() -> None:
        try:
            await asyncio.sleep(20)
        finally:
            ended.append(True)

    asking = asyncio.ensure_future(ask_in_time(ask(), patience))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ended == [True]


async def test_an_exception_that_comes_too_late_is_not_reported_as_forgotten() -> None:
    async def ask() -> None:
        try:
            await asyncio.sleep(20)
        finally:
            raise ValueError("too late")

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
    assert await ask_in_time(ask(), (0.001, Deny("no"))) == Deny("no")
    gc.collect()
    assert told == []


@pytest.mark.parametrize("callback", [cancelled_in_a_thread, cancelled_on_the_loop])
async def test_a_turn_goes_on_with_a_denial_when_its_callback_is_cancelled(callback: Any) -> None:
    ran = []

    def delete(name: str) -> str:
        """Delete a file."""
        ran.append(name)
        return "gone"

    letta = FakeLetta(Reply(tool_calls=[ToolUse("delete", {"name": "a"})]), "I see.")
    async with (
        letta.async_client() as client,
        client.create_session(tools=[delete], can_use_tool=callback) as session,
    ):
        result = await session.run_turn("Delete it.")
    assert (result.success, result.result, ran) == (True, "I see.", [])
