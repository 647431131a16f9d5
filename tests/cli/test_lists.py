"""``letta-adapters agents | conversations | models | completion``, and what is missing for them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import cli as package
from tests.cli.conftest import Done
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import status

Cli = Callable[..., Done]
HOSTILE = "A\x1b]0;owned\x07\x1b[2J\u202eda\nB\tC"
LISTS: list[tuple[tuple[str, ...], str]] = [
    (("agents",), r"/v1/agents/?$"),
    (("conversations", ev.AGENT), r"/v1/conversations/?$"),
    (("models",), r"/v1/models/?$"),
]
each_list = pytest.mark.parametrize(("argv", "path"), LISTS, ids=[a[0] for a, _ in LISTS])


def rows(kind: str, name: str) -> list[dict[str, Any]]:
    """One thing of a kind, as the server lists it, with a name that somebody else chose."""
    return {
        "agents": [{"id": ev.AGENT, "name": name, "model": "a/b", "tags": []}],
        "conversations": [{"id": ev.CONV, "agent_id": ev.AGENT, "summary": name}],
        "models": [{"handle": name, "context_window": 32000}],
    }[kind]


@each_list
def test_a_list_as_json_has_all_fields_and_steers_no_terminal(
    cli: Cli, server: Server, argv: tuple[str, ...], path: str
) -> None:
    listed = rows(argv[0], HOSTILE)
    server.override("GET", path, status(200, listed))
    done = cli(*argv, "--json")
    assert done.code == 0
    assert done.out.isascii()
    assert "\x1b" not in done.out
    assert json.loads(done.out) == listed


@each_list
@pytest.mark.parametrize("terminal", [False, True], ids=["piped", "terminal"])
def test_a_name_in_a_list_neither_steers_the_terminal_nor_makes_lines(
    cli: Cli, server: Server, argv: tuple[str, ...], path: str, terminal: bool
) -> None:
    server.override("GET", path, status(200, rows(argv[0], HOSTILE)))
    done = cli(*argv, terminal=terminal)
    assert done.code == 0
    assert not {"\x07", "\u202e"} & set(done.out)
    assert "\x1b]" not in done.out
    assert "\x1b[2J" not in done.out
    # A header stands above the rows at a terminal alone.
    assert len(done.out.splitlines()) == (2 if terminal else 1)
    assert "B C" in done.out


@each_list
def test_an_empty_list(cli: Cli, server: Server, argv: tuple[str, ...], path: str) -> None:
    server.override("GET", path, status(200, []), times=3)
    assert cli(*argv).out == ""
    assert cli(*argv, "--json").out == "[]\n"
    assert "none" in cli(*argv, terminal=True).out


@each_list
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_list_with_a_wrong_key(
    cli: Cli, server: Server, argv: tuple[str, ...], path: str, form: tuple[str, ...]
) -> None:
    server.override("GET", path, status(401, {"detail": "Unauthorized"}), times=5)
    done = cli(*argv, *form)
    assert done.code == 3
    assert "error: " in done.err
    assert "Traceback" not in done.err
    # No list: who reads it must not take it for an empty one.
    assert done.out != "[]\n"


# -- completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_a_script_for_completion_names_the_commands(cli: Cli, shell: str) -> None:
    done = cli("completion", shell)
    assert (done.code, done.err) == (0, "")
    for word in ("letta-adapters", "conversations", "doctor", "output-format"):
        assert word in done.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to complete in")
def test_bash_completes_commands_and_options(cli: Cli, tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(cli("completion", "bash").out)
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=20)
    ask = (
        'source "$1"; complete -p letta-adapters; fn=$(complete -p letta-adapters |'
        " sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        'COMP_WORDS=(letta-adapters conv); COMP_CWORD=1; $fn; echo "${COMPREPLY[@]}"\n'
        'COMP_WORDS=(letta-adapters models --js); COMP_CWORD=2; $fn; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", ask, "bash", str(script)],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout.splitlines()[1:] == ["conversations", "--json"]


# -- without the extra ----------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["prompt_toolkit", "rich", "shtab", "markdown_it"])
def test_without_the_extra_the_command_names_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def find(name: str) -> object:
        return None if name == missing else importlib.util.find_spec(name)

    monkeypatch.setattr(package, "find_spec", find)
    done = cli("models")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"error: {missing} is missing.\n"
        'The command line is an extra: pip install "letta-adapters[cli]"\n'
    )
