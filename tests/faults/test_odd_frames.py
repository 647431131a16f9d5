"""Frames that no real server sends: written by hand, because none can be made to send them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from letta_adapters import AsyncLettaClient, Remote
from letta_adapters.errors import ProtocolError

HERE = {"agent_id": "agent-1", "conversation_id": "conv-1"}


@asynccontextmanager
async def answering(*odd: Any, close: bool = False) -> AsyncIterator[AsyncLettaClient]:
    """A client of a server that accepts everything and follows a message with ``odd`` frames."""

    async def handle(socket: ServerConnection) -> None:
        async for text in socket:
            frame = json.loads(text)
            kind = frame["type"]
            answer = {
                "type": "input_accepted" if kind == "input" else f"{kind}_response",
                "request_id": frame["request_id"],
                "success": True,
                "agent": {"id": "agent-1", "tags": []},
                "accepted": True,
                "runtime": HERE,
                "protocol_version": 1,
                "backend": "local",
            }
            await socket.send(json.dumps(answer))
            if kind == "input":
                for item in odd:
                    await socket.send(item if isinstance(item, str) else json.dumps(item))
                if close:
                    await socket.close()

    async with serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        place = Remote(url=f"ws://127.0.0.1:{port}/ws", settle_timeout=0.1, request_timeout=3)
        async with AsyncLettaClient(place) as client:
            yield client


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "update_queue", "queue": 5},
        {"type": "update_queue", "queue": 5, "removed": 5},
        {"type": "update_loop_status", "loop_status": "idle"},
    ],
)
async def test_a_frame_that_cannot_be_taken_ends_the_turn_with_a_protocol_error(odd: Any) -> None:
    async with answering(odd | {"runtime": HERE}) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert (result.success, result.error_code) == (False, "protocol_error")
        with pytest.raises(ProtocolError, match=odd["type"]):
            result.raise_for_status()


async def test_a_connection_that_was_given_up_is_made_anew() -> None:
    async with answering({"type": "update_queue", "queue": 5, "runtime": HERE}) as client:
        session = client.resume_session(**HERE)
        for _ in range(2):
            result = await session.run_turn("hello")
            assert result.error_code == "protocol_error"


@pytest.mark.parametrize("text", ["5", "[]", "no json", "null", '"x"', "{}", '{"runtime": []}'])
async def test_what_is_no_frame_at_all_is_passed_over(text: str) -> None:
    finished = {"type": "turn_finished", "stop_reason": "end_turn", "runtime": HERE}
    async with answering(text, finished) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert result.success


async def test_a_closed_socket_is_noticed_after_an_odd_frame() -> None:
    odd = {"type": "update_queue", "queue": 5, "runtime": HERE}
    async with answering(odd, close=True) as client:
        result = await client.resume_session(**HERE).run_turn("hello")
        assert result.error_code == "protocol_error"
