"""A room with several viewers: transcript, the running turn, live messages, each once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from letta_adapters import ToolContext
from letta_adapters.testing.scripted_model import Reply, ToolUse
from letta_adapters.web.limits import REPORTS_AT_ONCE, Pace
from tests.web._asgi import Browser, Stream
from tests.web.conftest import Hold, Room

pytestmark = pytest.mark.timeout(30)


def texts(events: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Return the whole messages of a viewer's page, in order."""
    shown: list[tuple[str, str]] = []
    for kind, data in events:
        if kind == "snapshot":
            shown = [(m["type"], m.get("content", "")) for m in data["messages"]]
        elif kind == "message" and data["type"] in ("user", "assistant"):
            shown.append((data["type"], data["content"]))
    return shown


async def test_two_viewers_see_the_same_turn(room: Room) -> None:
    room.letta.script("Hello Ada.")
    async with room.build():
        ada, mouse = room.browser("ada"), room.browser("mouse")
        async with ada.events() as first, mouse.events() as second:
            assert (await first.next())[0] == "snapshot"
            assert (await second.next())[0] == "snapshot"
            status, taken = await ada.post("/messages", {"text": "I am Ada."})
            assert (status, taken["queued"]) == (202, False)
            for page in (first, second):
                said = await page.until("message", type="user")
                assert said["content"] == "I am Ada."
                assert said["otid"] == taken["id"]
                result = await page.until("message", type="result")
                assert result["success"] is True
                running = [data["running"] for kind, data in page.all if kind == "queue"]
                assert {"id": taken["id"], "text": "I am Ada.", "by": "ada"} in running
            seen = [("user", "I am Ada."), ("assistant", "Hello Ada.")]
            assert texts(first.all) == texts(second.all) == seen
    assert room.letta.said == ["I am Ada."]
    assert room.asked_for == ["lobby"]


async def test_what_a_tool_reports_is_seen_while_it_runs_and_at_a_pace(room: Room) -> None:
    """A tool that reports without end floods nobody, and no transcript."""
    seen = threading.Event()

    def work(context: ToolContext) -> str:
        """Works."""
        context.report("Step 1")
        assert seen.wait(20), "no report was seen while the tool ran"
        for number in range(2, 2001):
            context.report(f"Step {number}")
        return "done"

    room.tools, room.asked_about = [work], set()
    room.letta.script(Reply(tool_calls=[ToolUse("work", {})]), "Done.")
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "Go"})
            told = await page.until("message", type="tool_progress")
            assert (told["content"], told["tool_name"]) == ("Step 1", "work")
            seen.set()
            await page.until("message", type="result")
            kinds = [data["type"] for kind, data in page.all if kind == "message"]
        assert REPORTS_AT_ONCE <= kinds.count("tool_progress") < 1000
        async with after_the_turn(ada) as page:
            shown = page.all[0][1]["messages"]
            assert {message["type"] for message in shown} == {
                "user",
                "tool_call",
                "tool_result",
                "assistant",
            }


def test_the_pace_of_reports() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert [pace.takes() for _ in range(60)] == [True] * 50 + [False] * 10
    now += 0.25
    assert [pace.takes() for _ in range(4)] == [True, True, False, False]
    now += 1000
    assert sum(pace.takes() for _ in range(100)) == REPORTS_AT_ONCE


@asynccontextmanager
async def after_the_turn(browser: Browser) -> AsyncIterator[Stream]:
    """Come in when no turn runs; the snapshot is read."""
    while True:
        async with browser.events() as page:
            _, shown = await page.next()
            if shown["running"] is None and not shown["queue"]:
                yield page
                return
        await asyncio.sleep(0.02)


async def start_long_turn(room: Room, page: Stream, hold: Hold) -> asyncio.Event:
    """Run a first turn, then one that is half said; return what lets it go on."""
    room.letta.script("First.", " ".join(f"word{n}" for n in range(40)))
    browser = room.browser("ada")
    await browser.post("/messages", {"text": "one"})
    await page.until("message", type="result")
    go = hold(20)
    await browser.post("/messages", {"text": "two"})
    await page.until("message", type="stream_event")
    return go


async def test_a_page_reloaded_in_a_turn_shows_every_message_once(room: Room, hold: Hold) -> None:
    async with room.build():
        browser = room.browser("ada")
        async with browser.events() as page:
            go = await start_long_turn(room, page, hold)
        async with browser.events() as page:
            await page.until("message", type="stream_event")
            go.set()
            await page.until("message", type="result")
            fragments = [d for k, d in page.all if k == "message" and d["type"] == "stream_event"]
            numbers = [d["fragment"] for d in fragments]
            assert numbers == sorted(set(numbers))
            assert "".join(d["event"]["content"] for d in fragments).startswith("word0 word1")
            kinds = [kind for kind, _ in texts(page.all)]
            assert kinds == ["user", "assistant", "user", "assistant"]


