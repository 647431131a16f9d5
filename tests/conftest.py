"""What every test gets: no stray settings, and no network beyond this machine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

# Loaded before any test: pytest's `pytester` forgets modules that its inner runs load first, and a
# second httpcore has other exception classes than the ones httpx knows.
import anyio._backends._asyncio
import httpcore
import httpx
import pytest
import pytest_socket
import vcr.patch

from tests._wheel import NO_WHEEL

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


# Fixtures that start the real runtime, whoever asks for them.
_RUNTIMES = frozenset({"_embedded_letta", "app_server", "letta_runtime", "tutorials_letta"})
_left_out = pytest.StashKey[int]()


def _starts_the_runtime(item: pytest.Item) -> bool:
    """Return whether a test runs the ``letta`` wheel: it needs it, or a fixture that does."""
    needs = any(mark.kwargs.get("reason") == NO_WHEEL for mark in item.iter_markers("skipif"))
    return needs or not _RUNTIMES.isdisjoint(getattr(item, "fixturenames", ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is slow by its nature; live tests run only when asked for by name: ``-m live``."""
    for item in items:
        if _starts_the_runtime(item):
            item.add_marker(pytest.mark.slow)
    if "live" in (config.getoption("-m") or ""):
        return
    live = [item for item in items if item.get_closest_marker("live")]
    if live:
        config.hook.pytest_deselected(items=live)
        items[:] = [item for item in items if item not in live]


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count what ``-m "not slow"`` leaves out: one batch of slow tests, and nothing else in it."""
    config = items[0].config
    by_mark = "not slow" in (config.getoption("-m") or "")
    if by_mark and all(item.get_closest_marker("slow") for item in items):
        config.stash[_left_out] = config.stash.get(_left_out, 0) + len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints, if this is one of ``-n``'s: only those collect."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = session.config.stash.get(_left_out, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the count of a process of ``-n``: all of them collect the same tests."""
    told = getattr(node, "workeroutput", {}).get("left_out", 0)
    node.config.stash[_left_out] = max(told, node.config.stash.get(_left_out, 0))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    """Say at the end, below all other reports, what a quick run did not ask."""
    yield
    count = config.stash.get(_left_out, 0)
    if count:
        terminalreporter.write_line(f"left out as slow: {count} tests; .ci/run runs them")


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


_SENDERS = (
    (httpx.HTTPTransport, "handle_request"),
    (httpx.AsyncHTTPTransport, "handle_async_request"),
)
_UNPATCHED = [vars(owner)[name] for owner, name in _SENDERS]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail the test that leaves httpx patched: those after it would get streams in one piece."""
    yield
    left = []
    for (owner, name), original in zip(_SENDERS, _UNPATCHED, strict=True):
        if vars(owner)[name] is not original:
            setattr(owner, name, original)
            left.append(f"{owner.__name__}.{name}")
    if left:
        pytest.fail(f"{item.nodeid} left {' and '.join(left)} patched")
