"""An agent of the real embedded runtime travels in a git bundle; a failed import leaves nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import (
    Allow,
    AsyncLettaClient,
    InvalidInputError,
    LettaError,
    NotFoundError,
    UnsupportedOptionError,
    inspect_agent_file,
)
from letta_adapters.backends.runtime.repositories import Quarantine
from letta_adapters.errors import DiskFullError
from letta_adapters.testing.local import MODEL, LocalLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.agent_files._bundles import FILE, PROGRAM, Maker, entry, nest


@pytest.fixture
async def client(_embedded_letta: LocalLetta) -> AsyncIterator[AsyncLettaClient]:
    async with AsyncLettaClient(_embedded_letta.spec) as made:
        yield made


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "made")


async def list_agents(client: AsyncLettaClient) -> set[str]:
    return {agent["id"] for agent in await client.agents.list(limit=200)}


async def list_memories(client: AsyncLettaClient) -> set[Path]:
    (some, *_) = await list_agents(client)
    return set((await client.agents.memory_path(some)).parents[1].iterdir())


async def test_an_agent_moves_to_another_machine(client: AsyncLettaClient, tmp_path: Path) -> None:
    made = await client.create_agent(
        name="librarian",
        description="It keeps books.",
        model=MODEL,
        system_prompt="You keep books.",
        persona="I like maps.",
        tags=["books"],
        permission_mode="strict",
        disallowed_tools=["WebSearch"],
        allowed_tools=["Read"],
        secrets={"KEY": "a-secret-value"},
    )
    await client.agents.memory.create(made, "projects/atlas", "An atlas of islands.")
    await client.agents.memory.write(made, "projects/atlas", "An atlas of all islands.")
    path = tmp_path / "librarian.bundle"
    shown = await client.agents.export_file(made, path)
    assert shown == inspect_agent_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (shown.demands, shown.refused, shown.left_out) == ((), (), ())
    # Nothing of this machine is in it.
    unpacked = b"".join(o.data for o in bundle_objects(path.read_bytes()))
    for word in (b"a-secret-value", b"127.0.0.1", str(Path.home()).encode(), b"/tmp"):
        assert word not in unpacked
    with pytest.raises(InvalidInputError, match="exists"):
        await client.agents.export_file(made, path)

    with LocalLetta() as other:
        async with AsyncLettaClient(other.spec) as there:
            (copy,) = await there.agents.import_file(path, trust=shown.digest)
            agent = await there.agents.retrieve(copy)
            assert (agent["name"], agent["description"]) == ("librarian", "It keeps books.")
            assert agent["system"] == "You keep books."
            assert "books" in agent["tags"]
            # What restricts came along, and what loosens did not.
            assert await there.agents.settings(copy) == {
                "permission_mode": "strict",
                "disallowed_tools": ("WebSearch",),
            }
            assert await there.agents.secrets(copy) == ()
            for of, id_ in ((client, made), (there, copy)):
                memory = await of.agents.memory.list(id_)
                assert [item.label for item in memory] == [
                    "MEMORY",
                    "persona",
                    "projects/MEMORY",
                    "projects/atlas",
                ]
            before = await client.agents.memory.history(made)
            assert await there.agents.memory.history(copy) == before
            changed = await there.agents.memory.history(copy, "projects/atlas")
            assert len(changed) == 2
            old = await there.agents.memory.read(copy, "projects/atlas", at=changed[-1].sha)
            assert old.value == "An atlas of islands."

            other.model.script("I am here.")
            assert (await there.prompt("Hello", copy)).result == "I am here."
            assert "I like maps." in json.dumps(other.model.requests[-1].body)
            # It remembers on: the next commit follows those of the file.
            await there.agents.memory.write(copy, "persona", "I like globes.")
            after = await there.agents.memory.history(copy)
            assert after[1:] == before
            again = await there.agents.export_file(copy, tmp_path / "again.bundle")
            assert again.commits == shown.commits + 1


def bundle_objects(data: bytes) -> list[Any]:
    from letta_adapters.client.bundle_pack import read_bundle

    return list(read_bundle(data).objects.values())


async def test_what_was_allowed_comes_along(client: AsyncLettaClient, maker: Maker) -> None:
    data = maker.agent(
        nest(maker, [b"skills", b"sum", b"SKILL.md"], FILE),
        entry(maker, PROGRAM, b"run.sh", b"#!/bin/sh\n"),
        restrictions=["no-system-info", "of a later version"],
        permission_mode="unrestricted",
        env={"PATH": "/evil"},
    )
    shown = inspect_agent_file(data)
    assert shown.left_out == ("agent.env", "agent.permission_mode")
    (made,) = await client.agents.import_file(
        shown,
        allow=["skill:sum", "executable:run.sh"],
        name="another",
        model="lmstudio/scripted-two",
    )
    memory = await client.agents.memory_path(made)
    assert (memory / "run.sh").stat().st_mode & 0o111
    assert (memory / "skills" / "sum" / "SKILL.md").is_file()
    agent = await client.agents.retrieve(made)
    assert (agent["name"], agent["model"]) == ("another", "lmstudio/scripted-two")
    # A restriction that is not understood is the strictest one.
    settings = await client.agents.settings(made)
    assert settings == {"permission_mode": "strict", "system_info_reminder": False}


async def test_an_agent_in_the_middle_of_a_turn(
    client: AsyncLettaClient, _embedded_letta: LocalLetta, tmp_path: Path
) -> None:
    made = await client.create_agent(model=MODEL, system_prompt="t", persona="old")
    memory = await client.agents.memory_path(made)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        """Wait."""
        (memory / "persona.md").write_text("half a thou")
        entered.set()
        await leave.wait()
        return "done"

    _embedded_letta.model.script(Reply(tool_calls=[ToolUse("wait", {})]), Reply("It is done."))
    async with client.create_session(
        made, tools=[wait], can_use_tool=lambda *_: Allow()
    ) as session:
        turn = asyncio.create_task(session.run_turn("go"))
        await asyncio.wait_for(entered.wait(), 20)
        shown = await client.agents.export_file(made, tmp_path / "a.bundle")
        leave.set()
        assert (await turn).success
    (persona,) = [file for file in shown.memory if file.path == "persona.md"]
    assert (persona.content or "").endswith("old")


async def test_an_agent_that_is_not_there(client: AsyncLettaClient, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await client.agents.export_file("agent-local-none", tmp_path / "a.bundle")
    made = await client.create_agent(model=MODEL, system_prompt="t")
    with pytest.raises(UnsupportedOptionError, match="conversation_id"):
        await client.agents.export_file(made, tmp_path / "a.bundle", conversation_id="local-conv-1")
    memory = await client.agents.memory_path(made)
    (memory / "link.md").symlink_to("/etc/passwd")
    commit = ["git", "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x", "--no-verify"]
    for args in (["git", "add", "-A"], commit):
        subprocess.run(args, cwd=memory, check=True)
    with pytest.raises(InvalidInputError, match=r"'link.md' is a symbolic link"):
        await client.agents.export_file(made, tmp_path / "a.bundle")
    assert not list(tmp_path.glob("*.bundle"))


async def test_an_import_that_fails_leaves_no_agent(
    client: AsyncLettaClient, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = maker.agent()
    await client.create_agent(model=MODEL, system_prompt="t")
    agents, memories = await list_agents(client), await list_memories(client)

    for error in (DiskFullError("full"), OSError("broken"), ValueError("wrong")):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Quarantine, "fill", fail)
            with pytest.raises(type(error)):
                await client.agents.import_file(data)
        assert (await list_agents(client), await list_memories(client)) == (agents, memories)
    with pytest.raises(LettaError, match="lmstudio/none"):
        await client.agents.import_file(data, model="lmstudio/none")
    odd = maker.agent(model=None)
    with pytest.raises(InvalidInputError, match="which model"):
        await client.agents.import_file(odd)
    assert (await list_agents(client), await list_memories(client)) == (agents, memories)


async def test_an_agent_that_cannot_be_taken_back_is_named(
    client: AsyncLettaClient, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise DiskFullError("full")

    async def refuse(*_: Any, **__: Any) -> None:
        raise LettaError("the server is gone")

    before = await list_agents(client)
    with monkeypatch.context() as patch:
        patch.setattr(Quarantine, "fill", fail)
        patch.setattr(client.agents._requests, "make_last", refuse)
        with pytest.raises(DiskFullError) as caught:
            await client.agents.import_file(maker.agent())
    (left,) = await list_agents(client) - before
    assert left in str(caught.value)
    assert "the server is gone" in caught.value.hint
    await client.agents.delete(left)


@pytest.mark.parametrize("again", [False, True])
async def test_an_import_that_is_cancelled_leaves_no_agent(
    client: AsyncLettaClient, maker: Maker, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    await client.create_agent(model=MODEL, system_prompt="t")
    agents, memories = await list_agents(client), await list_memories(client)
    entered, leave = asyncio.Event(), threading.Event()
    loop, fill = asyncio.get_running_loop(), Quarantine.fill

    def slow(self: Quarantine, memory: Path) -> None:
        loop.call_soon_threadsafe(entered.set)
        leave.wait()
        fill(self, memory)

    monkeypatch.setattr(Quarantine, "fill", slow)
    task = asyncio.create_task(client.agents.import_file(maker.agent()))
    await entered.wait()
    for _ in range(1 + again):
        task.cancel()
        await asyncio.sleep(0)
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await list_agents(client), await list_memories(client)) == (agents, memories)


async def test_a_cancel_while_the_agent_is_made(
    client: AsyncLettaClient, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.create_agent(model=MODEL, system_prompt="t")
    before = await list_agents(client), await list_memories(client)
    backend = client.agents._requests.backend
    create = backend.create_agent
    entered = asyncio.Event()

    async def tell(options: Any) -> str:
        entered.set()
        return await create(options)

    monkeypatch.setattr(backend, "create_agent", tell)
    task = asyncio.create_task(client.agents.import_file(maker.agent()))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await list_agents(client), await list_memories(client)) == before


async def test_imports_at_once(client: AsyncLettaClient, maker: Maker) -> None:
    files = [
        maker.agent(files={"MEMORY.md": b"# Memory\n", f"n{number}.md": b"x"})
        for number in range(3)
    ]
    made = await asyncio.gather(*(client.agents.import_file(data) for data in files))
    for number, (agent,) in enumerate(made):
        memory = await client.agents.memory_path(agent)
        assert sorted(path.name for path in memory.glob("*.md")) == ["MEMORY.md", f"n{number}.md"]


PROGRAM_TEXT = """
    import sys
    from pathlib import Path
    from letta_adapters import LettaClient, Local
    from letta_adapters.backends.runtime.repositories import Quarantine

    fill = Quarantine.fill

    def slow(self, memory):
        print("filling", flush=True)
        sys.stdin.readline()
        fill(self, memory)

    Quarantine.fill = slow
    home, model, bundle = sys.argv[1:]
    with LettaClient(Local(data_dir=Path(home), openai_compatible={"base_url": model})) as client:
        try:
            client.agents.import_file(Path(bundle))
        finally:
            print(len(client.agents.list()), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C goes to a whole console there")
def test_ctrl_c_in_the_middle_of_an_import(
    _embedded_letta: LocalLetta, maker: Maker, tmp_path: Path
) -> None:
    bundle = tmp_path / "a.bundle"
    bundle.write_bytes(maker.agent())
    child = subprocess.Popen(
        [
            *(sys.executable, "-c", textwrap.dedent(PROGRAM_TEXT), str(tmp_path / "home")),
            *(_embedded_letta.model.base_url, str(bundle)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "filling\n"
    child.send_signal(signal.SIGINT)
    child.stdin.write("\n")
    said, errors = child.communicate(timeout=60)
    assert said == "0\n", errors
    assert "KeyboardInterrupt" in errors
    state = tmp_path / "home" / ".letta" / "lc-local-backend"
    assert list((state / "memfs").iterdir()) == []
    assert list(tmp_path.glob("letta-adapters-*")) == []
