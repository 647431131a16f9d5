"""What the documentation calls type-checks, strictly, with mypy and with pyright."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import letta_adapters

HERE = Path(__file__).parent / "typed"
FILES = [str(HERE / "program.py"), str(HERE / "wrong.py")]
# The program is right in every line, and each marked line of the other file is wrong.
EXPECTED = [
    ("wrong.py", number)
    for number, line in enumerate((HERE / "wrong.py").read_text().splitlines(), 1)
    if line.endswith("# wrong")
]

pytestmark = pytest.mark.slow


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=600, check=False
    )


def test_mypy_accepts_the_public_api_and_refuses_each_wrong_call(tmp_path: Path) -> None:
    # A run of everything has checked the package itself already.
    cache = os.environ.get("MYPY_CACHE_DIR") or str(tmp_path)
    done = run("mypy", "--strict", "--no-pretty", "--cache-dir", cache, *FILES)
    found = re.findall(r"(\w+\.py):(\d+): error", done.stdout)
    assert [(name, int(number)) for name, number in found] == EXPECTED, done.stdout + done.stderr


def test_pyright_accepts_the_public_api_and_refuses_each_wrong_call(tmp_path: Path) -> None:
    # basedpyright brings its own Node; the rules are those of pyright's strict mode.
    rules = tmp_path / "pyrightconfig.json"
    rules.write_text(json.dumps({"typeCheckingMode": "strict", "pythonVersion": "3.10"}))
    done = run(
        "basedpyright", "--outputjson", "--level", "error", "-p", str(rules),
        "--pythonpath", sys.executable, *FILES,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    lines = [(Path(d["file"]).name, d["range"]["start"]["line"] + 1) for d in found]
    assert sorted(lines) == EXPECTED, done.stdout


def test_the_program_uses_every_function_and_every_choice_of_the_public_api() -> None:
    text = (HERE / "program.py").read_text()
    errors = {n for n in letta_adapters.__all__ if n.endswith("Error")}
    # What a program only receives is not named in it; its fields are read all the same.
    received = {n for n in letta_adapters.__all__ if n.endswith(("Message", "Event", "Delta"))}
    rest = set(letta_adapters.__all__) - errors - received
    assert {n for n in rest if not re.search(rf"\b{n}\b", text)} == set()
