"""Clients that vanish, servers that stop and rooms that close, each at the worst moment."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from letta_adapters.testing.scripted_model import Reply
from letta_adapters.web import hub as hub_module
from tests.web._asgi import Stream
from tests.web.conftest import Room
from tests.web.test_room import after_the_turn, texts
from tests.web.test_who_may import script_call

pytestmark = pytest.mark.timeout(40)


def hold_opening(room: Room, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, list[Any]]:
    """Let sessions open only when the event is set; they are listed."""
    gate, made = asyncio.Event(), []
    resume = room.client.resume_session

    def resume_slowly(*args: Any, **options: Any) -> Any:
        session = resume(*args, **options)
        made.append(session)

        async def opened() -> Any:
            await gate.wait()
            return session

        return opened()

    monkeypatch.setattr(room.client, "resume_session", resume_slowly)
    return gate, made


async def test_a_viewer_who_leaves_while_the_room_opens_takes_it_from_nobody(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, made = hold_opening(room, monkeypatch)
    async with room.build():
        ada, mouse = room.browser("ada"), room.browser("mouse")
        impatient = asyncio.ensure_future(ada.get("/events"))
        while not made:
            await asyncio.sleep(0)
        opened = mouse.events()
        waiting = asyncio.ensure_future(opened.__aenter__())
        await asyncio.sleep(0.01)
        impatient.cancel()
        await asyncio.wait({impatient})
        gate.set()
        page = await waiting
        assert (await page.next())[0] == "snapshot"
        await opened.__aexit__(None, None, None)
        hub = room.hubs.find("lobby")
        assert hub is not None
        assert hub.viewers == 0
    assert len(made) == 1
    assert made[0].closed


async def test_a_server_that_stops_while_a_room_opens_leaves_no_session(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = hold_opening(room, monkeypatch)
    async with room.build():
        coming = asyncio.ensure_future(room.browser("ada").post("/messages", {"text": "hi"}))
        while not made:
            await asyncio.sleep(0)
    status, told = await coming
    assert (status, told["error"]["code"]) == (503, "session_closed")
    assert room.letta.said == []


async def test_a_message_whose_sender_vanishes_in_its_middle_is_not_sent(room: Room) -> None:
    async with room.build():
        ada = room.browser("ada")
        stream = Stream()
        stream._body = {"type": "http.request", "body": b'{"text": "ha', "more_body": True}
        stream.leave()
        scope = ada.scope("/messages", "POST", content_type="application/json")
        await room.app(scope, stream.receive, stream.send)
    assert room.letta.said == []


async def test_a_turn_stopped_before_the_agent_took_it_is_not_sent(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await page.next()
            session = room.hubs.find("lobby")._session  # type: ignore[union-attr]
            entered, send = asyncio.Event(), session.send

            async def never(*_: Any, **__: Any) -> None:
                entered.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(session, "send", never)
            _, taken = await ada.post("/messages", {"text": "one"})
            await entered.wait()
            both = await asyncio.gather(ada.post("/stop"), ada.post("/stop"))
            assert (200, {"stopped": True}) in both
            told = await page.until("failed")
            assert (told["id"], told["code"]) == (taken["id"], "cancelled")
            monkeypatch.setattr(session, "send", send)
            await ada.post("/messages", {"text": "two"})
            await page.until("message", type="result")
    assert room.letta.said == ["two"]


async def test_of_two_answers_at_once_one_wins(room: Room) -> None:
    script_call(room)
    async with room.build():
        ada, grace = room.browser("ada"), room.browser("grace")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "look"})
            await page.until("approval")
            yes, no = ({"tool_call_id": "call_web", "allow": allow} for allow in (True, False))
            answers = await asyncio.gather(
                ada.post("/approvals", yes), grace.post("/approvals", no)
            )
            assert sorted(status for status, _ in answers) == [200, 409]
            winner = "ada" if answers[0][0] == 200 else "grace"
            assert (await page.until("answered"))["by"] == winner
            await page.until("message", type="result")


async def test_a_room_that_closed_while_a_call_waited_is_not_blocked_by_it(room: Room) -> None:
    room.options["close_after"] = 0.0
    script_call(room)
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "look"})
            await page.until("approval")
            hub = room.hubs.find("lobby")
            assert hub is not None
        while not hub.closed:
            await asyncio.sleep(0.01)
        await hub.close()
        room.letta.script("Welcome back.", Reply("Welcome back.", repeat=True))
        async with ada.events() as page:
            await ada.post("/messages", {"text": "again"})
            assert (await page.until("message", type="result"))["result"] == "Welcome back."
            said = [text for kind, text in texts(page.all) if kind == "user"]
            assert said == ["look", "again"]
    assert room.letta.said == ["look", "again"]


async def test_a_room_that_goes_on_does_so_also_if_nobody_ever_watched(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_UNOPENED", 0.05)
    room.options["close_after"] = None
    room.letta.script(Reply("Done.", delay=0.2))
    async with room.build():
        ada = room.browser("ada")
        await ada.post("/messages", {"text": "go"})
        await asyncio.sleep(0.15)  # longer than an unopened room is kept
        async with after_the_turn(ada) as page:
            assert texts(page.all) == [("user", "go"), ("assistant", "Done.")]
        # One that nobody was let into does not stay.
        first = room.hubs.find("lobby")
        assert first is not None
        await first.close()
        for path, data in (
            ("/messages", {"text": "hi"}),
            ("/stop", {}),
            ("/approvals", {"tool_call_id": "c", "allow": True}),
        ):
            assert (await room.browser("mouse").post(path, data))[0] == 403
            while room.hubs.find("lobby") is not None:
                await asyncio.sleep(0.02)


SERVER = """
import asyncio, sys, uvicorn
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply
from letta_adapters.web import Hubs, Viewer, create_app

