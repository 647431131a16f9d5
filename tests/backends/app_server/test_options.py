"""Every option, shown by what the model behind the server received."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import (
    AsyncLettaClient,
    InvalidInputError,
    Sleeptime,
    ToolResultMessage,
    UnsupportedOptionError,
)
from letta_adapters.messages import content_text
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import MODEL, AppServer

TOUCH = Reply(tool_calls=[ToolUse("Bash", {"command": "touch made.txt", "description": "t"})])


def system_of(model: ScriptedModel) -> str:
    return str(model.requests[-1].messages[0]["content"])


def tools_of(model: ScriptedModel) -> set[str]:
    return {tool["function"]["name"] for tool in model.requests[-1].tools}


async def ask(client: AsyncLettaClient, agent: str, text: str = "hi", **options: Any) -> Any:
    async with client.create_session(agent, **options) as session:
        result = await session.run_turn(text)
    assert result.success, result
    return result


async def test_an_agent_with_everything(client: AsyncLettaClient, model: ScriptedModel) -> None:
    agent = await client.create_agent(
        name="Ada",
        description="Counts things.",
        model=MODEL,
        system_prompt="You count things.",
        persona="I am Ada.",
        human="The user is Bob.",
        memory=[{"label": "notes", "value": "Seven is odd.", "description": "What I know."}],
        tags=["one", "two"],
    )
    model.script("ok")
    await ask(client, agent)
    system = system_of(model)
    assert system.startswith("You count things.")
    for text in ("I am Ada.", "The user is Bob.", "Seven is odd.", "What I know."):
        assert text in system
    stored = await client.agents.retrieve(agent)
    assert (stored["name"], stored["description"]) == ("Ada", "Counts things.")
    assert {"one", "two"} <= set(stored["tags"])
    found = await client.agents.list(tags=["one"])
    assert [a["id"] for a in found] == [agent]


async def test_lettas_own_prompt_is_the_default(
    client: AsyncLettaClient, model: ScriptedModel
) -> None:
    agent = await client.create_agent(
        name="Own",
        description="Mine.",
        model=MODEL,
        persona="I am a pirate: arrr # really.",
        memory=[{"label": "notes", "value": "Line one.\nLine two."}],
        tags=["own-prompt"],
    )
    model.script("ok")
    await ask(client, agent)
    system = system_of(model)
    assert "You are a Letta Code agent" in system
    assert "I am a pirate: arrr # really." in system
    assert "Line one.\nLine two." in system
    stored = await client.agents.retrieve(agent)
    assert (stored["name"], stored["description"]) == ("Own", "Mine.")
    assert "own-prompt" in stored["tags"]


@pytest.mark.parametrize("prompt", [None, "Short."])
async def test_without_memfs(
    client: AsyncLettaClient, model: ScriptedModel, server: AppServer, prompt: str | None
) -> None:
    options: dict[str, Any] = {} if prompt is None else {"system_prompt": prompt}
    agent = await client.create_agent(model=MODEL, persona="I am P.", memfs=False, **options)
    model.script("ok")
    await ask(client, agent)
    assert "I am P." in system_of(model)
    settings = json.loads((server.home / ".letta" / "settings.json").read_text())
    entry = next(a for a in settings["agents"] if a["agentId"] == agent)
    assert not entry.get("memfs")


async def test_the_default_agent_is_made_once(
    client: AsyncLettaClient, model: ScriptedModel
) -> None:
    model.script("one", "two")
    first = await client.prompt("hi")
    second = await client.prompt("hi")
    assert first.agent_id == second.agent_id
    assert first.conversation_id != second.conversation_id


async def test_skill_sources(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    skill = project / ".skills" / "juggling"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text(
        "---\nname: juggling\ndescription: How to juggle five balls.\n---\n# Juggling\n"
    )
    seen = {}
    for name, sources in (("none", []), ("project", ["project"]), ("all", None)):
        model.script("ok")
        options: dict[str, Any] = {} if sources is None else {"skill_sources": sources}
        await ask(client, agent, cwd=project, **options)
        seen[name] = json.dumps(model.requests[-1].body)
    assert "juggl" not in seen["none"]
    assert "five balls" in seen["project"]
    assert len(seen["all"]) > len(seen["project"]) > len(seen["none"])


async def test_cwd(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    pwd = Reply(tool_calls=[ToolUse("Bash", {"command": "pwd", "description": "t"})])
    model.script(pwd, "ok")
    async with client.create_session(agent, cwd=project, allowed_tools=["Bash"]) as session:
        await session.send("where?")
        messages = [m async for m in session.stream()]
    returned = next(m for m in messages if isinstance(m, ToolResultMessage))
    assert returned.content.strip() == str(project)
    with pytest.raises(InvalidInputError, match="not a directory"):
        await client.create_session(agent, cwd=project / "nowhere").initialize()


@pytest.mark.parametrize(
    ("mode", "runs"),
    [
        (None, False),
        ("default", False),
        ("standard", False),
        ("acceptEdits", False),
        ("strict", False),
        ("bypassPermissions", True),
        ("unrestricted", True),
    ],
)
async def test_permission_modes(
    client: AsyncLettaClient,
    agent: str,
    model: ScriptedModel,
    project: Path,
    mode: Any,
    runs: bool,
) -> None:
    model.script(TOUCH, "ok")
    options = {} if mode is None else {"permission_mode": mode}
    await ask(client, agent, cwd=project, **options)
    assert (project / "made.txt").exists() is runs


async def test_two_sessions_of_one_conversation_keep_their_own_mode(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    careful = client.create_session(agent, cwd=project)
    async with careful:
        bold = client.resume_session(
            agent_id=agent,
            conversation_id=careful.conversation_id,
            cwd=project,
            permission_mode="unrestricted",
        )
        await bold.initialize()
        model.script(TOUCH, "ok")
        await careful.run_turn("go")
        assert not (project / "made.txt").exists()
        model.script(TOUCH, "ok")
        await bold.run_turn("go")
        assert (project / "made.txt").exists()


async def test_what_an_agent_was_made_with_counts_for_its_sessions(
    client: AsyncLettaClient, model: ScriptedModel, project: Path
) -> None:
    agent = await client.create_agent(
        model=MODEL, system_prompt="x", cwd=project, permission_mode="unrestricted"
    )
    model.script(TOUCH, "ok")
    await ask(client, agent)
    assert (project / "made.txt").exists()


async def test_allowed_tools_need_no_callback(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    model.script(TOUCH, "ok")
    await ask(client, agent, cwd=project, allowed_tools=["Bash"])
    assert (project / "made.txt").exists()


async def test_disallowed_tools_are_not_shown_to_the_model(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    def ping() -> str:
        """Pings."""
        return "pong"

    model.script(TOUCH, "ok")
    options: dict[str, Any] = {"permission_mode": "unrestricted", "disallowed_tools": ["Bash"]}
    async with client.create_session(agent, cwd=project, tools=[ping], **options) as session:
        init = await session.initialize()
        await session.run_turn("go")
    assert not (project / "made.txt").exists()
    assert "Bash" not in tools_of(model)
    assert {"Read", "Write", "Agent", "ping"} <= tools_of(model)
    assert "Bash" not in init.tools
    assert "ping" in init.tools


async def test_client_tools_are_never_moved_to_the_background(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    async def slow() -> str:
        """Takes its time."""
        await asyncio.sleep(11)
        return "at last"

    model.script(Reply(tool_calls=[ToolUse("slow", {})]), "ok")
    await ask(client, agent, tools=[slow])
    assert model.requests[-1].messages[-1]["content"] == "at last"
    assert len(model.requests) == 2


async def test_the_model_of_a_conversation(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    model.script("one", "two", "three")
    async with client.create_session(agent, model="lmstudio/scripted-two") as session:
        assert (await session.initialize()).model == "lmstudio/scripted-two"
        await session.run_turn("hi")
        assert model.requests[-1].body["model"] == "scripted-two"
        where = {"agent_id": agent, "conversation_id": session.conversation_id}
    async with client.resume_session(**where, model=MODEL) as session:
        await session.run_turn("hi")
        assert model.requests[-1].body["model"] == "scripted"
    with pytest.raises(UnsupportedOptionError, match="default conversation"):
        await client.resume_session(agent, model="lmstudio/scripted-two").initialize()


async def test_a_model_that_does_not_exist(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    for wrong in ("lmstudio/scripted-too", "scripted"):
        with pytest.raises(InvalidInputError, match="Did you mean 'lmstudio/scripted"):
            await client.create_agent(model=wrong)
        with pytest.raises(InvalidInputError, match="Did you mean 'lmstudio/scripted"):
            await client.create_session(agent, model=wrong).initialize()
    await client.agents.update(agent, model="lmstudio/gone")
    with pytest.raises(InvalidInputError, match="agent's model 'lmstudio/gone'"):
        await client.prompt("hi", agent)
    assert not model.requests


async def test_sleeptime_of_one_agent_leaves_the_others_alone(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    async def settings(agent_id: str) -> tuple[str, int]:
        runtime = {"agent_id": agent_id, "conversation_id": "default"}
        answer = await client.request(
            "COMMAND", "get_reflection_settings", body={"runtime": runtime}
        )
        found = answer["reflection_settings"]
        return found["trigger"], found["step_count"]

    before = await settings("agent-nobody")
    made = await client.create_agent(
        model=MODEL, system_prompt="x", sleeptime=Sleeptime(trigger="off")
    )
    assert await settings(made) == ("off", 25)
    assert await settings(agent) == await settings("agent-nobody") == before
    counted = Sleeptime(trigger="step-count", step_count=3)
    options: Any = {"sleeptime": counted, "permission_mode": "unrestricted"}
    async with client.create_session(agent, **options):
        pass
    assert await settings(agent) == ("step-count", 3)
    assert await settings(made) == ("off", 25)
    assert await settings("agent-nobody") == before


async def test_reflection_has_a_shell_and_is_refused_where_commands_ask(
    client: AsyncLettaClient, agent: str
) -> None:
    before = await client.agents.list()
    for mode in ({}, {"permission_mode": "acceptEdits"}, {"permission_mode": "strict"}):
        options: Any = {"sleeptime": Sleeptime(), **mode}
        with pytest.raises(UnsupportedOptionError, match="a shell that nobody is asked about"):
            await client.create_agent(model=MODEL, system_prompt="x", **options)
        with pytest.raises(UnsupportedOptionError, match="a shell that nobody is asked about"):
            await client.create_session(agent, **options).initialize()
    assert len(await client.agents.list()) == len(before)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"memfs_startup": "skip"}, "memfs_startup"),
        ({"memfs": False}, "memfs"),
        ({"max_steps": 3}, "max_steps"),
        ({"permission_mode": "plan"}, "permission_mode"),
        ({"allowed_tools": ["Bash(ls:*)"]}, "allowed_tools"),
        ({"disallowed_tools": ["Bash(rm:*)"]}, "disallowed_tools"),
        ({"sleeptime": {"behavior": "reminder"}}, "sleeptime.behavior"),
    ],
)
async def test_session_options_that_no_app_server_has(
    client: AsyncLettaClient, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(UnsupportedOptionError) as caught:
        await client.create_session("agent-1", **options).initialize()
    assert caught.value.option == name


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"embedding": "openai/x"}, "embedding"),
        ({"tool_ids": ["tool-1"]}, "tool_ids"),
        ({"block_ids": ["block-1"]}, "block_ids"),
        ({"base_tools": False}, "base_tools"),
        ({"memory": [{"label": "a", "value": "b", "limit": 5}]}, "memory.limit"),
        ({"memory": [{"label": "a", "value": "b", "read_only": True}]}, "memory.read_only"),
    ],
)
async def test_agent_options_that_no_app_server_has(
    client: AsyncLettaClient, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(UnsupportedOptionError) as caught:
        await client.create_agent(model=MODEL, **options)
    assert caught.value.option == name


@pytest.mark.parametrize("label", ["../x", "MEMORY", "a/b", ".", "a\\b"])
async def test_labels_that_are_no_file_names(client: AsyncLettaClient, label: str) -> None:
    with pytest.raises(InvalidInputError, match="label"):
        await client.create_agent(model=MODEL, memory=[{"label": label, "value": "x"}])


async def test_a_conversation_without_an_agent(
    client: AsyncLettaClient, model: ScriptedModel
) -> None:
    model.script("First.", "Second.", "Third.")
    async with client.create_session(
        agent_free=True, model=MODEL, system_prompt="You are a plain model."
    ) as session:
        first = await session.run_turn("one")
        await session.run_turn("two")
        assert session.agent_id == ""
        conversation_id = session.conversation_id
    assert first.raise_for_status().result == "First."
    sent = model.requests[-1].messages
    assert [(m["role"], content_text(m["content"])) for m in sent] == [
        ("system", "You are a plain model."),
        ("user", "one"),
        ("assistant", "First."),
        ("user", "two"),
    ]
    assert model.requests[-1].tools == []
    async with client.resume_session(conversation_id) as session:
        assert (await session.run_turn("three")).result == "Third."
        page = await session.list_messages(order="asc")
    said = [m["content"] for m in page.raw if m["message_type"] == "user_message"]
    assert [content_text(text) for text in said] == ["one", "two", "three"]


@pytest.mark.parametrize(
    "make",
    [
        lambda client: client.create_session("agent-1", agent_free=True),
        lambda client: client.resume_session("conv-1", agent_free=True),
        lambda client: client.create_session("agent-1", system_prompt="mine"),
    ],
)
async def test_no_agent_means_no_agent(client: AsyncLettaClient, make: Any) -> None:
    with pytest.raises(InvalidInputError):
        make(client)
