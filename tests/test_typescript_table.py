"""Every name of the two TypeScript SDKs has a row, and what a row names is there."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.testing.fakes import FakeLetta
from tools.typescript import KINDS, Row, list_names, load, read_rows, render, resolve
from tools.typescript_examples import EXAMPLES

PAGE = Path(__file__).parents[1] / "docs" / "typescript.md"
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
ROWS = read_rows(load())
CAPABILITIES = read_rows(load(), "capabilities")


def test_every_exported_name_has_a_row_and_no_row_is_of_nothing() -> None:
    names = {name for source in load()["sources"].values() for name in list_names(source)}
    assert len(names) > 500
    assert {row.name for row in ROWS} == names


def test_the_lists_say_what_they_were_read_from() -> None:
    code, agent = load()["sources"].values()
    assert (code["version"], agent["version"][:5]) == ("0.1.14", "0.5.7")
    assert len(code["exports"]) == 58
    for name in ("createAgent", "Session", "SDKRetryMessage", "listMessagesDirect"):
        assert name in code["exports"]


def test_no_row_is_empty() -> None:
    for row in [*ROWS, *CAPABILITIES]:
        assert row.kind in KINDS, row
        assert bool(row.ours) is (row.kind in ("here", "other")), row
        # A reason is a sentence.
        assert row.ours or re.fullmatch(r"[A-Z`].{20,}\.", row.words), row


@pytest.mark.parametrize(
    "row", [row for row in [*ROWS, *CAPABILITIES] if row.ours], ids=lambda row: row.name
)
def test_what_a_row_names_is_there(row: Row) -> None:
    assert resolve(row.ours)


@pytest.mark.parametrize(
    "ours",
    [
        "create_agents",
        "create_agent(no_such_option)",
        "session.no_such_method",
        "session.send(no_such_parameter)",
        "client.agents.fork",
        "InitMessage.no_such_field",
        "Local.no_such_field",
        "options.NoSuchName",
        "no_such_module.Name",
    ],
)
def test_what_is_not_there_is_not_found(ours: str) -> None:
    assert not resolve(ours)


def test_here_means_the_same_name() -> None:
    for row in ROWS:
        if row.ours:
            theirs = re.sub(r"URL", "Url", row.name.rpartition(".")[2])
            snake = re.sub(r"([A-Z])", lambda found: f"_{found[0].lower()}", theirs)
            last = re.findall(r"\w+", row.ours)[-1]
            assert (row.kind == "here") is (last in (theirs, snake)), row


def test_the_page_is_what_the_tool_prints() -> None:
    assert PAGE.read_text(encoding="utf-8") == render()


def test_there_are_ten_examples() -> None:
    assert len(EXAMPLES) == 10


@pytest.mark.parametrize(("title", "ours"), [(title, ours) for title, _, ours in EXAMPLES])
def test_an_example_runs(title: str, ours: str) -> None:
    with FakeLetta().client() as client:
        known: dict[str, Any] = {
            "client": client,
            "agent_id": client.create_agent(),
            "picture": PICTURE,
        }
        exec(compile(ours, title, "exec"), known)
