"""What every test gets: no stray settings, and no network beyond this machine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

# Loaded before any test: pytest's `pytester` forgets modules that its inner runs load first, and a
# second httpcore has other exception classes than the ones httpx knows.
import anyio._backends._asyncio
import httpcore
import httpx
import pytest
import pytest_socket
import vcr.patch

# A shell starts background jobs with Ctrl-C ignored, and their children inherit that; but what
# Ctrl-C does is tested here.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.embedded"]

_KEPT = (anyio._backends._asyncio, httpcore, httpx, vcr.patch)


def _talks_to_a_server(item: pytest.Item) -> bool:
    recording = item.config.getoption("--letta-record") != "none"
    recording = recording or item.config.getoption("--letta-code-on-api")
    return recording or item.get_closest_marker("live") is not None


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option of this suite's own."""
    parser.addoption(
        "--letta-code-on-api",
        action="store_true",
        help="run tests/behaviour over Letta Code whose agents live on the rig's Letta API",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Live tests run only when asked for by name: ``-m live``."""
    if "live" in (config.getoption("-m") or ""):
        return
    live = [item for item in items if item.get_closest_marker("live")]
    if live:
        config.hook.pytest_deselected(items=live)
        items[:] = [item for item in items if item not in live]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Live tests reach the server they are pointed at, all others only loopback."""
    if item.get_closest_marker("live"):
        pytest_socket.enable_socket()
    else:
        pytest_socket.socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings never change what an offline test does."""
    if not _talks_to_a_server(request.node):
        for name in [name for name in os.environ if name.startswith("LETTA_")]:
            monkeypatch.delenv(name)


@pytest.fixture
def thread_s_event_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """LlamaIndex' synchronous code takes the thread's event loop, or makes one and leaves it."""
    if asyncio.iscoroutinefunction(request.function):
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)