letta = FakeLetta(Reply("never " * 5000, token_delay=0.02))
client = letta.async_client()
made = {}

async def open_session(room, ask):
    made["agent"] = made.get("agent") or await client.create_agent(name="web")
    return client.resume_session(made["agent"], can_use_tool=ask, include_partial_messages=True)

def authorize(_):
    return Viewer(name="x", may_send=True)

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)

hubs, pages = Hubs(open_session), []
# The routes of others come here.
app = create_app(hubs, authorize=authorize, pages=pages)
Server(uvicorn.Config(app, port=0)).run()
"""
Watching: TypeAlias = Callable[[httpx.AsyncClient, "subprocess.Popen[str]"], Awaitable[None]]


async def test_a_real_server_that_is_terminated_in_a_turn_ends_soon(tmp_path: Path) -> None:
    await serve(tmp_path, SERVER, watch_and_terminate)


async def serve(tmp_path: Path, source: str, watch: Watching) -> None:
    """Run a server that ``watch`` terminates, and see that it ends well."""
    log = tmp_path / "log"
    with log.open("w") as errors:
        server = subprocess.Popen(
            [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert server.stdout is not None
        port = int(await asyncio.to_thread(server.stdout.readline))
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as browser:
            # The stream is cut in its middle, from which a browser's EventSource comes back.
            with pytest.raises(httpx.RemoteProtocolError):
                await watch(browser, server)
        await asyncio.to_thread(server.wait, 20)
        said = log.read_text()
        assert "Application shutdown complete" in said
        assert "Traceback" not in said
        assert "never retrieved" not in said
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


async def watch_and_terminate(browser: httpx.AsyncClient, server: subprocess.Popen[str]) -> None:
    """Begin a turn, see a part of it, and tell the server to stop."""
    seen = 0
    async with browser.stream("GET", "/events") as events:
        async for line in events.aiter_lines():
            if line == "event: snapshot":
                await browser.post("/messages", json={"text": "go"})
            seen += "stream_event" in line
            if seen == 3:
                server.send_signal(signal.SIGTERM)
