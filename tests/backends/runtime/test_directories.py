"""What agents were told is for their user alone to read."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from letta_adapters import LettaClient, Local, Rest
from letta_adapters.backends.letta_code import resolve_api
from letta_adapters.backends.runtime.environment import (
    find_places,
    open_to_others,
    prepare,
    runtime_environment,
)
from letta_adapters.testing.scripted_model import Reply, ToolUse

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def readable(folder: Path) -> list[Path]:
    """Every file in ``folder`` that another user of the machine can reach and read."""
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if mode(Path(here, name)) & 0o011]
        found += [Path(here, name) for name in files if mode(Path(here, name)) & 0o044]
    return found


def test_what_agents_were_told_is_readable_by_their_user_alone(usual_umask, home, model, tmp_path):
    home.mkdir()
    made = tmp_path / "made"
    write = ToolUse("Bash", {"command": f"umask > '{made}'", "description": "x"})
    model.script(Reply(tool_calls=[write]), "done")
    spec = Local(data_dir=home, openai_compatible={"base_url": model.base_url})
    with LettaClient(spec) as client:
        agent = client.create_agent(name="a", persona="I am P.", model="lmstudio/scripted")
        with client.create_session(agent, can_use_tool=lambda *_: True) as session:
            assert session.run_turn("hi").success
        letta = home / ".letta"
        assert list(letta.glob("transcripts/**/*.jsonl"))
        assert mode(letta / "lc-local-backend" / "letta-adapters" / "server.json") == 0o600
        assert readable(home) == []
    assert mode(home) == 0o755, "it was there before"
    # The agent's shell makes the user's files as the user does.
    assert (made.read_text().strip(), mode(made)) == ("0022", 0o644)


async def test_a_directory_that_is_made_is_closed_from_the_top(usual_umask, home, start):
    await start(data_dir=home / "of" / "mine")
    for folder in (home, home / "of", home / "of" / "mine", home / "of" / "mine" / ".letta"):
        assert mode(folder) == 0o700


def test_an_open_directory_of_the_user_is_told_and_not_changed(usual_umask, home):
    letta = home / ".letta"
    letta.mkdir(parents=True)
    places = find_places(Local(data_dir=home))
    prepare(places)
    assert mode(letta) == 0o755
    assert open_to_others(places) == [letta]
    # What comes new is closed also there.
    assert {mode(folder) for folder in letta.iterdir()} == {0o700}
    assert (letta / "transcripts").is_dir()
    home.chmod(0o700)
    assert open_to_others(places) == []
    home.chmod(0o755)
    letta.chmod(0o700)
    assert open_to_others(places) == []


def test_the_api_is_the_one_that_the_environment_named_when_the_client_was_made(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETTA_BASE_URL", "http://one.example")
    monkeypatch.setenv("LETTA_API_KEY", "key-one")
    config = resolve_api(Local(data_dir=home, api=Rest()))
    before = find_places(config)
    monkeypatch.setenv("LETTA_BASE_URL", "http://two.example")
    monkeypatch.setenv("LETTA_API_KEY", "key-two")
    env = runtime_environment(config)
    assert (env["LETTA_BASE_URL"], env["LETTA_API_KEY"]) == ("http://one.example", "key-one")
    assert find_places(config) == before
