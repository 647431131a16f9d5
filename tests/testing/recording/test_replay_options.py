"""Both players take keywords, and a type checker knows them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.errors import InvalidInputError
from letta_adapters.testing import Cassette, CassetteTransport, WebSocketPlayer

# Every documented keyword of both players, each with a value that it takes.
SHARED: dict[str, Any] = {
    "timing": "recorded",
    "sleep": print,
    "cut_after": 7,
    "rules": None,
    "secrets": ["a secret"],
}
OWN: dict[type, dict[str, Any]] = {
    CassetteTransport: {
        "chunking": "event",
        "first_byte_delay": 0.5,
        "faults": [429],
        "sync_sleep": print,
    },
    WebSocketPlayer: {"edit": print},
}
PLAYERS = pytest.mark.parametrize("player", list(OWN), ids=lambda player: player.__name__)
USES = """
from letta_adapters.testing import Cassette, CassetteTransport, LettaCassette, WebSocketPlayer

cassette = Cassette([])
CassetteTransport(cassette, chunking=5, timing=0.5, cut_after=1, first_byte_delay=1, faults=[429])
CassetteTransport("a.yaml", sync_sleep=print, rules=None, secrets=["x"])
WebSocketPlayer(cassette, timing="recorded", cut_after=3, edit=None, rules=None, secrets=())


def use(kit: LettaCassette) -> None:
    kit.replay_options(require_all_played=False, chunking="whole")
    kit.websocket(edit=lambda number, text: [text, text])


CassetteTransport(cassette, chunk=5)
CassetteTransport(cassette, timing="fast")
CassetteTransport(cassette, edit=None)
WebSocketPlayer(cassette, chunking="whole")
WebSocketPlayer(cassette, cut_after="3")


def misuse(kit: LettaCassette) -> None:
    kit.replay_options(edit=None)
    kit.websocket(chunking="whole")
"""


@PLAYERS
def test_every_documented_keyword_is_taken(player: Any) -> None:
    given = {**SHARED, **OWN[player]}
    made = player(Cassette(), **given)
    settings = {field.name: getattr(made.options, field.name) for field in fields(made.options)}
    assert settings == {**given, "secrets": ("a secret",), "scale": 1.0}


@PLAYERS
@pytest.mark.parametrize("other", ["chunk", "Timing"])
def test_another_keyword_is_refused_by_its_name(player: Any, other: str) -> None:
    with pytest.raises(TypeError, match=f"'{other}'"):
        player(Cassette(), **{other: 1})


@PLAYERS
def test_a_timing_that_is_none_is_refused_at_once(player: Any) -> None:
    with pytest.raises(InvalidInputError, match="timing='fast'"):
        player(Cassette(), timing="fast")


@pytest.mark.slow
def test_a_type_checker_knows_the_keywords(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (extra: dev)")
    file = tmp_path / "uses.py"
    file.write_text(USES, "utf-8")
    # A run of everything has checked the package itself already.
    cache = os.environ.get("MYPY_CACHE_DIR") or str(tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, str(file)]
    options = ["--no-error-summary", "--no-pretty"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    found = [line.split(":")[1] for line in done.stdout.splitlines() if "error:" in line]
    lines = USES.splitlines()
    first, last = lines.index("CassetteTransport(cassette, chunk=5)") + 1, len(lines)
    wrong = [*range(first, first + 5), last - 1, last]
    assert found == [str(line) for line in wrong], done.stdout + done.stderr
