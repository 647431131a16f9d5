"""AG-UI over the real runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient
from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.web._asgi import Browser, running
from tests.web.agui.conftest import ask, run, whole_run
from tests.web.agui.test_agui import kinds, steps, text
from tests.web.agui.test_frontend_tools import PAGE, bring, make_app, pending, read_result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@dataclass
class Place:
    """A viewer of a room over the real runtime, and the model behind it."""

    ada: Browser
    model: ScriptedModel


@asynccontextmanager
async def enter(letta: LocalLetta, name: str) -> AsyncIterator[Place]:
    agent = letta.agent(name)
    async with AsyncLettaClient(letta.spec) as client:
        app = make_app(client, agent)
        async with running(app):
            yield Place(Browser(app, "ada"), letta.model)


def find_interrupt(events: list[dict[str, Any]]) -> str:
    (interrupt,) = events[-1]["outcome"]["interrupts"]
    return str(interrupt["id"])


def yes(id_: str) -> dict[str, Any]:
    return {"interruptId": id_, "status": "resolved", "payload": {"approved": True}}


async def test_text_a_question_a_stop_and_a_page_loaded_anew(_embedded_letta: LocalLetta) -> None:
    async with enter(_embedded_letta, "web-agui") as place:
        ada = place.ada
        place.model.script("Hello Ada.")
        events = await whole_run(ada, ask(("user", "I am Ada."), runId="r1"))
        assert text(events) == "Hello Ada."
        assert steps(events) == [("STEP_STARTED", "step-1"), ("STEP_FINISHED", "step-1")]
        assert events[-1]["usage"][0]["totalTokens"] > 0

        call = ToolUse("lookup", {"word": "hello"}, id="call_1")
        place.model.script(Reply("I look it up.", tool_calls=[call]), "A greeting.")
        question = [{"id": "m-2", "role": "user", "content": "What is hello?"}]
        events = await whole_run(ada, ask(messages=question, runId="r2"))
        id_ = find_interrupt(events)
        # The page is loaded anew, and finds the question again.
        anew = await whole_run(ada, ask(runId="r3"))
        shown = [m.get("content") for m in anew[1]["messages"]]
        assert shown == ["I am Ada.", "Hello Ada."]
        assert text(anew) == "What is hello?I look it up."
        assert find_interrupt(anew) == id_
        events = await whole_run(ada, ask(runId="r4", resume=[yes(id_)]))
        assert kinds(events)[:2] == ["RUN_STARTED", "TOOL_CALL_RESULT"]
        assert events[1]["content"] == "hello means something."
        assert text(events) == "A greeting."
        assert steps(events) == [("STEP_STARTED", "step-2"), ("STEP_FINISHED", "step-2")]

        place.model.script(Reply("word " * 400, token_delay=0.02))
        long = [{"id": "m-3", "role": "user", "content": "Go."}]
        async with run(ada, ask(messages=long, runId="r5")) as stream:
            while (await stream.read())["type"] != "TEXT_MESSAGE_CONTENT":
                pass
        # The connection is lost; the page comes back in the middle, and then stops the turn.
        async with run(ada, ask(runId="r6")) as stream:
            while (await stream.read())["type"] != "TEXT_MESSAGE_CONTENT":
                pass
            assert (await ada.post("/stop"))[1] == {"stopped": True}
            events = await stream.rest()
        assert events[-1]["outcome"] == {"type": "cancelled"}

        # What the runtime has stored is the same as what was told.
        place.model.script("Bye.")
        last = [{"id": "m-4", "role": "user", "content": "Bye."}]
        assert text(await whole_run(ada, ask(messages=last, runId="r7"))) == "Bye."
        stored = (await whole_run(ada, ask(runId="r8")))[1]["messages"]
        said = [
            m["content"] for m in stored if m["role"] in ("user", "assistant") and "content" in m
        ]
        assert said[:5] == [
            *["I am Ada.", "Hello Ada.", "What is hello?", "I look it up.", "A greeting."],
        ]
        assert said[-2:] == ["Bye.", "Bye."]
        assert [m["role"] for m in stored].count("tool") == 1


async def test_tools_of_the_page(_embedded_letta: LocalLetta) -> None:
    async with enter(_embedded_letta, "web-agui-page") as place:
        ada = place.ada
        uses = [ToolUse("paint", {"colour": c}, id=f"call_{c}") for c in ("red", "blue")]
        place.model.script(Reply("I paint.", tool_calls=uses), "Painted.")
        first = await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        ids = pending(first) or []
        assert [e["toolCallId"] for e in first if e["type"] == "TOOL_CALL_START"] == ids
        assert len(ids) == 2
        last = await whole_run(ada, bring((ids[0], "Red."), (ids[1], "Blue.")))
        assert text(last) == "Painted."
        assert steps(last) == [("STEP_STARTED", "step-2"), ("STEP_FINISHED", "step-2")]
        assert [await read_result(ada, id_) for id_ in ids] == ["Red.", "Blue."]

        # A turn that is stopped waits for no page, and the conversation goes on.
        place.model.script(Reply(tool_calls=uses[:1]))
        again = [{"id": "m-5", "role": "user", "content": "Paint again."}]
        events = await whole_run(ada, ask(messages=again, tools=PAGE))
        (id_,) = pending(events) or []
        assert (await ada.post("/stop"))[1] == {"stopped": True}
        late = await whole_run(ada, bring((id_, "Red.")))
        assert {"toolCallId": id_} in [e.get("value") for e in late]
        assert late[-1]["outcome"] == {"type": "cancelled"}
        place.model.script("Again.")
        more = [{"id": "m-6", "role": "user", "content": "Again."}]
        assert text(await whole_run(ada, ask(messages=more, tools=PAGE))) == "Again."
