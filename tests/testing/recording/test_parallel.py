"""Recordings of sessions that ran at the same time, replayed in whatever order they ask."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters.testing import (
    Cassette,
    CassetteMissError,
    CassetteTransport,
    FakeLetta,
    Interaction,
    RecordedRequest,
    RecordedResponse,
    RecordingTransport,
    RehearsalError,
    Reply,
    save_cassette,
)

JSON = (("content-type", "application/json"),)
ORDERS = list(itertools.permutations(range(3)))


async def run(http: httpx.AsyncClient, order: Sequence[int], turns: int = 1) -> list[list[str]]:
    """Three sessions at once, begun in ``order``: what each was told, by its number."""
    async with AsyncLettaClient(Rest(base_url="http://letta.test"), http_client=http) as client:
        agent = await client.create_agent(name="Ada", persona="p", human="h", model="m/m")

        async def one(number: int) -> list[str]:
            session = client.create_session(agent)
            # Whatever was begun first is first.
            await asyncio.sleep(0.02 * order.index(number))
            said = [await session.run_turn(f"p{number}.{turn}") for turn in range(turns)]
            return [str(result.result) for result in said]

        return await asyncio.gather(*(one(number) for number in range(3)))


async def recorded(path: Path, turns: int = 1) -> Cassette:
    named = [f"p{number}.{turn}" for number, turn in itertools.product(range(3), range(turns))]
    letta = FakeLetta()
    letta.script(*(Reply(f"You said: {name}", when=name) for name in named))
    server = letta.http_client()

    async def pass_on(request: httpx.Request) -> httpx.Response:
        return await server.send(request, stream=True)

    transport = RecordingTransport(httpx.MockTransport(pass_on))
    http = httpx.AsyncClient(transport=transport, base_url="http://letta.test")
    await run(http, (0, 1, 2), turns)
    return save_cassette(transport.cassette, path)


@pytest.mark.parametrize("order", ORDERS)
async def test_sessions_replay_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    cassette = await recorded(tmp_path / "x.yaml", turns=2)
    transport = CassetteTransport(cassette)
    http = httpx.AsyncClient(transport=transport, base_url="http://letta.test")
    said = await run(http, order, turns=2)
    assert said == [[f"You said: p{n}.{turn}" for turn in range(2)] for n in range(3)]
    transport.assert_all_played()


def exchange(
    path: str, body: Any, answer: Any, span: tuple[float, float] | None = None
) -> Interaction:
    return Interaction(
        RecordedRequest("POST", f"http://letta.test{path}", JSON, json.dumps(body).encode()),
        RecordedResponse(200, "OK", JSON, json.dumps(answer).encode()),
        span,
    )


def conversation(number: int) -> str:
    return f"conv-00000000-99cc-4000-a000-{number:012x}"


def opened(number: int, span: tuple[float, float] | None = None) -> Interaction:
    return exchange("/v1/conversations", {}, {"id": conversation(number)}, span)


def told(
    number: int, text: str, answer: str, span: tuple[float, float] | None = None
) -> Interaction:
    path = f"/v1/conversations/{conversation(number)}/messages"
    return exchange(path, {"text": text}, {"id": conversation(number), "said": answer}, span)


def ask(client: httpx.Client, path: str, body: Any) -> Any:
    return client.post(path, json=body).json()


def client_of(*items: Interaction) -> httpx.Client:
    transport = CassetteTransport(Cassette(list(items)))
    return httpx.Client(transport=transport, base_url="http://letta.test")


def test_an_id_is_bound_when_it_is_first_used() -> None:
    items = opened(1), opened(2), told(1, "one", "1"), told(2, "two", "2"), told(2, "more", "3")
    with client_of(*items) as client:
        first = ask(client, "/v1/conversations", {})["id"]
        second = ask(client, "/v1/conversations", {})["id"]
        assert ask(client, f"/v1/conversations/{first}/messages", {"text": "two"}) == {
            "id": first,
            "said": "2",
        }
        assert ask(client, f"/v1/conversations/{second}/messages", {"text": "one"}) == {
            "id": second,
            "said": "1",
        }
        assert ask(client, f"/v1/conversations/{first}/messages", {"text": "more"})["id"] == first


def test_a_bound_id_stays_bound() -> None:
    items = opened(1), opened(2), told(1, "one", "1"), told(2, "two", "2"), told(2, "more", "3")
    with client_of(*items) as client:
        first = ask(client, "/v1/conversations", {})["id"]
        second = ask(client, "/v1/conversations", {})["id"]
        ask(client, f"/v1/conversations/{first}/messages", {"text": "two"})
        with pytest.raises(CassetteMissError):
            ask(client, f"/v1/conversations/{second}/messages", {"text": "more"})


def test_an_id_given_out_later_is_never_one_that_is_in_use() -> None:
    items = opened(1), told(1, "one", "1"), opened(2), told(2, "two", "2")
    with client_of(*items) as client:
        first = ask(client, "/v1/conversations", {})["id"]
        ask(client, f"/v1/conversations/{first}/messages", {"text": "two"})
        second = ask(client, "/v1/conversations", {})["id"]
        assert first != second
        said = ask(client, f"/v1/conversations/{second}/messages", {"text": "one"})
        assert said == {"id": second, "said": "1"}


def test_an_answer_that_said_something_else_is_not_exchanged() -> None:
    one = told(1, "hi", "A"), told(1, "more", "C")
    two = told(2, "hi", "B"), told(2, "other", "D")
    with client_of(opened(1), opened(2), *one, *two) as client:
        first = ask(client, "/v1/conversations", {})["id"]
        ask(client, f"/v1/conversations/{first}/messages", {"text": "hi"})
        with pytest.raises(CassetteMissError):
            ask(client, f"/v1/conversations/{first}/messages", {"text": "other"})


def test_replies_in_recorded_order_are_byte_equal() -> None:
    items = opened(1), opened(2), told(1, "one", "1"), told(2, "two", "2")
    with client_of(*items) as client:
        for item in items:
            sent = client.post(item.request.uri, content=item.request.body)
            assert sent.content == item.response.body


def test_many_sessions_in_reverse_are_found() -> None:
    count = 40
    items = [*map(opened, range(1, count + 1))]
    items += [told(n, f"I am {n}", str(n)) for n in range(1, count + 1)]
    with client_of(*items) as client:
        ids = [ask(client, "/v1/conversations", {})["id"] for _ in range(count)]
        for number, live in zip(reversed(range(1, count + 1)), ids, strict=True):
            said = ask(client, f"/v1/conversations/{live}/messages", {"text": f"I am {number}"})
            assert said == {"id": live, "said": str(number)}


def raw(item: Interaction) -> Interaction:
    """As a server says it: ids that are not numbered yet."""

    def other(data: bytes) -> bytes:
        return data.replace(b"conv-00000000", b"conv-1f0e8d1c")

    request = replace(
        item.request,
        uri=other(item.request.uri.encode()).decode(),
        body=other(item.request.body),
    )
    return Interaction(request, replace(item.response, body=other(item.response.body)), item.span)


def test_what_replays_in_one_order_only_is_not_saved(tmp_path: Path) -> None:
    one = told(1, "hi", "A", (2, 3)), told(1, "more", "C", (4, 5))
    two = told(2, "hi", "B", (2, 3)), told(2, "other", "D", (4, 5))
    items = opened(1, (0, 1)), opened(2, (0, 1)), *one, *two
    path = tmp_path / "x.yaml"
    with pytest.raises(RehearsalError, match="Make them differ"):
        save_cassette(Cassette([raw(item) for item in items]), path)
    assert not path.exists()


def test_what_followed_one_another_is_saved(tmp_path: Path) -> None:
    one = told(1, "hi", "A", (1, 2)), told(1, "more", "C", (3, 4))
    two = told(2, "hi", "B", (6, 7)), told(2, "other", "D", (8, 9))
    items = opened(1, (0, 1)), *one, opened(2, (5, 6)), *two
    path = tmp_path / "x.yaml"
    save_cassette(Cassette([raw(item) for item in items]), path)
    assert len(Cassette.load(path).interactions) == 6
