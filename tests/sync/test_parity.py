"""The sync and the async face are one API: the same public names, parameters and defaults."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import letta_adapters
from letta_adapters import aio
from letta_adapters.client import blocks, memory, resources
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.client.message_stream import MessageStream
from letta_adapters.client.session import AsyncSession
from letta_adapters.sync import client
from letta_adapters.sync import resources as twins

PAIRS = [
    (AsyncLettaClient, client.LettaClient),
    (AsyncSession, client.Session),
    (resources.AsyncAgents, client.Agents),
    (resources.AsyncConversations, client.Conversations),
    (resources.AsyncModels, client.Models),
    (memory.AsyncMemory, twins.Memory),
    (blocks.AsyncPassages, twins.Passages),
    (blocks.AsyncBlocks, twins.Blocks),
    (blocks.AsyncTools, twins.Tools),
    (blocks.AsyncRuns, twins.Runs),
]


def public(cls: type) -> dict[str, Any]:
    names = [name for name in dir(cls) if not name.startswith("_")]
    return {name: inspect.getattr_static(cls, name) for name in names}


def parameters(function: Any) -> list[tuple[str, Any, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default, _sync_names(str(p.annotation))) for p in found]


def _sync_names(annotation: str) -> str:
    return annotation.replace("Async", "")


def pair_id(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS, ids=pair_id)
def test_same_public_names(asynchronous: type, synchronous: type) -> None:
    assert set(public(asynchronous)) == set(public(synchronous))


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS, ids=pair_id)
def test_same_parameters(asynchronous: type, synchronous: type) -> None:
    for name, member in public(asynchronous).items():
        twin = public(synchronous)[name]
        assert type(member) is type(twin), name
        if callable(member):
            assert parameters(member) == parameters(twin), name


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS[:1], ids=pair_id)
def test_same_constructor(asynchronous: type, synchronous: type) -> None:
    assert parameters(asynchronous.__init__) == parameters(synchronous.__init__)


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS, ids=pair_id)
def test_same_results(asynchronous: type, synchronous: type) -> None:
    for name, member in public(asynchronous).items():
        # Generators have one type parameter more than asynchronous ones.
        if not callable(member) or name in ("stream", "text_stream"):
            continue
        returns = inspect.signature(member).return_annotation
        twin = inspect.signature(public(synchronous)[name]).return_annotation
        assert _sync_names(returns) == twin, name


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS, ids=pair_id)
def test_nothing_of_the_sync_face_is_a_coroutine(asynchronous: type, synchronous: type) -> None:
    for name, member in public(synchronous).items():
        assert not inspect.iscoroutinefunction(member), name
        assert not inspect.isasyncgenfunction(member), name


def test_both_can_be_entered() -> None:
    for asynchronous, synchronous in PAIRS[:2]:
        assert hasattr(asynchronous, "__aenter__") and hasattr(asynchronous, "__aexit__")
        assert hasattr(synchronous, "__enter__") and hasattr(synchronous, "__exit__")


@pytest.mark.parametrize("name", aio.__all__)
def test_module_functions(name: str) -> None:
    ours, theirs = getattr(letta_adapters, name), getattr(aio, name)
    assert parameters(ours) == parameters(theirs)
    assert inspect.iscoroutinefunction(theirs) or name.endswith("_session")
    assert not inspect.iscoroutinefunction(ours)


def test_every_public_member_has_a_docstring() -> None:
    for asynchronous, synchronous in PAIRS:
        for cls in (asynchronous, synchronous):
            assert cls.__doc__, cls
            for name, member in public(cls).items():
                assert member.__doc__, f"{cls.__name__}.{name}"


def test_both_streams_can_be_closed() -> None:
    assert inspect.iscoroutinefunction(MessageStream.aclose)
    returns = inspect.signature(client.Session.stream).return_annotation
    assert returns.startswith("Generator[")


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS, ids=pair_id)
def test_every_member_is_called_after_its_own_class(asynchronous: type, synchronous: type) -> None:
    for name, member in public(synchronous).items():
        if callable(member):
            home = (synchronous.__module__, f"{synchronous.__qualname__}.{name}")
            assert (member.__module__, member.__qualname__) == home


USES = """
from letta_adapters.sync.bridge import Bridged, blocking

class Base:
    async def ask(self, text: str, *, times: int = 1) -> str: ...

class Core(Base):
    async def tell(self, /, text: str, **fields: int) -> None: ...

class Face(Bridged[Core]):
    ask = blocking(Core.ask)
    tell = blocking(Core.tell)

face = Face(lambda _: Core())
answer: str = face.ask("x", times=2)
face.tell("x", self=1, other=2)
wrong: int = face.ask("x")
face.ask()
face.ask(1)
face.ask("x", 2)
face.ask("x", time=2)
face.tell("x", other="2")
"""


@pytest.mark.slow
def test_a_type_checker_knows_the_parameters_of_what_only_forwards(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (extra: dev)")
    file = tmp_path / "uses.py"
    file.write_text(USES, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(file)]
    options = ["--disable-error-code", "empty-body", "--no-error-summary", "--no-pretty"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    first = USES.splitlines().index('wrong: int = face.ask("x")') + 1
    found = [line.split(":")[1] for line in done.stdout.splitlines() if "error:" in line]
    assert found == [str(line) for line in range(first, first + 6)], done.stdout + done.stderr
