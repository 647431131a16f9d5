"""``letta-adapters chat``: at a terminal, and with its input piped."""

from __future__ import annotations

import builtins
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.cli import chat, main, render
from letta_adapters.errors import LettaError
from letta_adapters.messages import ResultMessage, Usage
from letta_adapters.sync.client import Session
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests._wheel import needs_wheel
from tests.cli.conftest import Done, Terminal
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import PlayedError, Wire, asks, hang, status, stream

Cli = Callable[..., Done]
CHAT = ("chat", "--agent", ev.AGENT, "--conversation", ev.CONV)
ASK = asks(ev.call("run_code", "call_1", '{"code": "1 + 1 \\u202e#", "limit": 3}'))
RAN = stream(ev.ping(), ev.tool_return("2"), ev.text("It is 2."), ev.ending())


def answers(server: Server) -> list[Any]:
    """What was said to the tool calls that asked."""
    found = [m["approvals"] for r in server.sent() for m in r.messages if "approvals" in m]
    return [approval["approve"] for given in found for approval in given]


def ctrl_c(wire: Wire) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Somebody who types these lines at a terminal; an exception is a key."""

    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    def make(*lines: str | type[BaseException]) -> list[str]:
        waiting: Iterator[str | type[BaseException]] = iter(lines)
        asked: list[str] = []

        def fake_input(prompt: str = "") -> str:
            asked.append(prompt)
            line = next(waiting)
            if isinstance(line, str):
                return line
            raise line

        monkeypatch.setattr(sys, "stdin", Keyboard())
        monkeypatch.setattr(builtins, "input", fake_input)
        return asked

    return make


# -- piped ----------------------------------------------------------------------------------------


def test_piped(cli: Cli, server: Server) -> None:
    done = cli(*CHAT, stdin="one\n\n/help\ntwo\n/exit\nthree\n")
    assert (done.code, done.err) == (0, "")
    assert server.texts() == ["one", "two"]
    assert "\x1b" not in done.out
    assert "You said: one\n(100 + 20 tokens, " in done.out
    assert "/exit or Ctrl-D leaves." in done.out
    command = f"letta-adapters chat --agent {ev.AGENT} --conversation {ev.CONV}"
    assert done.out.endswith(f"Go on later: {command}\n")


def test_nobody_approves_what_is_piped(cli: Cli, server: Server) -> None:
    server.script(ASK, stream(ev.ping(), ev.text("Then not."), ev.ending()))
    done = cli(*CHAT, stdin="go\ny\n")
    assert answers(server) == [False]
    assert "Nobody is there who could approve it." in done.out


def test_a_script_learns_of_failures(cli: Cli, server: Server) -> None:
    server.script(stream(ev.ping(), ev.ending("max_steps")))
    done = cli(*CHAT, stdin="one\ntwo\n")
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert server.texts() == ["one", "two"]


def test_what_was_left_waiting_is_not_run(cli: Cli, server: Server) -> None:
    server.leave_pending(ev.call("send_mail"))
    done = cli(*CHAT, stdin="one\n")
    assert (done.code, done.err) == (
        0,
        "Not run, left waiting by an earlier turn: send_mail.\n",
    )


# -- at a terminal --------------------------------------------------------------------------------


def test_approvals(cli: Cli, server: Server, typing: Callable[..., list[str]]) -> None:
    server.script(ASK, RAN, ASK, RAN, ASK, RAN, ASK, RAN)
    asked = typing("go", "what?", "y", "go", "n", "go", "a", "go", EOFError)
    done = cli(*CHAT, terminal=True)
    assert (done.code, done.err) == (0, "")
    assert answers(server) == [True, False, True, True]
    question = "Allow it? [y]es, [n]o, [a]lways run_code in this session: "
    assert asked == ["> ", question, question, "> ", question, "> ", question, "> ", "> "]
    assert "run_code asks for approval" in done.out
    assert "code: 1 + 1 �#" in done.out
    assert "limit: 3" in done.out


def test_a_question_comes_after_its_tool_call(
    cli: Cli, server: Server, typing: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take two ways; here the call's is the slower one."""

    def read(messages: Iterator[Any], events: Any) -> None:
        for message in messages:
            if message.type == "tool_call":
                time.sleep(0.1)
            events.put(message)

    monkeypatch.setattr(chat, "_read", read)
    server.script(ASK, RAN)
    typing("go", "y", EOFError)
    done = cli(*CHAT)
    assert answers(server) == [True]
    assert done.out.index("* run_code(") < done.out.index("asks for approval")


