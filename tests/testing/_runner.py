"""Runs pytest within pytest, in a fresh folder, against a server on loopback."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testing._loopback import Loopback

HELLO = """
    import pytest

    def test_hello(letta_cassette):
        with letta_cassette.sync_http_client() as client:
            assert client.get("/hello").json() == {"n": 1}
"""


_PLUGINS = ("-p", "letta_adapters.testing.plugin", "-p", "no:cacheprovider")


class Runner:
    """Runs pytest in a fresh folder, without this project's configuration."""

    def __init__(self, pytester: pytest.Pytester, server: Loopback, patch: Any) -> None:
        self.pytester, self.server, self.patch = pytester, server, patch
        patch.delenv("CI", raising=False)
        patch.setenv("LETTA_BASE_URL", server.url)
        patch.setenv("LETTA_RIG_MODEL", f"{server.url}/v1")
        pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")

    def __call__(self, *options: str) -> pytest.RunResult:
        return self.pytester.runpytest(*_PLUGINS, "-p", "no:xdist", *options)

    def apart(self, *options: str) -> pytest.RunResult:
        """In a process of its own, with all plugins of the environment."""
        return self.pytester.runpytest_subprocess(*_PLUGINS, *options)

    def record(self, *options: str) -> pytest.RunResult:
        return self("--letta-record=once", *options)

    @property
    def files(self) -> dict[str, str]:
        root = self.pytester.path / "cassettes"
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.yaml")}
