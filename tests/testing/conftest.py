"""Fixtures for tests that run pytest within pytest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from letta_adapters.testing import Cassette, LettaCassette
from tests.testing._loopback import Exchange, Loopback
from tests.testing._runner import Runner


@pytest.fixture
def server() -> Iterator[Loopback]:
    counts: dict[str, int] = {}

    def count(exchange: Exchange) -> None:
        counts[exchange.path] = counts.get(exchange.path, 0) + 1
        exchange.json({"n": counts[exchange.path]})

    def stream(exchange: Exchange) -> None:
        exchange.stream([b"data: 1\n\n", b"data: [DONE]\n\n"])

    with Loopback(hello=count, other=count, stream=stream, script=count) as running:
        yield running


@pytest.fixture
def run(pytester: pytest.Pytester, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, server, monkeypatch)


@pytest.fixture
def recording(letta_cassette: LettaCassette) -> Cassette:
    """The test's cassette, to be played in other ways than it was recorded."""
    letta_cassette.replay_options(require_all_played=False)
    if letta_cassette.recording:
        pytest.skip("only replayed")
    return Cassette.load(letta_cassette.path)
