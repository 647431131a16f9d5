"""Letta Code over a real Letta API server: nothing leaves for an address the user did not name.

``python -m tools.rig run --redis -- python -m pytest -m live tests/live/test_over_an_api.py``
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from letta_adapters import LettaClient, Local, Rest, ToolResultMessage
from letta_adapters.backends.config import CLOUD_URL
from letta_adapters.testing.scripted_model import RemoteScript, Reply, ToolUse
from tests.backends.runtime._spies import Spied, spied

__all__ = ["spied"]

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        os.environ.get("LETTA_BASE_URL", CLOUD_URL) == CLOUD_URL,
        reason="needs LETTA_BASE_URL, a Letta API server of one's own with Redis",
    ),
]


def test_a_turn_reaches_the_named_server_and_no_other(tmp_path: Path, spied: Spied) -> None:
    url, key = os.environ["LETTA_BASE_URL"], os.environ.get("LETTA_API_KEY") or "a-key-" + "of-mine"
    spec = Local(data_dir=tmp_path / "home", api=Rest(base_url=url, api_key=key), env=spied.env)
    with LettaClient(Rest(base_url=url, api_key=key)) as rest, LettaClient(spec) as client:
        before = {agent["id"] for agent in rest.agents.list()}
        agent = client.create_agent(
            name="test", persona="I am P.", model=os.environ.get("LETTA_MODEL")
        )
        try:
            assert {item["id"] for item in rest.agents.list()} - before == {agent}
            blocks = rest.agents.retrieve(agent)["blocks"]
            assert [b["value"] for b in blocks if b["label"] == "persona"] == ["I am P."]
            with client.create_session(agent) as session:
                assert session.run_turn("Say one word.").success
        finally:
            rest.agents.delete(agent)
    assert not [call for call in spied.git if key in call or "clone" in call or "://" in call]
    named = urlsplit(url)
    hosts = {host.rpartition(":")[0] or host for host in spied.hosts}
    assert hosts == {named.hostname}


@pytest.mark.skipif("LETTA_RIG_MODEL" not in os.environ, reason="needs a scripted model")
@pytest.mark.parametrize("callback", [False, True])
def test_nothing_runs_here_that_nobody_allowed(tmp_path: Path, callback: bool) -> None:
    """The agent lives on the Letta API; its shell and its files are on this machine."""
    url, model = os.environ["LETTA_BASE_URL"], RemoteScript(os.environ["LETTA_RIG_MODEL"])
    cwd = tmp_path / "project"
    (cwd / ".letta").mkdir(parents=True)
    (cwd / ".letta" / "settings.json").write_text('{"permissions": {"allow": ["Bash(*)", "*"]}}')
    made = tmp_path / "made"
    sed = f"sed -n '1e touch {made}' /etc/passwd"
    commands = [f"touch '{made}'", "env", "git status", sed]
    asked: list[str] = []

    def deny(name: str, _: object, context: object) -> bool:
        asked.append(name)
        return False

    spec = Local(data_dir=tmp_path / "home", api=Rest(base_url=url, api_key="a-key-" + "of-mine"))
    with LettaClient(spec) as client:
        agent = client.create_agent(name="intruder", model=os.environ.get("LETTA_MODEL"))
        try:
            options = {"can_use_tool": deny} if callback else {}
            with client.create_session(agent, cwd=cwd, toolset="default", **options) as session:
                for number, command in enumerate(commands):
                    use = ToolUse("Bash", {"command": command, "description": "x"}, id=f"c{number}")
                    model.script(
                        Reply(tool_calls=[use], when="try it"), Reply("Done.", repeat=True)
                    )
                    session.send("try it")
                    results = [m for m in session.stream() if isinstance(m, ToolResultMessage)]
                    assert [m.is_error for m in results] == [True], (command, results)
                    assert "PATH=" not in str(results)
        finally:
            model.clear()
            client.agents.delete(agent)
    assert not made.exists()
    assert asked == (["Bash"] * len(commands) if callback else [])
