"""A server belongs to all who use it, whoever started it, and ends with the last of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from letta_adapters import AsyncLettaClient, Local
from letta_adapters.backends.runtime import lease, manager
from letta_adapters.backends.runtime.errors import RuntimeOccupiedError, RuntimeVersionError
from letta_adapters.backends.runtime.lease import Door, ask, take_lease
from letta_adapters.testing.scripted_model import Reply
from tests.backends.runtime.conftest import eventually, running, servers, wait_gone

ANSWER = "one two three four five six seven eight nine ten eleven twelve "


def _record(home: Path) -> Path:
    return home / ".letta" / "lc-local-backend" / "letta-adapters" / "server.json"


@pytest.mark.parametrize("end", ["return", "SIGINT", "SIGTERM", "SIGKILL"])
async def test_a_stream_loses_nothing_when_the_process_that_started_the_server_ends(
    child, home, model, end
):
    starter = child("wait" if end.startswith("SIG") else "pause", model_url=model.base_url)
    told = starter.told()
    assert told["owned"]
    model.script(Reply(ANSWER, token_delay=0.2))
    spec = Local(data_dir=home, openai_compatible={"base_url": model.base_url})
    async with AsyncLettaClient(spec) as client:
        agent = await client.create_agent(model="lmstudio/scripted", system_prompt="Be brief.")
        async with client.create_session(agent) as session:
            turn = asyncio.create_task(session.run_turn("hello"))
            await eventually(lambda: model.requests)
            if end.startswith("SIG"):
                starter.process.send_signal(getattr(signal, end))
            else:
                starter.let_end()
            await asyncio.to_thread(starter.process.wait, 30)
            result = await turn
            assert result.success and result.result == ANSWER
            model.script("fine")
            assert (await session.run_turn("again")).result == "fine"
        assert servers(home) == [told["pid"]]
    assert running(home) == []


async def test_whoever_joined_may_leave_first(child, start, home):
    told = child("wait").told()
    joined = await start()
    assert not joined.owned and joined.pid == told["pid"]
    await joined.release()
    assert servers(home) == [told["pid"]]


@pytest.mark.parametrize("end", ["return", "SIGKILL"])
async def test_the_last_one_out_stops_it_who_did_not_start_it(child, start, home, end):
    starter = child("pause")
    told = starter.told()
    guest = child("wait" if end == "SIGKILL" else "pause")
    assert guest.told()["pid"] == told["pid"]
    starter.let_end()
    assert starter.process.wait(30) == 0
    assert psutil.pid_exists(told["pid"])
    if end == "SIGKILL":
        guest.process.kill()
        wait_gone(home)
    else:
        guest.let_end()
        guest.process.wait(30)
        assert running(home) == []  # the directory could be deleted
    assert not _record(home).exists()


async def test_it_stays_for_as_long_as_it_was_asked_to(start, home):
    first = await start(keep_running=30)
    await first.release()
    assert servers(home) == [first.pid]
    again = await start(keep_running=0.3)
    assert again.pid == first.pid
    await again.release()
    wait_gone(home)
    assert not _record(home).exists()


async def test_a_library_that_used_it_last_leaves_nothing(start, home):
    await (await start(keep_running=30)).release()
    await (await start()).release()
    assert running(home) == []


async def test_it_does_not_stay_in_a_deleted_directory(start, home):
    await (await start(keep_running=30)).release()
    _record(home).unlink()
    wait_gone(home)


async def test_an_idle_server_with_other_settings_is_replaced(start, home):
    first = await start(keep_running=30)
    await first.release()
    other = await start(env={"SOMETHING": "else"})
    assert other.pid != first.pid
    assert servers(home) == [other.pid]


@pytest.mark.parametrize("what", ["version", "adapters"])
async def test_an_idle_server_of_another_version_is_replaced_and_one_in_use_shared(
    child, start, home, what
):
    user = child("pause", keep_running=30)
    told = user.told()
    record = json.loads(_record(home).read_text())
    _record(home).write_text(json.dumps(record | {what: "0.99.1"}))
    joined = await start(keep_running=30)
    assert joined.pid == told["pid"]
    await joined.release()
    user.let_end()
    user.process.wait(30)
    assert (await start()).pid != told["pid"]
    assert len(servers(home)) == 1


async def test_one_in_use_with_other_settings_says_by_whom(child, start, home):
    user = child("wait")
    told = user.told()
    with pytest.raises(RuntimeOccupiedError, match=f"in use by process {user.process.pid}") as info:
        await start(env={"SOMETHING": "else"})
    assert info.value.owner_pid == user.process.pid
    assert servers(home) == [told["pid"]]


async def test_a_record_of_another_version_with_nobody_alive_is_no_obstacle(start, home):
    _record(home).parent.mkdir(parents=True)
    dead = {"schema": 1, "pid": 2**22 - 1, "runtime_id": "gone", "owner_pid": 2**22 - 1}
    for text in (json.dumps(dead), json.dumps({"schema": 99}), '{"schema": 1, "pid": ["x"]}', "[]"):
        _record(home).write_text(text)
        handle = await start()
        assert await handle.alive()
        await handle.release()


async def test_a_server_of_another_version_that_is_in_use_is_named_and_locks_nothing(
    child, start, home
):
    user = child("wait")
    told = user.told()
    good = _record(home).read_text()
    _record(home).write_text(json.dumps(json.loads(good) | {"schema": 3}))
    for _ in range(2):
        with pytest.raises(RuntimeVersionError, match=f"pid {told['pid']}"):
            await start(start_timeout=0.5)
    _record(home).write_text(good)
    assert (await start()).pid == told["pid"]


async def test_a_stopped_server_that_nobody_uses_is_killed_and_replaced(start, home):
    handle = await start(keep_running=60)
    await handle.release()
    psutil.Process(handle.pid).suspend()
    again = await start()
    assert again.pid != handle.pid and servers(home) == [again.pid]


async def test_a_stopped_server_that_others_use_is_not_killed(child, start, home):
    told = child("wait").told()
    server = psutil.Process(told["pid"])
    server.suspend()
    with pytest.raises(RuntimeOccupiedError, match="does not answer"):
        await start(start_timeout=0.5)
    server.resume()
    assert (await start()).pid == told["pid"]


async def test_leases_need_the_token_and_a_forged_one_keeps_nothing_alive(start, home):
    handle = await start()
    door = json.loads(_record(home).read_text())["door"]
    assert take_lease(Door(door, "wrong"), keep=60) is None
    assert ask(Door(door, "wrong"), "retire") is None
    for garbage in (b"{}\n", b"\xff\xfe\n", b"x" * 10_000, b"null\n", b'{"token":[]}\n'):
        reader, writer = await asyncio.open_connection("127.0.0.1", door)
        writer.write(garbage)
        assert await reader.read() == b""
        writer.close()
    assert await handle.alive()


async def test_a_process_that_has_another_number_here_is_not_taken_for_dead(start, monkeypatch):
    monkeypatch.setattr(lease, "_self", lambda: {"pid": 2**22 - 1, "birth": "1"})
    handle = await start()
    await asyncio.sleep(2.5)  # the server looks every second
    assert await handle.alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_keeps_no_lease(child, home):
    told = child("fork").told()
    guest = child("pause")
    assert guest.told()["pid"] == told["pid"]
    guest.let_end()
    guest.process.wait(30)
    parent = psutil.Process(told["forked"]).parent()
    assert parent is not None
    parent.kill()
    wait_gone(home)
    os.kill(told["forked"], signal.SIGKILL)


async def test_a_process_keeps_nothing_of_directories_it_no_longer_uses(start):
    before = dict(manager._slots)
    handle = await start()
    with pytest.raises(RuntimeOccupiedError):
        await start(env={"SOMETHING": "else"})
    assert len(manager._slots) == len(before) + 1
    await handle.release()
    assert manager._slots == before
