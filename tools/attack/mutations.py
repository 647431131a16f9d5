"""Make thousands of distorted turns from a seed: nothing that is read from them may be wrong.

Events get a field of another kind, lose one, come twice, are cut or torn anywhere, and other things
come between them. Distortions that nobody could notice are not among them: another text in place of
the right one, a whole event that never comes.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters.backends.app_server import recovery as settling
from letta_adapters.backends.rest import recovery as runs
from tools.attack.judge import Tally, nothing_left
from tools.attack.streams import ANSWER, PIECES, REST_TURN, app_frames, rest_events, sse
from tools.fake_app_server import CLOSE, HERE, Frame, accept, fake_app_server

# What stands in place of a value: of every kind that JSON has, and some that it has not.
ODD: Final[tuple[Any, ...]] = (
    5,
    -1,
    2**63,
    1e308,
    1.5,
    True,
    False,
    [],
    [5],
    [None],
    [[]],
    [{}],
    {},
    {"a": 1},
    {"id": {"id": []}},
)
_JUNK: Final[tuple[bytes, ...]] = (
    b"null",
    b"5",
    b"[]",
    b'"x"',
    b"{}",
    b'{"message_type": "of_tomorrow", "x": [1]}',
    b'{"message_type": "ping"}',
    b"[" * 3000 + b"]" * 3000,
)
# At a time: a turn whose end never comes is waited for.
_SERVERS: Final = 16
_ONCE: Final = {"content", "text"}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    found = [path] if path else []
    for key, item in items:
        found += _places(item, (*path, key))
    return found


def _set(value: Any, path: tuple[Any, ...], item: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = item


def _kind_changed(rng: random.Random, event: Any) -> tuple[Any, str]:
    """Put something of another kind in the place of one of the event's values."""
    event = copy.deepcopy(event)
    path = rng.choice(_places(event))
    odd = rng.choice(ODD)
    before = event
    for key in path:
        before = before[key]
    # A content is a text or a list of parts: an empty list is one that says nothing, in good form.
    if type(odd) is type(before) or (path[-1] == "content" and odd == []):
        odd = {"a": 1} if not isinstance(before, dict) else 5
    _set(event, path, odd)
    return event, f"{'.'.join(map(str, path))} = {odd!r}"


def _field_lost(rng: random.Random, event: dict[str, Any]) -> tuple[Any, str]:
    """Leave out a field, but not the text itself, or the one that says that it is a text."""
    keys = [key for key in event if key not in _ONCE | {"message_type", "delta", "type"}]
    lost = rng.choice(keys)
    return {key: item for key, item in event.items() if key != lost}, f"without {lost}"


def _torn(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    at = rng.randrange(len(data))
    return data[:at], f"cut at byte {at}"


def _scrambled(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change one byte of the punctuation, of the JSON or of the stream, but not of the text."""
    texts = [match.span() for piece in PIECES for match in re.finditer(piece.encode(), data)]
    marks = [
        n
        for n, byte in enumerate(data)
        if byte in b'{}[]":,' and not any(start <= n < end for start, end in texts)
    ]
    at = rng.choice(marks)
    new = rng.choice(b"{}[]:,\x00\xff \\")
    return data[:at] + bytes([new]) + data[at + 1 :], f"byte {at} = {bytes([new])!r}"


def mutate_rest(rng: random.Random) -> tuple[bytes, str]:
    """Return a distorted stream, and in words how it was distorted."""
    events: list[Any] = [*rest_events(), b"[DONE]"]
    how = rng.choice(("kind", "lost", "twice", "junk", "torn", "scrambled", "framed"))
    at = rng.randrange(len(events) - 1)
    if how == "torn":
        return _torn(REST_TURN, rng)
    if how == "scrambled":
        return _scrambled(REST_TURN, rng)
    if how == "framed":
        return _framed(REST_TURN, rng)
    what = _distort(rng, events, at, how, rng.choice(_JUNK))
    return sse(events), f"event {at} {what}"


def _distort(rng: random.Random, items: list[Any], at: int, how: str, junk: Any) -> str:
    """Distort one of the events or frames; return in words how it was distorted."""
    if how == "kind":
        items[at], what = _kind_changed(rng, items[at])
    elif how == "lost":
        items[at], what = _field_lost(rng, items[at])
    elif how == "twice":
        items.insert(rng.randrange(at, len(items)), items[at])
        what = "comes twice"
    else:
        items.insert(at, junk)
        what = f"after {junk[:40]!r}"
    return what


def _framed(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Spell the stream in another way that server-sent events allow."""
    end = rng.choice((b"\n", b"\r\n", b"\r"))
    between = rng.choice((b"", b": a comment\n", b"id: 7\n", b"retry: 5\n", b"foo: bar\n"))
    spelt = data.replace(b"data: ", between + rng.choice((b"data: ", b"data:")))
    start = rng.choice((b"", b"\xef\xbb\xbf", b"\n\n\n"))
    return start + spelt.replace(b"\n", end), f"{start!r} {between!r} {end!r}"


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), self._size):
            yield self._data[at : at + self._size]


