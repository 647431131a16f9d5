"""An approval that one process meets and another one decides, with checkpoints in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.testing import FakeLetta
from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.snippets.scenes import serve

_SECONDS = 240.0
_ROOT = Path(__file__).parents[3]
NOTE = Reply(tool_calls=[ToolUse("note", {"text": "ran"}, id="n1")])


def step(about: dict[str, Any], text: str = "", **given: Any) -> dict[str, Any]:
    """Let a process of its own take one step of the application, and return what it printed."""
    told = json.dumps({**about, "what": "approve", "text": text, **given})
    done = subprocess.run(
        [sys.executable, "-m", "tests.langchain.graphs._process"],
        input=told,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.fixture
def fake_over_http(letta_fake: FakeLetta) -> Iterator[str]:
    with serve(letta_fake) as url:
        yield url


@pytest.mark.slow
def test_over_the_letta_api_each_tool_runs_once(
    letta_fake: FakeLetta, fake_over_http: str, tmp_path: Path
) -> None:
    def launch(id_: str) -> Reply:
        return Reply(tool_calls=[ToolUse("launch", {}, id=id_)])

    letta_fake.script(NOTE, launch("one"), launch("two"), "Done.")
    notes = tmp_path / "notes"
    about = {
        "url": fake_over_http,
        "agent": letta_fake.client().create_agent(name="a"),
        "thread": "t",
        "database": str(tmp_path / "checkpoints"),
        "notes": str(notes),
    }
    first = step(about, "go", id="h-1")
    assert [asked["tool_call_id"] for asked in first["asks"]] == ["one"]
    second = step(about, resume=False)
    assert [asked["tool_call_id"] for asked in second["asks"]] == ["two"]
    last = step(about, resume=True)
    assert (last["asks"], last["text"].endswith("Done.")) == ([], True)
    assert notes.read_text() == "ran\n"
    sent = [m for request in letta_fake.requests for m in request["messages"]]
    told = [a for m in sent if m.get("type") == "approval" for a in m["approvals"]]
    assert [(a["tool_call_id"], a.get("approve")) for a in told] == [
        ("n1", None),
        ("one", False),
        ("two", True),
    ]


@pytest.mark.slow
def test_letta_code_runs_nothing_by_an_answer_about_a_call_that_is_gone(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """There a call ends with the process that met it, and the agent may call again, or else."""
    letta: LocalLetta = request.getfixturevalue("_embedded_letta")
    letta.model.clear()
    files = [tmp_path / name for name in ("one", "two")]

    def bash(at: Path) -> Reply:
        about = {"command": f"touch {at}", "description": "a test"}
        return Reply(tool_calls=[ToolUse("Bash", about, id=at.name)])

    letta.model.script(NOTE, bash(files[0]), bash(files[1]), "Then not.")
    notes = tmp_path / "notes"
    about = {
        "model": letta.model.base_url,
        "data_dir": str(letta.spec.data_dir),
        "agent": letta.agent(),
        "thread": "t",
        "database": str(tmp_path / "checkpoints"),
        "notes": str(notes),
    }
    first = step(about, "go", id="h-1")
    assert [asked["tool_call_id"] for asked in first["asks"]] == ["one"]
    last = step(about, resume=True)
    assert last["text"].endswith("Then not.")
    assert "Nobody was asked about this one" in str(letta.model.requests[-1].messages[-1])
    assert [at.exists() for at in files] == [False, False]
    assert notes.read_text() == "ran\n"
