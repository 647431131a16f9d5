"""Replay recordings, compared with vcrpy: a stream of 10,000 events, and 400 requests."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import vcr

from benchmarks.report import show, spread, versions
from letta_adapters.testing import (
    Cassette,
    CassetteTransport,
    Interaction,
    RecordedRequest,
    RecordedResponse,
    use_letta_vcr,
)

EVENTS, REQUESTS = 10_000, 400
_URL = "http://letta.test/v1/x"
_JSON = (("content-type", "application/json"),)
_SSE = (("content-type", "text/event-stream"),)
_EVENT = {
    "id": "message-00000000-307f-4000-a000-00000000017f",
    "date": "2026-01-01T00:00:00+00:00",
    "message_type": "assistant_message",
    "otid": "00000000-307f-4000-a000-000000000102",
    "run_id": "run-00000000-1111-4000-a000-000000000100",
}
_STRICT = ("method", "path", "query", "body")


def run(*, quick: bool = False) -> bool:
    """Measure and print; return whether everything was played."""
    rounds = 2 if quick else 7
    print(f"\nReplaying: {versions('httpx', 'vcrpy')}, {rounds} rounds, file read each time")
    with tempfile.TemporaryDirectory() as folder:
        long, many = Path(folder) / "long.yaml", Path(folder) / "many.yaml"
        long.write_text(_long().dumps(), encoding="utf-8")
        many.write_text(_many().dumps(), encoding="utf-8")
        rows = [
            *_rows(f"{EVENTS:,} events", long, 1, rounds),
            *_rows(f"{REQUESTS} requests", many, REQUESTS, max(rounds // 3, 1)),
        ]
    show("CPU ms, median [quartiles]", ("", "player", "CPU ms", "x vcrpy"), rows)
    return True


def _rows(name: str, path: Path, count: int, rounds: int) -> list[tuple[str, ...]]:
    players: dict[str, Callable[[Path, int], None]] = {
        "vcrpy": _vcrpy,
        "CassetteTransport": _ours,
        "CassetteTransport, async": lambda *given: asyncio.run(_ours_async(*given)),
        'player="vcr"': _ours_vcr,
    }
    found: dict[str, list[float]] = {player: [] for player in players}
    for number in range(rounds + 1):
        for player, play in players.items():
            before = time.process_time()
            play(path, count)
            if number:  # the first round compiles patterns
                found[player].append((time.process_time() - before) * 1000)
    base = found["vcrpy"]
    return [
        (name, player, spread([*times, *times]), _ratios(times, base))
        for player, times in found.items()
    ]


def _ratios(times: list[float], base: list[float]) -> str:
    ratios = [ours / theirs for ours, theirs in zip(times, base, strict=True)]
    return spread([*ratios, *ratios], 2)


def _vcrpy(path: Path, count: int) -> None:
    recorder = vcr.VCR(record_mode="none", match_on=_STRICT)
    with recorder.use_cassette(str(path)), _client() as client:
        _read(client, count)


def _ours_vcr(path: Path, count: int) -> None:
    with use_letta_vcr(path), _client() as client:
        _read(client, count)


def _ours(path: Path, count: int) -> None:
    with httpx.Client(transport=CassetteTransport(path)) as client:
        _read(client, count)


def _client() -> httpx.Client:
    # Certificates would take longer than all the rest.
    return httpx.Client(verify=False)


def _read(client: httpx.Client, count: int) -> None:
    for number in range(count):
        with client.stream("POST", _URL, json={"n": number}) as response:
            assert sum(map(len, response.iter_raw())) > 0


async def _ours_async(path: Path, count: int) -> None:
    async with httpx.AsyncClient(transport=CassetteTransport(path)) as client:
        for number in range(count):
            async with client.stream("POST", _URL, json={"n": number}) as response:
                assert sum([len(chunk) async for chunk in response.aiter_raw()]) > 0


def _long() -> Cassette:
    events = [{**_EVENT, "seq_id": n, "content": f"word{n} "} for n in range(EVENTS)]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return Cassette([_exchange(0, body, _SSE)])


def _many() -> Cassette:
    return Cassette([_exchange(n, json.dumps(_EVENT).encode(), _JSON) for n in range(REQUESTS)])


def _exchange(number: int, body: bytes, headers: tuple[tuple[str, str], ...]) -> Interaction:
    request = RecordedRequest("POST", _URL, _JSON, json.dumps({"n": number}).encode())
    return Interaction(request, RecordedResponse(200, "OK", headers, body))
