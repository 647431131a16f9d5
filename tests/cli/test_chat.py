"""``letta-adapters chat``: at a terminal, and with its input piped."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.cli import chat, main, render
from letta_adapters.cli.chat import Chat
from letta_adapters.cli.lines import Keyboard
from letta_adapters.errors import LettaError
from letta_adapters.messages import ResultMessage, Usage
from letta_adapters.sync.client import Session
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


def reasons(server: Server) -> list[Any]:
    found = [m["approvals"] for r in server.sent() for m in r.messages if "approvals" in m]
    return [approval.get("reason") for given in found for approval in given]


def told(done: Done) -> str:
    """What was said on stderr, besides ids, help and costs."""
    usual = re.compile(r"agent-\S+ / |/help for help|\(\d+ \+ \d+ tokens|Go on later: ")
    return "".join(f"{line}\n" for line in done.err.splitlines() if not usual.match(line))


def ctrl_c(wire: Wire) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Somebody who types these lines at a terminal; an exception is a key."""

    def make(*lines: str | type[BaseException]) -> list[str]:
        waiting: Iterator[str | type[BaseException]] = iter(lines)
        asked: list[str] = []

        class Typist(Keyboard):
            def __init__(self, *_: object) -> None: ...

            def read_message(self) -> str:
                return self.read_answer("> ")

            def read_answer(self, question: str, given: str = "") -> str:
                asked.append(question + given)
                line = next(waiting)
                if isinstance(line, str):
                    return line
                raise line

            def resting(self) -> AbstractContextManager[None]:
                return nullcontext()

            def forget_typed(self) -> None: ...

        monkeypatch.setattr(chat, "Keyboard", Typist)
        # Who types sees where: notes go to this terminal.
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(Chat, "is_watched", staticmethod(lambda: True))
        return asked

    return make


# -- piped ----------------------------------------------------------------------------------------


def test_piped(cli: Cli, server: Server) -> None:
    done = cli(*CHAT, stdin="one\n\n/help\ntwo\n/exit\nthree\n")
    assert done.code == 0
    assert server.texts() == ["one", "two"]
    assert "\x1b" not in done.out
    assert done.out == "You said: one\nYou said: two\n"
    assert "\n(100 + 20 tokens, " in done.err
    assert "/exit                leave (or Ctrl-D)\n" in done.err
    command = f"letta-adapters chat --agent {ev.AGENT} --conversation {ev.CONV}"
    assert done.err.endswith(f"Go on later: {command}\n")


def test_nobody_approves_what_is_piped(cli: Cli, server: Server) -> None:
    server.script(ASK, stream(ev.ping(), ev.text("Then not."), ev.ending()))
    done = cli(*CHAT, stdin="go\ny\n")
    assert answers(server) == [False]
    assert "Nobody is there who could approve it." in done.out


def test_a_script_learns_of_failures(cli: Cli, server: Server) -> None:
    server.script(stream(ev.ping(), ev.ending("max_steps")))
    done = cli(*CHAT, stdin="one\ntwo\n")
    assert done.code == 1
    assert told(done).startswith("error: ")
    assert server.texts() == ["one", "two"]


def test_what_was_left_waiting_is_not_run(cli: Cli, server: Server) -> None:
    server.leave_pending(ev.call("send_mail"))
    done = cli(*CHAT, stdin="one\n")
    assert (done.code, told(done)) == (
        0,
        "Not run, left waiting by an earlier turn: send_mail.\n",
    )


# -- at a terminal --------------------------------------------------------------------------------


def test_approvals(cli: Cli, server: Server, typing: Callable[..., list[str]]) -> None:
    server.script(*(ASK, RAN) * 5)
    typing("go", "what?", "y", "go", "n", "go", "n it is late", "go", "a", "go", EOFError)
    done = cli(*CHAT)
    assert (done.code, told(done)) == (0, "")
    assert answers(server) == [True, False, False, True, True]
    assert reasons(server)[2] == "it is late"
    assert done.out.count("run_code asks for approval (it executes something):\n") == 4
    assert "n WHY tells the agent why" in done.out


