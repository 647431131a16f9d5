"""The embedded runtime's files are opened and read on worker threads, and not on the event loop."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters._utils.files import hold_lock, on_thread
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing.local import MODEL, LocalLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests._wheel import require_wheel
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.snippets.scenes import PICTURE

blockbuster = pytest.importorskip("blockbuster", reason="blockbuster is for CPython alone")


@pytest.fixture(scope="module")
def letta() -> Iterator[LocalLetta]:
    require_wheel()
    with LocalLetta() as running:
        yield running


async def test_nothing_blocks_the_loop_from_the_start_to_the_end(
    letta: LocalLetta, tmp_path: Path
) -> None:
    # Whoever makes a client names its directory, which is looked up at once.
    client = AsyncLettaClient(letta.spec)
    with blockbuster.blockbuster_ctx("letta_adapters"):
        async with client:
            assert await client.backend.default_agent(MODEL)
            agent = await client.create_agent(
                name="kept", model=MODEL, permission_mode="strict", cwd=tmp_path
            )
            letta.model.script("Hello.", "Hello again.", "Hello from nowhere.")
            async with client.create_session(agent) as session:
                await session.send("Hi.")
                assert [message async for message in session.stream()]
            chat = ChatLetta(agent_id=agent, client=client)
            assert (await chat.ainvoke("Hi.")).text == "Hello again."
            async with client.create_session(agent, stateless=True) as session:
                await session.send("Hi.")
                assert [message async for message in session.stream()]
            await client.agents.update(agent, permission_mode="standard")


async def test_a_first_call_of_an_adapter_blocks_no_loop(letta: LocalLetta, tmp_path: Path) -> None:
    """Its client is made, a picture is looked at, and a path of a tool's judged."""
    file, link = tmp_path / "note.txt", tmp_path / "link.txt"
    file.write_text("Buy milk.")
    link.symlink_to(file)
    agent = letta.client.create_agent(name="reader", model=MODEL, cwd=tmp_path)
    letta.client.close()  # so that the adapter starts the runtime
    read = ToolUse("Read", {"file_path": str(link)})
    letta.model.script("Hello.", Reply(tool_calls=[read]), "Buy milk.")
    with blockbuster.blockbuster_ctx("letta_adapters"):
        chat = ChatLetta(agent_id=agent, backend=letta.spec)
        picture = {
            "type": "image",
            "base64": base64.b64encode(PICTURE).decode(),
            "mime_type": "image/png",
        }
        assert (await chat.ainvoke([HumanMessage([picture])])).text == "Hello."
        runnable = LettaRunnable(agent_id=agent, backend=letta.spec)
        said = await runnable.ainvoke({"messages": [HumanMessage("What is in the file?")]})
    assert said["messages"][-1].text == "Buy milk."
    assert "Buy milk." in str(letta.model.requests[-1].messages[-1])


async def test_nor_does_one_over_the_letta_api() -> None:
    with Server() as server, blockbuster.blockbuster_ctx("letta_adapters"):
        spec = Rest(base_url=server.url)
        chat = ChatLetta(agent_id=ev.AGENT, backend=spec)
        assert (await chat.ainvoke("one")).text == "You said: one"
        runnable = LettaRunnable(agent_id=ev.AGENT, backend=spec)
        said = await runnable.ainvoke({"messages": [HumanMessage("two")]})
    assert said["messages"][-1].text == "You said: two"


async def test_work_that_is_cancelled_is_waited_for() -> None:
    begun, may_end = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        may_end.wait(10)
        done.append("done")

    task = asyncio.create_task(on_thread(work))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, may_end.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["done"]


async def test_a_caller_that_is_cancelled_leaves_no_lock_behind(tmp_path: Path) -> None:
    async def hold() -> None:
        async with hold_lock(tmp_path / "lock", 5):
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    # One step: the thread that opens the file is at work.
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with hold_lock(tmp_path / "lock", 0):
        pass
