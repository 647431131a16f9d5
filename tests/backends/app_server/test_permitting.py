"""Who decides about the server's tools: this side, also where the server is not ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import Allow, AsyncLettaClient, Deny, ToolResultMessage
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import AppServer

Connect = Callable[..., AsyncLettaClient]


def read(path: Path, id: str = "read-1") -> ToolUse:
    return ToolUse("Read", {"file_path": str(path)}, id=id)


async def told(session: Any) -> dict[str, str]:
    """What the model was told, by tool call id."""
    await session.send("go")
    messages = [message async for message in session.stream()]
    return {m.tool_call_id: m.content for m in messages if isinstance(m, ToolResultMessage)}


@pytest.fixture
def file(project: Path) -> Path:
    made = project / "plain.txt"
    made.write_text("plain text\n")
    return made


async def test_files_of_another_machine_are_not_read_unasked(
    connect: Connect, server: AppServer, agent: str, model: ScriptedModel, file: Path
) -> None:
    memory = ToolUse("Memory", {"path": "persona.md"}, id="memory-1")
    asked: list[Any] = []

    def decide(name: str, _: Any, context: Any) -> Allow:
        asked.append((name, context.kind, type(context.default)))
        return Allow()

    async with connect(server, name="remote") as client:
        model.script(Reply(tool_calls=[read(file), memory]), "ok")
        async with client.create_session(agent, cwd=file.parent) as session:
            results = await told(session)
        assert "no way to give one" in results["read-1"]
        assert "no way to give one" not in results["memory-1"]
        model.script(Reply(tool_calls=[read(file), memory]), "ok")
        options: Any = {"cwd": file.parent, "can_use_tool": decide}
        async with client.create_session(agent, **options) as session:
            assert "plain text" in (await told(session))["read-1"]
    assert asked == [("Read", "reads", Deny), ("Memory", "own_memory", Allow)]


async def test_what_is_remembered_is_the_very_call(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, file: Path
) -> None:
    other = file.with_name("other.txt")
    other.write_text("another text\n")
    asked: list[str] = []

    def decide(_: str, tool_input: Any, context: Any) -> Allow:
        asked.append(Path(tool_input["file_path"]).name)
        edited = {**tool_input, "limit": 1} if tool_input["file_path"] == str(other) else None
        return Allow(edited, save=tuple(s["id"] for s in context.suggestions))

    steps = [read(file), read(other, "read-2"), read(file, "read-3"), read(other, "read-4")]
    model.script(*(Reply(tool_calls=[step]) for step in steps), "ok")
    async with client.create_session(agent, cwd=file.parent, can_use_tool=decide) as session:
        await told(session)
    # What was allowed with other arguments was not allowed as it is.
    assert asked == ["plain.txt", "other.txt", "other.txt"]
    assert not (file.parent / ".letta").exists()


async def test_after_a_move_nothing_is_read_unasked(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, file: Path
) -> None:
    (file.parent / "deeper").mkdir()
    (file.parent / "deeper" / "plain.txt").write_text("deeper text\n")
    move = ToolUse("SetWorkingDirectory", {"path": str(file.parent / "deeper")}, id="move-1")
    relative = ToolUse("Read", {"file_path": "plain.txt"}, id="read-1")
    model.script(Reply(tool_calls=[move]), Reply(tool_calls=[relative]), "ok")
    options: Any = {"cwd": file.parent, "allowed_tools": ["SetWorkingDirectory"]}
    async with client.create_session(agent, **options) as session:
        results = await told(session)
    assert "no way to give one" in results["read-1"]


# -- a server that does not ask -----------------------------------------------------------------


@pytest.fixture
def careless(shared_model: ScriptedModel, tmp_path: Path) -> Iterator[AppServer]:
    """It believes the settings of the working directory."""
    server = AppServer(tmp_path / "home", shared_model.base_url, guarded=False)
    server.home.mkdir()
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("name", ["local", "remote"])
async def test_a_tool_that_runs_unasked_ends_the_turn_or_is_told(
    connect: Connect,
    careless: AppServer,
    model: ScriptedModel,
    file: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    settings = file.parent / ".letta" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"permissions": {"allow": ["Read"]}}))
    model.script(Reply(tool_calls=[read(file)]), Reply("Done.", repeat=True))
    async with connect(careless, name=name) as client:
        agent = await client.create_agent(model="lmstudio/scripted", system_prompt="x")
        options: Any = {"cwd": file.parent, "can_use_tool": lambda *_: False}
        with caplog.at_level(logging.WARNING, "letta_adapters"):
            async with client.create_session(agent, **options) as session:
                result = await session.run_turn("go")
    if name == "local":
        assert (result.success, result.error_code) == (False, "ran_unasked")
        assert "Read" in str(result.error_detail)
    else:
        assert result.success
        assert "ran Read without asking" in caplog.text
