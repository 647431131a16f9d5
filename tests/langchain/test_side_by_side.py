"""Tools that run side by side: one that is interrupted, cancelled, or waited for no longer."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest
from langchain_core.tools import tool
from langgraph.errors import GraphBubbleUp

from letta_adapters import Deny
from letta_adapters.langchain import LettaRunnable
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse


def calling(*names: str) -> FakeLetta:
    """An agent that calls these tools at once."""
    return FakeLetta(Reply(tool_calls=[ToolUse(n, {}, id=f"c-{n}") for n in names]), "Done.")


async def raise_cancelled() -> str:
    """Look at something that was cancelled."""
    gone = asyncio.get_running_loop().create_future()
    gone.cancel()
    await gone
    return "never"


def told(letta: FakeLetta) -> list[Any]:
    sent = [m for m in letta.requests[-1]["messages"] if m.get("type") == "approval"]
    return [(a["tool_return"], a["status"]) for m in sent for a in m["approvals"]]


async def test_no_tool_runs_on_when_its_run_is_over() -> None:
    ran: list[str] = []

    async def stop() -> str:
        """Leave the run, as an interrupt of a graph does."""
        raise GraphBubbleUp

    async def work() -> str:
        """Work for a moment."""
        await asyncio.sleep(0.05)
        ran.append("work")
        return "worked"

    agent = LettaRunnable(client=calling("stop", "work").client(), tools=[stop, work])
    with pytest.raises(GraphBubbleUp):
        await agent.ainvoke("Go.")
    assert ran == ["work"]


async def test_a_tool_that_cancels_itself_has_failed() -> None:
    letta = calling("raise_cancelled")
    agent = LettaRunnable(client=letta.client(), tools=[raise_cancelled], output="text")
    assert await agent.ainvoke("Go.") == "Done."
    assert told(letta) == [("raise_cancelled was cancelled.", "error")]


def test_a_tool_that_cancels_itself_has_failed_in_a_thread() -> None:
    letta = calling("raise_cancelled")
    agent = LettaRunnable(client=letta.client(), tools=[raise_cancelled], output="text")
    assert agent.invoke("Go.") == "Done."
    assert told(letta) == [("raise_cancelled was cancelled.", "error")]


async def test_a_run_that_is_cancelled_cancels_its_tools() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def work() -> str:
        """Work for ever."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")
        return "never"

    agent = LettaRunnable(client=calling("work").client(), tools=[work])
    run = asyncio.ensure_future(agent.ainvoke("Go."))
    await asyncio.wait_for(begun.wait(), 10)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert ended == ["work"]


async def wait_for_ever(*_: Any) -> bool:
    await asyncio.Event().wait()
    return True


def sleep_long(*_: Any) -> bool:
    time.sleep(20)
    return True


PATIENT = {"ask_timeout": 60.0, "ask_timeout_answer": Deny("no")}


@pytest.mark.skipif(sys.platform == "win32", reason="a wait for a lock takes no Ctrl-C there")
@pytest.mark.parametrize(("ask", "more"), [(wait_for_ever, {}), (sleep_long, PATIENT)])
def test_ctrl_c_ends_the_wait_for_a_callback(ask: Any, more: dict[str, Any]) -> None:
    begun = threading.Event()

    def asking(*given: Any) -> Any:
        begun.set()
        return ask(*given)

    async def aasking(*given: Any) -> Any:
        begun.set()
        return await ask(*given)

    used = aasking if asyncio.iscoroutinefunction(ask) else asking
    agent = LettaRunnable(client=calling("work").client(), can_use_tool=used, **more)

    def interrupt() -> None:
        assert begun.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        agent.invoke("Go.")
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_result_that_no_message_holds_is_the_tool_s_failure(streamed: bool) -> None:
    letta = calling("give", "work")

    @tool
    def give() -> list[dict[str, str]]:
        """Give a file."""
        return [{"type": "file", "url": "http://letta.test/x.pdf"}]

    def work() -> str:
        """Work."""
        return "worked"

    agent = LettaRunnable(client=letta.client(), tools=[give, work], output="text")
    made = [text async for text in agent.astream("Go.")] if streamed else [agent.invoke("Go.")]
    assert "".join(made) == "Done."
    (refused, status), worked = told(letta)
    assert ("'file'" in refused, status, worked) == (True, "error", ("worked", "success"))