def _api(body: Callable[[], tuple[bytes, int]]) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "POST" and path.endswith("/messages"):
            data, size = body()
            headers = {"content-type": "text/event-stream"}
            return httpx.Response(200, headers=headers, stream=_Pieces(data, size))
        if request.method == "POST":
            return httpx.Response(409, json={"detail": "No active runs found"})
        run = {"id": path.rpartition("/")[2], "status": "completed"}
        return httpx.Response(200, json=run if path.startswith("/v1/runs/run") else [])

    return httpx.MockTransport(answer)


@contextmanager
def hurried() -> Iterator[None]:
    """Let the client ask more often for the outcome of a turn: nothing here needs time."""
    places = ((runs, "_POLL_SECONDS"), (settling, "_AGAIN_SECONDS"), (settling, "_POLL_SECONDS"))
    before = [getattr(module, name) for module, name in places]
    for module, name in places:
        setattr(module, name, 0.001)
    try:
        yield
    finally:
        for (module, name), seconds in zip(places, before, strict=True):
            setattr(module, name, seconds)


async def rest_mutations(seed: int, count: int) -> Tally:
    """Ask over ``count`` distorted streams of the Letta API."""
    tally = Tally("distorted streams (REST)")
    rng = random.Random(seed)
    sent: list[tuple[bytes, int]] = []
    async with httpx.AsyncClient(transport=_api(lambda: sent[-1])) as http:
        place = Rest(base_url="http://letta.test", api_key="", settle_timeout=0.01)
        async with AsyncLettaClient(place, http_client=http) as client:
            for number in range(count):
                data, what = mutate_rest(rng)
                sent[:] = [(data, rng.choice((1 << 16, 7, 64)))]
                session = client.resume_session(**HERE)
                with hurried():
                    await tally.judge(f"{number}: {what}", session.run_turn("hi"), is_answer)
                tally.look_behind(what, client)
    await nothing_left(tally)
    return tally


def is_answer(result: Any) -> bool:
    """Return whether it is the text that the server meant."""
    return bool(result.result == ANSWER)


# -- the App Server -------------------------------------------------------------------------------


def mutate_frames(rng: random.Random, frames: list[Any]) -> tuple[list[Any], str]:
    """Return distorted frames of a turn, and in words how they were distorted."""
    how = rng.choice(("kind", "lost", "twice", "junk", "torn", "closed", "odd"))
    at = rng.randrange(len(frames))
    if how == "torn":
        text = json.dumps(frames[at])
        frames[at] = text[: rng.randrange(len(text))]
        frames.append(CLOSE)
        what = "torn"
    elif how == "closed":
        del frames[at:]
        frames.append(CLOSE)
        what = "closed"
    elif how == "odd":
        kind = rng.choice(("update_queue", "update_device_status", "update_loop_status", "x"))
        odd = {"type": kind, "runtime": HERE, kind.removeprefix("update_"): rng.choice(ODD)}
        frames.insert(at, odd)
        what = f"after {odd}"
    else:
        what = _distort(rng, frames, at, how, rng.choice(_JUNK).decode())
    return frames, f"frame {at} {what}"


async def frame_mutations(seed: int, count: int) -> Tally:
    """Ask over ``count`` turns of Letta Code with distorted frames."""
    tally = Tally("distorted frames (App Server)")
    rng = random.Random(seed)
    seeds = iter([rng.random() for _ in range(count)])
    with hurried():
        await asyncio.gather(*(_distorting_server(seeds, tally) for _ in range(_SERVERS)))
    await nothing_left(tally)
    return tally


async def _distorting_server(seeds: Iterator[float], tally: Tally) -> None:
    """Serve one client after another turn, each distorted from the next seed."""
    rng, what = random.Random(), ""

    def play(frame: Frame) -> list[Any]:
        nonlocal what
        if frame["type"] != "input" or frame["payload"]["kind"] != "create_message":
            return [accept(frame)]
        message_id = frame["payload"]["messages"][0]["client_message_id"]
        frames, what = mutate_frames(rng, list(app_frames(message_id)))
        return [accept(frame), *frames]

    options = {"settle_timeout": 0.01, "request_timeout": 2.0}
    async with fake_app_server(play, **options) as client:
        for seed in seeds:
            rng.seed(seed)
            session = client.resume_session(**HERE, turn_timeout=1.0)
            await tally.judge(lambda: what, session.run_turn("hi"), is_answer)
            tally.look_behind(what, client)
