"""The quickstart example, as a user runs it: its recording is what it replays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters.sync.bridge import get_bridge
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.scripted_model import Reply

EXAMPLES = Path(__file__).parents[3] / "examples"
SAID = (
    "[init]",
    "They introduce themselves.",
    "Nice to meet you, Ada. Astronomy is a fine thing to like.",
    "You are Ada, and you like astronomy.",
    "[reasoning]",
    "[assistant]",
    "[result] ok; 100 + 20 tokens",
)


@pytest.mark.letta_cassette("quickstart", shared=True)
def test_the_quickstart_prints_each_message(
    letta_cassette: LettaCassette,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LETTA_MODEL", "openai-proxy/scripted")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import quickstart

    letta_cassette.script(
        Reply(
            text="Nice to meet you, Ada. Astronomy is a fine thing to like.",
            reasoning="They introduce themselves. I should remember it.",
            token_delay=0.05,
        ),
        Reply(
            text="You are Ada, and you like astronomy.",
            reasoning="They told me both a moment ago.",
            token_delay=0.05,
        ),
    )
    http_client = letta_cassette.http_client()
    rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
    with LettaClient(rest, http_client=http_client) as client:
        quickstart.main(client)
        if letta_cassette.recording:
            _leave_no_agent_behind(letta_cassette.base_url)
    get_bridge().call(http_client.aclose())
    printed = capsys.readouterr().out
    for text in ("Creating an agent.", *SAID):
        assert text in printed


def _leave_no_agent_behind(base_url: str) -> None:
    """So that the next recording creates it again."""
    found = httpx.get(f"{base_url}/v1/agents/", params={"tags": "letta-adapters-quickstart"})
    for agent in found.json():
        httpx.delete(f"{base_url}/v1/agents/{agent['id']}")


def test_the_quickstart_runs_without_a_key() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "quickstart.py")],
        env={k: v for k, v in os.environ.items() if not k.startswith("LETTA_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "replaying a recording of a real server" in done.stdout
    for text in SAID:
        assert text in done.stdout
    assert done.stderr == ""
