"""The grammar of the command line, and what it costs to start."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from letta_adapters import __version__
from letta_adapters.cli import render
from letta_adapters.errors import LettaError
from letta_adapters.messages import (
    AssistantMessage,
    ReasoningMessage,
    ResultMessage,
    RetryMessage,
    StreamEvent,
    ToolCallMessage,
    ToolProgressMessage,
    ToolResultMessage,
    Usage,
)
from tests.cli.conftest import Done, Terminal

Cli = Callable[..., Done]
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|4[0-7]|9[0-7]|38|48)\b[0-9;]*m")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["sing"],
        ["prompt", "hi", "--backend", "mars"],
        ["prompt", "hi", "there"],
        ["prompt", "hi", "--data-dir", ""],
        ["prompt", "hi", "--agent", " "],
        ["prompt", "hi", "--timeout", "0"],
        ["prompt", "hi", "--timeout", "soon"],
        ["prompt", "hi", "--tools", ","],
        ["prompt", "hi", "--conv", "conv-1"],
        ["prompt", "hi", "--json", "--output-format", "stream-json"],
        ["prompt", "hi", "--json", "--include-partial-messages"],
        ["prompt", "hi", "--backend", "local", "--base-url", "http://x.test"],
        ["chat", "--data-dir", "x", "--base-url", "http://x.test"],
        ["doctor", "--data-dir", "x", "--backend", "cloud"],
        ["prompt", "hi", "--keep-running", "5", "--backend", "cloud"],
        ["chat", "--keep-running", "5", "--base-url", "http://x.test"],
        ["demo", "--scripted", "--model", "a/b"],
        ["demo", "--agent", "agent-1"],
    ],
)
def test_wrong_usage(cli: Cli, argv: list[str]) -> None:
    done = cli(*argv)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("usage: letta-adapters")


@pytest.mark.parametrize(
    ("argv", "usage"),
    [
        (["chat", "--nonsense"], "usage: letta-adapters chat "),
        (["prompt", "hi", "there"], "usage: letta-adapters prompt "),
        (["doctor", "--data-dir", "x", "--backend", "cloud"], "usage: letta-adapters doctor "),
        (["cassette", "diff", "a", "b", "c"], "usage: letta-adapters cassette diff "),
    ],
)
def test_wrong_usage_is_told_with_the_usage_of_the_command(
    cli: Cli, argv: list[str], usage: str
) -> None:
    assert cli(*argv).err.startswith(usage)


def test_help_and_version(cli: Cli) -> None:
    assert cli("--version").out == f"letta-adapters {__version__}\n"
    assert "doctor" in cli("--help").out
    for command in ("demo", "prompt", "chat", "doctor"):
        done = cli(command, "--help")
        assert done.code == 0
        assert "--data-dir" in done.out


def test_it_starts_fast() -> None:
    """Nothing heavy is imported before a command runs."""
    code = (
        "import sys\nfrom letta_adapters.cli.parser import build_parser\nbuild_parser()\n"
        "print(sorted({'rich', 'httpx', 'pydantic', 'asyncio', 'websockets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- rendering ------------------------------------------------------------------------------------


Show = Callable[..., str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Show:
    """What a terminal shows of these messages and errors."""

    def show(*messages: Any) -> str:
        screen = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            console = render.make_console()
            renderer = render.Renderer(console)
            for message in messages:
                if isinstance(message, Exception):
                    render.show_error(console, message)
                else:
                    renderer.show(message)
            renderer.settle()
        return screen.getvalue()

    return show


def fragment(kind: str, otid: str | None, **fields: str) -> StreamEvent:
    return StreamEvent({"message_type": f"{kind}_message", "otid": otid, **fields})


def test_a_dumb_terminal_gets_no_escape_codes(shown: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    seen = shown(
        ReasoningMessage("I think", otid="1"),
        ToolCallMessage("c1", "add", {"a": 1}),
        ToolResultMessage("c1", "", is_error=True),
        AssistantMessage("Two\n", otid="2"),
    )
    assert seen == "thinking: I think\n* add(a=1)\n  -> (nothing)\nTwo\n"


def test_fragments_and_whole_messages(shown: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    result = ResultMessage(True, "b", "end_turn", Usage(), 1)
    seen = shown(
        fragment("reasoning", None, reasoning="Hm"),
        fragment("reasoning", None, reasoning=" hm"),
        ReasoningMessage("Hm hm"),
        fragment("assistant", "2", content="a"),
        fragment("assistant", "3", content="b"),
        AssistantMessage("a", otid="2"),
        AssistantMessage("b", otid="3"),
        AssistantMessage("unseen", otid="4"),
        result,
        ReasoningMessage("opaque", redacted=True),
        fragment("tool_call", "5"),
    )
    assert seen == ("thinking: Hm hm\na\nb\nunseen\nthinking: (hidden by the provider)\n")


def test_without_colours_none_is_shown(shown: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = shown(ToolCallMessage("c1", "add", {"a": 1}), AssistantMessage("# One\n`two`", otid="2"))
    assert COLOUR.search(seen)
    monkeypatch.setenv("NO_COLOR", "1")
    seen = shown(ToolCallMessage("c1", "add", {"a": 1}), AssistantMessage("# One\n`two`", otid="2"))
    assert not COLOUR.search(seen)


def test_a_retry_is_told_once(shown: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    seen = shown(*(RetryMessage("no answer", n, 3, 10) for n in range(3)))
    assert seen == "The model is asked again: no answer\n"


REPORT = ToolProgressMessage("c1", "add", "half\x1b done\n", 1, 2.5)


def test_a_tools_reports_are_in_the_line_of_the_spinner() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    renderer = render.Renderer(console)
    renderer.show(REPORT)  # nothing runs that could have a line
    renderer.show(ToolCallMessage("c1", "add", {"a": 1}))
    assert renderer._status is not None
    for report, line in (
        (REPORT, "Running add 1 of 2.5: half\ufffd done"),
        (ToolProgressMessage("c1", "add", "", 2), "Running add 2"),
        (ToolProgressMessage("c1", "add", "almost"), "Running add: almost"),
    ):
        renderer.show(report)
        assert str(renderer._status.status) == line
    renderer.settle()


def test_a_tools_reports_are_not_written_into_a_pipe(
    shown: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    result = ToolResultMessage("c1", "3")
    assert shown(ToolCallMessage("c1", "add", {}), REPORT, result) == "* add()\n  -> 3\n"


def test_a_tool_call_on_one_line() -> None:
    assert render.call_text("f", {"a": "x\ny", "b": [1]}) == r'f(a="x\ny", b=[1])'
    assert render.call_text("f", {}, "{}") == "f()"
    assert render.call_text("f", {}, "{bad \x1b") == "f({bad �)"
    assert len(render.call_text("f", {"a": "x" * 999})) == 200


def test_an_error_in_the_words_of_the_command_line(shown: Show) -> None:
    seen = shown(LettaError("No.", hint="Use another Local(data_dir=...)."), OSError("disk full"))
    assert seen == (
        "\x1b[1;31merror: No.\x1b[0m\n\x1b[39mUse another --data-dir.\x1b[0m\n"
        "\x1b[1;31merror: disk full\x1b[0m\n"
    )
