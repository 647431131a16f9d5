"""What an agent was made with is there for every client, process and machine, as far as it may be.

A client with a directory of its own (``own_directory``) stands for another machine.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import (
    AsyncLettaClient,
    ConfigurationError,
    Deny,
    InvalidInputError,
    LettaClient,
    Local,
)
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import MODEL, AppServer

Connect = Callable[..., AsyncLettaClient]

ONLY = "letta-adapters:only:"
LS = Reply(tool_calls=[ToolUse("Bash", {"command": "ls", "description": "d"})])
TOUCH = Reply(tool_calls=[ToolUse("Bash", {"command": "touch made.txt", "description": "t"})])
RESTRICTED: dict[str, Any] = {
    "permission_mode": "strict",
    "disallowed_tools": ["Write"],
    "skill_sources": [],
}
# Which only a runtime of our own can leave out.
QUIET: dict[str, Any] = {**RESTRICTED, "system_info_reminder": False}


def tools_of(model: ScriptedModel) -> set[str]:
    return {tool["function"]["name"] for tool in model.requests[0].tools}


def sees_skills(model: ScriptedModel) -> bool:
    return "<available_skills>" in str(model.requests[0].messages)


def sees_device(model: ScriptedModel) -> bool:
    return "Device" in str(model.requests[0].messages)


async def asked(model: ScriptedModel, session: Any) -> list[str]:
    """The tools that a session is asked about when the model wants to list a directory."""
    names: list[str] = []

    def can_use_tool(name: str, _: Any, __: Any) -> Deny:
        names.append(name)
        return Deny("no")

    model.clear()
    model.script(LS, "done")
    async with session(can_use_tool=can_use_tool) as opened:
        assert (await opened.run_turn("go")).success
    return names


@pytest.fixture
async def restricted(client: AsyncLettaClient) -> str:
    return await client.create_agent(model=MODEL, system_prompt="t", tags=["mine"], **RESTRICTED)


@pytest.fixture
def elsewhere(connect: Connect, server: AppServer, tmp_path: Path) -> AsyncLettaClient:
    """A client on another machine."""
    return connect(server, own_directory=tmp_path / "elsewhere")


async def test_what_restricts_is_there_for_another_machine(
    restricted: str, elsewhere: AsyncLettaClient, model: ScriptedModel
) -> None:
    async with elsewhere as other:
        kept = await other.conversations.create(restricted)
        for session in (
            lambda **o: other.create_session(restricted, **o),
            lambda **o: other.resume_session(restricted, **o),
            lambda **o: other.resume_session(kept["id"], **o),
        ):
            assert await asked(model, session) == ["Bash"]
            assert "Write" not in tools_of(model)
            assert "Bash" in tools_of(model)
            assert not sees_skills(model)


async def test_without_it_the_same_agent_has_everything(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    """So that the tests beside this one show something."""
    model.script("done")
    assert (await client.prompt("go", agent)).success
    assert "Write" in tools_of(model)
    assert sees_skills(model)
    assert sees_device(model)


async def test_what_loosens_stays_on_its_machine(
    client: AsyncLettaClient,
    connect: Connect,
    server: AppServer,
    elsewhere: AsyncLettaClient,
    model: ScriptedModel,
    project: Path,
) -> None:
    """A trap for others: whoever opens the agent would run what its maker likes."""
    work = project / "work"
    work.mkdir()
    made = work / "made.txt"
    for options in ({"permission_mode": "unrestricted"}, {"allowed_tools": ["Bash"]}):
        agent = await client.create_agent(model=MODEL, system_prompt="t", cwd=work, **options)
        async with (
            elsewhere
            if not elsewhere.closed
            else connect(server, own_directory=project / "again") as other
        ):
            assert await other.agents.settings(agent) == {}
            model.script(TOUCH, "done")
            await other.prompt("go", agent)
            assert not made.exists()
            assert not Path("made.txt").exists()
        async with connect(server) as here:
            assert await here.agents.settings(agent) == {"cwd": work, **_tuples(options)}
            model.script(TOUCH, "done")
            await here.prompt("go", agent)
            assert made.exists()
        made.unlink()


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


async def test_whoever_edits_an_agent_gains_no_command(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    tags = ["unrestricted", "allowed_tools:Bash", f"{ONLY}unrestricted", f"{ONLY}cwd:/"]
    metadata = {"letta_adapters": {"permission_mode": "unrestricted", "allowed_tools": ["Bash"]}}
    body = {"tags": [*tags, "letta-adapters:permission_mode:unrestricted"], "metadata": metadata}
    await client.request("PATCH", f"/v1/agents/{agent}", body=body)
    model.script(TOUCH, "done")
    async with client.create_session(agent, cwd=project) as session:
        await session.run_turn("go")
    assert not (project / "made.txt").exists()
    assert (await client.agents.settings(agent))["permission_mode"] == "strict"


async def test_a_session_may_restrict_and_not_loosen(
    client: AsyncLettaClient, restricted: str, model: ScriptedModel
) -> None:
    before = len(await client.conversations.list(restricted))
    for option, value in (
        ("permission_mode", "unrestricted"),
        ("skill_sources", ["project"]),
        ("allowed_tools", ["Write"]),
    ):
        with pytest.raises(InvalidInputError, match=option):
            await client.create_session(restricted, **{option: value}).initialize()
    assert len(await client.conversations.list(restricted)) == before
    model.script("done")
    async with client.create_session(restricted, disallowed_tools=["Bash"]) as session:
        await session.run_turn("go")
        with pytest.raises(InvalidInputError, match="permission_mode"):
            await session.change_device_state(permission_mode="acceptEdits")
    assert not {"Bash", "Write"} & tools_of(model)


async def test_the_users_tags_stay_theirs_and_ours_stay(
    client: AsyncLettaClient, restricted: str
) -> None:
    async def shown() -> list[str]:
        return [str(tag) for tag in (await client.agents.retrieve(restricted))["tags"]]

    assert "mine" in await shown()
    updated = await client.agents.update(restricted, tags=["other"])
    (listed,) = [a for a in await client.agents.list(tags=["other"]) if a["id"] == restricted]
    for tags in (await shown(), updated["tags"], listed["tags"]):
        assert "other" in tags
        assert "mine" not in tags
        assert not [tag for tag in tags if tag.startswith(ONLY)]
    assert await client.agents.settings(restricted) == _tuples(RESTRICTED)


async def test_settings_are_changed_for_sessions_that_come(
    client: AsyncLettaClient,
    agent: str,
    connect: Connect,
    server: AppServer,
    model: ScriptedModel,
) -> None:
    async with connect(server) as other:
        for mode, session in (("strict", ["Bash"]), (None, [])):
            await client.agents.update(agent, permission_mode=mode, disallowed_tools=["Write"])
            names = await asked(model, lambda **o: other.create_session(agent, **o))
            assert set(session) <= set(names)
            assert "Write" not in tools_of(model)
    found = await client.agents.update(agent, disallowed_tools=None, name="renamed")
    assert found["name"] == "renamed"
    assert await client.agents.settings(agent) == {}
    with pytest.raises(InvalidInputError, match="permission_mode"):
        await client.agents.update(agent, permission_mode="yolo")


async def test_a_torn_file_is_named_and_only_its_agent_is_affected(
    connect: Connect, server: AppServer, model: ScriptedModel, project: Path, agent: str
) -> None:
    ours = project / "ours"
    async with connect(server, own_directory=ours) as client:
        torn = await client.create_agent(model=MODEL, system_prompt="t", cwd=project)
        path = ours / "agents" / f"{torn}.json"
        path.write_text(path.read_text()[:9])
    async with connect(server, own_directory=ours) as client:
        with pytest.raises(ConfigurationError, match=str(path)):
            await client.prompt("hi", torn)
        model.script("hello")
        assert (await client.prompt("hi", agent)).success
        await client.agents.delete(torn)
    assert not path.exists()


async def test_an_agent_is_not_left_when_its_settings_cannot_be_kept(
    connect: Connect, server: AppServer, project: Path
) -> None:
    (project / "file").write_text("")
    async with connect(server, own_directory=project / "file" / "x") as client:
        before = {a["id"] for a in await client.agents.list(limit=500)}
        with pytest.raises(ConfigurationError, match="file"):
            await client.create_agent(model=MODEL, system_prompt="t", cwd=project)
        assert {a["id"] for a in await client.agents.list(limit=500)} == before
        # What travels needs no directory.
        agent = await client.create_agent(model=MODEL, system_prompt="t", permission_mode="strict")
        assert await client.agents.settings(agent) == {"permission_mode": "strict"}


async def test_a_server_elsewhere_keeps_to_it_too(
    connect: Connect, server: AppServer, restricted: str, model: ScriptedModel, tmp_path: Path
) -> None:
    async with connect(server, name="remote", own_directory=tmp_path / "far") as remote:
        names = await asked(model, lambda **o: remote.create_session(restricted, **o))
    assert names == ["Bash"]
    assert "Write" not in tools_of(model)
    assert not sees_skills(model)


# -- the adapters, other processes, a restart -----------------------------------------------------


def test_the_adapters_keep_to_it(_embedded_letta: LocalLetta) -> None:
    model, spec = _embedded_letta.model, _embedded_letta.spec
    agent = _embedded_letta.client.create_agent(model=MODEL, system_prompt="t", **QUIET)

    def check() -> None:
        assert "Write" not in tools_of(model)
        assert not sees_skills(model)
        assert not sees_device(model)
        assert not Path("made.txt").exists()
        model.clear()
        model.script(TOUCH, "done")

    with LettaClient(spec) as other:
        model.clear()
        model.script(TOUCH, "done")
        ChatLetta(agent_id=agent, client=other).invoke("go")
        check()
        LettaRunnable(agent_id=agent, client=other).invoke("go")
        check()
        LettaLLM(agent_id=agent, client=other).complete("go")
        check()
        with pytest.raises(Exception, match="permission_mode"):
            options = {"permission_mode": "unrestricted"}
            ChatLetta(agent_id=agent, client=other, session_options=options).invoke("go")
        model.clear()
    _embedded_letta.client.agents.delete(agent)


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.filterwarnings("ignore:is_running called")
async def test_a_workflow_agent_keeps_to_it(_embedded_letta: LocalLetta) -> None:
    model = _embedded_letta.model
    agent = _embedded_letta.client.create_agent(model=MODEL, system_prompt="t", **QUIET)
    with LettaClient(_embedded_letta.spec) as other:
        model.clear()
        model.script("done")
        await LettaAgent(agent_id=agent, client=other).run("go")
    assert "Write" not in tools_of(model)
    assert not sees_skills(model)
    model.clear()
    _embedded_letta.client.agents.delete(agent)


_ELSEWHERE = """
import sys
from letta_adapters import LettaClient, Local
spec = Local(data_dir=sys.argv[1], openai_compatible={"base_url": sys.argv[2]})
with LettaClient(spec) as client:
    agent = sys.argv[3]
    print(client.agents.settings(agent), client.agents.retrieve(agent)["tags"])
    print(client.prompt("go", agent).success)
"""


@pytest.mark.timeout(120)
def test_another_process_gets_it_after_a_restart(
    _embedded_letta: LocalLetta, tmp_path: Path
) -> None:
    model = _embedded_letta.model
    spec = Local(data_dir=tmp_path, openai_compatible={"base_url": model.base_url})
    with LettaClient(spec) as client:
        agent = client.create_agent(model=MODEL, system_prompt="t", tags=["mine"], **QUIET)
    model.clear()
    model.script(LS, "done")
    process = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(tmp_path), model.base_url, agent],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    settings, success = process.stdout.strip().splitlines()
    assert "'strict'" in settings
    assert ONLY not in settings
    assert "'mine'" in settings
    assert success == "True"
    assert "Write" not in tools_of(model)
    assert not sees_skills(model)
    assert not sees_device(model)
    model.clear()
