"""A torn file of the state: named, felt by its own agent alone, found by ``doctor``, set aside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, Local
from letta_adapters.backends.runtime._compat import find_agent_file
from letta_adapters.cli import main
from letta_adapters.errors import CorruptStateError, error_for_code
from letta_adapters.testing.scripted_model import ScriptedModel

MODEL = "lmstudio/scripted"


def spec(home: Path, model: ScriptedModel) -> Local:
    return Local(data_dir=home, openai_compatible={"base_url": model.base_url})


async def two_agents(home: Path, model: ScriptedModel) -> tuple[str, str]:
    made = []
    async with AsyncLettaClient(spec(home, model)) as client:
        for name in ("one", "two"):
            made.append(await client.create_agent(name=name, model=MODEL, system_prompt="t"))
            async with client.resume_session(made[-1]) as session:
                assert (await session.run_turn(f"hello from {name}")).success
    return made[0], made[1]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def state_of(home: Path) -> Path:
    return home / ".letta" / "lc-local-backend"


def agents_file(home: Path, agent: str) -> Path:
    return find_agent_file(state_of(home), agent)


def messages_of(home: Path, agent: str) -> Path:
    found = [
        p for p in home.rglob("messages.jsonl") if f"from {_name(agent, home)}" in p.read_text()
    ]
    return found[0]


def _name(agent: str, home: Path) -> str:
    return "one" if '"one"' in agents_file(home, agent).read_text() else "two"


def conversation_of(home: Path, agent: str) -> Path:
    return messages_of(home, agent).with_name("conversation.json")


@pytest.mark.parametrize("torn", [agents_file, messages_of, conversation_of])
async def test_only_its_own_agent_feels_it(
    home: Path,
    model: ScriptedModel,
    torn: Callable[[Path, str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = await two_agents(home, model)
    file = torn(home, first)
    cut(file)
    before = file.read_bytes()
    async with AsyncLettaClient(spec(home, model)) as client:
        with pytest.raises(CorruptStateError) as caught:
            async with client.resume_session(first) as session:
                (await session.run_turn("still there?")).raise_for_status()
        assert str(file) in str(caught.value)
        assert "--set-aside" in caught.value.hint
        async with client.resume_session(second) as session:
            assert (await session.run_turn("and you?")).success
    assert file.read_bytes() == before

    assert await _doctor(home, model) == 1
    shown = "".join(capsys.readouterr().out.split())
    assert file.name in shown
    assert "doctor--set-aside" in shown
    await _doctor(home, model, "--set-aside")
    kept = [p for p in (state_of(home) / "letta-adapters" / "set-aside").rglob("*") if p.is_file()]
    assert [p.read_bytes() for p in kept] == [before]
    capsys.readouterr()
    assert await _doctor(home, model) == 0
    if torn is messages_of:
        async with AsyncLettaClient(spec(home, model)) as client:
            async with client.resume_session(first) as session:
                assert "hello from one" in str((await session.list_messages()).raw)
                assert (await session.run_turn("still there?")).success


async def _doctor(home: Path, model: ScriptedModel, *options: str) -> int:
    import asyncio

    def run() -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LMSTUDIO_BASE_URL", model.base_url)
            keep = ("--keep-running", "0")
            return main(["doctor", "--backend", "local", "--data-dir", str(home), *keep, *options])

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("content", ["", "{garb", "[]"])
async def test_a_torn_ledger(home: Path, model: ScriptedModel, content: str) -> None:
    first, _ = await two_agents(home, model)
    (ledger,) = home.rglob("input-dispositions-v2.json")
    ledger.write_text(content)
    async with AsyncLettaClient(spec(home, model)) as client:
        with pytest.raises(CorruptStateError, match="ledger") as caught:
            await client.models.list()
    assert caught.value.paths == (str(ledger),)
    await _doctor(home, model, "--set-aside")
    assert not ledger.exists()
    async with AsyncLettaClient(spec(home, model)) as client:
        async with client.resume_session(first) as session:
            assert (await session.run_turn("go on")).success


async def test_not_while_somebody_uses_it(
    home: Path, model: ScriptedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    _, second = await two_agents(home, model)
    async with AsyncLettaClient(spec(home, model)) as client:
        assert await client.models.list()
        cut(agents_file(home, second))
        before: Any = agents_file(home, second).read_bytes()
        assert await _doctor(home, model, "--set-aside") == 1
        assert "in use" in capsys.readouterr().out
        assert agents_file(home, second).read_bytes() == before


def test_the_code_of_a_torn_file() -> None:
    assert isinstance(error_for_code("corrupt_state", "x"), CorruptStateError)
