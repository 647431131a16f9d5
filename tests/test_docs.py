"""``docs/architecture.md`` and ``docs/decisions.md`` name what exists, and leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "letta_adapters"
ARCHITECTURE: Final = (ROOT / "docs" / "architecture.md").read_text("utf-8")
DECISIONS: Final = (ROOT / "docs" / "decisions.md").read_text("utf-8")
# A folder, or a file by its suffix; what is in backticks and neither is a name in the code.
A_PATH: Final = re.compile(r"`((?:[\w.-]+/)+(?:[\w-]+\.\w+)?|(?:[\w-]+/)*[\w-]+\.(?:py|md|toml))`")
PAGES: Final = pytest.mark.parametrize(
    "page", [ARCHITECTURE, DECISIONS], ids=["architecture", "decisions"]
)


@PAGES
def test_every_path_that_a_page_names_exists(page: str) -> None:
    named = set(A_PATH.findall(page))
    assert named
    assert {name for name in named if not _exists(name)} == set()


def _exists(name: str) -> bool:
    return (ROOT / name).exists() or (PACKAGE / name).exists()


@PAGES
def test_every_page_that_a_page_links_exists(page: str) -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", page))
    assert linked
    assert {link for link in linked if not (ROOT / "docs" / link).exists()} == set()


def test_the_architecture_names_every_package() -> None:
    folders = {file.parent.relative_to(PACKAGE) for file in PACKAGE.rglob("__init__.py")}
    packages = {f"{folder.as_posix()}/" for folder in folders if folder.parts}
    assert packages - set(A_PATH.findall(ARCHITECTURE)) == set()


def test_the_architecture_answers_ten_questions() -> None:
    table = ARCHITECTURE.split("\n## Where is it?\n")[1]
    answers = [line.split("|")[2] for line in table.splitlines() if line.startswith("|")][2:]
    assert len(answers) == 10
    assert [answer for answer in answers if not A_PATH.findall(answer)] == []


def test_every_decision_says_what_would_change_it() -> None:
    decisions = DECISIONS.split("\n## ")[1:]
    said = ("decide anew", "We would ", "would change our mind", "would do.")
    assert [d.splitlines()[0] for d in decisions if not any(word in d for word in said)] == []
