"""Letta Code over a Letta API server of one's own: what leaves the machine, and for where.

The server is a stand-in with the routes that making an agent needs; tests/live has the real one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from letta_adapters import LettaClient, LettaError, Local, Rest, UnsupportedOptionError
from tests.backends.runtime._spies import spied

__all__ = ["spied"]

KEY = "the-key-" + "of-my-server"
MODEL = "openai-proxy/scripted"


class Api:
    """A Letta API server with agents and nothing else; ``refuse`` may fail a request."""

    def __init__(self) -> None:
        self.agents: dict[str, dict[str, Any]] = {}
        self.made = 0
        self.keys: set[str] = set()
        self.refuse: Callable[[str, str, Any], bool] = lambda *_: False
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api.keys.add(self.headers.get("Authorization") or "")
                given = json.loads(body or b"{}")
                path = self.path.partition("?")[0].rstrip("/")
                found = not api.refuse(self.command, path, given)
                answer = api.answer(self.command, path, given) if found else None
                data = json.dumps({"detail": "no"} if answer is None else answer).encode()
                self.send_response(404 if answer is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        for method in ("GET", "POST", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler._answer)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, given: Any) -> Any:
        """What the real server answers, as far as it matters; ``None``: no such thing."""
        if path == "/v1/models":
            return [{"handle": MODEL, "model": "scripted", "context_window": 32000}]
        if path == "/v1/agents" and method == "POST":
            self.made += 1
            id_ = f"agent-00000000-0000-4000-8000-{self.made:012}"
            blocks = [
                {"id": f"block-{i}", **b} for i, b in enumerate(given.get("memory_blocks", ()))
            ]
            made = {"id": id_, "blocks": blocks, "memory": {"blocks": blocks}, "tools": []}
            self.agents[id_] = given | made
            return self.agents[id_]
        if path == "/v1/agents":
            return list(self.agents.values())
        agent = self.agents.get(path.removeprefix("/v1/agents/"))
        if agent is None:
            return None
        if method == "DELETE":
            return self.agents.pop(agent["id"])
        if method == "PATCH":
            agent |= given
        return agent


@pytest.fixture
def api():
    made = Api()
    yield made
    made.close()


@pytest.fixture
def spec(home, api, spied):
    return Local(data_dir=home, api=Rest(base_url=api.url, api_key=KEY), env=spied.env)


@pytest.mark.parametrize("memfs", [None, False])
def test_an_agent_is_made_without_git_and_without_any_other_host(spec, api, spied, memfs):
    with LettaClient(spec) as client:
        agent = client.create_agent(
            name="mine", persona="I am P.", human="You are H.", model=MODEL, memfs=memfs
        )
        assert list(api.agents) == [agent]
    made = api.agents[agent]
    assert {block["label"]: block["value"] for block in made["blocks"]} == {
        "persona": "I am P.",
        "human": "You are H.",
    }
    assert made["name"] == "mine"
    assert "You are a Letta Code agent" in made["system"]
    assert api.keys == {f"Bearer {KEY}"}
    assert not [call for call in spied.git if KEY in call or "clone" in call or "://" in call]
    assert {host for host in spied.hosts if not host.startswith("127.0.0.1")} == set()
    assert api.url.removeprefix("http://") in spied.hosts, "the spy works"


def test_a_prompt_of_ones_own_makes_no_repository_either(spec, api, spied):
    with LettaClient(spec) as client:
        agent = client.create_agent(name="mine", system_prompt="S", persona="I am P.", model=MODEL)
        with pytest.raises(UnsupportedOptionError, match="memfs"):
            client.create_agent(name="mine", persona="I am P.", model=MODEL, memfs=True)
    assert list(api.agents) == [agent]
    assert api.agents[agent]["system"] == "S"
    assert not [call for call in spied.git if "clone" in call or "init" in call]


@pytest.mark.parametrize("nth", [1, 2])
def test_an_agent_that_cannot_be_made_leaves_none_behind(spec, api, nth):
    asked: list[str] = []

    def refuse(method: str, path: str, _: Any) -> bool:
        if (method, path) == ("POST", "/v1/agents"):
            asked.append(path)
            return len(asked) == nth
        return False

    api.refuse = refuse
    with LettaClient(spec) as client, pytest.raises(LettaError):
        client.create_agent(name="mine", persona="I am P.", model=MODEL)
    assert api.agents == {}


def test_secrets_that_cannot_be_stored_leave_no_agent(spec, api):
    asked: list[str] = []

    def refuse(method: str, _: str, given: Any) -> bool:
        if method == "PATCH" and "secrets" in given:
            asked.append(method)
        return bool(asked) and method == "PATCH"

    api.refuse = refuse
    with LettaClient(spec) as client, pytest.raises(LettaError):
        client.create_agent(name="mine", system_prompt="S", model=MODEL, secrets={"A": "b"})
    assert asked
    assert api.agents == {}


def test_memory_in_git_is_refused_by_name(spec, api, spied):
    with LettaClient(spec) as client:
        agent = client.create_agent(name="mine", persona="I am P.", model=MODEL)
        with pytest.raises(UnsupportedOptionError, match="in blocks, not in git"):
            client.agents.memory_files(agent)
    assert not [call for call in spied.git if "clone" in call]