async def test_a_connection_that_comes_back_goes_on_behind_its_last_event(
    room: Room, hold: Hold
) -> None:
    async with room.build():
        browser = room.browser("ada")
        async with browser.events() as page:
            go = await start_long_turn(room, page, hold)
        got, last = page.all, page.last_id
        assert last is not None
        async with browser.events(last_event_id=last) as page:
            go.set()
            await page.until("message", type="result")
            assert "snapshot" not in {kind for kind, _ in page.all}
            whole = [*got, *page.all]
        fragments = [d for k, d in whole if k == "message" and d["type"] == "stream_event"]
        words = "".join(d["event"]["content"] for d in fragments)
        assert words == "First." + " ".join(f"word{n}" for n in range(40))
        # The same by the address, for a client that cannot set headers.
        async with browser.events(f"/events?after={last}") as page:
            await page.until("message", type="result")
            assert "snapshot" not in {kind for kind, _ in page.all}


@pytest.mark.parametrize("id_", ["0.1", "x", "", "\xff.3", "{epoch}.999999", "{epoch}.-1"])
async def test_an_id_that_is_not_known_draws_anew(room: Room, id_: str) -> None:
    async with room.build():
        browser = room.browser("ada")
        async with browser.events() as page:
            await page.next()
            epoch = str(page.last_id).partition(".")[0]
        async with browser.events(last_event_id=id_.replace("{epoch}", epoch)) as page:
            assert (await page.next())[0] == "snapshot"


async def test_the_transcript_is_what_is_stored_also_by_others(room: Room) -> None:
    async with room.build():
        browser = room.browser("ada")
        async with browser.events() as page:
            await page.next()
        async with room.client.resume_session(room.agent) as session:
            await session.run_turn("from elsewhere")
        async with browser.events() as page:
            await page.next()
            assert ("user", "from elsewhere") in texts(page.all)


async def test_messages_wait_while_a_turn_runs_and_no_more_than_allowed(
    room: Room, hold: Hold
) -> None:
    room.options["max_queue"] = 1
    room.letta.script("First.", "Second.")
    go = hold(0)
    async with room.build():
        ada, guest = room.browser("ada"), room.browser("guest")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "one"})
            await page.until("message", type="user")
            status, taken = await guest.post("/messages", {"text": "two"})
            assert (status, taken["queued"]) == (202, True)
            shown = await page.until("queue")
            assert [item["text"] for item in shown["queue"]] == ["two"]
            assert shown["running"]["text"] == "one"
            status, refused = await guest.post("/messages", {"text": "three"})
            assert (status, refused["error"]["code"]) == (429, "conversation_busy")
            go.set()
            await page.until("message", type="result")
            await page.until("message", type="result")
    assert room.letta.said == ["one", "two"]


async def test_a_message_that_is_posted_again_is_sent_once(room: Room) -> None:
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            first = await ada.post("/messages", {"text": "once", "key": "k1"})
            again = await ada.post("/messages", {"text": "once", "key": "k1"})
            assert first == again
            await page.until("message", type="result")
            other = await room.browser("guest").post("/messages", {"text": "mine", "key": "k1"})
            assert other[1]["id"] != first[1]["id"]
            await page.until("message", type="result")
    assert room.letta.said == ["once", "mine"]


async def test_a_turn_is_stopped_and_the_next_message_goes_on(room: Room) -> None:
    room.letta.script(Reply("never " * 500, token_delay=0.02), "Next.")
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "one"})
            await page.until("message", type="stream_event")
            await ada.post("/messages", {"text": "two"})
            assert await ada.post("/stop") == (200, {"stopped": True})
            result = await page.until("message", type="result")
            assert (result["success"], result["error_code"]) == (False, "cancelled")
            result = await page.until("message", type="result")
            assert result["result"] == "Next."
            assert await ada.post("/stop") == (200, {"stopped": False})


async def test_a_message_that_waits_is_taken_back(room: Room, hold: Hold) -> None:
    room.letta.script("First.")
    go = hold(0)
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "one"})
            await page.until("message", type="user")
            _, taken = await ada.post("/messages", {"text": "two"})
            assert await ada.post("/stop", {"id": taken["id"]}) == (200, {"stopped": True})
            assert await ada.post("/stop", {"id": "other"}) == (200, {"stopped": False})
            go.set()
            result = await page.until("message", type="result")
            assert result["success"] is True
    assert room.letta.said == ["one"]


