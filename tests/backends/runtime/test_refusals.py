"""What cannot be started, and the command that fixes it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from letta_adapters.backends.runtime.errors import (
    RuntimeOccupiedError,
    RuntimeUnavailableError,
    RuntimeVersionError,
)
from letta_adapters.backends.runtime.find import check_version

_HOLD = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.lockf(fd, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(30)
"""


def _no_metadata(name):
    raise importlib.metadata.PackageNotFoundError(name)


async def test_no_wheel(start, home, monkeypatch):
    monkeypatch.setitem(sys.modules, "letta_code", None)
    with pytest.raises(RuntimeUnavailableError, match="no embedded runtime") as caught:
        await start()
    assert "pip install --upgrade" in str(caught.value)
    monkeypatch.setattr(importlib.metadata, "version", _no_metadata)
    with pytest.raises(RuntimeUnavailableError, match="not installed") as caught:
        await start()
    assert caught.value.code == "runtime_unavailable"
    assert caught.value.hint == 'Install it: pip install "letta>=0.34"'
    assert not home.exists()


async def test_an_old_or_broken_wheel(start, tmp_path, monkeypatch):
    payload = tmp_path / "site" / "letta_code" / "_payload"
    (payload / "bin").mkdir(parents=True)
    (payload.parent / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "letta_code", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(RuntimeUnavailableError, match="incomplete"):
        await start()
    (payload / "app").mkdir()
    for name in ("bin/node", "bin/node.exe", "app/letta.js"):
        (payload / name).touch()
    (payload / "manifest.json").write_text(json.dumps({"version": "0.33.9"}))
    with pytest.raises(RuntimeVersionError, match=r"0\.33\.9 is too old") as caught:
        await start()
    assert "pip install --upgrade" in caught.value.hint


def test_another_protocol():
    with pytest.raises(RuntimeVersionError, match="protocol 2"):
        check_version("0.40.0", 2)
    check_version("1.0", 1)


async def test_no_git(start, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeUnavailableError, match="'git'") as caught:
        await start()
    assert caught.value.code == "git_missing"
    assert "install" in caught.value.hint


@pytest.fixture
def holder(home):
    """A process that holds the directory's lock and serves nothing."""
    lock = home / ".letta" / "lc-local-backend" / "letta-adapters" / "owner.lock"
    lock.parent.mkdir(parents=True)
    command = [sys.executable, "-c", _HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield holder
        holder.kill()


async def test_a_directory_held_by_a_process_without_a_server(start, holder):
    with pytest.raises(RuntimeOccupiedError) as caught:
        await start(start_timeout=0.5)
    assert "data_dir" in caught.value.hint
    holder.kill()
    holder.wait()
    assert (await start()).owned


async def test_a_directory_that_is_a_file(start, home):
    home.write_text("")
    with pytest.raises(RuntimeOccupiedError, match="cannot be used"):
        await start()


async def test_other_settings_on_the_same_directory(start):
    await start()
    with pytest.raises(RuntimeOccupiedError, match="other settings"):
        await start(env={"SOMETHING": "else"})
