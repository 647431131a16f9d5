"""The command line in this process and in others, with nothing of the developer's own."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.backends.rest import recovery, turn
from letta_adapters.cli import main
from letta_adapters.cli.demo import _PROVIDERS
from letta_adapters.testing.scripted_model import ScriptedModel
from tests.faults._server import Server


class Terminal(io.StringIO):
    """A terminal that remembers what it showed."""

    def isatty(self) -> bool:
        return True


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, no provider's key, and no opinion about colours."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in (*_PROVIDERS, "NO_COLOR", "FORCE_COLOR", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(recovery, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(turn, "_CANCEL_PAUSE", 0.02)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs a command here. ``terminal``: stdout is one. ``stdin``: what is piped into it."""

    def run(*argv: str, terminal: bool = False, stdin: str | None = None) -> Done:
        screen = Terminal()
        capsys.readouterr()
        with monkeypatch.context() as patch:
            if terminal:
                patch.setattr(sys, "stdout", screen)
            if stdin is not None:
                patch.setattr(sys, "stdin", io.StringIO(stdin))
            try:
                code = main(argv)
            except SystemExit as leaving:
                code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return Done(code, screen.getvalue() if terminal else captured.out, captured.err)

    return run


def spawn(*argv: str, **options: Any) -> Done:
    """Runs a command in a process of its own, its output piped."""
    command: Sequence[str] = (sys.executable, "-m", "letta_adapters", *argv)
    options.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, **options)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Letta API on loopback, which the environment names."""
    with Server() as running:
        monkeypatch.setenv("LETTA_BASE_URL", running.url)
        yield running


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedModel]:
    """A model that the embedded runtime finds in its environment."""
    with ScriptedModel() as scripted:
        monkeypatch.setenv("LMSTUDIO_BASE_URL", scripted.base_url)
        yield scripted
