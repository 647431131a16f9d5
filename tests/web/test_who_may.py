"""Who gets in, from which page, and with what."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from letta_adapters import InvalidInputError, message_from_dict, tool
from letta_adapters.testing.scripted_model import Reply, ToolUse
from letta_adapters.web import HubOptions, Hubs, create_app
from tests.web._asgi import HOST
from tests.web.conftest import Room, authorize

pytestmark = pytest.mark.timeout(30)
POSTS = ["/messages", "/stop", "/approvals"]


@pytest.mark.parametrize("who", [None, "stranger", "bug"])
@pytest.mark.parametrize("path", ["/events", *POSTS])
async def test_nobody_gets_in_without_authorization(
    room: Room, who: str | None, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with room.build():
        browser = room.browser(who)
        data = {"text": "hi"} if path == "/messages" else {}
        status, told = await (browser.get(path) if path == "/events" else browser.post(path, data))
        assert (status, told["error"]["code"]) == (403, "not_permitted")
        assert "database" not in json.dumps(told)
    assert room.asked_for == []


@pytest.mark.parametrize("path", ["/events", *POSTS])
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        f"http://{HOST}.evil.example",
        f"http://{HOST}:81",
        f"http://evil.example/{HOST}",
        f"ftp://{HOST}",
        f"http://{HOST}:x",
        "",
    ],
)
async def test_a_page_of_somebody_elses_is_refused(room: Room, path: str, origin: str) -> None:
    async with room.build():
        browser = room.browser("ada", origin=origin)
        data = {"text": "hi"} if path == "/messages" else {}
        status, _ = await (browser.get(path) if path == "/events" else browser.post(path, data))
        assert status == 403
    assert room.asked_for == []


async def test_without_an_origin_only_what_is_no_browser_may_write(room: Room) -> None:
    async with room.build():
        script = room.browser("ada", origin=None)
        assert (await script.post("/stop"))[0] == 200
        assert (await script.post("/stop", cookie="a=b"))[0] == 403
        assert (await script.post("/stop", sec_fetch_site="same-origin"))[0] == 403
        assert (await script.get("/events", sec_fetch_site="cross-site"))[0] == 403
        # A page asks for its own host's events without an origin.
        async with script.events(cookie="a=b", sec_fetch_site="same-origin") as page:
            assert (await page.next())[0] == "snapshot"


async def test_a_page_of_an_origin_that_is_listed_gets_in(room: Room) -> None:
    room.app_options["allowed_origins"] = ["https://app.example"]
    async with room.build():
        browser = room.browser("ada", origin="https://app.example")
        assert (await browser.post("/stop"))[0] == 200
        async with browser.events() as page:
            assert page.headers["access-control-allow-origin"] == "https://app.example"
        assert (await room.browser("ada", origin="https://evil.example").post("/stop"))[0] == 403


@pytest.mark.parametrize("origins", ["https://a.example", ["*"], ["a.example"], ["https://a/b"]])
async def test_what_is_no_origin_is_refused_when_the_application_is_made(origins: Any) -> None:
    hubs = Hubs(lambda room, ask: pytest.fail("never opened"))
    with pytest.raises(InvalidInputError):
        create_app(hubs, authorize=authorize, allowed_origins=origins)


async def test_each_viewer_does_what_it_may(room: Room) -> None:
    async with room.build():
        mouse, blind = room.browser("mouse"), room.browser("blind")
        assert (await mouse.post("/messages", {"text": "hi"}))[0] == 403
        assert (await mouse.post("/stop"))[0] == 403
        assert (await blind.get("/events"))[0] == 403
        async with mouse.events() as page:
            assert (await page.next())[0] == "snapshot"
    assert room.letta.said == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 400, "invalid_input"),
        (b"{", 400, "invalid_input"),
        (b"[" * 100_000, 400, "invalid_input"),
        (b"\xff", 400, "invalid_input"),
        (b'{"text": 1}', 400, "invalid_input"),
        (b'{"text": "  "}', 400, "invalid_input"),
        (b'{"text": "\\ud800"}', 400, "invalid_input"),
        (b'{"text": {"type": "image", "url": "http://10.0.0.1/"}}', 400, "invalid_input"),
        (b'{"text": "hi", "agent_id": "agent-1"}', 400, "invalid_input"),
        (b'{"text": "hi", "thread_id": "t"}', 400, "invalid_input"),
        (b'{"text": "hi", "key": 1}', 400, "invalid_input"),
        (b'{"text": "' + b"x" * 20_000 + b'"}', 400, "invalid_input"),
        (b'{"text": "' + b"x" * 300_000 + b'"}', 413, "too_large"),
    ],
)
async def test_a_bad_body_is_refused_before_anything_is_sent(
    room: Room, body: bytes, status: int, code: str
) -> None:
    async with room.build():
        got, told = await room.browser("ada").post("/messages", body)
        assert (got, told["error"]["code"]) == (status, code)
        assert set(told["error"]) == {"code", "message", "hint"}
        assert "Traceback" not in json.dumps(told)
        length = {"content_length": "99999999999999999999"}
        assert (await room.browser("ada").post("/messages", b"{}", **length))[0] == 413
        form = {"content_type": "text/plain"}
        assert (await room.browser("ada").post("/messages", b"{}", **form))[0] == 400
    assert room.letta.said == []


async def test_a_fault_of_ours_is_told_without_its_words(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    async with room.build():

        def broken(*_: Any) -> Any:
            raise RuntimeError("secret path /srv/keys")

        room.hubs._open_session = broken
        with caplog.at_level(logging.ERROR):
            status, told = await room.browser("ada").get("/events")
        assert (status, told["error"]["code"]) == (500, "internal")
        assert "secret" not in json.dumps(told)
        assert "secret path" in caplog.text


@tool
def lookup(word: str) -> str:
    """Look a word up.

    Args:
        word: The word.
    """
    if word == "boom":
        raise RuntimeError("inner words")
    return f"{word} means something."


def script_call(room: Room, *, word: str = "hello") -> None:
    room.tools = [lookup]
    call = Reply(tool_calls=[ToolUse("lookup", {"word": word}, id="call_web")])
    room.letta.script(call, "It is known now.")


async def test_a_call_is_allowed_by_a_button(room: Room) -> None:
    script_call(room)
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page, room.browser("mouse").events() as other:
            await ada.post("/messages", {"text": "look"})
            shown = await page.until("approval")
            assert shown["tool_call_id"] == "call_web"
            assert (shown["tool_name"], shown["input"]) == ("lookup", {"word": "hello"})
            # Whoever may not answer learns only that something waits.
            assert await other.until("approval") == {"tool_call_id": "call_web"}
            answer = {"tool_call_id": "call_web", "allow": True}
            assert await room.browser("grace").post("/approvals", answer) == (
                200,
                {"answered": True},
            )
            status, late = await ada.post("/approvals", {**answer, "allow": False})
            assert (status, late["error"]["code"]) == (409, "already_answered")
            told = await page.until("answered")
            assert told == {"tool_call_id": "call_web", "answer": "allow", "by": "grace"}
            result = await page.until("message", type="tool_result")
            assert result["content"] == "hello means something."
            assert (await page.until("message", type="result"))["result"] == "It is known now."


async def test_a_call_is_refused_with_a_word_to_the_agent(room: Room) -> None:
    script_call(room)
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "look"})
            await page.until("approval")
            no = {"tool_call_id": "call_web", "allow": False, "message": "Not today."}
            assert (await ada.post("/approvals", no))[0] == 200
            result = await page.until("message", type="tool_result")
            assert result["is_error"] is True
            assert "Not today." in result["content"]


async def test_only_who_may_edit_changes_what_a_tool_is_called_with(room: Room) -> None:
    script_call(room)
    async with room.build():
        ada, editor = room.browser("ada"), room.browser("editor")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "look"})
            asked = await page.until("approval")
            edited = {**asked["input"], "word": "edited"}
            other = {"tool_call_id": "call_web", "allow": True, "input": edited}
            assert (await ada.post("/approvals", other))[0] == 403
            assert (await editor.post("/approvals", {**other, "allow": False}))[0] == 400
            assert (await editor.post("/approvals", {**other, "input": "x"}))[0] == 400
            assert (await editor.post("/approvals", other))[0] == 200
            result = await page.until("message", type="tool_result")
            assert "edited" in result["content"]


async def test_whoever_may_not_answer_is_refused_and_the_call_still_waits(room: Room) -> None:
    script_call(room)
    async with room.build():
        ada, guest = room.browser("ada"), room.browser("guest")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "look"})
            await page.until("approval")
            yes = {"tool_call_id": "call_web", "allow": True}
            assert (await guest.post("/approvals", yes))[0] == 403
            evil = room.browser("ada", origin="https://evil.example")
            assert (await evil.post("/approvals", yes))[0] == 403
            for wrong in (
                {"tool_call_id": "call_web"},
                {"tool_call_id": "call_web", "allow": "yes"},
                {"tool_call_id": "call_web", "allow": True, "message": "x"},
                {"tool_call_id": "call_web", "allow": True, "updated_input": {"word": "boom"}},
                {"allow": True},
                {"tool_call_id": 1, "allow": True},
            ):
                assert (await ada.post("/approvals", wrong))[0] == 400
            other = {"tool_call_id": "call_other", "allow": True}
            assert (await ada.post("/approvals", other))[0] == 404
            # A page that is opened now is shown the call, once.
            async with ada.events() as late:
                assert (await late.until("approval"))["tool_call_id"] == "call_web"
                assert (await ada.post("/approvals", yes))[0] == 200
                await late.until("message", type="result")
                assert [kind for kind, _ in late.all].count("approval") == 1


async def test_a_call_that_nobody_answers_gets_the_chosen_answer(room: Room) -> None:
    room.options["approval_timeout"] = 0.1
    script_call(room)
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "look"})
            told = await page.until("answered")
            assert told == {"tool_call_id": "call_web", "answer": "deny", "by": None}
            result = await page.until("message", type="tool_result")
            assert "Nobody has answered within 0.1 seconds." in result["content"]


async def test_a_call_of_a_turn_that_is_stopped_waits_no_more(room: Room) -> None:
    script_call(room)
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "look"})
            await page.until("approval")
            assert await ada.post("/stop") == (200, {"stopped": True})
            assert (await page.until("answered"))["answer"] == "withdrawn"
            assert (await page.until("message", type="result"))["success"] is False
            yes = {"tool_call_id": "call_web", "allow": True}
            assert (await ada.post("/approvals", yes))[0] == 409
            room.letta.script("Fine.")
            await ada.post("/messages", {"text": "go on"})
            assert (await page.until("message", type="result"))["result"] == "Fine."


async def test_what_a_tool_raised_reaches_no_browser_as_a_traceback(room: Room) -> None:
    script_call(room, word="boom")
    async with room.build():
        ada = room.browser("ada")
        async with ada.events() as page:
            await ada.post("/messages", {"text": "look"})
            await page.until("approval")
            await ada.post("/approvals", {"tool_call_id": "call_web", "allow": True})
            result = await page.until("message", type="tool_result")
            assert result["is_error"] is True
            assert "traceback" not in result
            await page.until("message", type="result")
            messages = [data for kind, data in page.all if kind == "message"]
            # They are messages of this package, which any Python client can read back.
            assert [message_from_dict(m).type for m in messages] == [m["type"] for m in messages]
            assert "Traceback" not in json.dumps(messages)


@pytest.mark.parametrize(
    "wrong",
    [
        {"history": 0},
        {"viewer_lag": 0},
        {"max_queue": -1},
        {"close_after": -1},
        {"approval_timeout": 0},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        HubOptions(**wrong)


async def test_rooms_and_viewers_are_bounded(room: Room) -> None:
    room.options["max_viewers"] = 1
    async with room.build():
        room.hubs._max_rooms = 1
        ada = room.browser("ada")
        async with ada.events() as page:
            await page.next()
            assert (await ada.get("/events"))[0] == 429
            with pytest.raises(Exception, match="Too many rooms"):
                room.hubs.get("another")
