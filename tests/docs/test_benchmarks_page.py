"""The page of benchmarks says what was published, and its plots are small and of no machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from benchmarks import page

ROOT: Final = Path(__file__).parents[2]
FIGURES: Final = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
WRITTEN: Final = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
PLOTS: Final = sorted((ROOT / "docs" / "plots").iterdir())


def test_every_figure_on_the_page_is_one_that_was_published() -> None:
    rows = [line for line in WRITTEN.splitlines() if line.startswith("|")]
    assert len(rows) > 30
    assert set(rows) <= set(FIGURES.splitlines()), "run `python -m benchmarks page`"
    assert page.render(FIGURES) == WRITTEN, "run `python -m benchmarks page`"


def test_the_page_names_the_versions() -> None:
    for package in ("CPython", "httpx", "letta-client", "pydantic", "langchain-openai"):
        assert re.search(rf"{package} \d+\.\d+", WRITTEN), package


def test_the_page_shows_every_plot() -> None:
    shown = set(re.findall(r"\]\(plots/([^)]+)\)", WRITTEN))
    assert shown == {file.name for file in PLOTS}


@pytest.mark.parametrize("file", PLOTS, ids=lambda file: file.name)
def test_a_plot_is_small_and_says_no_date_and_no_path(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text.encode()) < 30_000
    assert not re.search(r"20\d\d-\d\d|/home|/usr|/tmp|<script|href=\"http", text)


def test_a_plot_says_the_medians_of_its_table() -> None:
    text = (ROOT / "docs" / "plots" / "growth.svg").read_text("utf-8")
    row = next(line for line in WRITTEN.splitlines() if "the same, garbage collector off" in line)
    early, late = re.findall(r"\d+\.\d\d", row)[:2]
    assert f"{early} (100 at once)" in text
    assert f"{late} (1,000 at once)" in text


def test_a_table_that_is_gone_is_an_error() -> None:
    with pytest.raises(ValueError, match="no table below 'Speed of light'"):
        page.find_table(FIGURES, "Speed of light")
