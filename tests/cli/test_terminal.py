"""The chat as a person meets it: in a process of its own, at a terminal, key by key."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests._wheel import needs_wheel
from tests.cli.test_usage import COLOUR
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import asks, hang, stream

if sys.platform == "win32":
    pytest.skip("there is no pty on Windows", allow_module_level=True)
pytest.importorskip("pyte", reason="the screen of a terminal is read by pyte, of the extra [dev]")

from tests.cli._pty import CTRL_C, CTRL_D, PASTE, PASTED, TERMINATE, UP, Chat

CHAT = ("--agent", ev.AGENT, "--conversation", ev.CONV)
ASK = asks(ev.call("run_code", "call_1", '{"code": "1 + 1"}'))
RAN = stream(ev.ping(), ev.tool_return("2"), ev.text("It is 2."), ev.ending())


def test_lines_pastes_keys_and_what_was_typed_before(server: Server, tmp_path: Path) -> None:
    server.script(ASK, RAN)
    with Chat(*CHAT) as there:
        # A pasted text is one message, and is sent by Enter alone.
        there.is_asking()
        there.press(f"{PASTE}one\ntwo\n{PASTED}")
        there.shows("two")
        assert server.texts() == []
        there.press("three\r")
        there.shows("run_code asks for approval")
        there.shows("Allow it?")
        there.press("y\r")
        there.shows("It is 2.")
        # Ctrl-C keeps a line that is half typed.
        there.is_asking()
        there.press("half")
        there.shows("> half")
        there.press(CTRL_C)
        there.shows("(Ctrl-C again leaves; the line is kept)")
        there.press(" a line\r")
        there.shows("You said: half a line")
        there.is_asking()
        there.press(CTRL_D)
        assert there.ends() == 0
        assert there.modes_now() == there.modes
    assert server.texts() == ["one\ntwo\nthree", "half a line"]
    history = tmp_path / "home/.local/state/letta-adapters/history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with Chat(*CHAT) as there:
        there.is_asking()
        there.press(UP)
        there.shows("> half a line", times=2)
        there.press(UP)
        there.shows("three", times=2)
        there.press(CTRL_C)
        there.press(CTRL_C)
        assert there.ends() == 130
        assert there.modes_now() == there.modes
    assert len(server.texts()) == 2
    assert "+y" not in history.read_text()


def test_ctrl_c_in_a_turn_stops_it_and_keeps_what_was_typed(server: Server) -> None:
    server.script(stream(ev.ping(), ev.text("I go "), hang))
    with Chat(*CHAT) as there:
        there.says("go")
        there.shows("I go")
        there.press("typed ahead")
        there.press(CTRL_C)
        there.shows("Stopped.")
        there.shows("> typed ahead")
        there.press("\r")
        there.shows("You said: typed ahead")
        there.is_asking()
        there.press(CTRL_D)
        assert there.ends() == 0
    assert server.cancels >= 1


def test_words_are_whole_on_a_narrow_terminal(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Markdown is drawn, piece by piece as it comes; without colours, if they are not wanted."""
    monkeypatch.setenv("NO_COLOR", "1")
    words = " ".join(["astonishing"] * 12)
    said = f"# Title\n\n- **{words}**\n- `b` <b>html</b> [l](http://x.test/y)\n\nend"
    parts = [ev.text(said[start : start + 7]) for start in range(0, len(said), 7)]
    server.script(stream(ev.ping(), *parts, ev.ending()))
    with Chat("--agent", ev.AGENT, columns=40) as there:
        there.says("go")
        there.shows("tokens")
        there.is_asking()
        there.press(CTRL_D)
        there.ends()
    shown = "\n".join(there.lines)
    assert "Title" in shown
    assert "# Title" not in shown
    assert shown.count("astonishing") == 12
    assert "**" not in shown
    assert "b <b>html</b> l (http://x.test/y)" in shown
    assert not COLOUR.search(there.raw)


ATTACK = (
    "\x1b]0;title\x07\x1b]52;c;aGk=\x07\x1b[2J\x1b[31m[red]r[/red] safe\rover "
    "\x1b]8;;http://x.test\x1b\\link\x1b]8;;\x1b\\ \u202eabc\u2066 \x9b31m" + "x" * 3000
)


