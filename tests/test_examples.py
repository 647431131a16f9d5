"""Every example runs without a key, and says what it promises."""

from __future__ import annotations

import os
import shutil
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
    "supervisor": (["supervisor: Your order 7 is in Oslo."], []),
    "deep_agent": (["* task", "# Bees\n\nA bee visits some two thousand"], []),
    "support_desk": (["(the first process ends)", "you have your 40 euros back"], []),
    "document_assistant": (
        ["] museum.txt: The museum is closed", "when the museum is closed."],
        [],
    ),
    "mcp_tools": (["call the harbour master", "erase_note {'day': 'Friday'}: denied"], []),
    "code_reviewer": (["* Skill", "* Read", "6: Money is added as floats"], []),
    "fastapi_service": (["nobody: 401", "bob: You said", "ada: And now you said"], ["--visit"]),
    "messaging_bot": (["I see one red dot", "bob asked about roses", "ong answer, as a whole"], []),
    "terminal_chat": (["persona is changed", "> Bonjour !", "run Bash", "I did not."], []),
    "coworker": (["- buy milk", "'rm old.txt'? No.", "'buy oat milk"], ["--visit"]),
    "celery_worker": (["job-1/3: The answer to 'question 3'.", "was asked 4 times"], []),
    "ray_job": (["12 answered before, 0 to go", "was asked 12 times"], []),
    "llama_index_workflow": (["* handoff", "May clerk run Bash", "letter is written"], ["--yes"]),
}


TYPED = {
    "terminal_chat": "Hello\n/memory\n/memory persona I speak French.\nHi\nWrite a note\nn\n/quit\n"
}
# What an example needs that is not installed with the package: a module, and a program.
NEEDS = {
    "deep_agent": ("deepagents", None),  # needs Python 3.11
    "celery_worker": ("celery", "redis-server"),
    "ray_job": ("ray", None),  # large: install it to have this run
}


@needs_wheel
@pytest.mark.parametrize("name", SAYS)
def test_an_example(name: str, tmp_path: Path) -> None:
    said, arguments = SAYS[name]
    module, program = NEEDS.get(name, (None, None))
    if module is not None:
        pytest.importorskip(module, reason=f"{module} is not installed")
    if program is not None and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    env = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_BASE_URL"))}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        cwd=tmp_path,
        env={**env, "HOME": str(tmp_path)},
        capture_output=True,
        input=TYPED.get(name, ""),
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert "scripted stand-in" in done.stdout
    for text in said:
        assert text in done.stdout


@needs_wheel
@pytest.mark.parametrize("name", ["langgraph_agent", "llama_index_workflow"])
def test_where_nobody_can_be_asked_nobody_agrees(name: str, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_BASE_URL"))}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        env={**env, "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    assert "Nobody can be asked here" in done.stdout
    assert "Traceback" not in done.stderr


def test_every_example_is_here() -> None:
    there = {path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("_")}
    assert there == {*SAYS, "quickstart"}


def test_every_example_is_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in SAYS if f"[{name}.py]({name}.py)" not in listed] == []
