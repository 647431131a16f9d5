"""What can be changed besides talking: seen in what the model gets, or on disk."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import (
    AsyncLettaClient,
    InvalidInputError,
    LettaClient,
    NotFoundError,
    Rest,
    UnsupportedOptionError,
)
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import MODEL, AppServer

TWO = MODEL.replace("scripted", "scripted-two")
Connect = Callable[..., AsyncLettaClient]


def tools_of(model: ScriptedModel) -> set[str]:
    return {tool["function"]["name"] for tool in model.requests[-1].body.get("tools") or ()}


def bash(command: str) -> ToolUse:
    return ToolUse("Bash", {"command": command, "description": "a test"})


# -- sessions -----------------------------------------------------------------------------------


async def test_the_model_of_a_running_session(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    async with client.create_session(agent) as session, client.create_session(agent) as other:
        await session.run_turn("one")
        await session.update_model(TWO)
        await session.run_turn("two")
        assert model.requests[-1].body["model"] == "scripted-two"
        await other.run_turn("elsewhere")
        assert model.requests[-1].body["model"] == "scripted"
        with pytest.raises(InvalidInputError, match="scripted-two"):
            await session.update_model("lmstudio/scripted-tow")
        with pytest.raises(InvalidInputError, match="handle"):
            await session.update_model("")


async def test_sets_of_tools(client: AsyncLettaClient, agent: str, model: ScriptedModel) -> None:
    async with client.create_session(agent, toolset="none") as session:
        await session.run_turn("one")
        assert tools_of(model) == set()
        await session.update_toolset("letta")
        await session.run_turn("two")
        assert {"exec_command", "Read"} <= tools_of(model)
        assert "Bash" not in tools_of(model)
    with pytest.raises(InvalidInputError, match="toolset"):
        client.create_session(agent, toolset="mine")


async def test_the_mode_and_the_directory_of_a_running_session(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    async with client.create_session(agent, cwd=tmp_path) as session:
        model.script(Reply(tool_calls=[bash("touch one")]), "Denied.")
        await session.run_turn("one")
        await session.change_device_state(
            permission_mode="unrestricted", cwd=str(tmp_path / "here")
        )
        model.script(Reply(tool_calls=[bash("touch two")]), "Done.")
        await session.run_turn("two")
        status = await session.device_status()
        with pytest.raises(InvalidInputError, match="Give"):
            await session.change_device_state()
        with pytest.raises(InvalidInputError, match="not a directory"):
            await session.change_device_state(cwd=tmp_path / "nowhere")
    assert [path.name for path in sorted(tmp_path.rglob("*")) if path.is_file()] == ["two"]
    assert (tmp_path / "here" / "two").exists()
    assert status["current_permission_mode"] == "unrestricted"
    assert status["current_working_directory"] == str(tmp_path / "here")


async def test_what_waits_can_be_taken_out(
    connect: Connect, client: AsyncLettaClient, server: AppServer, agent: str, model: ScriptedModel
) -> None:
    # Long enough for anything: it is aborted.
    model.script(Reply(["theirs "] * 300, token_delay=0.1), Reply("ours"))
    async with connect(server, name="remote") as other, client.create_session(agent) as session:
        await session.initialize()
        theirs = other.resume_session(agent_id=agent, conversation_id=session.conversation_id)
        await theirs.send("first")
        while not model.requests:
            await asyncio.sleep(0.05)
        await session.send("kept-waiting")
        (item,) = await _waiting(session)
        assert item["content"] == "kept-waiting"
        assert await session.remove_queued(str(item["id"]))
        assert not await session.remove_queued(str(item["id"]))
        assert await session.queued() == ()
        assert await session.resume_queue() == 0
        await session.abort()
        await theirs.close()
    assert "kept-waiting" not in str([request.messages for request in model.requests])


async def _waiting(session: Any) -> Any:
    for _ in range(50):
        if found := await session.queued():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("nothing waits")


async def test_the_letta_api_refuses_them_by_name() -> None:
    async with AsyncLettaClient(Rest(base_url="http://127.0.0.1:9", api_key="")) as client:
        session = client.resume_session(agent_id="agent-1", conversation_id="conv-1")
        for call, name in (
            (session.device_status(), "device_status"),
            (session.update_toolset("none"), "toolset"),
            (session.change_device_state(permission_mode="strict"), "permission_mode"),
            (client.connect_provider("openai", api_key="k"), "connect_provider"),
            (client.agents.secrets("agent-1"), "secret_list"),
            (client.agents.memory_files("agent-1"), "list_memory"),
        ):
            with pytest.raises(UnsupportedOptionError, match=name):
                await call
        default = client.resume_session(agent_id="agent-1", conversation_id="default")
        with pytest.raises(UnsupportedOptionError, match="default conversation"):
            await default.update_model("openai/gpt-5")


# -- agents -------------------------------------------------------------------------------------


async def test_secrets_reach_the_shell_and_never_the_model(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, tmp_path: Path
) -> None:
    made = await client.create_agent(
        name="secretive", model=MODEL, system_prompt="t", secrets={"MY_TOKEN": "top-secret-1"}
    )
    await client.agents.set_secrets(made, {"OTHER": "top-secret-2", "GONE": "x"})
    await client.agents.set_secrets(made, {"GONE": None})
    assert await client.agents.secrets(made) == ("MY_TOKEN", "OTHER")
    model.script(Reply(tool_calls=[bash('printf %s "$MY_TOKEN" > told')]), "Done.")
    options: Any = {"cwd": tmp_path, "permission_mode": "unrestricted"}
    async with client.create_session(made, **options) as session:
        await session.run_turn("go")
    assert (tmp_path / "told").read_text() == "top-secret-1"
    assert "$MY_TOKEN" in str(model.requests[0].messages)
    assert "top-secret" not in str([request.body for request in model.requests])
    with pytest.raises(InvalidInputError, match="shell variable"):
        await client.agents.set_secrets(made, {"my token": "x"})
    with pytest.raises(InvalidInputError, match="shell variable"):
        await client.create_agent(model=MODEL, system_prompt="t", secrets={"a-b": "x"})
    await client.agents.delete(made)


@pytest.mark.parametrize("own", [{}, {"system_prompt": "t"}, {"memfs": False}])
async def test_a_hidden_agent_is_in_no_list(client: AsyncLettaClient, own: Any) -> None:
    hidden = await client.create_agent(model=MODEL, name="hidden", hidden=True, **own)
    shown = await client.create_agent(model=MODEL, name="shown", hidden=False, **own)
    listed = {agent["id"] for agent in await client.agents.list(limit=500)}
    assert (hidden in listed, shown in listed) == (False, True)
    assert (await client.agents.retrieve(hidden))["name"] == "hidden"
    assert (await client.prompt("hi", hidden)).success
    for made in (hidden, shown):
        await client.agents.delete(made)


async def test_personalities(client: AsyncLettaClient, model: ScriptedModel) -> None:
    prompts = {}
    for personality in ("memo", "linus"):
        made = await client.create_agent(model=MODEL, personality=personality)
        await client.prompt("hi", made)
        prompts[personality] = str(model.requests[-1].messages[0]["content"])
        await client.agents.delete(made)
    assert len(prompts["memo"]) > 5000
    assert "Linus" in prompts["linus"]
    assert "Linus" not in prompts["memo"]
    with pytest.raises(InvalidInputError, match="personality"):
        await client.create_agent(model=MODEL, personality="linus", system_prompt="mine")


@pytest.mark.parametrize("own", [None, "My own prompt."])
async def test_more_of_a_system_prompt(
    client: AsyncLettaClient, model: ScriptedModel, own: str | None
) -> None:
    options: Any = {} if own is None else {"system_prompt": own}
    made = await client.create_agent(
        model=MODEL, append_system_prompt="Always answer in rhyme.", **options
    )
    await client.prompt("hi", made)
    prompt = str(model.requests[-1].messages[0]["content"])
    assert "Always answer in rhyme." in prompt
    assert (own or "Letta") in prompt
    await client.agents.delete(made)


async def test_the_memory_repository(
    client: AsyncLettaClient, agent: str, embedded: LettaClient, embedded_agent: str
) -> None:
    files = {item["relative_path"]: item for item in await client.agents.memory_files(agent)}
    assert "persona.md" in files
    commits = await client.agents.memory_history(agent)
    assert "initialize" in commits[-1]["message"]
    assert {"sha", "timestamp", "author_name"} <= commits[-1].keys()
    with pytest.raises(UnsupportedOptionError, match="memory_path"):
        await client.agents.memory_path(agent)  # of a server that was not started by us
    path = embedded.agents.memory_path(embedded_agent)
    assert (path / "persona.md").read_text().endswith("I am a test.")
    log = subprocess.run(
        ["git", "log", "--format=%H"], cwd=path, capture_output=True, text=True, check=True
    )
    known = [commit["sha"] for commit in embedded.agents.memory_history(embedded_agent)]
    assert log.stdout.split() == known
    with pytest.raises(NotFoundError):
        embedded.agents.memory_path("agent-local-none")


# -- providers ----------------------------------------------------------------------------------


async def test_connecting_a_provider(
    client: AsyncLettaClient, model: ScriptedModel, agent: str
) -> None:
    handles = await client.connect_provider("openai-compatible", base_url=model.base_url)
    assert "openai-compatible/scripted" in handles
    try:
        async with client.create_session(agent, model="openai-compatible/scripted-two") as session:
            result = await session.run_turn("hi")
    finally:  # the server is shared with other tests
        body = {"target": "local", "provider_id": "openai-compatible"}
        await client.request("COMMAND", "disconnect_provider", body=body)
        await client.request("COMMAND", "list_models", body={"force": True})
    assert (result.success, model.requests[-1].body["model"]) == (True, "scripted-two")
    for wrong, why in (
        ({"provider": "anthropc", "api_key": "k"}, "anthropic"),
        ({"provider": "anthropic"}, "apiKey"),
        ({"provider": "anthropic", "api_key": "k", "region": "x"}, "apiKey"),
        ({"provider": "github-copilot", "api_key": "k"}, "signing in"),
        ({"provider": "amazon-bedrock", "region": "x"}, "accessKey"),
    ):
        with pytest.raises(InvalidInputError, match=why):
            await client.connect_provider(**wrong)
