"""A disk that is full: said by its name before, in and after a session; nothing is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, Local
from letta_adapters._utils.files import disk_error, is_full
from letta_adapters.backends.app_server import turn as channel
from letta_adapters.backends.runtime.repositories import Quarantine
from letta_adapters.errors import ConfigurationError, DiskFullError, error_for_code, is_retryable
from letta_adapters.testing.scripted_model import Reply, ScriptedModel
from tests.agent_files._bundles import FILE, Maker, entry
from tests.backends.runtime.conftest import wait_gone

MODEL = "lmstudio/scripted"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    if sys.platform != "linux":
        pytest.skip("a small file system is mounted on Linux only")
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    with suppress(OSError):
        if subprocess.run(mounting, capture_output=True).returncode == 0:
            yield folder
            wait_gone(folder)
            subprocess.run(["umount", "-l", str(folder)], check=True)
            return
    pytest.skip("a small file system cannot be mounted here")


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    assert is_full(folder)


def empty(folder: Path) -> None:
    (folder / "filler").unlink()
    assert not is_full(folder)


def spec(folder: Path, model: ScriptedModel) -> Local:
    return Local(data_dir=folder, openai_compatible={"base_url": model.base_url})


async def test_a_start(small: Path, model: ScriptedModel) -> None:
    fill(small)
    async with AsyncLettaClient(spec(small, model)) as client:
        with pytest.raises(DiskFullError, match=str(small)) as caught:
            await client.models.list()
        assert caught.value.code == "disk_full"
        empty(small)
        assert await client.models.list()  # nothing stands in the way now


async def test_a_session(small: Path, model: ScriptedModel) -> None:
    async with AsyncLettaClient(spec(small, model)) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="t")
        async with client.create_session(agent) as session:
            assert (await session.run_turn("before")).success
            fill(small)
            with pytest.raises(DiskFullError, match=str(small)) as caught:
                await session.run_turn("y" * 5000)
            assert caught.value.accepted is False
            uses: list[Callable[[], Any]] = [
                lambda: client.create_agent(model=MODEL, system_prompt="t"),
                lambda: client.create_session(agent).initialize(),
                lambda: client.agents.set_secrets(agent, {"X": "y" * 9000}),
            ]
            for use in uses:
                with pytest.raises(DiskFullError):
                    await use()
            empty(small)
            assert (await session.run_turn("after")).success
            said = str((await session.list_messages()).raw)
    assert "before" in said and "after" in said and "yyy" not in said


async def test_an_import(
    small: Path, model: ScriptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = Maker(tmp_path / "made")
    data = maker.agent(entry(maker, FILE, b"large.md", os.urandom(300_000)))
    put = Quarantine.fill

    def late(self: Quarantine, memory: Path) -> None:
        fill(small)
        put(self, memory)

    async with AsyncLettaClient(spec(small, model)) as client:
        kept = await client.create_agent(model=MODEL, system_prompt="t")
        memories = (await client.agents.memory_path(kept)).parents[1]
        with monkeypatch.context() as patch:
            patch.setattr(Quarantine, "fill", late)
            with pytest.raises(DiskFullError):
                await client.agents.import_file(data)
        # It was taken back while there was no space.
        assert [agent["id"] for agent in await client.agents.list()] == [kept]
        assert [path.name for path in memories.iterdir()] == [kept]
        empty(small)
        (made,) = await client.agents.import_file(data)
        fill(small)
        with pytest.raises(DiskFullError, match=str(small)):
            await client.agents.export_file(made, small / "a.bundle")
        assert not (small / "a.bundle").exists()


async def test_a_turn_whose_end_cannot_be_stored(
    small: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_LOOK_SECONDS", 1.0)
    model.script(Reply(["word "] * 30, token_delay=0.1))
    async with AsyncLettaClient(spec(small, model)) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="t")
        async with client.create_session(agent) as session:
            turn = asyncio.create_task(session.run_turn("go"))
            while not model.requests:
                await asyncio.sleep(0.02)
            fill(small)
            result = await turn
            assert (result.success, result.error_code) == (False, "disk_full")
            assert str(small) in str(result.error_detail)
            empty(small)
            assert (await session.run_turn("after")).success


def test_what_is_said_of_a_failed_write(tmp_path: Path) -> None:
    import errno

    full = disk_error(OSError(errno.EDQUOT, "Disk quota exceeded"), tmp_path)
    assert isinstance(full, DiskFullError)
    assert str(tmp_path) in str(full)
    assert "space" in full.hint
    assert not is_retryable(full)
    other = disk_error(PermissionError(errno.EACCES, "Permission denied"), tmp_path)
    assert isinstance(other, ConfigurationError)
    assert "Permission denied" in str(other)
    assert isinstance(error_for_code("disk_full", "x"), DiskFullError)
