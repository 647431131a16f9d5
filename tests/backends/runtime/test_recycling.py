"""A runtime whose heap fills is exchanged for a new one between turns, and no turn is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from letta_adapters import AsyncLettaClient, LettaClient, Local, RuntimeStatus, tool
from letta_adapters.backends.app_server import link
from letta_adapters.backends.runtime import manager
from letta_adapters.errors import LettaError
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.runtime.conftest import ROOT, eventually, running

# The runtime is started several times in each.
pytestmark = pytest.mark.timeout(200)

MODEL = "lmstudio/scripted"
# A share that a few conversations fill.
SMALL = {"max_memory_mb": 192, "recycle_at": 0.03}


@pytest.fixture
def answering() -> Iterator[Callable[..., ScriptedModel]]:
    """Makes a model that answers as a function says."""
    with contextlib.ExitStack() as stack:
        yield lambda respond: stack.enter_context(ScriptedModel(respond=respond))


def _spec(home: Path, model, **options) -> Local:
    return Local(data_dir=home, openai_compatible={"base_url": model.base_url}, **(SMALL | options))


async def _talk(
    client: AsyncLettaClient, agent: str, name: str, enough: Callable[[int], bool]
) -> list[str]:
    """One conversation after another until it is enough; what was said in each."""
    said: list[str] = []
    while not enough(len(said)):
        async with client.create_session(agent, skill_sources=[]) as session:
            said.append(f"{name} {len(said)}")
            result = await session.run_turn(said[-1])
            assert result.success, (result.error_code, result.error_detail)
            assert result.result == "It is me."
    return said


_OTHER = """
import asyncio, json, sys
from pathlib import Path
from letta_adapters import AsyncLettaClient, Local
from tests.backends.runtime.test_recycling import SMALL, _talk

async def main():
    home, url, agent = sys.argv[1:]
    spec = Local(data_dir=Path(home), openai_compatible={"base_url": url}, **SMALL)
    async with AsyncLettaClient(spec) as client:
        said = await asyncio.gather(
            *(_talk(client, agent, f"other{n}", lambda times: times == 3) for n in "ab")
        )
    print(json.dumps([*said[0], *said[1]]))

