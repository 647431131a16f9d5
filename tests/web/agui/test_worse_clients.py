"""Worse clients: huge and odd requests, at bad moments, many at once, and again."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from letta_adapters.testing.scripted_model import Reply
from tests.web._asgi import Stream
from tests.web.agui.conftest import Run, ask, build, run, whole_run
from tests.web.agui.test_agui import YES, kinds, text
from tests.web.agui.test_attacks import refuse, script_call
from tests.web.agui.test_frontend_tools import read_until
from tests.web.conftest import Hold, Room
from tests.web.test_worst_moments import SERVER, serve

pytestmark = pytest.mark.timeout(60)
ODD_IDS = ["a\x00\r\n\r\nevent: RUN_ERROR", "../../etc", "\ud800", "<script>", "é" * 500, "%00"]


@asynccontextmanager
async def mouse_at(room: Room) -> AsyncIterator[Stream]:
    """Watch with a page of the room's own."""
    async with room.browser("mouse").events() as page:
        await page.until("snapshot")
        yield page


@pytest.mark.parametrize("id_", ODD_IDS)
async def test_an_id_of_a_client_is_a_text_and_nothing_else(room: Room, id_: str) -> None:
    room.letta.script("Hello.")
    given = ask(("user", "Hi."), threadId=id_, runId=id_, parentRunId=id_)
    async with build(room):
        events = await whole_run(room.browser("ada"), given)
        assert (events[0]["threadId"], events[-1]["runId"]) == (id_, id_)
        assert text(events) == "Hello."
    assert room.asked_for == ["lobby"]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{}] * 20_000},
        {"messages": [{"id": "m", "role": "user", "content": [{}] * 20_000}]},
        {"messages": [{"id": "m", "role": "assistant", "toolCalls": [{}] * 20_000}]},
        {"tools": [{}] * 20_000},
        {"context": [{}] * 20_000},
        {"resume": [{}] * 20_000},
    ],
)
async def test_a_run_of_very_many_parts_is_refused_before_they_are_read(
    room: Room, fields: Any
) -> None:
    async with build(room):
        status, error = await refuse(room, ask(**fields))
        assert (status, error["code"]) == (400, "invalid_input")
        assert "10000" in error["message"]


async def test_a_cookie_without_an_origin_is_no_pass(room: Room) -> None:
    room.letta.script("Hello.")
    async with build(room):
        program = room.browser("ada", origin=None)
        go = ask(("user", "Go."))
        assert (await program.post("/agui", go, cookie="session=1"))[0] == 403
        assert (await program.post("/agui", go, sec_fetch_site="cross-site"))[0] == 403
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert (await program.post("/agui", go, content_type=kind))[0] == 400
        assert room.letta.said == []
        # A program that is no browser brings neither.
        assert text(await whole_run(program, go)) == "Hello."


async def test_an_answer_after_its_turn_has_ended_changes_nothing(room: Room) -> None:
    ran = script_call(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "Go.")))
        await whole_run(ada, ask(resume=[YES]))
        no = {**YES, "payload": {"approved": False}}
        for answer in (YES, no, {"interruptId": "call_1", "status": "cancelled"}):
            again = await whole_run(ada, ask(resume=[answer]))
            assert {"interruptId": "call_1"} in [e.get("value") for e in again]
            assert again[-1]["outcome"] == {"type": "success"}
    assert ran == ["ls"]


async def test_a_question_of_another_room_is_answered_by_nobody_here(room: Room) -> None:
    ran = script_call(room)
    async with build(room, find_room=lambda viewer, thread_id: viewer.name):
        ada = room.browser("ada")
        asked = await whole_run(ada, ask(("user", "Go.")))
        id_ = asked[-1]["outcome"]["interrupts"][0]["id"]
        assert (await refuse(room, ask(resume=[{**YES, "interruptId": id_}]), "grace"))[0] == 404
        # Nobody can close it either: that is a note to her own client.
        closed = ask(resume=[{"interruptId": id_, "status": "cancelled"}])
        events = await whole_run(room.browser("grace"), closed)
        assert {"interruptId": id_} in [e.get("value") for e in events]
        assert ran == []
        await whole_run(ada, ask(resume=[YES]))
    assert ran == ["ls"]


async def test_of_two_resumes_at_once_one_is_given(room: Room) -> None:
    ran = script_call(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "Go.")))
        no = {**YES, "payload": {"approved": False}}
        one, two = await asyncio.gather(
            whole_run(ada, ask(resume=[YES], runId="r-2")),
            whole_run(ada, ask(resume=[no], runId="r-3")),
        )
        late = [e["value"] for e in (*one, *two) if e.get("name") == "letta.too_late"]
        assert late == [{"interruptId": "call_1"}]
        assert {kinds(events)[-1] for events in (one, two)} == {"RUN_FINISHED"}
    assert len(ran) <= 1


