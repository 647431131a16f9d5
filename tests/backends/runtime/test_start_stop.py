"""Starting, sharing inside one process, and stopping in order."""

from __future__ import annotations

import asyncio
import http.client
import stat
import threading
from urllib.parse import urlsplit

import psutil
import pytest

from letta_adapters import Local
from letta_adapters.backends.runtime.errors import RuntimeCrashedError, RuntimeStartError
from letta_adapters.backends.runtime.manager import acquire
from tests.backends.runtime._wire import connected
from tests.backends.runtime.conftest import eventually, running, wait_gone


def _status(url: str, token: str | None) -> int:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=5)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request("GET", "/app-server-info", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


async def test_one_server_for_all_users_of_a_directory_until_the_last_one_goes(start, home):
    first, second = await asyncio.gather(start(), start())
    assert (first.pid, first.url, first.token) == (second.pid, second.url, second.token)
    assert first.owned and first.url.startswith("ws://127.0.0.1:")
    assert first.version.startswith("0.")
    await first.release()
    await first.release()
    assert await second.alive()
    await second.release()
    assert running(home) == []
    assert not await second.alive()

    again = await start()
    assert again.pid != first.pid and await again.alive()


async def test_how_the_server_is_run(start, home):
    handle = await start(max_memory_mb=300)
    process = psutil.Process(handle.pid)
    command, env = process.cmdline(), process.environ()
    assert "--max-old-space-size=300" in command
    assert not any(handle.token in part for part in command)
    assert env["LETTA_CODE_TELEM"] == "0" and env["DISABLE_AUTOUPDATER"] == "1"
    assert env["HOME"] == str(home)
    assert {c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}
    assert _status(handle.url, None) == 401
    assert _status(handle.url, "wrong") == 401
    assert _status(handle.url, handle.token) == 200
    assert handle.token not in repr(handle)
    record = next(home.rglob("server.json"))
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700
    await handle.release()
    assert not record.exists()


async def test_nothing_is_written_outside_data_dir(start, home, model, tmp_path, monkeypatch):
    users_home = tmp_path / "users-home"
    users_home.mkdir()
    monkeypatch.setenv("HOME", str(users_home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(users_home / "config"))
    handle = await start(openai_compatible={"base_url": model.base_url})
    async with connected(handle) as wire:
        await wire.say(await wire.new_conversation(), "hello", "cm-1")
        assert (await wire.finished())["stop_reason"] == "end_turn"
    await handle.release()
    assert len(model.requests) == 1
    assert list(users_home.rglob("*")) == []
    assert (home / ".letta" / "settings.json").exists()


async def test_by_default_the_users_own_state_is_used(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    handle = await acquire(Local())
    try:
        assert psutil.Process(handle.pid).environ()["HOME"] == str(home)
        assert (home / ".letta" / "lc-local-backend" / "letta-adapters" / "server.json").exists()
    finally:
        await handle.release()


async def test_a_crash_is_reported_with_the_last_output_and_the_next_start_works(start, home):
    # NODE_DEBUG makes the server write a lot, which must also be drained.
    handle = await start(env={"NODE_DEBUG": "net,http"})
    async with connected(handle) as wire:
        await wire.new_conversation()
    psutil.Process(handle.pid).kill()
    assert not await handle.alive()
    failure = handle.failure()
    assert isinstance(failure, RuntimeCrashedError) and isinstance(failure, ConnectionError)
    assert failure.returncode == -9
    assert "NET" in failure.stderr_tail and "NET" in str(failure)
    again = await start(env={"NODE_DEBUG": "net,http"})
    assert again.pid != handle.pid and await again.alive()


async def test_a_failed_start_says_why(start):
    with pytest.raises(RuntimeStartError, match="no-such-option") as caught:
        await start(env={"NODE_OPTIONS": "--no-such-option"})
    assert caught.value.returncode not in (None, 0)
    assert (await start()).owned  # nothing stands in the way of the next try


async def test_a_start_that_takes_too_long_leaves_nothing(start, home):
    with pytest.raises(RuntimeStartError, match=r"0\.1 s"):
        await start(start_timeout=0.1)
    wait_gone(home, 0)


async def test_a_cancelled_start_leaves_nothing(start, home):
    task = asyncio.create_task(start())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.2)  # the thread goes on
    await eventually(lambda: not running(home) and not list(home.rglob("server.json")))


async def test_several_event_loops_share_it(start, home):
    handle = await start()
    pids = []

    async def elsewhere() -> None:
        other = await acquire(Local(data_dir=home))
        pids.append(other.pid)
        await other.release()

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert pids == [handle.pid] and await handle.alive()