def test_a_question_does_not_wait_for_ever(
    cli: Cli, server: Server, typing: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a tool call that is never announced, nor behind the end of the turn."""
    result = ResultMessage(True, "", "end_turn", Usage(), 1)

    def read(messages: Iterator[Any], events: Any) -> None:
        for message in messages:
            if message.type == "tool_call":
                time.sleep(0.1)
                events.put(result)
            elif message.type == "result":
                events.put(message)

    monkeypatch.setattr(chat, "_read", read)
    monkeypatch.setattr(chat, "_ORDER_SECONDS", 0.15)
    server.script(ASK, RAN)
    typing("go", "n", EOFError)
    assert cli(*CHAT).code == 0


def test_what_breaks_the_stream_is_told(
    cli: Cli, server: Server, typing: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterate(*_: object) -> Iterator[Any]:
        raise LettaError("The stream broke.")
        yield

    monkeypatch.setattr(Session, "stream", iterate)
    typing("go", EOFError)
    assert cli(*CHAT).err == "error: The stream broke.\n"


def test_leaving_a_question_open_denies(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    server.script(ASK, RAN)
    typing("go", EOFError, "/quit")
    done = cli(*CHAT)
    assert done.code == 0
    assert answers(server) == [False]
    assert (
        "run_code asks for approval (it executes something):\ncode: 1 + 1 �#\nlimit: 3\n"
        in done.out
    )


def test_ctrl_c_at_a_question_ends_the_turn(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    server.script(ASK)
    typing("go", KeyboardInterrupt, "again", EOFError)
    done = cli(*CHAT)
    assert done.code == 0
    assert "Stopped.\n" in done.out
    assert "You said: again\n" in done.out


@pytest.fixture
def ctrl_c_when_it_shows(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Ctrl-C, once, when this text is shown."""

    def arrange(text: str) -> None:
        write = render.write
        pressed: list[bool] = []

        def watched(console: Any, shown: str, style: str = "") -> None:
            write(console, shown, style)
            if text in shown and not pressed:
                pressed.append(True)
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(render, "write", watched)

    return arrange


def test_ctrl_c_stops_the_answer(
    cli: Cli,
    server: Server,
    typing: Callable[..., list[str]],
    ctrl_c_when_it_shows: Callable[[str], None],
) -> None:
    ctrl_c_when_it_shows("I go")
    server.script(stream(ev.ping(), ev.text("I go "), hang))
    typing("go", "again", EOFError)
    done = cli(*CHAT, terminal=True)
    assert (done.code, done.err) == (0, "")
    assert "Stopped." in done.out
    assert "You said: again\n" in done.out
    assert server.cancels >= 1


def test_ctrl_c_while_the_message_is_sent(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    server.script(stream(ctrl_c, hang))
    typing("go", "again", EOFError)
    done = cli(*CHAT)
    assert "Stopped.\n" in done.out
    assert "You said: again\n" in done.out


def test_ctrl_c_twice_leaves(
    cli: Cli,
    server: Server,
    typing: Callable[..., list[str]],
    ctrl_c_when_it_shows: Callable[[str], None],
) -> None:
    def second(wire: Wire) -> None:
        wire.wait(wire.run.over)
        ctrl_c(wire)
        wire.server.stopping.wait(0.2)
        wire.chunk(ev.CANCELLED)
        wire.end()
        raise PlayedError

    ctrl_c_when_it_shows("I go")
    server.script(stream(ev.ping(), ev.text("I go "), second))
    typing("go")
    assert cli(*CHAT).code == 130


def test_ctrl_c_at_the_prompt_leaves(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    typing(KeyboardInterrupt)
    done = cli(*CHAT)
    assert (done.code, done.err) == (130, "")
    assert "Go on later" not in done.out, "nothing was said"


def test_an_error_does_not_end_the_chat(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    server.script(status(422, {"detail": "no such thing"}))
    typing("go", "again", EOFError)
    done = cli(*CHAT)
    assert done.code == 0
    assert done.err == "error: no such thing\n"
    assert "You said: again\n" in done.out


def test_a_wrong_key_does(cli: Cli, server: Server) -> None:
    server.override("GET", "/v1/", status(401, {"detail": "Unauthorized"}), times=9)
    server.override("POST", "/v1/", status(401, {"detail": "Unauthorized"}), times=9)
    done = cli("chat", "--agent", ev.AGENT, stdin="hello\n")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: The Letta API refused the request")


def test_a_crash_of_the_reader_reaches_the_user(
    server: Server, typing: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, message: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(render.Renderer, "show", broken)
    monkeypatch.setattr(sys, "stdout", Terminal())
    typing("go")
    with pytest.raises(ZeroDivisionError):
        main(CHAT)


# -- a real terminal, a real runtime --------------------------------------------------------------


@needs_wheel
@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty on Windows")
def test_at_a_pty(tmp_path: Path, model: ScriptedModel) -> None:
    from tests.cli._pty import Chat

    def bash(command: str) -> Reply:
        return Reply(tool_calls=[ToolUse("Bash", {"command": command, "description": "x"})])

    yes, no = tmp_path / "yes", tmp_path / "no"
    question = "Allow it? [y]es, [n]o, [a]lways Bash in this session: "
    model.script(
        Reply("Hello there.", reasoning="I greet."),
        bash(f"touch {yes}"),
        "It ran.",
        bash(f"touch {no}"),
        "It did not.",
        Reply(["word "] * 200, token_delay=0.05),
        "Here I am.",
    )
    with Chat("--data-dir", str(tmp_path / "state"), "--keep-running", "0") as there:
        there.types("hi", after="> ")
        there.shows("Hello there.")
        there.types("one", after="> ")
        there.types("y", after=question)
        there.shows("It ran.")
        there.types("two", after="> ")
        there.types("n", after=question)
        there.shows("The user denied this tool call.")
        there.shows("It did not.")
        there.types("long", after="> ")
        there.press("\x03", after="word word")
        there.shows("Stopped.")
        there.types("still there?", after="> ")
        there.shows("Here I am.")
        there.press("\x04", after="> ")
        assert there.ends() == 0
    assert "\x1b[2;3mthinking: " in there.seen
    assert f"--data-dir {tmp_path / 'state'} --agent agent-" in there.seen
    assert yes.exists()
    assert not no.exists()
