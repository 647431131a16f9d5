"""The grammar of the command line, and what it costs to start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

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
    ToolResultMessage,
    Usage,
)
from tests.cli.conftest import Done, Terminal

Cli = Callable[..., Done]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["sing"],
        ["prompt"],
        ["prompt", "hi", "--backend", "mars"],
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
        "import sys\nfrom letta_adapters.cli import build_parser\nbuild_parser()\n"
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


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_no_escape_codes(name: str, shown: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1" if name == "NO_COLOR" else "dumb")
    seen = shown(
        ReasoningMessage("I think", otid="1"),
        ToolCallMessage("c1", "add", {"a": 1}),
        ToolResultMessage("c1", "", is_error=True),
        AssistantMessage("Two\n", otid="2"),
    )
    assert seen == "thinking: I think\n* add(a=1)\n  -> (nothing)\nTwo\n"


def test_fragments_and_whole_messages(shown: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
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


def test_a_retry_is_told_once(shown: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    seen = shown(*(RetryMessage("no answer", n, 3, 10) for n in range(3)))
    assert seen == "The model is asked again: no answer\n"


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
