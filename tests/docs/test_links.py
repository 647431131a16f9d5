"""Links lead somewhere: in the repository, on the site, and on the page of a package index."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tools.pages import links
from tools.pages.links import Link, find_fault, find_faults_of_description

INDEX = pytest.mark.skipif(
    find_spec("readme_renderer") is None or find_spec("hatch_fancy_pypi_readme") is None,
    reason="the extra `docs` is not installed",
)


def test_every_link_inside_the_repository_leads_somewhere() -> None:
    found = [link for file in links.find_files() for link in links.find_links(file)]
    inside = [link for link in found if not links.is_external(link)]
    assert len(inside) > 40
    assert {str(link): fault for link in inside if (fault := find_fault(link))} == {}
    print(f"links: {len(inside)} of {len(inside)} lead somewhere")


@pytest.mark.parametrize(
    ("file", "target", "fault"),
    [
        ("README.md", "docs/nothing.md", "no such file"),
        ("README.md", "docs/web.md#no-such-heading", "no such heading"),
        ("README.md", "../elsewhere.md", "no such file"),
        ("docs/web.md", "../SECURITY.md", "leads out of docs/, where the site has nothing"),
        ("docs/web.md", "#events", ""),
        ("README.md", "docs/options.md#how-a-client-connects", ""),
    ],
)
def test_a_link_that_leads_nowhere_is_found(file: str, target: str, fault: str) -> None:
    assert find_fault(Link(links.ROOT / file, target)) == fault


@INDEX
def test_a_description_with_links_into_the_repository_is_broken_on_an_index() -> None:
    text = "# One\n\n[a](docs/a.md) [b](#one) [c](#two) [d](https://e.test) ![f](docs/f.svg)\n"
    assert find_faults_of_description(text) == [
        "docs/a.md leads nowhere on a package index",
        "#user-content-two leads nowhere on a package index",
        "docs/f.svg leads nowhere on a package index",
    ]


@INDEX
def test_the_description_works_on_an_index() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hatch_fancy_pypi_readme"],
        cwd=links.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "# letta-adapters" in done.stdout
    assert find_faults_of_description(done.stdout) == []


@pytest.mark.live
@pytest.mark.skipif(not os.environ.get("LETTA_CHECK_LINKS"), reason="LETTA_CHECK_LINKS is not set")
def test_links_to_other_hosts_answer() -> None:
    found = [link for file in links.find_files() for link in links.find_links(Path(file))]
    assert list(links.check_external(found)) == []
