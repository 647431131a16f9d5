"""What is closed while it opens is closed: no runtime, no server of tools, no turn goes on."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from letta_adapters import AsyncLettaClient, LettaClient, Local, SessionClosedError, aio
from letta_adapters.testing.scripted_model import Reply, ScriptedModel
from tests._processes import ask, commands
from tests.backends.runtime.conftest import eventually, running

# A server of tools that takes its time to start.
SLOW = "import time; time.sleep(60)"


def _spec(home: Path, model: ScriptedModel) -> Local:
    return Local(data_dir=home, openai_compatible={"base_url": model.base_url})


def _children_of_mine() -> list[str]:
    return commands(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.5])
async def test_a_session_that_owns_its_client(
    home: Path, model: ScriptedModel, moment: float
) -> None:
    session = aio.create_session(backend=_spec(home, model), model="lmstudio/scripted")
    opening = asyncio.create_task(session.initialize())
    await asyncio.sleep(moment)
    await session.close()
    assert running(home) == []
    with pytest.raises(SessionClosedError):
        await opening
    assert session.agent_id is None


async def test_a_client_whose_calls_are_on_their_way(home: Path, model: ScriptedModel) -> None:
    client = AsyncLettaClient(_spec(home, model))
    session = client.create_session(model="lmstudio/scripted")
    calls = [
        asyncio.create_task(work)
        for work in (session.initialize(), client.models.list(), client.agents.list())
    ]
    await asyncio.sleep(0.05)
    await client.close()
    assert running(home) == []
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [SessionClosedError] * 3


def test_a_sync_session_closed_from_another_thread(home: Path, model: ScriptedModel) -> None:
    ends: list[Any] = []
    client = LettaClient(_spec(home, model))
    session = client.create_session(model="lmstudio/scripted")

    def opens() -> None:
        try:
            ends.append(session.initialize())
        except SessionClosedError as error:
            ends.append(error)

    thread = threading.Thread(target=opens)
    thread.start()
    session.close()
    client.close()
    assert running(home) == []
    thread.join(20)
    assert [type(end) for end in ends] == [SessionClosedError]


async def test_its_tool_servers_and_its_message(home: Path, model: ScriptedModel) -> None:
    model.script(Reply(["slow "] * 300, token_delay=0.1))
    async with AsyncLettaClient(_spec(home, model)) as client:
        agent = await client.create_agent(model="lmstudio/scripted", system_prompt="t")
        tools: Any = {"slow": {"command": sys.executable, "args": ["-c", SLOW]}}
        session = client.create_session(agent, mcp_servers=tools)
        opening = asyncio.create_task(session.initialize())
        await eventually(lambda: any(SLOW in command for command in _children_of_mine()))
        await session.close()
        assert not any(SLOW in command for command in _children_of_mine())
        with pytest.raises(SessionClosedError):
            await opening
        assert await client.conversations.list(agent) == []

        session = client.create_session(agent)
        await session.initialize()
        sending = asyncio.create_task(session.send("go"))
        await asyncio.sleep(0)
        await session.close()
        with pytest.raises(SessionClosedError):
            await sending
        again = client.resume_session(
            agent_id=session.agent_id, conversation_id=session.conversation_id
        )
        assert (await again.run_turn("still there?")).success
        await again.close()


async def test_giving_up_a_start_leaves_it_to_the_next_call(
    home: Path, model: ScriptedModel
) -> None:
    client = AsyncLettaClient(_spec(home, model))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.models.list(), 0.1)
    assert await client.models.list()
    assert [parent for _, parent in ask(running(home), psutil.Process.ppid)].count(_me()) == 1
    await client.close()
    assert running(home) == []
    client = AsyncLettaClient(_spec(home, model))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.models.list(), 0.1)
    await client.close()
    assert running(home) == []


def _me() -> int:
    return psutil.Process().pid
