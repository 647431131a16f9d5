"""``docs/decisions.md`` names files that exist, and says of each decision what would change it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TEXT: Final = (ROOT / "docs" / "decisions.md").read_text("utf-8")


def test_every_file_that_it_names_exists() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", TEXT))
    assert named
    assert {name for name in named if not _exists(name)} == set()


def _exists(name: str) -> bool:
    return (ROOT / name).exists() or (ROOT / "letta_adapters" / name).exists()


def test_every_decision_says_what_would_change_it() -> None:
    decisions = TEXT.split("\n## ")[1:]
    said = ("decide anew", "We would ", "would change our mind", "would do.")
    assert [d.splitlines()[0] for d in decisions if not any(word in d for word in said)] == []
