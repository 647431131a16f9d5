"""What a session says of its conversation right after a change is what is so now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, InvalidInputError
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import MODEL, AppServer

Connect = Callable[..., AsyncLettaClient]
TIMES = 20


async def test_a_change_of_the_mode_says_nothing_of_the_directory(
    client: AsyncLettaClient, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server would set it in its own time, perhaps after the directory that comes next."""
    sent: list[Any] = []
    send = Connection.send

    async def spy(self: Connection, frame: Any) -> None:
        sent.append(frame)
        await send(self, frame)

    async with client.create_session(agent) as session:
        await session.initialize()
        monkeypatch.setattr(Connection, "send", spy)
        await session.change_device_state(permission_mode="acceptEdits")
    changes = [frame["payload"] for frame in sent if frame["type"] == "change_device_state"]
    assert [list(payload) for payload in changes] == [["mode"]]


async def test_mode_and_directory(
    connect: Connect, client: AsyncLettaClient, server: AppServer, agent: str, tmp_path: Path
) -> None:
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()
    seen, theirs, changed = [], [], []
    async with connect(server) as other, client.create_session(agent) as session:
        same = other.resume_session(
            agent_id=session.agent_id, conversation_id=session.conversation_id
        )
        await same.initialize()
        for turn in range(TIMES):
            mode: Any = ("strict", "acceptEdits")[turn % 2]
            await session.change_device_state(permission_mode=mode)
            seen.append((await session.device_status())["current_permission_mode"] == mode)
            place = places[turn % 2]
            await session.change_device_state(cwd=place)
            changed.append(
                (await session.device_status())["current_working_directory"] == str(place)
            )
            place = places[(turn + 1) % 2]
            await same.change_device_state(cwd=place)
            theirs.append(
                (await session.device_status())["current_working_directory"] == str(place)
            )
    assert (seen, changed, theirs) == ([True] * TIMES,) * 3


async def test_a_directory_that_another_machine_does_not_have(
    connect: Connect, server: AppServer, agent: str, tmp_path: Path
) -> None:
    async with connect(server, name="remote") as other, other.create_session(agent) as session:
        await session.change_device_state(cwd=tmp_path)
        with pytest.raises(InvalidInputError, match="not a directory on the server"):
            await session.change_device_state(cwd=tmp_path / "nowhere")
        assert (await session.device_status())["current_working_directory"] == str(tmp_path)


async def test_the_queue(
    connect: Connect, client: AsyncLettaClient, server: AppServer, agent: str, model: ScriptedModel
) -> None:
    # Long enough for anything: it is aborted.
    model.script(Reply(["theirs "] * 600, token_delay=0.1), "ours")
    async with connect(server, name="remote") as other, client.create_session(agent) as session:
        theirs = other.resume_session(
            agent_id=session.agent_id, conversation_id=session.conversation_id
        )
        await theirs.send("first")
        while not model.requests:
            await asyncio.sleep(0.02)
        await session.send("waits")
        (item,) = await session.queued()
        assert item["content"] == "waits"
        assert await session.remove_queued(str(item["id"]))
        assert await session.queued() == ()
        await theirs.close()


async def test_calls_that_wait(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, tmp_path: Path
) -> None:
    asked: list[list[str]] = []
    left = []
    for turn in range(5):
        call = ToolUse("Bash", {"command": "touch x", "description": "t"}, id=f"call-{turn}")
        model.script(Reply(tool_calls=[call]), "ok")

        async def ask(name: str, given: Any, context: Any) -> bool:
            state = await session.bootstrap_state()
            asked.append([waiting.tool_call_id for waiting in state.pending])
            return False

        async with client.create_session(agent, can_use_tool=ask, cwd=tmp_path) as session:
            assert (await session.run_turn("go")).success
            left.append((await session.bootstrap_state()).pending)
    assert asked == [[f"call-{turn}"] for turn in range(5)]
    assert left == [()] * 5


async def test_the_model(client: AsyncLettaClient, agent: str) -> None:
    two = MODEL.replace("scripted", "scripted-two")
    async with client.create_session(agent) as session:
        assert (await session.bootstrap_state()).model == MODEL
        await session.update_model(two)
        assert (await session.bootstrap_state()).model == two
        assert (await session.initialize()).model == two