def test_what_a_model_says_does_not_steer_the_terminal(server: Server) -> None:
    server.script(stream(ev.ping(), ev.reasoning(ATTACK), ev.text(ATTACK), ev.ending()))
    with Chat("--agent", ev.AGENT) as there:
        there.says("go")
        there.shows("tokens")
        there.is_asking()
        there.press(CTRL_D)
        there.ends()
    for bad in ("\x1b]", "\x07", "\x1b[2J", "\x1b[31m", "\u202e", "\u2066", "\x9b"):
        assert bad not in there.raw
    shown = "".join(there.lines)
    assert shown.count("[red]r[/red] safe�over") == 2
    assert shown.count("x" * 3000) == 2


def test_a_dumb_terminal_gets_plain_text(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Chat("--agent", ev.AGENT) as there:
        there.shows("leaves.\n>")
        there.press("hello\r")
        there.shows("You said: hello")
        there.shows("tokens")
        there.press(CTRL_D)
        assert there.ends() == 0
    assert "\x1b" not in there.raw


@pytest.mark.parametrize("busy", [False, True])
def test_a_chat_that_is_ended_leaves_the_terminal_as_it_was(server: Server, busy: bool) -> None:
    server.script(stream(ev.ping(), ev.text("I go "), hang))
    with Chat(*CHAT) as there:
        there.is_asking()
        if busy:
            there.press("go\r")
            there.shows("I go")
        else:
            there.press("half")
            there.shows("> half")
        assert there.ends(TERMINATE) == 143
        assert there.modes_now() == there.modes
        assert "Traceback" not in there.raw
    assert bool(server.cancels) is busy


# -- a real runtime -------------------------------------------------------------------------------


@needs_wheel
@pytest.mark.slow
def test_a_conversation_with_the_runtime_on_this_machine(
    tmp_path: Path, model: ScriptedModel
) -> None:
    def bash(command: str) -> Reply:
        return Reply(tool_calls=[ToolUse("Bash", {"command": command, "description": "x"})])

    yes, no, other = tmp_path / "yes", tmp_path / "no", tmp_path / "other"
    model.script(
        Reply("Hello there.", reasoning="I greet."),
        bash(f"touch {yes}"),
        "It ran.",
        bash(f"touch {no}"),
        "It did not.",
        bash(f"touch {no}"),
        "Another ran.",
        Reply(["word "] * 400, token_delay=0.05),
    )
    where = ("--data-dir", str(tmp_path / "state"), "--keep-running", "0")
    with Chat(*where, columns=200) as there:
        there.says("hi")
        there.shows("Hello there.")
        there.says("one")
        there.shows("Allow it?")
        there.press("y\r")
        there.shows("It ran.")
        there.says("two")
        there.shows("Allow it?", times=2)
        there.press("n not today\r")
        there.shows("It did not.")
        assert any("not today" in str(request.messages) for request in model.requests)
        there.says("three")
        there.shows("Allow it?", times=3)
        there.press("e\r")
        there.shows(f"command: touch {no}", times=3)
        there.press("\x15" + f"touch {other}\r")
        there.shows(f"command: touch {other}", times=2)
        there.shows("Allow it?", times=4)
        there.press("y\r")
        there.shows("Another ran.")
        there.says("long")
        there.shows("word word")
        assert there.ends(TERMINATE) == 143
        assert there.modes_now() == there.modes
    assert [yes.exists(), no.exists(), other.exists()] == [True, False, True]
    assert not (tmp_path / "state/.letta/lc-local-backend/letta-adapters/server.json").exists()
    # The next run goes on where this one was, and shows it in order.
    with Chat("-c", *where, columns=200) as there:
        there.is_asking()
        shown = "\n".join(there.lines)
        assert shown.index("> three") < shown.index("Another ran.") < shown.index("> long")
        there.press(CTRL_D)
        assert there.ends() == 0


def test_a_pipe_may_be_closed_early(server: Server) -> None:
    """As by ``| head -1``: no traceback, and nothing is left running."""
    import subprocess

    script = f"'{sys.executable}' -m letta_adapters chat --agent {ev.AGENT} | head -1"
    done = subprocess.run(
        ["sh", "-c", script], input="one\ntwo\n", capture_output=True, text=True, timeout=30,
        env=os.environ,
    )  # fmt: skip
    assert done.stdout == "You said: one\n"
    assert "Traceback" not in done.stderr
    assert not server.active
