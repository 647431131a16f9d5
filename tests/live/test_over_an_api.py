"""Letta Code over a real Letta API server: nothing leaves for an address the user did not name.

``python -m tools.rig run --redis -- python -m pytest -m live tests/live/test_over_an_api.py``
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from letta_adapters import LettaClient, Local, Rest
from letta_adapters.specs import CLOUD_URL
from tests.runtime._spies import Spied, spied

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
