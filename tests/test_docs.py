"""The pages for whoever works on the package name what exists, and leave nothing out."""

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
CONTRIBUTING: Final = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PAGES: Final = pytest.mark.parametrize(
    "page",
    [ARCHITECTURE, DECISIONS, CONTRIBUTING],
    ids=["architecture", "decisions", "contributing"],
)
# A name of a file that stands in several places, and of one that a command makes.
EACH: Final = {"pyproject.toml", "dist/"}


@PAGES
def test_every_path_that_a_page_names_exists(page: str) -> None:
    named = set(A_PATH.findall(page))
    assert named
    assert {name for name in named - EACH if not _exists(name)} == set()


def _exists(name: str) -> bool:
    return (ROOT / name).exists() or (PACKAGE / name).exists()


@PAGES
def test_every_page_that_a_page_links_exists(page: str) -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", page))
    assert linked
    here = ROOT if page is CONTRIBUTING else ROOT / "docs"
    assert {link for link in linked if not (here / link).exists()} == set()


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


def test_the_steps_of_an_addition_name_files_and_tests_that_exist() -> None:
    part = CONTRIBUTING.split("\n## To add something\n")[1].split("\n## Releasing\n")[0]
    additions = part.split("\n### ")[1:]
    assert [text.split("\n")[0] for text in additions] == [
        "A message type",
        "An option of agents or sessions",
        "A backend",
        "A framework",
    ]
    for text in additions:
        assert len(A_PATH.findall(text)) >= 5, text
    tests = {word for word in re.findall(r"\btests/[\w/.]+", part) if not word.endswith("/")}
    assert {name for name in tests if not (ROOT / name).exists()} == set()
    commands = re.findall(r"python -m ([\w.]+)", CONTRIBUTING)
    files = {name.replace(".", "/") for name in commands if name.startswith(("tools", "letta_"))}
    assert {
        f for f in files if not any((ROOT / f"{f}{end}").exists() for end in (".py", ""))
    } == set()


def test_a_release_names_every_place_of_the_version() -> None:
    part = CONTRIBUTING.split("\n## Releasing\n")[1].split("\n## ")[0]
    assert "`letta_adapters/_version.py`" in part
    assert "`CHANGELOG.md`" in part
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
