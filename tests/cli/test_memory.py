"""``/memory`` of ``letta-adapters chat``: what the agent keeps in mind, to see and to change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from letta_adapters import LettaClient, Local
from letta_adapters.testing.scripted_model import ScriptedModel
from tests._wheel import needs_wheel
from tests.cli.conftest import Done
from tests.faults import _events as ev
from tests.faults._server import Server

Cli = Callable[..., Done]
CHAT = ("--agent", ev.AGENT, "--conversation", ev.CONV)
TEXT = "# Who I am\n\n- a **librarian**\n- from Paris"
PERSONA = {
    "id": "block-00000000-0000-4000-8000-000000000001",
    "label": "persona",
    "value": TEXT,
    "limit": 5000,
    "description": "Who I am:\nin short.",
    "read_only": False,
}
RULES = {
    **PERSONA,
    "id": f"{PERSONA['id'][:-1]}2",
    "label": "rules",
    "value": "",
    "read_only": True,
}


@pytest.fixture(autouse=True)
def _blocks(server: Server) -> None:
    server.blocks = [dict(RULES), dict(PERSONA)]


def test_it_is_listed_and_shown(cli: Cli, server: Server) -> None:
    done = cli("chat", *CHAT, stdin="/memory\n/memory persona\n/memory rules\n")
    assert done.code == 0
    assert done.out == (
        "persona  42 of 5000 characters  Who I am: in short.\n"
        "rules    0 of 5000 characters, read-only  Who I am: in short.\n"
        f"Who I am: in short.\n{TEXT}\nWho I am: in short.\n(empty)\n"
    )
    assert server.texts() == []


def test_an_agent_may_have_no_memory(cli: Cli, server: Server) -> None:
    server.blocks = []
    assert cli("chat", *CHAT, stdin="/memory\n").out == "Its memory is empty.\n"


def test_a_part_that_is_not_there_is_told(cli: Cli, server: Server) -> None:
    done = cli("chat", *CHAT, stdin="/memory human\nhello\n")
    assert done.code == 1
    assert "has no block 'human'" in done.err
    assert server.texts() == ["hello"]


def test_in_a_pipe_nobody_edits(cli: Cli, server: Server) -> None:
    done = cli("chat", *CHAT, stdin="/memory edit persona\n")
    assert done.code == 1
    assert "error: Nobody is there who could edit it." in done.err


def test_a_name_may_steer_nothing(cli: Cli, server: Server) -> None:
    server.blocks[0] |= {"label": "a\x1b[2Jb\u202ec", "value": "x\x1b]0;t\x07", "description": None}
    done = cli("chat", *CHAT, stdin="/memory\n")
    assert done.out.splitlines()[0] == "a\ufffd[2Jb\ufffdc  7 of 5000 characters, read-only"
    assert "\x1b" not in done.out


@needs_wheel
def test_files_of_letta_code(
    cli: Cli, model: ScriptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LETTA_BASE_URL")
    state = tmp_path / "state"
    with LettaClient(Local(data_dir=state, keep_running=20)) as client:
        agent = client.create_agent(name="kept")
        client.agents.memory.create(agent, "people/ada", "Ada likes **tea**.", description="Ada.")
        done = cli("chat", "--data-dir", str(state), "--keep-running", "0", "--agent", agent,
                   stdin="/memory\n/memory people/ada\n")  # fmt: skip
    assert done.code == 0, done
    assert "people/ada" in [line.split()[0] for line in done.out.splitlines()]
    assert done.out.endswith("\nAda.\nAda likes **tea**.\n")


if sys.platform != "win32":
    pytest.importorskip("pyte", reason="the screen of a terminal is read by pyte, of [dev]")

    from tests.cli._pty import CTRL_C, CTRL_D, Chat

    def test_at_a_terminal_it_is_drawn_and_edited(server: Server) -> None:
        with Chat(*CHAT) as there:
            there.says("/memory")
            there.shows("42 of 5000 characters")
            there.says("/memory persona")
            there.shows(" • a librarian")
            # Ctrl-C leaves it as it is; Alt-Enter begins a line, Enter is the end.
            there.says("/memory edit persona")
            there.is_asking(at="- from Paris")
            there.press(" x")
            there.shows("- from Paris x")
            there.press(CTRL_C)
            there.shows("Nothing is changed.")
            there.says("/memory edit persona")
            there.is_asking(at="- from Paris")
            there.press("\x1b\r- and **Lyon**\r")
            there.shows("persona is changed.")
            there.is_asking()
            assert server.blocks[1]["value"] == f"{TEXT}\n- and **Lyon**"
            # A conversation that has begun would go on with the memory that it began with.
            assert server.count("POST", f"/conversations/{ev.CONV}/recompile") == 1
            there.press(CTRL_D)
            assert there.ends() == 0
            assert there.modes_now() == there.modes
        assert server.texts() == []

    def test_what_was_changed_meanwhile_is_not_overwritten(server: Server) -> None:
        with Chat(*CHAT) as there:
            there.says("/memory edit rules")
            there.is_asking(at="|")
            server.blocks[0]["value"] = "Be kind."
            there.press("Be brief.\r")
            there.shows("error: ")
            there.is_asking()
            assert server.blocks[0]["value"] == "Be kind."
            assert server.count("PATCH", "/blocks/") == 0
