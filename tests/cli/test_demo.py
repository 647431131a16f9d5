"""``letta-adapters demo``, with the real embedded runtime."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.cli import demo
from letta_adapters.cli.state import user_folder
from letta_adapters.errors import ConfigurationError, InvalidInputError
from letta_adapters.messages import ResultMessage, Usage
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ScriptedModel, ToolUse
from tests._wheel import needs_wheel
from tests.cli.conftest import Done, spawn
from tests.faults._server import closed_port

Cli = Callable[..., Done]
# Its last part is a query engine of LlamaIndex'.
pytestmark = pytest.mark.usefixtures("thread_s_event_loop")


@needs_wheel
def test_twice_in_processes_of_their_own(tmp_path: Path) -> None:
    runs = [spawn("demo", "--data-dir", str(tmp_path / "state")) for _ in range(2)]
    first, second = runs
    for run in runs:
        assert (run.code, run.err) == (0, ""), run
        assert "\x1b" not in run.out
        assert "a scripted stand-in, not a real model (no provider's key" in run.out
        assert '* installed_version(package="letta-adapters")\n  -> ' in run.out
        assert "Your name is Ada. The tool said that letta-adapters is at version " in run.out
        assert "tokens" not in run.out, "the stand-in's are made up"
    assert ", made now\n" in first.out
    assert "Nice to meet you, Ada." in first.out
    assert ", found from an earlier run\n" in second.out
    assert "Welcome back, Ada." in second.out
    assert "My name is Ada" not in second.out
    agents = [line for run in runs for line in run.out.splitlines() if line.startswith("Agent")]
    assert agents[0].split(",")[0] == agents[1].split(",")[0]


@needs_wheel
def test_on_a_terminal(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_PACE", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-used")
    done = cli("demo", "--scripted", "--data-dir", str(tmp_path / "state"), terminal=True)
    assert (done.code, done.err) == (0, "")
    assert "Starting the embedded Letta runtime" in done.out
    assert "\x1b[36m* installed_version" in done.out
    assert "(--scripted)" in done.out


@needs_wheel
def test_a_real_model(
    cli: Cli, tmp_path: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LM Studio's place is taken by a model of this test, which says other things."""
    state = tmp_path / "state"
    call = Reply(tool_calls=[ToolUse("installed_version", {"package": "no-such-package"})])
    model.script(call, "It is not there.", "You are Ada.")
    first = cli("demo", "--data-dir", str(state))
    assert (first.code, first.err) == (0, "")
    assert "lmstudio/scripted, a real model (LMSTUDIO_BASE_URL is set)" in first.out
    assert "-> not installed" in first.out
    assert "(200 + 40 tokens, " in first.out
    model.models = ("another",)
    # Letta Code itself asks a model that refuses for half a minute.
    refused = ResultMessage(False, None, "error", Usage(), 1, error_code="provider_authentication")
    monkeypatch.setattr(demo, "_turn", lambda *_: refused)
    second = cli("demo", "--data-dir", str(state), "--model", "lmstudio/another")
    assert second.code == 1
    assert "lmstudio/another, a real model (--model)" in second.out
    assert "found from an earlier run" in second.out
    assert second.err.startswith("error: ")
    assert "Without a real model: letta-adapters demo --scripted" in second.err
    missing = cli("demo", "--data-dir", str(state), "--model", "lmstudio/anothre")
    assert missing.code == 1
    assert missing.err == (
        "error: Model 'lmstudio/anothre' is not available on this server.\n"
        "Did you mean 'lmstudio/another'?\n"
    )


@needs_wheel
def test_a_provider_without_models(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTUDIO_BASE_URL", f"http://127.0.0.1:{closed_port()}/v1")
    done = cli("demo", "--data-dir", str(tmp_path / "state"))
    assert (done.code, done.err) == (0, "")
    assert "(LMSTUDIO_BASE_URL set, but Letta Code has no model for it)" in done.out


@needs_wheel
def test_a_state_directory_that_cannot_be(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli("demo", "--data-dir", str(tmp_path / "file"))
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("platform", "env", "tail"),
    [
        ("linux", {}, ".local/share/letta-adapters/demo"),
        ("linux", {"XDG_DATA_HOME": "relative"}, ".local/share/letta-adapters/demo"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/letta-adapters/demo"),
        ("darwin", {}, "Library/Application Support/letta-adapters/demo"),
        ("win32", {"LOCALAPPDATA": ""}, "AppData/Local/letta-adapters/demo"),
    ],
)
def test_where_the_state_is(
    platform: str, env: dict[str, str], tail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert user_folder("data") / "demo" == Path.home() / tail


# -- choosing the model ---------------------------------------------------------------------------


def test_the_model_of_a_key() -> None:
    handles = ["openai/gpt-5.5", "openai/gpt-5-mini", "anthropic/claude-new"]
    chosen = demo.choose(handles, ["OPENAI_API_KEY", "ANTHROPIC_API_KEY"], None)
    assert str(chosen) == "openai/gpt-5-mini, a real model (OPENAI_API_KEY is set)"
    chosen = demo.choose(handles, ["GEMINI_API_KEY", "ANTHROPIC_API_KEY"], None)
    assert chosen is not None
    assert chosen.handle == "anthropic/claude-new", "the preferred one is gone"
    assert demo.choose(handles, ["GEMINI_API_KEY"], None) is None


def test_the_model_that_is_asked_for() -> None:
    assert demo.choose(["a/b", "c/d"], [], "c/d") == demo.Model("c/d", True, "--model")
    with pytest.raises(InvalidInputError):
        demo.choose(["a/b"], [], "c/d")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        demo.choose([], [], "c/d")


# -- the stand-in ---------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "installed_version"}}


def said(*messages: dict[str, Any], tools: bool = True) -> Any:
    return demo.respond(ModelRequest({"messages": messages, "tools": [TOOL] if tools else []}))


def user(text: str) -> dict[str, Any]:
    reminder = {"type": "text", "text": "<system-reminder>My name is Bot</system-reminder>"}
    return {"role": "user", "content": [reminder, {"type": "text", "text": text}]}


def looked_up(version: str, call_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    function = {"name": "installed_version", "arguments": '{"package": "some-package"}'}
    return (
        {"role": "assistant", "tool_calls": [{"id": call_id, "function": function}]},
        {"role": "tool", "tool_call_id": call_id, "content": version},
    )


def test_the_stand_in_knows_only_what_it_reads() -> None:
    assert said(user(demo.FIRST)).tool_calls[0].name == "installed_version"
    ids = {said(user(demo.FIRST)).tool_calls[0].id for _ in range(2)}
    assert len(ids) == 2, "a call id that is used twice would confuse the history"
    met = user("My name is Grace. Look it up.")
    assert said(met, *looked_up("7.8", "c1")).text == (
        "Nice to meet you, Grace. The tool said that some-package is at version 7.8."
    )
    again = (met, *looked_up("7.8", "c1"), user(demo.AGAIN), *looked_up("7.9", "c2"))
    assert said(*again).text.startswith("Welcome back, Grace. ")
    assert said(*again, user(demo.SECOND)).text == (
        "Your name is Grace. The tool said that some-package is at version 7.9."
    )


def test_the_stand_in_makes_nothing_up() -> None:
    unknown = "You have not told me your name yet. I have not looked a version up."
    assert said(user(demo.SECOND)).text == unknown
    assert said(user(demo.FIRST.replace("Ada", "Eve")), tools=False).text.startswith("Your name is")
    assert said().text == unknown
    assert said(user("Look."), *looked_up("1", "c")).text.startswith("You have not told me")