def test_always_means_this_very_call(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    other = asks(ev.call("run_code", "call_1", '{"code": "1 + 2"}'))
    server.script(ASK, RAN, ASK, RAN, other, RAN)
    typing("go", "a", "go", "go", "n", EOFError)
    assert cli(*CHAT).code == 0
    assert answers(server) == [True, True, False]


def test_a_question_shows_exactly_what_would_run(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    """Nothing steers the terminal, hides, changes the order, or passes for another argument."""
    attacks = {
        "a": "ls \x1b[2K\x1b]52;c;aGk=\x07 \r echo",
        "b": "rm\u200b -rf \u202egnp.\u2066",
        "c": "one\nlimit: 3",
        "d": "[red]x[/red] [link=http://x]y[/link] \u3164.",
        "e\x1b[1m": ["\x9b1m", {"k": "\U000e0041"}],
    }
    server.script(asks(ev.call("run_\x1b[31mcode", "call_1", json.dumps(attacks))), RAN)
    typing("go", "n", EOFError)
    shown = cli(*CHAT).out
    assert shown[shown.index("run_") :].startswith("run_�[31mcode(a=")
    question = shown[shown.index("asks for approval") :]
    assert question.splitlines()[1:8] == [
        "a: ls <\\x1b>[2K<\\x1b>]52;c;aGk=<\\x07> <\\x0d> echo",
        "b: rm<\\u200b zero width space> -rf <\\u202e right-to-left override>gnp."
        "<\\u2066 left-to-right isolate>",
        "c:",
        "  | one",
        "  | limit: 3",
        "d: [red]x[/red] [link=http://x]y[/link] <\\u3164 hangul filler>.",
        'e<\\x1b>[1m: ["<\\x9b>1m", {"k": "<\\ue0041 tag latin capital letter a>"}]',
    ]


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
    assert told(cli(*CHAT)) == "error: The stream broke.\n"


def test_who_leaves_a_question_open_answers_it_later(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    """The call stays where it is, and the next run asks about it again."""
    server.script(ASK)
    typing("go", EOFError)
    done = cli(*CHAT)
    assert (done.code, answers(server)) == (0, [])
    assert told(done) == "It waits for an answer; going on with the conversation asks again.\n"
    server.script(RAN)
    typing("n not now", EOFError)
    done = cli("chat", "-c")
    assert (done.code, reasons(server)) == (0, ["not now"])
    assert told(done) == "An earlier run left this waiting for an answer:\n"
    assert "It is 2.\n" in done.out


def test_what_was_left_waiting_may_wait_on(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    for key in (EOFError, KeyboardInterrupt):
        server.leave_pending(ev.call("send_mail"))
        typing(key)
        assert cli(*CHAT).code == 0
    assert (server.texts(), answers(server)) == ([], [])


def test_a_mistyped_command_is_not_said_to_the_agent(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    typing("/exti", "/unknown words", "/help me", "/image", " /tmp is full", EOFError)
    done = cli(*CHAT)
    assert (done.code, server.texts()) == (0, ["/tmp is full"])
    assert told(done).count("error: There is no command /") == 4
    assert "error: There is no command /unknown words\n" in done.err


def test_a_script_learns_of_a_mistyped_command(cli: Cli, server: Server) -> None:
    done = cli(*CHAT, stdin="/unknown words\n")
    assert (done.code, server.texts()) == (1, [])
    assert told(done).startswith("error: There is no command /unknown words\n")


def test_a_picture_goes_with_the_next_message(
    cli: Cli, server: Server, typing: Callable[..., list[str]], tmp_path: Path
) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    typing("one", f"/image {picture}", "/image nowhere.png", "two", "three", EOFError)
    done = cli(*CHAT, "--image", str(picture))
    contents = [request.messages[0]["content"] for request in server.sent()]
    assert [len(c) if isinstance(c, list) else 0 for c in contents] == [2, 2, 0]
    assert told(done).startswith("error: ")
    assert "nowhere.png" in told(done)


def test_a_conversation_that_goes_on_shows_what_was_said_last(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    typing("The **first** one", "another", EOFError)
    cli(*CHAT)
    typing(EOFError)
    done = cli("chat", "--continue", "--agent", ev.AGENT)
    assert done.code == 0
    assert "> The **first** one\n" in done.out
    assert "You said: another\n" in done.out


def test_there_may_be_no_conversation_to_go_on_with(cli: Cli, server: Server) -> None:
    for command in (("chat",), ("prompt", "hi")):
        done = cli(*command, "-c")
        assert (done.code, server.texts()) == (1, [])
        assert done.err.startswith("error: There is no conversation yet to go on with.\n")


def test_ctrl_c_at_a_question_ends_the_turn(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    server.script(ASK)
    typing("go", KeyboardInterrupt, "again", EOFError)
    done = cli(*CHAT)
    assert done.code == 0
    assert "Stopped.\n" in done.err
    assert "You said: again\n" in done.out


@pytest.fixture
def ctrl_c_when_it_shows(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Ctrl-C, once, when this text is shown."""

    def arrange(text: str) -> None:
        show = render.Renderer.show
        pressed: list[bool] = []

        def watched(self: render.Renderer, message: Any) -> None:
            show(self, message)
            if text in str(message) and not pressed:
                pressed.append(True)
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(render.Renderer, "show", watched)

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
    assert (done.code, told(done)) == (0, "Stopped.\n")
    assert "You said: again\n" in done.out
    assert server.cancels >= 1


def test_ctrl_c_while_the_message_is_sent(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    server.script(stream(ctrl_c, hang))
    typing("go", "again", EOFError)
    done = cli(*CHAT)
    assert "Stopped.\n" in done.err
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
    assert (done.code, told(done)) == (130, "")
    assert "Go on later" not in done.err, "nothing was said"


def test_an_error_does_not_end_the_chat(
    cli: Cli, server: Server, typing: Callable[..., list[str]]
) -> None:
    server.script(status(422, {"detail": "no such thing"}))
    typing("go", "again", EOFError)
    done = cli(*CHAT)
    assert done.code == 0
    assert told(done) == "error: no such thing\n"
    assert "You said: again\n" in done.out


def test_a_wrong_key_does(cli: Cli, server: Server) -> None:
    server.override("GET", "/v1/", status(401, {"detail": "Unauthorized"}), times=9)
    server.override("POST", "/v1/", status(401, {"detail": "Unauthorized"}), times=9)
    done = cli("chat", "--agent", ev.AGENT, stdin="hello\n")
    assert (done.code, done.out) == (3, "")
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
