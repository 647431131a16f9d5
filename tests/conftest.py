"""What every test gets: no stray settings, and no network beyond this machine."""

from __future__ import annotations

import os

import pytest
import pytest_socket

# Kept for recording and for live tests; cleared for everything else, so that a developer's own
# settings never change what a test does.
_LETTA = {k: v for k, v in os.environ.items() if k.startswith("LETTA_")}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Live tests reach the server they are pointed at, all others only loopback."""
    if item.get_closest_marker("live"):
        pytest_socket.enable_socket()
    else:
        pytest_socket.socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("live") or request.config.getoption("--letta-record") != "none":
        return
    for name in _LETTA:
        monkeypatch.delenv(name, raising=False)
