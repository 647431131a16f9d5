"""What must hold for every recording in ``cassettes/``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from letta_adapters.testing import Cassette, scan_file, use_letta_vcr
from tests.engine._recut import assert_recut_invariant

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "cassettes"
FILES = sorted(FOLDER.rglob("*.yaml"))


def _streams() -> Iterator[object]:
    for path in FILES:
        for number, item in enumerate(Cassette.load(path).interactions):
            kind = dict(item.response.headers).get("content-type", "")
            if kind.startswith("text/event-stream"):
                yield pytest.param(item.response.body, id=f"{path.stem}-{number}")


def _name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("stream", list(_streams()))
def test_a_stream_gives_the_same_messages_however_it_is_cut(stream: bytes) -> None:
    assert_recut_invariant(stream)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_cassette_holds_nothing_private(path: Path) -> None:
    assert scan_file(path) == []


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_vcrpy_itself_replays_a_cassette(path: Path) -> None:
    interactions = Cassette.load(path).interactions
    whole = [item for item in interactions if item.response.error is None]
    with use_letta_vcr(path), httpx.Client() as client:
        for item in whole:
            answer = client.request(
                item.request.method,
                item.request.uri,
                content=item.request.body,
                headers=list(item.request.headers),
            )
            assert answer.status_code == item.response.status, urlsplit(item.request.uri).path
            assert answer.content == item.response.body


def test_the_cassettes_are_small() -> None:
    sizes = {path.stem: path.stat().st_size for path in FILES}
    assert {name for name, size in sizes.items() if size > 100_000} == set()
    assert sum(sizes.values()) < 5_800_000
