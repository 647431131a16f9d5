"""``letta-adapters prompt``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from letta_adapters import LettaClient, Local
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests._wheel import needs_wheel
from tests.cli.conftest import Done, spawn
from tests.faults import _events as ev
from tests.faults._server import Server, closed_port
from tests.faults._wire import Wire, hang, status, stream

Cli = Callable[..., Done]
ANSWER = stream(
    ev.ping(), ev.reasoning("Hm."), ev.text("a\tb "), ev.text("\x1b[31mred"), ev.ending()
)


def test_piped_there_is_only_the_answer(cli: Cli, server: Server) -> None:
    server.script(ANSWER)
    done = cli("prompt", "hello", "--agent", ev.AGENT)
    assert (done.code, done.out, done.err) == (0, "a\tb �[31mred\n", "")
    assert server.texts() == ["hello"]


def test_on_a_terminal_everything_is_shown(cli: Cli, server: Server) -> None:
    server.script(ANSWER)
    done = cli("prompt", "hello", "--agent", ev.AGENT, terminal=True)
    assert (done.code, done.err) == (0, "")
    assert "thinking: " in done.out
    assert "Hm." in done.out
    assert "\x1b[31m" not in done.out, "the model does not steer the terminal"
    assert done.out.endswith("[31mred\n")


def test_the_text_from_stdin(cli: Cli, server: Server) -> None:
    done = cli("prompt", "-", "--agent", ev.AGENT, stdin="from\na pipe")
    assert done.out == "You said: from\na pipe\n"


def test_json(cli: Cli, server: Server) -> None:
    done = cli("prompt", "hello", "--agent", ev.AGENT, "--json", terminal=True)
    result = json.loads(done.out)
    assert done.code == 0
    assert (result["type"], result["success"], result["result"]) == (
        "result",
        True,
        "You said: hello",
    )
    assert result["usage"]["prompt_tokens"] == 100


@pytest.mark.parametrize("terminal", [False, True])
def test_a_turn_that_fails(cli: Cli, server: Server, terminal: bool) -> None:
    server.script(stream(ev.ping(), ev.text("I thi"), ev.ending("max_steps")))
    done = cli("prompt", "hello", "--agent", ev.AGENT, terminal=terminal)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert terminal or done.out == ""


def test_a_failed_turn_as_json(cli: Cli, server: Server) -> None:
    server.script(stream(ev.ping(), ev.ending("max_steps")))
    done = cli("prompt", "hello", "--agent", ev.AGENT, "--json")
    assert done.code == 1
    assert json.loads(done.out)["error_code"] == "max_steps"


def test_a_conversation_goes_on(cli: Cli, server: Server) -> None:
    server.leave_pending(ev.call("send_mail"))
    done = cli("prompt", "hello", "--conversation", ev.CONV, "--agent", ev.AGENT)
    assert (done.code, done.out) == (0, "You said: hello\n")
    assert done.err == "Not run, left waiting by an earlier turn: send_mail.\n"


def test_the_model_of_the_conversation(cli: Cli, server: Server) -> None:
    done = cli("prompt", "hi", "--agent", ev.AGENT, "--model", "openai-proxy/scripted")
    assert done.code == 0
    made = [r for r in server.requests if r.method == "POST" and r.path == "/v1/conversations/"]
    assert "openai-proxy/scripted" in json.dumps(made[0].body)


def test_a_wrong_key(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "sk-let-secret-0123456789")
    refused = status(401, {"detail": "Unauthorized"})
    server.override("POST", "/v1/conversations", refused, times=5)
    done = cli("prompt", "hello", "--agent", ev.AGENT)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "error: The Letta API refused the request: Unauthorized.\nSet LETTA_API_KEY.\n"
    )


def test_ids_that_are_none(cli: Cli, server: Server) -> None:
    done = cli("prompt", "hello", "--agent", "ada")
    assert (done.code, done.err) == (1, "error: 'ada' is not an agent id (agent-...).\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--base-url", "http://127.0.0.1:{port}"],
            "error: The connection to 127.0.0.1:{port} fail",
        ),
        (["--base-url", "ws://127.0.0.1:{port}"], "error: No App Server answers at ws://127.0.0.1"),
        (["--backend", "cloud"], "error: Letta Cloud needs an API key and there is none.\nSet "),
        (
            ["--backend", "remote"],
            "error: No App Server is named.\nSet LETTA_APP_SERVER_URL, or pa",
        ),
        (["--base-url", "ws://[nowhere"], "error: 'ws://[nowhere' is not a URL.\n"),
        (["--base-url", "nowhere"], "error: Invalid Rest: base_url: must be an http:// or https:"),
    ],
)
def test_nobody_there(cli: Cli, options: list[str], message: str) -> None:
    port = str(closed_port())
    done = cli("prompt", "hello", *(option.replace("{port}", port) for option in options))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(message.replace("{port}", port))
    assert "Rest(api" not in done.err
    assert "Remote(" not in done.err
    assert len(done.err.splitlines()) == 2 or "nowhere" in options[1]


@needs_wheel
def test_on_this_machine(cli: Cli, tmp_path: Path, model: ScriptedModel) -> None:
    model.script(Reply("Hello from here.", reasoning="Who?"))
    done = spawn("prompt", "hi", "--data-dir", str(tmp_path / "state"), "--keep-running", "0")
    assert (done.code, done.out, done.err) == (0, "Hello from here.\n", "")


@needs_wheel
def test_the_next_command_finds_the_runtime_running(
    cli: Cli, tmp_path: Path, model: ScriptedModel
) -> None:
    model.script("One.", "Two.", "Three.")
    record = tmp_path / "state/.letta/lc-local-backend/letta-adapters/server.json"
    where = ("--data-dir", str(tmp_path / "state"))
    runtimes = []
    for seconds in ("60", "60", "0"):
        done = spawn("prompt", "hi", *where, "--keep-running", seconds)
        assert (done.code, done.err) == (0, "")
        if seconds != "0":
            runtimes.append(json.loads(record.read_text())["pid"])
    assert len(set(runtimes)) == 1
    assert not record.exists()


def test_an_output_that_cannot_take_it(server: Server) -> None:
    server.script(stream(ev.ping(), ev.text("snow ☃ man"), ev.ending()))
    done = spawn(
        "prompt", "hi", "--agent", ev.AGENT, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.code, done.out, done.err) == (0, "snow ? man\n", "")


def test_a_reader_that_leaves(server: Server) -> None:
    command = [sys.executable, "-m", "letta_adapters", "prompt", "hi", "--agent", ev.AGENT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(20), errors) == (1, b"")


def test_ctrl_c_stops_the_agent(cli: Cli, server: Server) -> None:
    import signal

    def ctrl_c(wire: Wire) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    server.script(stream(ev.ping(), ev.text("I go "), ctrl_c, hang))
    done = cli("prompt", "hello", "--agent", ev.AGENT, terminal=True)
    assert done.code == 130
    assert done.err == ""
    assert not server.active


@needs_wheel
@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ((), False),
        (("--permission-mode", "acceptEdits"), False),
        (("--permission-mode", "unrestricted"), True),
        (("--tools", "Bash,Write"), True),
    ],
)
def test_commands_are_denied_unless_the_options_say_otherwise(
    cli: Cli,
    model: ScriptedModel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, ...],
    runs: bool,
) -> None:
    made = tmp_path / "made"
    monkeypatch.chdir(tmp_path)
    touch = ToolUse("Bash", {"command": f"touch '{made}'", "description": "a test"})
    model.script(Reply(tool_calls=[touch], when="go"), Reply("Done.", repeat=True))
    done = cli("prompt", "go", "--data-dir", str(tmp_path / "state"), *options)
    assert (done.code, done.out) == (0, "Done.\n")
    assert made.exists() is runs


@needs_wheel
def test_an_agent_keeps_what_restricts_it_on_the_command_line(
    cli: Cli, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It was made strict by another client; a command that says nothing does not loosen it."""
    (tmp_path / "note.txt").write_text("read me")
    monkeypatch.chdir(tmp_path)
    with LettaClient(Local(data_dir=tmp_path / "state")) as client:
        agent = client.create_agent(permission_mode="strict", disallowed_tools=["Bash"])
    read = ToolUse("Read", {"file_path": str(tmp_path / "note.txt")})
    model.script(Reply(tool_calls=[read], when="go"), Reply("Done.", repeat=True))
    done = cli("prompt", "go", "--agent", agent, "--data-dir", str(tmp_path / "state"))
    assert (done.code, done.out) == (0, "Done.\n")
    assert "read me" not in str([request.messages for request in model.requests])
    loosened = cli(
        "prompt", "go", "--agent", agent, "--data-dir", str(tmp_path / "state"),
        "--permission-mode", "unrestricted",
    )  # fmt: skip
    assert loosened.code == 1
    assert "permission_mode" in loosened.err
