"""A quick run says what it left out, in one process and in several."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parent.parent
FILE = "tests/chat/test_bounds.py"


def run(*options: str) -> str:
    """The output of a run of one file in which one test, twice, is slow."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, FILE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("processes", [(), ("-n", "1")], ids=["here", "in another process"])
def test_a_quick_run_says_what_it_left_out(processes: tuple[str, ...]) -> None:
    said = run("-m", "not slow", *processes)
    assert "left out as slow: 2 tests; .ci/run runs them" in said
    assert not re.search(r"\b(failed|error)", said)


def test_a_run_of_everything_leaves_nothing_out() -> None:
    assert "left out" not in run("-k", "what_was_used_last")
