"""Calls that a page carries out, in the moment between their end and the end of their wait."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from letta_adapters.tools import ToolResult
from letta_adapters.tools.context import ToolContext
from letta_adapters.web.page_calls import PageCalls

CALL = cast("ToolContext", SimpleNamespace(tool_call_id="call_1", tool_name="paint"))


async def begin() -> tuple[PageCalls, asyncio.Task[ToolResult]]:
    """Return the calls of a room, one of which waits, and its wait."""

    def publish(*_: Any) -> Any:
        return SimpleNamespace(number=1)

    calls = PageCalls(publish)
    waiting = asyncio.ensure_future(calls.wait(CALL, "ada"))
    while not calls.is_for("call_1", "ada"):
        await asyncio.sleep(0)
    return calls, waiting


async def test_a_result_is_late_from_the_moment_in_which_its_call_is_given_up() -> None:
    calls, waiting = await begin()
    # As a time limit and a stop do it; nothing has run since.
    waiting.cancel()
    for _ in range(2):
        assert calls.has_ended("call_1")
        assert not calls.is_for("call_1", "ada")
        assert not calls.is_repeated("call_1", ToolResult("Red."))
        await asyncio.wait({waiting})
    assert waiting.cancelled()


async def test_a_result_is_known_again_from_the_moment_in_which_it_is_given() -> None:
    calls, waiting = await begin()
    calls.give("call_1", ToolResult("Red."))
    for _ in range(2):
        assert calls.is_repeated("call_1", ToolResult("Red."))
        assert not calls.is_repeated("call_1", ToolResult("Blue."))
        await asyncio.wait({waiting})
    assert waiting.result() == ToolResult("Red.")
