"""A room over the real runtime."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, tool
from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from letta_adapters.web import HubOptions, Hubs, create_app
from tests.web._asgi import Browser, running
from tests.web.conftest import authorize
from tests.web.test_room import texts


@tool
def lookup(word: str) -> str:
    """Look a word up.

    Args:
        word: The word.
    """
    return f"{word} means something."


async def test_a_page_reloaded_in_a_turn_with_an_approval(
    _embedded_letta: LocalLetta, monkeypatch: pytest.MonkeyPatch
) -> None:
    letta, agent = _embedded_letta, _embedded_letta.agent("web-room")
    call = Reply("I look it up.", tool_calls=[ToolUse("lookup", {"word": "hello"}, id="call_1")])
    long = Reply(" ".join(f"word{n}" for n in range(60)), token_delay=0.02)
    go, said_by = threading.Event(), Counter[int]()

    def pause(seconds: float) -> None:
        # In the middle of the answer for as long as it takes to come back. Other requests of the
        # runtime, also those that an earlier test has left, have threads and words of their own.
        said_by[threading.get_ident()] += seconds > 0
        if said_by[threading.get_ident()] > 20:
            go.wait(60)

    letta.model.script("First.", call, long)
    async with AsyncLettaClient(letta.spec) as client:

        def open_session(room: str, ask: Any) -> Any:
            return client.resume_session(
                agent, can_use_tool=ask, tools=[lookup], include_partial_messages=True
            )

        hubs = Hubs(open_session, options=HubOptions())
        app = create_app(hubs, authorize=authorize)
        ada = Browser(app, "ada")
        async with running(app):
            async with ada.events() as page:
                await ada.post("/messages", {"text": "one"})
                assert (await page.until("message", type="result"))["result"] == "First."
                await ada.post("/messages", {"text": "two"})
                await page.until("approval")
            async with ada.events() as page:
                shown = await page.until("approval")
                assert (shown["tool_name"], shown["input"]) == ("lookup", {"word": "hello"})
                monkeypatch.setattr(letta.model, "pause", pause)
                yes = {"tool_call_id": shown["tool_call_id"], "allow": True}
                assert (await ada.post("/approvals", yes))[0] == 200
                for _ in range(5):
                    await page.until("message", type="stream_event")
            async with ada.events() as page:
                await page.until("message", type="stream_event")
                go.set()
                await page.until("message", type="result")
                said = [f"word{n}" for n in range(60)]
                whole = [
                    ("user", "one"),
                    ("assistant", "First."),
                    ("user", "two"),
                    ("assistant", "I look it up."),
                    ("assistant", " ".join(said)),
                ]
                assert texts(page.all) == whole
                ids = [d["tool_call_id"] for k, d in page.all if k == "approval"]
                assert len(ids) == 1
            # And what is stored now is the same again.
            async with ada.events() as page:
                _, snapshot = await page.next()
                spoken = [m for m in snapshot["messages"] if m["type"] in ("user", "assistant")]
                assert [(m["type"], m["content"]) for m in spoken] == whole
