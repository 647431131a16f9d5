"""The same over one WebSocket."""

from __future__ import annotations

import asyncio
import json

import pytest

from letta_adapters.testing.scripted_model import Reply
from tests.web._asgi import open_socket
from tests.web.conftest import Room
from tests.web.test_who_may import script_call

pytestmark = pytest.mark.timeout(30)


async def test_a_turn_over_a_socket(room: Room) -> None:
    room.letta.script("Hello Ada.")
    async with room.build():
        async with open_socket(room.browser("ada")) as (socket, first):
            assert first["type"] == "websocket.accept"
            assert (await socket.next())["event"] == "snapshot"
            socket.say(do="message", text="I am Ada.", to="1")
            reply = await socket.until("reply")
            assert (reply["to"], reply["data"]["queued"]) == ("1", False)
            done = await socket.until("message", type="result")
            assert done["data"]["result"] == "Hello Ada."
            ids = [event["id"] for event in socket.all if "id" in event]
            assert len(ids) == len(set(ids))


async def test_a_socket_that_comes_back_goes_on_behind_its_last_event(room: Room) -> None:
    room.letta.script(Reply(" ".join(f"w{n}" for n in range(30)), token_delay=0.01))
    async with room.build():
        async with open_socket(room.browser("ada")) as (socket, _):
            socket.say(do="message", text="go")
            await socket.until("message", type="stream_event")
            got = [event for event in socket.all if "id" in event]
        path = f"/socket?after={got[-1]['id']}"
        async with open_socket(room.browser("ada"), path) as (socket, _):
            await socket.until("message", type="result")
        events = [*got, *socket.all]
        ids = [event["id"] for event in events]
        assert len(ids) == len(set(ids))
        pieces = [
            e["data"]["event"]["content"]
            for e in events
            if e["event"] == "message" and e["data"]["type"] == "stream_event"
        ]
        assert "".join(pieces) == " ".join(f"w{n}" for n in range(30))


async def test_a_call_is_allowed_over_a_socket_by_who_may(room: Room) -> None:
    script_call(room)
    async with room.build():
        async with (
            open_socket(room.browser("ada")) as (ada, _),
            open_socket(room.browser("guest")) as (guest, _),
        ):
            guest.say(do="message", text="look")
            call = await ada.until("approval")
            assert call["data"]["input"] == {"word": "hello"}
            guest.say(do="approval", tool_call_id="call_web", allow=True, to="no")
            assert (await guest.until("reply"))["to"] is None
            refused = await guest.until("reply")
            assert refused["to"] == "no"
            assert refused["error"]["code"] == "not_permitted"
            ada.say(do="approval", tool_call_id="call_web", allow=True)
            assert (await ada.until("reply"))["data"] == {"answered": True}
            assert (await guest.until("message", type="result"))["data"]["success"] is True


async def test_a_turn_is_stopped_over_a_socket(room: Room) -> None:
    room.letta.script(Reply("never " * 500, token_delay=0.02))
    async with room.build():
        async with open_socket(room.browser("ada")) as (socket, _):
            socket.say(do="message", text="go")
            await socket.until("message", type="stream_event")
            socket.say(do="stop")
            assert (await socket.until("message", type="result"))["data"]["success"] is False


@pytest.mark.parametrize("who", [None, "bug", "blind"])
async def test_nobody_gets_in_without_authorization(room: Room, who: str | None) -> None:
    async with room.build():
        async with open_socket(room.browser(who)) as (socket, first):
            assert first["type"] == "websocket.http.response.start"
            assert first["status"] == 403
            body = await socket.outbox.get()
            assert json.loads(body["body"])["error"]["code"] == "not_permitted"


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_a_page_of_somebody_elses_is_refused(room: Room, origin: str) -> None:
    async with room.build():
        async with open_socket(room.browser("ada", origin=origin)) as (_, first):
            assert first["status"] == 403
        # A browser always names the page; a cookie without one is nothing to rely on.
        nameless = room.browser("ada", origin=None)
        async with open_socket(nameless, cookie="a=b") as (_, first):
            assert first["status"] == 403
        async with open_socket(nameless) as (_, first):
            assert first["type"] == "websocket.accept"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"do": "message"}',
        '{"do": ["message"], "text": "x"}',
        '{"do": "message", "text": "x", "agent_id": "agent-1"}',
        '{"do": "stop", "text": "x"}',
        '{"do": "message", "text": "x", "to": 1}',
    ],
)
async def test_a_bad_request_gets_an_error_and_the_connection_goes_on(
    room: Room, text: str
) -> None:
    async with room.build():
        async with open_socket(room.browser("ada")) as (socket, _):
            socket.inbox.put_nowait({"type": "websocket.receive", "text": text})
            assert (await socket.until("reply"))["error"]["code"] == "invalid_input"
            socket.say(do="stop", to="still here")
            assert (await socket.until("reply"))["to"] == "still here"
    assert room.letta.said == []


@pytest.mark.parametrize(
    ("sent", "code"), [({"bytes": b"x"}, 1003), ({"text": "x" * 300_000}, 1009)]
)
async def test_a_frame_that_is_too_much_closes_the_connection(
    room: Room, sent: dict[str, object], code: int
) -> None:
    async with room.build():
        async with open_socket(room.browser("ada")) as (socket, _):
            socket.inbox.put_nowait({"type": "websocket.receive", **sent})
            assert (await socket.until("close"))["code"] == code


async def test_a_shutdown_closes_the_connection_and_leaves_nothing_running(room: Room) -> None:
    room.letta.script(Reply("never " * 500, token_delay=0.02))
    before = asyncio.all_tasks()
    async with room.build():
        opened = open_socket(room.browser("ada"))
        socket, _ = await opened.__aenter__()
        socket.say(do="message", text="go")
        await socket.until("message", type="stream_event")
    assert (await socket.until("closed"))["data"]["reason"] == "The server closes."
    assert (await socket.until("close"))["code"] == 1001
    await opened.__aexit__(None, None, None)
    await asyncio.sleep(0)
    left = {t for t in asyncio.all_tasks() - before if "_shutdown_watcher" not in repr(t)}
    assert left == set()
