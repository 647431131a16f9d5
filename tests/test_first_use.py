"""The default agent at its first use: by many processes, threads and loops at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, LettaClient, Local
from letta_adapters.backends import default_agent
from letta_adapters.backends.default_agent import CANDIDATE_TAG, DEFAULT_AGENT_TAG, MAKING_TAG
from letta_adapters.errors import NotFoundError
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import ScriptedModel
from tests._wheel import needs_wheel

_PROMPT = """
import sys
from letta_adapters import Local, prompt
spec = Local(data_dir=sys.argv[1], openai_compatible={"base_url": sys.argv[2]})
result = prompt("hello " + sys.argv[3], backend=spec)
print(result.success, result.agent_id, result.result or result.error_detail)
"""


def ask_in_processes(home: Path, model: ScriptedModel, count: int) -> list[tuple[str, str, str]]:
    """Ask the default agent from so many processes at once: success, agent, answer of each."""
    arguments = [sys.executable, "-c", _PROMPT, str(home), model.base_url]
    processes = [
        subprocess.Popen(
            [*arguments, str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for n in range(count)
    ]
    said = []
    for process in processes:
        out, err = process.communicate(timeout=170)
        success, agent, answer = [*out.split(" ", 2), "", "", ""][:3]
        said.append((success, agent, answer.strip() or err))
    return said


def agents_in(home: Path) -> int:
    return len(list((home / ".letta" / "lc-local-backend" / "agents").glob("*.json")))


@needs_wheel
@pytest.mark.timeout(200)
def test_ten_processes_at_first_use_all_answer_with_one_agent(tmp_path: Path) -> None:
    with ScriptedModel() as model:
        said = ask_in_processes(tmp_path, model, 10)
    assert [success for success, _, _ in said] == ["True"] * 10, said
    assert len({agent for _, agent, _ in said}) == 1
    assert agents_in(tmp_path) == 1


@needs_wheel
@pytest.mark.timeout(120)
def test_threads_and_loops_of_one_process_at_first_use(tmp_path: Path) -> None:
    with ScriptedModel() as model:
        spec = Local(data_dir=tmp_path, openai_compatible={"base_url": model.base_url})
        agents: list[Any] = []

        async def ask() -> None:
            async with AsyncLettaClient(spec) as client:
                results = await asyncio.gather(*(client.prompt(str(n)) for n in range(2)))
            agents.extend(result.agent_id for result in results if result.success)

        def ask_by_adapter() -> None:
            answer = ChatLetta(backend=spec).invoke("hello")
            agents.append(answer.response_metadata["agent_id"])

        threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(3)]
        threads.append(threading.Thread(target=ask_by_adapter))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
    assert len(agents) == 7
    assert len(set(agents)) == 1
    assert agents_in(tmp_path) == 1


@needs_wheel
@pytest.mark.timeout(120)
def test_a_maker_that_died_leaves_no_half_made_default_agent(tmp_path: Path) -> None:
    with ScriptedModel() as model:
        spec = Local(data_dir=tmp_path, openai_compatible={"base_url": model.base_url})
        with LettaClient(spec) as client:
            half = client.create_agent(name="default", tags=[MAKING_TAG])
            mine = client.create_agent(name="mine")
            result = client.prompt("hello")
            assert result.success
            assert result.agent_id not in (half, mine)
            left = {agent["id"] for agent in client.agents.list()}
    assert left == {result.agent_id, mine}


async def test_many_clients_of_a_letta_api_at_first_use(letta_fake: FakeLetta) -> None:
    clients = [letta_fake.async_client() for _ in range(10)]
    results = await asyncio.gather(*(client.prompt("hello") for client in clients))
    agents = await clients[0].agents.list()
    for client in clients:
        await client.close()
    assert all(result.success for result in results)
    assert {result.agent_id for result in results} == {agents[0]["id"]}
    assert len(agents) == 1


# -- makers that have no lock in common, in every order -------------------------------------------


class Shelf:
    """Agents in memory; ``before`` may wait before a step of a maker."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.deleted: list[str] = []
        self.promoted: list[str] = []


class Maker:
    """One process's view of the shelf."""

    promotes = True

    def __init__(self, shelf: Shelf, **delays: float) -> None:
        self.shelf = shelf
        self.delays = delays

    async def _at(self, step: str) -> None:
        await asyncio.sleep(self.delays.get(step, 0.0))

    async def tagged(self, tag: str) -> Sequence[str]:
        await self._at("tagged")
        return [agent for agent, has in self.shelf.tags.items() if has == tag]

    async def make(self, tag: str) -> str:
        made = f"agent-{len(self.shelf.tags) + len(self.shelf.deleted)}"
        self.shelf.tags[made] = tag
        await self._at("make")
        return made

    async def promote(self, agent_id: str, tag: str) -> None:
        await self._at("promote")
        if agent_id not in self.shelf.tags:
            raise NotFoundError("gone")
        self.shelf.tags[agent_id] = DEFAULT_AGENT_TAG
        self.shelf.promoted.append(agent_id)

    async def remove(self, agent_id: str) -> None:
        self.shelf.deleted.append(agent_id)
        del self.shelf.tags[agent_id]


@asynccontextmanager
async def no_lock() -> Any:
    yield


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_agent, "RACE_SECONDS", 0.02)
    monkeypatch.setattr(default_agent, "_POLL_SECONDS", 0.005)
    monkeypatch.setattr(default_agent, "_PATIENCE_SECONDS", 0.3)


SLOWNESS: list[dict[str, float]] = [
    {},
    {"make": 0.1},
    {"promote": 0.1},
    {"tagged": 0.03},
    {"make": 0.05, "promote": 0.05},
]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("first", SLOWNESS)
@pytest.mark.parametrize("second", SLOWNESS)
async def test_an_agent_that_somebody_uses_is_never_deleted(
    first: dict[str, float], second: dict[str, float]
) -> None:
    shelf = Shelf()
    makers = [Maker(shelf, **first), Maker(shelf, **second), Maker(shelf)]
    used = await asyncio.gather(
        *(default_agent.find(maker, no_lock, shared=False) for maker in makers)
    )
    later = await default_agent.find(Maker(shelf), no_lock, shared=False)
    assert not set(used) & set(shelf.deleted)
    assert not set(shelf.promoted) & set(shelf.deleted)
    assert Counter(shelf.tags.values()) == {DEFAULT_AGENT_TAG: 1}
    assert {*used, later} == set(shelf.tags)


@pytest.mark.usefixtures("quick")
async def test_the_next_one_goes_ahead_when_the_first_has_died() -> None:
    shelf = Shelf()
    shelf.tags = {"agent-dead": CANDIDATE_TAG}
    makers = [Maker(shelf), Maker(shelf)]
    used = await asyncio.gather(
        *(default_agent.find(maker, no_lock, shared=False) for maker in makers)
    )
    assert len(set(used)) == 1
    assert shelf.tags == {"agent-dead": CANDIDATE_TAG, used[0]: DEFAULT_AGENT_TAG}


@pytest.mark.usefixtures("quick")
async def test_a_maker_that_is_cancelled_leaves_nothing() -> None:
    for step in ("promote", "tagged"):
        shelf = Shelf()
        maker = Maker(shelf, **{step: 0.5})
        making = asyncio.ensure_future(default_agent.find(maker, no_lock, shared=False))
        while not shelf.tags:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert shelf.tags == {}