asyncio.run(main())
"""


async def test_no_turn_of_any_process_is_lost_while_the_runtime_is_exchanged(home, answering):
    model = answering(lambda _request: Reply("It is me.", token_delay=0.02))
    pids = set()
    async with AsyncLettaClient(_spec(home, model)) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="Be brief.")
        command = [sys.executable, "-c", _OTHER, str(home), model.base_url, agent]
        other = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

        def enough(times: int) -> bool:
            with contextlib.suppress(StopIteration, OSError):  # it is being exchanged
                pids.add(json.loads(next(home.rglob("server.json")).read_text())["pid"])
            return times >= 2 and len(pids) > 1

        said = await asyncio.gather(*(_talk(client, agent, f"ours{n}", enough) for n in "ab"))
        out, err = await other.communicate()
        assert other.returncode == 0, err.decode()
    asked = [re.findall(r"\w+ \d+$", request.last_user_text) for request in model.requests]
    everything = [*said[0], *said[1], *json.loads(out)]
    assert sorted(asked) == sorted([text] for text in everything)
    assert running(home) == []


async def _fill(client: AsyncLettaClient, agent: str) -> RuntimeStatus:
    """Talk until the runtime is to be exchanged, or was; what it said then."""
    first = (await client.runtime_status()).pid
    while True:
        async with client.create_session(agent, skill_sources=[]) as session:
            await session.run_turn("more")
        status = await client.runtime_status()
        # While nobody talks it can be exchanged before anybody asks, and one turn may fill it.
        if status.recycling or status.pid != first:
            return status


async def test_a_turn_that_runs_ends_first_and_one_that_comes_waits(home, answering, caplog):
    caplog.set_level(logging.WARNING, "letta_adapters.runtime")
    release = asyncio.Event()

    @tool
    async def wait_for_it() -> str:
        """Wait."""
        await release.wait()
        return "done"

    def respond(request):
        text = request.last_user_text
        if "slow" in text and request.messages[-1].get("role") != "tool":
            return Reply(tool_calls=[ToolUse("wait_for_it", {})])
        return Reply("It is done." if "slow" in text else "Yes.")

    model = answering(respond)
    async with AsyncLettaClient(_spec(home, model)) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="Be brief.")
        first = (await client.runtime_status()).pid
        async with client.create_session(
            agent, tools=[wait_for_it], allowed_tools=["wait_for_it"]
        ) as slow:
            turn = asyncio.create_task(slow.run_turn("slow"))
            await eventually(lambda: model.requests)
            status = await _fill(client, agent)
            assert status.pid == first
            session = client.create_session(agent)
            late = asyncio.create_task(session.run_turn("late"))
            await asyncio.sleep(1)
            assert not late.done() and not turn.done()
            # What belongs to a turn that runs does not wait.
            assert (await slow.list_messages()).raw
            release.set()
            assert (await turn).result == "It is done."
            assert (await late).result == "Yes."
            # The conversation goes on, on the new one.
            assert (await slow.run_turn("again")).result == "Yes."
            await session.close()
        assert (await client.runtime_status()).pid != first
    said = [record.message for record in caplog.records]
    assert any("It is exchanged when that is full" in text for text in said)
    assert any("It is exchanged now" in text for text in said)
    assert not any("unexpectedly" in text for text in said)


async def test_a_turn_inside_a_turn_does_not_wait_for_it(home, answering):
    def respond(request):
        text = request.last_user_text
        if "outer" in text and request.messages[-1].get("role") != "tool":
            return Reply(tool_calls=[ToolUse("ask_another", {})])
        return Reply("Outer." if "outer" in text else "Inner.")

    async with AsyncLettaClient(_spec(home, answering(respond))) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="Be brief.")

        @tool
        async def ask_another() -> str:
            """Ask another agent."""
            await _fill(client, agent)
            return str((await client.prompt("inner", agent)).result)

        async with client.create_session(
            agent, tools=[ask_another], allowed_tools=["ask_another"]
        ) as session:
            assert (await session.run_turn("outer")).result == "Outer."


def test_the_runtime_tells_its_memory(home, model):
    with LettaClient(_spec(home, model, max_memory_mb=300, recycle_at=0.5)) as client:
        status = client.runtime_status()
        assert isinstance(status, RuntimeStatus)
        assert psutil.Process(status.pid) in running(home)
        assert status.version.startswith("0.") and status.clients == 1 and not status.recycling
        assert status.heap_limit_mb == 300
        assert 0 < status.heap_mb < status.recycle_at_mb < 300 < status.memory_mb + 300
        assert status.started_at.timestamp() == pytest.approx(
            psutil.Process(status.pid).create_time(), abs=30
        )


async def test_what_the_heap_holds_is_told_as_it_is_now(home, answering):
    """Not as it was when the runtime began: conversations fill it long before it is too full."""
    model = answering(lambda _: Reply("It is me."))
    async with AsyncLettaClient(_spec(home, model, max_memory_mb=1024, recycle_at=0.75)) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="t")
        await _talk(client, agent, "warm up", lambda times: times == 1)
        before = (await client.runtime_status()).heap_mb
        await _talk(client, agent, "one", lambda times: times == 30)
        after = (await client.runtime_status()).heap_mb
    assert after > before + 1


async def test_an_idle_runtime_is_exchanged_by_whoever_comes_next(home, model):
    async with AsyncLettaClient(_spec(home, model)) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="Be brief.")
        first = (await client.runtime_status()).pid
        with contextlib.suppress(TimeoutError):
            await _fill(client, agent)
        await eventually(lambda: not psutil.pid_exists(first) or not running(home))
        assert (await client.prompt("hello", agent)).success
        assert (await client.runtime_status()).pid != first


async def test_a_turn_does_not_wait_for_ever_for_one_that_runs(home, answering, monkeypatch):
    monkeypatch.setattr(link, "EXCHANGE_SECONDS", 1.0)
    release = asyncio.Event()

    @tool
    async def wait_for_it() -> str:
        """Wait."""
        await release.wait()
        return "done"

    def respond(request):
        if "slow" in request.last_user_text and request.messages[-1].get("role") != "tool":
            return Reply(tool_calls=[ToolUse("wait_for_it", {})])
        return Reply("Yes.")

    model = answering(respond)
    async with AsyncLettaClient(_spec(home, model)) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="Be brief.")
        options = {"tools": [wait_for_it], "allowed_tools": ["wait_for_it"]}
        async with client.create_session(agent, **options) as slow:
            turn = asyncio.create_task(slow.run_turn("slow"))
            await eventually(lambda: model.requests)
            first = (await _fill(client, agent)).pid
            assert (await client.prompt("late", agent)).result == "Yes."
            assert (await client.runtime_status()).pid == first
            release.set()
            assert (await turn).success


async def test_a_process_that_gives_nothing_back_is_not_waited_for_for_ever(
    child, home, model, monkeypatch
):
    monkeypatch.setattr(manager, "RECYCLING_SECONDS", 1.0)
    other = child("wait", model_url=model.base_url, options=SMALL)  # has a lease, hears nothing
    first = other.told()["pid"]
    async with AsyncLettaClient(_spec(home, model)) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="Be brief.")
        assert (await _fill(client, agent)).pid == first
        assert (await client.prompt("late", agent)).success
        assert (await client.runtime_status()).pid == first
        # Without a turn for 30 s it ends all the same.
        await eventually(lambda: not psutil.pid_exists(first), 90)
        assert (await client.prompt("later", agent)).success
        assert (await client.runtime_status()).pid != first


async def test_a_turn_waits_until_a_new_runtime_has_found_its_model_again(home, model):
    async with AsyncLettaClient(_spec(home, model, recycle_at=0.75)) as client:
        agent = await client.create_agent(model=MODEL, system_prompt="Be brief.")
        async with client.create_session(agent) as session:
            assert (await session.run_turn("one")).success
            first = (await client.runtime_status()).pid
            psutil.Process(first).kill()
            await eventually(lambda: not running(home))
            model.models = ()
            status = None
            while status is None:  # until the loss is noticed
                with contextlib.suppress(LettaError):
                    status = await client.runtime_status()
                await asyncio.sleep(0.1)
            assert status.pid != first
            turn = asyncio.create_task(session.run_turn("two"))
            await asyncio.sleep(6)
            model.models = ("scripted",)
            result = await turn
            assert result.success, result.error_detail
