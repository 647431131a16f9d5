"""What a server may send has an end: in time, and in size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters.backends.rest import http
from letta_adapters.engine import rest as rest_turn
from letta_adapters.errors import ProtocolError, TimeoutBeforeAcceptanceError
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import Wire, stream
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


def trickle(head: bytes, piece: bytes) -> Callable[[Wire], None]:
    """A play that never falls silent and never ends."""

    def play(wire: Wire) -> None:
        wire.raw(head)
        while not wire.server.stopping.is_set():
            wire.raw(piece)
            time.sleep(0.02)

    return play


HEAD = b"HTTP/1.1 200 OK\r\n"
WHOLE = HEAD + b"content-type: application/json\r\ncontent-length: 99999\r\n\r\n["


@pytest.mark.parametrize("endless", [(HEAD, b"x: y\r\n"), (WHOLE, b" ")], ids=["head", "body"])
async def test_a_reply_that_never_ends_is_out_of_time(
    server: Server, rest: MakeRest, endless: tuple[bytes, bytes]
) -> None:
    server.override("GET", "/v1/models", trickle(*endless), times=9)
    async with AsyncLettaClient(rest(request_timeout=0.2, connect_timeout=0.2)) as client:
        with pytest.raises(TimeoutBeforeAcceptanceError):
            await client.request("GET", "/v1/models/")


async def test_a_message_whose_answer_never_begins_is_out_of_time(
    server: Server, rest: MakeRest
) -> None:
    server.script(trickle(HEAD, b"x: y\r\n"))
    async with AsyncLettaClient(rest(idle_timeout=0.2, connect_timeout=0.2)) as client:
        with pytest.raises(TimeoutBeforeAcceptanceError) as caught:
            await resume(client).send("hello")
        assert caught.value.accepted is not True
        assert server.texts() == ["hello"]


@pytest.mark.parametrize("code", [200, 400])
async def test_a_reply_larger_than_any_is_given_up(
    server: Server, client: AsyncLettaClient, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(http, "MAX_REPLY_BYTES", 1 << 20)

    def large(wire: Wire) -> None:
        wire.answer(code, b'["' + b"x" * (2 << 20) + b'"]')

    server.override("GET", "/v1/models", large)
    with pytest.raises(Exception) as caught:
        await client.request("GET", "/v1/models/")
    assert isinstance(caught.value, ProtocolError) == (code == 200)
    server.override("GET", "/v1/models", lambda wire: wire.answer(200, []))
    assert await client.request("GET", "/v1/models/") == []


@pytest.mark.parametrize("how", ["one line", "many lines"])
async def test_an_event_larger_than_any_fails_the_turn(
    server: Server, client: AsyncLettaClient, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(rest_turn, "MAX_EVENT_BYTES", 1 << 20)
    piece: Any = b"x" * (1 << 16) if how == "one line" else b"data: " + b"x" * 9990 + b"\n"
    server.script(stream(ev.ping(), b"data: ", *[piece] * 120, ev.text("x"), ev.ending()))
    result = await resume(client).run_turn("hello")
    assert (result.success, result.error_code) == (False, "protocol_error")
    assert "256 MiB" in str(result.error_detail)
