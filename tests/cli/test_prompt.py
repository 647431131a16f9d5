"""``letta-adapters prompt``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from letta_adapters import LettaClient, Local
from letta_adapters.cli.parser import build_parser
from letta_adapters.cli.target import open_session
from letta_adapters.options import ReasoningEffort
from letta_adapters.testing import FakeLetta
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
    done = cli("prompt", "hello", "--agent", ev.AGENT, "--quiet")
    assert (done.code, done.out, done.err) == (0, "a\tb �[31mred\n", "")
    assert server.texts() == ["hello"]


def test_on_a_terminal_everything_is_shown(cli: Cli, server: Server) -> None:
    server.script(ANSWER)
    done = cli("prompt", "hello", "--agent", ev.AGENT, "-q", terminal=True)
    assert (done.code, done.err) == (0, "")
    assert "thinking: " in done.out
    assert "Hm." in done.out
    assert "\x1b[31m" not in done.out, "the model does not steer the terminal"
    assert done.out.endswith("[31mred\n")


def test_the_text_from_stdin(cli: Cli, server: Server) -> None:
    done = cli("prompt", "-", "--agent", ev.AGENT, stdin="from\na pipe")
    assert done.out == "You said: from\na pipe\n"


def test_what_is_piped_in_belongs_to_the_message(cli: Cli, server: Server) -> None:
    assert cli("prompt", "Summarise:", "--agent", ev.AGENT, stdin="a\nb\n").code == 0
    assert cli("prompt", "--agent", ev.AGENT, stdin="alone\n").code == 0
    assert cli("prompt", "no pipe", "--agent", ev.AGENT, stdin="").code == 0
    assert server.texts() == ["Summarise:\n\na\nb", "alone", "no pipe"]


def test_without_a_message_nothing_is_sent(cli: Cli, server: Server) -> None:
    for argv, stdin in ((("prompt",), " \n"), (("prompt",), None), (("prompt", ""), None)):
        done = cli(*argv, stdin=stdin)
        assert done.code == 2
        assert "there is no message: give a TEXT, or pipe one in" in done.err
    assert server.texts() == []


def test_what_is_piped_in_and_is_no_text_is_refused(cli: Cli, server: Server) -> None:
    done = cli("prompt", "look", "--agent", ev.AGENT, stdin="\x89PNG\0\0")
    assert (done.code, server.texts()) == (1, [])
    assert done.err == "error: What is piped in is no text.\nShow pictures with --image.\n"


def test_pictures_go_with_the_message(cli: Cli, server: Server, tmp_path: Path) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    done = cli("prompt", "look", "--agent", ev.AGENT, "--image", str(picture))
    assert done.code == 0
    [message] = server.sent()[0].messages
    assert [part["type"] for part in message["content"]] == ["text", "image"]
    missing = cli("prompt", "look", "--agent", ev.AGENT, "--image", str(tmp_path / "no.png"))
    assert (missing.code, len(server.sent())) == (1, 1)
    assert "no.png" in missing.err


def test_every_message_as_a_line_of_json(cli: Cli, server: Server) -> None:
    server.script(ANSWER)
    done = cli("prompt", "hi", "--agent", ev.AGENT, "--output-format", "stream-json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert [line["type"] for line in lines] == ["init", "reasoning", "assistant", "result"]
    assert done.err == f"{lines[0]['agent_id']} / {lines[0]['conversation_id']}\n"
    assert "\x1b" not in done.out
    server.script(ANSWER)
    options = ("--output-format", "stream-json", "--include-partial-messages")
    done = cli("prompt", "hi", "--agent", ev.AGENT, *options)
    assert "stream_event" in {json.loads(line)["type"] for line in done.out.splitlines()}


@pytest.mark.parametrize("form", ["json", "stream-json"])
def test_a_refusal_is_json_too(cli: Cli, form: str) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    done = cli("prompt", "hi", "--base-url", url, "--output-format", form)
    [line] = done.out.splitlines()
    told = json.loads(line)
    assert done.code == 5
    assert (told["type"], told["success"]) == ("result", False)
    assert told["error_code"] == "connection_failed"
    assert done.err.startswith("error: ")


def test_the_time_that_a_turn_may_take(cli: Cli, server: Server) -> None:
    server.script(stream(ev.ping(), hang))
    done = cli("prompt", "hi", "--agent", ev.AGENT, "--timeout", "0.2", "--json")
    assert done.code == 4
    assert json.loads(done.out)["error_code"] == "timeout_after_acceptance"


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
    done = cli("prompt", "hello", "--agent", ev.AGENT, "-q", terminal=terminal)
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
    assert done.err.endswith("\nNot run, left waiting by an earlier turn: send_mail.\n")


def test_the_model_of_the_conversation(cli: Cli, server: Server) -> None:
    done = cli("prompt", "hi", "--agent", ev.AGENT, "--model", "openai-proxy/scripted")
    assert done.code == 0
    made = [r for r in server.requests if r.method == "POST" and r.path == "/v1/conversations/"]
    assert "openai-proxy/scripted" in json.dumps(made[0].body)


def test_the_effort_of_the_conversation() -> None:
    parse = build_parser().parse_args
    args = parse(["prompt", "hi", "--reasoning-effort", "low"])
    letta = FakeLetta("Hello.")
    with letta.client() as client, open_session(client, args) as session:
        assert session.run_turn("hi").success
    (made,) = letta._conversations.values()
    assert made["model_settings"]["reasoning"] == {"reasoning_effort": "low"}
    for effort in get_args(ReasoningEffort):
        assert parse(["chat", "--reasoning-effort", effort]).reasoning_effort == effort
    with pytest.raises(SystemExit):
        parse(["chat", "--reasoning-effort", "enormous"])


def test_a_wrong_key(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "sk-let-secret-0123456789")
    refused = status(401, {"detail": "Unauthorized"})
    server.override("POST", "/v1/conversations", refused, times=5)
    done = cli("prompt", "hello", "--agent", ev.AGENT)
    assert (done.code, done.out) == (3, "")
    assert done.err == (
        "error: The Letta API refused the request: Unauthorized.\nSet LETTA_API_KEY.\n"
    )


def test_ids_that_are_none(cli: Cli, server: Server) -> None:
    done = cli("prompt", "hello", "--agent", "ada")
    assert (done.code, done.err) == (1, "error: 'ada' is not an agent id (agent-...).\n")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["--base-url", "http://127.0.0.1:{port}"],
            5,
            "error: The connection to 127.0.0.1:{port} fail",
        ),
        (
            ["--base-url", "ws://127.0.0.1:{port}"],
            5,
            "error: No App Server answers at ws://127.0.0.1",
        ),
        (["--backend", "cloud"], 3, "error: Letta Cloud needs an API key and there is none.\nSet "),
        (
            ["--backend", "remote"],
            3,
            "error: No App Server is named.\nSet LETTA_APP_SERVER_URL, or pa",
        ),
        (["--base-url", "ws://[nowhere"], 1, "error: 'ws://[nowhere' is not a URL.\n"),
        (
            ["--base-url", "nowhere"],
            1,
            "error: Invalid Rest: base_url: must be an http:// or https:",
        ),
    ],
)
def test_nobody_there(cli: Cli, options: list[str], code: int, message: str) -> None:
    port = str(closed_port())
    done = cli("prompt", "hello", *(option.replace("{port}", port) for option in options))
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(message.replace("{port}", port))
    assert "Rest(api" not in done.err
    assert "Remote(" not in done.err
    assert len(done.err.splitlines()) == 2 or "nowhere" in options[1]


@needs_wheel
def test_on_this_machine(cli: Cli, tmp_path: Path, model: ScriptedModel) -> None:
    model.script(Reply("Hello from here.", reasoning="Who?"))
    where = ("--data-dir", str(tmp_path / "state"), "--keep-running", "0", "-q")
    done = spawn("prompt", "hi", *where)
    assert (done.code, done.out, done.err) == (0, "Hello from here.\n", "")


@needs_wheel
def test_the_next_command_finds_the_runtime_running(
    cli: Cli, tmp_path: Path, model: ScriptedModel
) -> None:
    model.script("One.", "Two.", "Three.")
    record = tmp_path / "state/.letta/lc-local-backend/letta-adapters/server.json"
    where = ("--data-dir", str(tmp_path / "state"), "-q")
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
        "prompt", "hi", "-q", "--agent", ev.AGENT, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.code, done.out, done.err) == (0, "snow ? man\n", "")


def test_a_reader_that_leaves(server: Server) -> None:
    command = [sys.executable, "-m", "letta_adapters", "prompt", "hi", "-q", "--agent", ev.AGENT]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
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
    done = cli("prompt", "hello", "-q", "--agent", ev.AGENT, terminal=True)
    assert done.code == 130
    assert done.err == ""
    assert not server.active


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM cannot be caught on Windows")
def test_a_process_that_is_ended_stops_the_agent(server: Server) -> None:
    import signal

    def end(wire: Wire) -> None:
        process.send_signal(signal.SIGTERM)

    server.script(stream(ev.ping(), ev.text("I go "), end, hang))
    command = [sys.executable, "-m", "letta_adapters", "prompt", "hi", "-q", "--agent", ev.AGENT]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        errors = process.stderr.read()
    assert (process.returncode, errors) == (143, b"")
    assert server.cancels >= 1
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
