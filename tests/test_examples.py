"""Every example runs without a key, and says what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests._wheel import needs_wheel

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "langchain_chain": (["cheese: fromage", "bread: pain"], []),
    "langchain_streaming": (["* Bash", "I looked: there are"], []),
    "langchain_batch": (["Amsterdam: 5 degrees", "Vienna: 24 degrees"], []),
    "langgraph_agent": (["sunny in Paris", "May it run Bash", "wrote the note"], ["--yes"]),
    "llama_index_query_engine": (["closed on Mondays [", "museum.txt"], []),
    "llama_index_agent": (["2 + 3 is 5, and 4 * 5 is 20.", "It was 20."], []),
    "web_chat": (["May read_thermometer run", "assistant: I read: 16 degrees"], ["--visit"]),
    "llama_index_workflow": (["* handoff", "May clerk run Bash", "letter is written"], ["--yes"]),
}


@needs_wheel
@pytest.mark.parametrize("name", SAYS)
def test_an_example(name: str, tmp_path: Path) -> None:
    said, arguments = SAYS[name]
    env = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_BASE_URL"))}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        cwd=tmp_path,
        env={**env, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    assert "scripted stand-in" in done.stdout
    for text in said:
        assert text in done.stdout


def test_every_example_is_here() -> None:
    there = {path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("_")}
    assert there == {*SAYS, "quickstart"}
