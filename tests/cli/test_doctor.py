"""``letta-adapters doctor``: what it finds, and what it advises."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.backends.agent_settings import MachineSettings
from letta_adapters.backends.app_server.inherited import MachineFiles
from letta_adapters.backends.config import Remote
from letta_adapters.backends.letta_code import own_directory
from letta_adapters.testing.scripted_model import ScriptedModel
from tests._wheel import needs_wheel
from tests.cli.conftest import Done
from tests.faults._server import Server, closed_port
from tests.faults._wire import status

Cli = Callable[..., Done]


def line(done: Done, name: str) -> str:
    """What is said of ``name``, with the advice below it."""
    lines = done.out.splitlines()
    at = next(i for i, text in enumerate(lines) if text[10:].startswith(name))
    advice = lines[at + 1] if at + 1 < len(lines) and lines[at + 1].startswith(" " * 10) else ""
    return " ".join(f"{lines[at]} {advice}".split())


@needs_wheel
def test_nothing_configured(cli: Cli) -> None:
    done = cli("doctor")
    assert done.code == 1
    assert "\x1b" not in done.out
    assert line(done, "Letta Code").startswith("ok ")
    assert line(done, "git").startswith("ok ")
    assert line(done, "Backend") == "ok Backend Letta Code on this machine"
    assert "set LETTA_API_KEY, LETTA_BASE_URL" in line(done, "Elsewhere")
    assert line(done, "Connection").startswith("ok Connection works (")
    assert line(done, "Models").startswith("PROBLEM Models none Set the key of a model")
    assert "letta-adapters demo" in done.out
    assert done.out.endswith("\nSomething is missing.\n")


@needs_wheel
def test_a_model_on_this_machine(
    cli: Cli, tmp_path: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = str(tmp_path / "state")
    done = cli("doctor", "--data-dir", state, "--keep-running", "0")
    assert done.code == 0
    assert line(done, "State") == f"ok State {state}"
    assert line(done, "Models") == "ok Models 1 of lmstudio"
    assert done.out.endswith("\nEverything that is needed is there.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.slow
def test_state_that_others_can_read(cli: Cli, tmp_path: Path) -> None:
    letta = tmp_path / "state" / ".letta"
    letta.mkdir(parents=True)
    for folder in (tmp_path / "state", letta):
        folder.chmod(0o755)
    done = cli("doctor", "--data-dir", str(letta.parent))
    assert "other users of this machine can look into" in line(done, "Privacy")
    assert f"chmod -R go= {letta}" in " ".join(done.out.split())
    assert letta.stat().st_mode & 0o777 == 0o755
    letta.chmod(0o700)
    assert "Privacy" not in cli("doctor", "--data-dir", str(letta.parent)).out


def test_a_server_of_ones_own(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "sk-let-secret")
    monkeypatch.setenv("LETTA_MODEL", "openai-proxy/scripted")
    done = cli("doctor", terminal=True)
    assert done.code == 0
    assert "the Letta API at http://127.0.0.1:" in done.out
    assert "1 of openai-proxy" in done.out
    assert "secret" not in done.out
    assert "\x1b[32m  ok" in done.out


def test_a_model_that_is_not_there(
    cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETTA_MODEL", "openai/gone")
    done = cli("doctor")
    assert done.code == 1
    assert (
        line(done, "LETTA_API_KEY")
        == "- LETTA_API_KEY not set (a server of your own may do without)"
    )
    wanted = "PROBLEM LETTA_MODEL openai/gone is not one of them Set it to one of them, such as "
    assert f"{wanted}openai-proxy/scripted" in " ".join(done.out.split())


def test_a_wrong_url(cli: Cli) -> None:
    done = cli("doctor", "--base-url", f"http://127.0.0.1:{closed_port()}")
    assert done.code == 1
    assert line(done, "Connection").startswith("PROBLEM Connection The connection to 127.0")
    assert "Check the URL and that the server runs." in done.out


def test_an_address_with_a_secret_in_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://me:hunter2@127.0.0.1:{closed_port()}"
    done = cli("doctor", "--base-url", url)
    assert done.code == 1
    assert "no user name and no password" in done.err
    assert "hunter2" not in done.out + done.err
    monkeypatch.setenv("LETTA_BASE_URL", url)
    done = cli("doctor")
    assert done.code == 1
    assert "no user name and no password" in line(done, "Connection")
    assert "hunter2" not in done.out + done.err


def test_a_wrong_app_server(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_APP_SERVER_URL", f"ws://127.0.0.1:{closed_port()}")
    done = cli("doctor")
    assert done.code == 1
    assert "an App Server at ws://127.0.0.1:" in done.out
    assert "LETTA_APP_SERVER_TOKEN" in done.out
    assert line(done, "Connection").startswith("PROBLEM Connection No App Server answers")


def test_a_wrong_key(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "sk-let-secret")
    server.override("GET", "/v1/models", status(401, {"detail": "Unauthorized"}), times=5)
    done = cli("doctor")
    assert done.code == 1
    assert line(done, "Connection").startswith("PROBLEM Connection The Letta API refused")
    assert "Set LETTA_API_KEY." in done.out
    assert "secret" not in done.out


def test_without_the_wheel(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, modules=("letta_code",), packages=("letta", "vcrpy"))
    done = cli("doctor")
    assert done.code == 1
    assert line(done, "Letta Code") == (
        "PROBLEM Letta Code The embedded Letta runtime is not installed (the 'letta' "
        'package). Install it: pip install "letta>=0.34"'
    )
    assert line(done, "vcrpy").endswith(
        'not installed If you want it: pip install "letta-adapters[testing]"'
    )
    assert "Reachable" not in done.out
    demo = cli("demo")
    assert (demo.code, demo.out) == (1, "")
    assert demo.err == (
        "error: The embedded Letta runtime is not installed (the 'letta' package).\n"
        'Install it: pip install "letta>=0.34"\n'
    )


def test_without_the_wheel_a_server_will_do(
    cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, modules=("letta_code",), packages=("letta",))
    done = cli("doctor")
    assert done.code == 0
    assert line(done, "Letta Code").startswith("- Letta Code The embedded")


@needs_wheel
def test_without_git(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = cli("doctor")
    assert done.code == 1
    assert line(done, "git").startswith("PROBLEM git The embedded Letta runtime needs")
    assert "Install it: " in line(done, "git")


def test_without_a_package(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, packages=("websockets",))
    done = cli("doctor", "--base-url", "ws://127.0.0.1:1")
    assert done.code == 1
    assert line(done, "websockets") == (
        "PROBLEM websockets not installed Install it: pip install websockets"
    )
    assert "Reachable" not in done.out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("langchain-core", "- langchain-core 0.0.1, which is not <2,>="),
        ("llama-index-core", "- llama-index-core 0.0.1, which is not <0.15,>="),
        ("pydantic", "PROBLEM pydantic 0.0.1, which is not >="),
    ],
)
def test_a_package_that_is_too_old(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda asked: "0.0.1" if asked == name else version(asked)
    )
    found = line(cli("doctor", "--base-url", "ws://127.0.0.1:1"), name)
    assert found.startswith(says)
    assert "pip install --upgrade" in found


def hide(
    monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...] = (), packages: tuple[str, ...] = ()
) -> None:
    """As if these were not installed."""
    find, version = importlib.util.find_spec, importlib.metadata.version

    def find_spec(name: str, *args: Any) -> Any:
        return None if name in modules else find(name, *args)

    def version_of(name: str) -> str:
        if name in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(importlib.metadata, "version", version_of)


@pytest.fixture(params=["here", "elsewhere"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[str], MachineFiles]:
    """The options of a backend, and what this machine was told of its agents."""
    if request.param == "elsewhere":
        url = f"ws://127.0.0.1:{closed_port()}"
        ours = own_directory(Remote(url=url))
        assert ours is not None
        return ["--base-url", url], MachineFiles(ours)
    state = tmp_path / "state"
    ours = state / ".letta" / "lc-local-backend" / "letta-adapters"
    return ["--backend", "local", "--data-dir", str(state)], MachineFiles(ours)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ('{"permission_mode": "unrestr', 0o600, "Unterminated string"),
        ("[]", 0o600, "it holds no JSON object"),
        ('{"permission_mode": "root"}', 0o600, "permission_mode"),
        ('{"permission_mode": "unrestricted"}', 0o666, "other users may write it"),
    ],
)
@pytest.mark.slow
def test_what_was_told_of_an_agent_and_cannot_be_used(
    cli: Cli, told: tuple[list[str], MachineFiles], text: str, mode: int, why: str
) -> None:
    options, files = told
    for agent in ("agent-local-1", "agent-local-2"):
        files.save(agent, MachineSettings(permission_mode="unrestricted"))
    (bad,) = files.folder.glob("*-1.json")
    bad.write_text(text)
    bad.chmod(mode)
    done = cli("doctor", *options)
    assert done.code == 1
    shown = " ".join(done.out.split())
    assert why in shown
    assert "what this machine was told of the agent agent-local-1" in shown
    assert "agent-local-2" not in shown
    assert "".join(str(bad).split()) in "".join(done.out.split())
    assert "Set aside" in cli("doctor", *options, "--set-aside").out
    assert not bad.exists()
    assert [kept.read_text() for kept in _home_of(files).rglob("set-aside/**/*.json")] == [text]
    assert "Torn file" not in cli("doctor", *options).out
    assert files.load("agent-local-2").permission_mode == "unrestricted"


def _home_of(files: MachineFiles) -> Path:
    return next(parent for parent in files.folder.parents if parent.name == ".letta")
