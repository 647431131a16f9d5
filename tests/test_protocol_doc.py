"""The protocol rules in ``docs/protocol.md`` name tests, and code names the rules: both exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "protocol.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    files: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):  # files of one name count as one
        files[path.name] = files.get(path.name, "") + path.read_text()
    defined = set(re.findall(r"^(?:async )?def (test_\w+)", "\n".join(files.values()), re.M))
    named = set(re.findall(r"\b(test_\w+)(?:\.py)?\b", PAGE))
    in_files = re.findall(r"\b(test_\w+\.py)::(test_\w+)", PAGE)
    assert len(named) > 30
    assert named - defined - {name.removesuffix(".py") for name in files} == set()
    elsewhere = [(f, name) for f, name in in_files if not re.search(rf"def {name}\b", files[f])]
    assert elsewhere == []


def test_every_heading_that_code_names_exists() -> None:
    headings = set(re.findall(r"^#+ (.+)$", PAGE, re.M))
    sources = [p for top in ("letta_adapters", "tests") for p in (ROOT / top).rglob("*.py")]
    # A reference may be broken over two lines of a docstring or comment.
    cited = {
        re.sub(r"\s*\n[\s#]*", " ", heading)
        for path in sources
        if path != Path(__file__)
        for heading in re.findall(r'docs/protocol\.md[\s#]*\("([^"]+)"\)', path.read_text())
    }
    assert len(cited) >= 5
    assert cited - headings == set()
