"""``letta-adapters cassette``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from letta_adapters.cli import main

REAL = Path(__file__).parents[2] / "cassettes" / "multi_turn.yaml"
# In two pieces: nothing in the repository looks like a key.
KEY = "sk-let-" + "0123456789abcdef" * 2


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """A recording with a key in a request and in the middle of an answer."""
    path = tmp_path / "some" / "dirty.yaml"
    path.parent.mkdir()
    text = REAL.read_text(encoding="utf-8")
    assert "I am a test agent." in text
    path.write_text(text.replace("I am a test agent.", f"My key is {KEY}."), encoding="utf-8")
    return path


def test_scan(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cassette", "scan", str(REAL)]) == 0
    assert main(["cassette", "scan", str(dirty.parent)]) == 1
    out = capsys.readouterr().out
    assert "dirty.yaml:" in out
    assert KEY not in out


def test_clean(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cassette", "clean", str(dirty), "--secret", KEY]) == 0
    assert KEY not in dirty.read_text(encoding="utf-8")
    assert main(["cassette", "scan", str(dirty)]) == 0
    assert main(["cassette", "clean", str(dirty)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{dirty}: cleaned",
        f"{dirty}: clean already",
    ]


def test_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids and times differ in every recording and are no difference; a word is one."""
    again, other = tmp_path / "again.yaml", tmp_path / "other.yaml"
    shutil.copy(REAL, again)
    text = REAL.read_text(encoding="utf-8")
    again.write_text(text.replace("agent-00000000-", "agent-12345678-"), encoding="utf-8")
    other.write_text(text.replace("I am a test agent.", "I am another."), encoding="utf-8")
    assert main(["cassette", "diff", str(REAL), str(again)]) == 0
    assert capsys.readouterr().out == ""
    assert main(["cassette", "diff", str(REAL), str(other)]) == 1
    out = capsys.readouterr().out
    assert "-" in out
    assert "I am another." in out
    assert len(out.splitlines()) < 30


def test_what_is_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("just: text", encoding="utf-8")
    assert main(["cassette", "clean", str(path)]) == 1
    assert main(["cassette", "scan", str(tmp_path / "nothing")]) == 1
    err = capsys.readouterr().err
    assert "is no recording" in err
    assert "does not exist" in err
    with pytest.raises(SystemExit):
        main(["cassette"])