async def test_a_slow_viewer_is_dropped_and_comes_back_where_it_was(room: Room) -> None:
    room.options["viewer_lag"] = 10
    room.letta.script(" ".join(f"w{n}" for n in range(200)))
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as fast, room.browser("mouse").events() as slow:
            await slow.next()
            slow.taking.clear()
            await ada.post("/messages", {"text": "go"})
            await fast.until("message", type="result")
            slow.taking.set()
            told = await slow.until("dropped")
            assert told["code"] == "too_slow"
            with pytest.raises(EOFError):
                await slow.next()
        got = slow.all[:-1]
        async with room.browser("mouse").events(last_event_id=str(slow.last_id)) as back:
            await back.until("message", type="result")
        assert texts([*got, *back.all]) == texts(fast.all)
        missed = [d for k, d in [*got, *back.all] if k == "message" and d["type"] != "init"]
        assert missed == [d for k, d in fast.all if k == "message" and d["type"] != "init"]


@pytest.mark.slow
async def test_a_very_long_turn_is_bounded_and_shown_once_all_the_same(room: Room) -> None:
    # Slow enough that a busy machine does not make a viewer lag, who would be dropped.
    room.options |= {"replay_events": 40, "viewer_lag": 40}
    room.letta.script(Reply(" ".join(f"w{n}" for n in range(100)), token_delay=0.03))
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "go"})
            for _ in range(50):
                await page.until("message", type="stream_event")
            async with ada.events() as late:
                await late.until("message", type="result")
                kinds = [kind for kind, _ in texts(late.all)]
                assert kinds == ["user", "assistant"]


async def test_the_room_closes_when_the_last_viewer_has_left(room: Room) -> None:
    room.options["close_after"] = 0.05
    room.letta.script(Reply("never " * 500, token_delay=0.02))
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "go"})
            await page.until("message", type="stream_event")
            hub = room.hubs.find("lobby")
            assert hub is not None
        while room.hubs.find("lobby") is not None:
            await asyncio.sleep(0.02)
        await hub.close()
        # Whoever comes later gets a new room.
        async with ada.events() as page:
            assert (await page.next())[0] == "snapshot"


async def test_the_room_stays_while_somebody_comes_back_in_time(room: Room) -> None:
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await page.next()
        hub = room.hubs.find("lobby")
        assert hub is not None
        closing = hub._leaving
        assert closing is not None
        async with ada.events() as page:
            await page.next()
            assert closing.cancelled()
            assert hub._leaving is None
            assert room.hubs.find("lobby") is hub


async def test_a_turn_goes_on_without_viewers_where_that_is_chosen(room: Room, hold: Hold) -> None:
    room.options["close_after"] = None
    room.letta.script("Done.")
    go = hold(0)
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "go"})
            await page.until("message", type="user")
        go.set()
        async with after_the_turn(ada) as page:
            assert texts(page.all) == [("user", "go"), ("assistant", "Done.")]


async def test_a_shutdown_in_a_turn_leaves_nothing_running(room: Room) -> None:
    room.letta.script(Reply("never " * 500, token_delay=0.02))
    before = asyncio.all_tasks()
    async with room.build():
        ada = room.browser("ada")
        opened = ada.events()
        page = await opened.__aenter__()
        await ada.post("/messages", {"text": "one"})
        await page.until("message", type="stream_event")
        await ada.post("/messages", {"text": "two"})
    failed = await page.until("failed")
    assert failed["code"] == "session_closed"
    assert (await page.until("message", type="result"))["error_code"] == "cancelled"
    assert (await page.until("closed"))["reason"] == "The server closes."
    await opened.__aexit__(None, None, None)
    await asyncio.sleep(0)
    left = {t for t in asyncio.all_tasks() - before if "_shutdown_watcher" not in repr(t)}
    assert left == set()
    assert room.letta.said == ["one"]


async def test_an_agent_that_is_not_there_is_an_error_and_the_next_one_tries_again(
    room: Room,
) -> None:
    agent, room.agent = room.agent, "agent-00000000-0000-4000-a000-000000000000"
    async with room.build():
        ada = room.browser("ada")
        assert (await ada.get("/events"))[0] == 404
        assert (await ada.post("/messages", {"text": "hi"}))[0] in (404, 503)
        room.agent = agent
        async with ada.events() as page:
            assert (await page.next())[0] == "snapshot"
