"""The real ``letta`` wheel, a scripted model, and a check that nothing is left running."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from letta_adapters import Local
from letta_adapters.backends.runtime.environment import MARKER
from letta_adapters.backends.runtime.manager import RuntimeHandle, acquire
from letta_adapters.testing.scripted_model import ScriptedModel
from tests._processes import ask, commands
from tests._wheel import needs_wheel

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(needs_wheel)


def running(home: Path) -> list[psutil.Process]:
    """Every process the runtime of that home consists of, its own children included."""
    asked = ask(psutil.process_iter(), psutil.Process.environ)
    return [one for one, env in asked if MARKER in env and env.get("HOME") == str(home)]


def servers(home: Path) -> list[int]:
    """Process ids of the runtimes of that home, without what they have started (git, shells)."""
    found = running(home)
    ids = {process.pid for process in found}
    return [process.pid for process, parent in ask(found, psutil.Process.ppid) if parent not in ids]


def wait_gone(home: Path, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while running(home):
        assert time.monotonic() < deadline, commands(running(home))
        time.sleep(0.05)


async def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Returns when ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.05)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A data directory; at the end of the test, nothing may run on it."""
    folder = tmp_path / "my ståte"
    yield folder
    try:
        wait_gone(folder)
    finally:
        ask(running(folder), psutil.Process.kill)


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as scripted:
        yield scripted


@pytest.fixture
async def start(home: Path) -> AsyncIterator[Callable[..., Any]]:
    """Acquires the runtime of ``home``; released at the end."""
    handles: list[RuntimeHandle] = []

    async def _start(**options: Any) -> RuntimeHandle:
        handle = await acquire(Local(**({"data_dir": home} | options)))
        handles.append(handle)
        return handle

    yield _start
    for handle in handles:
        await handle.release()


class Child:
    """A ``_child`` process that has said that it holds the runtime."""

    def __init__(self, module: str, order: dict[str, Any]) -> None:
        command = [
            sys.executable,
            "-m",
            f"tests.backends.runtime.{module}",
            json.dumps(order, default=str),
        ]
        self.process: subprocess.Popen[str] = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=30)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def let_end(self) -> None:
        """Let a child that pauses go on to its end."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def child(home: Path) -> Iterator[Callable[..., Child]]:
    """Starts a ``_child`` on ``home``."""
    made: list[Child] = []

    def _child(end: str, *, module: str = "_child", **order: Any) -> Child:
        made.append(Child(module, {"data_dir": str(home), "end": end, **order}))
        return made[-1]

    yield _child
    for one in made:
        one.process.kill()
        one.process.communicate()
