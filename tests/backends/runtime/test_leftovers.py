"""A message is never run twice, whatever ends the server in the middle of its turn."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import psutil
import pytest

from letta_adapters.backends.runtime.environment import Places
from letta_adapters.backends.runtime.ledger import clear_leftovers
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests._processes import commands
from tests.backends.runtime._wire import connected
from tests.backends.runtime.conftest import eventually, running, servers, wait_gone

SLOW = Reply("too late", delay=5, when="hello")
SLEEP = ToolUse("Bash", {"command": "python3 -c 'import time; time.sleep(60)'", "description": "x"})


def _sleeps(home: Path) -> bool:
    """Does the agent's own shell command run?"""
    return any("time.sleep(60)" in command for command in commands(running(home)))


async def _run_again(start, model, runtime) -> list[str]:
    """What the model is asked once the conversation is open again, and then told something new."""
    model.script("fine")
    before = len(model.requests)
    handle = await start(openai_compatible={"base_url": model.base_url})
    async with connected(handle) as wire:
        await wire.reopen(runtime)
        await asyncio.sleep(0.7)  # a re-run starts at once
        assert len(model.requests) == before
        await wire.say(runtime, "next", "cm-next")
        assert (await wire.finished())["stop_reason"] == "end_turn"
    return [request.last_user_text for request in model.requests[before:]]


@pytest.mark.parametrize("victim", ["python", "server"])
async def test_a_turn_in_flight_is_not_run_again(child, start, home, model, victim):
    model.script(SLOW)
    one = child("wait", model_url=model.base_url, say="hello")
    told = one.told()
    await eventually(lambda: model.requests)
    if victim == "python":
        one.process.kill()
    else:
        psutil.Process(told["pid"]).kill()
    await asyncio.to_thread(wait_gone, home)
    if victim == "python":  # the server has seen to it by itself, for whoever starts it next
        (ledger,) = home.glob(".letta/state/*/*.json")
        assert "cm-child" in ledger.read_text() and "queuedInput" not in ledger.read_text()
    asked = await _run_again(start, model, told["runtime"])
    assert len(asked) == 1 and asked[0].endswith("next")


async def test_after_a_crash_of_everything_the_next_owner_clears_up(child, start, home, model):
    model.script(Reply("", tool_calls=[SLEEP], when="hello"))
    one = child("wait", model_url=model.base_url, say="hello", mode="unrestricted")
    told = one.told()
    await eventually(lambda: _sleeps(home))
    psutil.Process(one.process.pid).suspend()  # it cannot notice...
    psutil.Process(told["pid"]).kill()
    one.process.kill()
    handle = await start(openai_compatible={"base_url": model.base_url})
    assert servers(home) == [handle.pid]
    (leftover,) = handle.leftovers
    assert leftover.neutralised and leftover.client_message_id == "cm-child"
    assert leftover.conversation_id == told["runtime"]["conversation_id"]
    asked = await _run_again(start, model, told["runtime"])
    assert len(asked) == 1


async def test_a_crash_ends_what_the_agent_had_started(start, home, model):
    model.script(Reply("", tool_calls=[SLEEP]))
    handle = await start(openai_compatible={"base_url": model.base_url})
    async with connected(handle) as wire:
        runtime = await wire.new_conversation("unrestricted")
        await wire.say(runtime, "hello", "cm-1")
        await eventually(lambda: _sleeps(home))
        psutil.Process(handle.pid).kill()
        assert not await handle.alive()
    assert running(home) == []
    assert [item.client_message_id for item in handle.leftovers] == ["cm-1"]


def _entry(agent: str | None, message: str, at: int, connection: str = "app-server-0"):
    scope = {"agentId": agent, "conversationId": "local-conv-1"}
    key = json.dumps([f"agent:{agent}", "input", message])
    queued = {"scope": scope, "incoming": {"connectionId": connection, "messages": []}}
    return key, {"disposition": "queued", "acceptedAt": at, "queuedInput": queued}


def _ledger(home: Path, *entries) -> Path:
    file = home / ".letta" / "state" / "abc" / "input-dispositions-v2.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"version": 4, "nextGeneration": 9, "entries": dict(entries)}))
    return file


def _places(home: Path, *, isolated: bool) -> Places:
    state = home / ".letta" / "lc-local-backend"
    (state / "agents").mkdir(parents=True)
    name = base64.urlsafe_b64encode(b"agent-1").decode().rstrip("=")
    (state / "agents" / f"{name}.json").touch()
    return Places(home, state, state / "letta-adapters", isolated, on_api=False)


def test_in_a_shared_home_only_our_own_inputs_are_touched(tmp_path):
    ledger = _ledger(
        tmp_path,
        _entry("agent-1", "ours", 2000),
        _entry("agent-1", "older", 500),
        _entry("agent-of-another-directory", "foreign", 2000),
        _entry("agent-1", "remote", 2000, connection="cloud-1"),
    )
    found = clear_leftovers(_places(tmp_path, isolated=False), since=1000)
    fates = {item.client_message_id: item.neutralised for item in found}
    assert fates == {"ours": True, "older": False, "foreign": False, "remote": False}
    entries = json.loads(ledger.read_text())["entries"]
    assert [json.loads(k)[2] for k, entry in entries.items() if "queuedInput" not in entry] == [
        "ours"
    ]
    assert not list(ledger.parent.glob("*.lock*")) and not list(ledger.parent.glob("*.tmp"))


def test_without_a_crashed_server_of_ours_they_are_only_reported(tmp_path):
    ledger = _ledger(tmp_path, _entry("agent-1", "theirs", 2000))
    before = ledger.read_bytes()
    (item,) = clear_leftovers(_places(tmp_path, isolated=False), since=None)
    assert not item.neutralised and ledger.read_bytes() == before


@pytest.mark.parametrize("holder_is_alive", [True, False])
def test_the_runtimes_own_lock_is_respected(tmp_path, monkeypatch, holder_is_alive):
    monkeypatch.setattr("letta_adapters.backends.runtime.ledger._LOCK_SECONDS", 0.3)
    ledger = _ledger(tmp_path, _entry(None, "ours", 2000))
    lock = ledger.with_name(f"{ledger.name}.lock")
    lock.mkdir()
    pid = psutil.Process().pid if holder_is_alive else 2**22 - 1
    owner = {"token": "t", "pid": pid, "processStart": None}
    (lock / f"{pid}-t.json").write_text(json.dumps(owner))
    (item,) = clear_leftovers(_places(tmp_path, isolated=True), since=None)
    assert item.neutralised is not holder_is_alive


def test_an_unreadable_ledger_is_left_alone(tmp_path):
    ledger = _ledger(tmp_path)
    ledger.write_text("{")
    assert clear_leftovers(_places(tmp_path, isolated=True), since=None) == []
    assert ledger.read_text() == "{"