async def test_many_viewers_see_the_same_run(room: Room) -> None:
    room.options["max_viewers"] = 201
    script_call(room)
    async with build(room):
        ada, mouse = room.browser("ada"), room.browser("mouse")
        await whole_run(ada, ask(("user", "Go.")))
        # Her place is kept; those who may not answer wait for her.
        runs = [whole_run(mouse, ask(threadId=f"t-{n}")) for n in range(200)]
        watching = asyncio.gather(*runs)
        hub = room.hubs.get("lobby")
        while hub.viewers < 201:
            await asyncio.sleep(0.01)
        assert (await refuse(room, ask(), "grace"))[0] == 429
        assert text(await whole_run(ada, ask(resume=[YES]))) == "Done."
        seen = await watching
        assert [text(events) for events in seen] == ["Go.Done."] * 200
        assert {events[-1]["outcome"]["type"] for events in seen} == {"success"}
        assert hub.viewers == 0


async def test_a_message_whose_run_is_too_many_is_not_sent(room: Room, hold: Hold) -> None:
    room.options["max_viewers"] = 1
    room.letta.script("word " * 50)
    go = hold(5)
    async with build(room):
        ada = room.browser("ada")
        async with run(ada, ask(("user", "Go."))) as stream:
            await read_until(stream, "TEXT_MESSAGE_CONTENT")
            status, error = await refuse(room, ask(("user", "More.")), "grace")
            assert (status, error["code"]) == (429, "conversation_busy")
            go.set()
    assert room.letta.said == ["Go."]


async def test_a_client_that_takes_nothing_is_told_that_it_was_too_slow(room: Room) -> None:
    room.options["viewer_lag"] = 10
    room.letta.script(" ".join(f"w{n}" for n in range(200)))
    async with build(room):
        ada = room.browser("ada")
        async with mouse_at(room) as page, run(ada, ask(("user", "Go."))) as slow:
            slow.taking.clear()
            await page.until("message", type="result")
            slow.taking.set()
            events = await slow.rest()
        assert (kinds(events)[-1], events[-1]["code"]) == ("RUN_ERROR", "too_slow")
        anew = await whole_run(ada, ask())
        assert anew[1]["messages"][-1]["content"].endswith("w199")


async def test_a_client_that_takes_the_first_event_late_is_told_of_its_whole_turn(
    room: Room,
) -> None:
    room.letta.script("Hello Ada.")
    async with build(room):
        async with mouse_at(room) as page, run(room.browser("ada"), ask(("user", "Hi."))) as slow:
            slow.taking.clear()
            await page.until("message", type="result")
            slow.taking.set()
            assert text(await slow.rest()) == "Hello Ada."


async def test_a_shutdown_ends_runs_and_places_that_are_kept(room: Room) -> None:
    script_call(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "Go.")))
        # Somebody without the right waits for the answer of others.
        stream = Run(ask())
        scope = room.browser("mouse").scope("/agui", "POST", content_type="application/json")
        serving = asyncio.ensure_future(room.app(scope, stream.receive, stream.send))
        serving.add_done_callback(lambda _: stream.ended.set())
        await read_until(stream, "TOOL_CALL_END")
    events = await stream.rest()
    assert kinds(events)[-1] in ("RUN_ERROR", "RUN_FINISHED")
    await serving
    others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    assert [t for t in others if "letta_adapters/web" in str(t.get_coro())] == []


@pytest.mark.parametrize("phase", ["before", "body", "STEP_STARTED", "TEXT_MESSAGE_CONTENT", "end"])
async def test_a_client_that_vanishes_leaves_nothing_and_its_turn_goes_on(
    room: Room, phase: str
) -> None:
    room.letta.script(Reply("word " * 30, token_delay=0.005))
    async with build(room):
        ada = room.browser("ada")
        go = ask(("user", "Go."))
        if phase == "body":
            half = json.dumps(go).encode()[:40]
            stream = Run(half)
            stream._body = {"type": "http.request", "body": half, "more_body": True}
            stream.leave()
            scope = ada.scope("/agui", "POST", content_type="application/json")
            await room.app(scope, stream.receive, stream.send)
            assert room.letta.said == []
            return
        async with run(ada, go) as stream:
            if phase == "end":
                await stream.rest()
            elif phase != "before":
                await read_until(stream, phase)
        hub = room.hubs.get("lobby")
        assert hub.viewers == 0
        while True:  # until its turn is over
            events = await whole_run(ada, ask(threadId="again"))
            if len(events[1]["messages"]) > 1:
                break
        shown = [m["content"].strip() for m in events[1]["messages"]]
        assert shown == ["Go.", ("word " * 30).strip()]
    assert room.letta.said == ["Go."]


@pytest.mark.slow
async def test_a_real_server_that_is_terminated_in_a_run_ends_soon(tmp_path: Path) -> None:
    route = "from letta_adapters.web.agui import agui_routes\n"
    route += "pages = agui_routes(hubs, authorize=authorize)"
    await serve(tmp_path, SERVER.replace("# The routes of others come here.", route), run_and_end)


async def run_and_end(client: httpx.AsyncClient, server: subprocess.Popen[str]) -> None:
    """Begin a run, see a part of its text, and tell the server to stop."""
    seen = 0
    async with client.stream("POST", "/agui", json=ask(("user", "Go."))) as events:
        async for line in events.aiter_lines():
            seen += "TEXT_MESSAGE_CONTENT" in line
            if seen == 3:
                server.send_signal(signal.SIGTERM)
