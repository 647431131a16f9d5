"""AG-UI over a recording of the Letta API (``python -m tools.rig record`` makes it anew)."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.testing import LettaCassette
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests._replayed import open_clients
from tests.web._asgi import Browser, running
from tests.web.agui.conftest import ask, whole_run
from tests.web.agui.test_agui import YES, kinds, steps, text
from tests.web.agui.test_frontend_tools import PAGE, bring, make_app, pending

pytestmark = pytest.mark.timeout(60)


def say(id_: str, content: str, **fields: Any) -> dict[str, Any]:
    return ask(messages=[{"id": id_, "role": "user", "content": content}], tools=PAGE, **fields)


@pytest.mark.letta_cassette("agui")
async def test_text_a_question_a_tool_of_the_page_and_a_stop(letta_cassette: LettaCassette) -> None:
    look = ToolUse("lookup", {"word": "hello"}, id="call_1")
    paint = ToolUse("paint", {"colour": "red"}, id="call_2")
    again = ToolUse("lookup", {"word": "bye"}, id="call_3")
    letta_cassette.script(
        Reply("Hello Ada."),
        Reply("I look it up.", tool_calls=[look]),
        Reply("A greeting."),
        Reply("I paint.", tool_calls=[paint]),
        Reply("Painted."),
        Reply("Once more.", tool_calls=[again]),
    )
    async with open_clients(letta_cassette) as make:
        client = make()
        agent = await client.create_agent(
            name="test agui",
            model="openai-proxy/scripted",
            system_prompt="You are a test agent.",
            persona="I am a test agent.",
            base_tools=False,
        )
        app = make_app(client, agent)
        ada = Browser(app, "ada")
        async with running(app):
            events = await whole_run(ada, say("m1", "I am Ada."))
            assert text(events) == "Hello Ada."
            assert steps(events) == [("STEP_STARTED", "step-1"), ("STEP_FINISHED", "step-1")]

            events = await whole_run(ada, say("m2", "What is hello?"))
            assert events[-1]["outcome"]["interrupts"][0]["id"] == "call_1"
            anew = await whole_run(ada, ask())
            assert [m.get("content") for m in anew[1]["messages"]] == ["I am Ada.", "Hello Ada."]
            assert anew[-1]["outcome"]["interrupts"][0]["id"] == "call_1"
            events = await whole_run(ada, ask(resume=[YES], tools=PAGE))
            assert kinds(events)[:2] == ["RUN_STARTED", "TOOL_CALL_RESULT"]
            assert text(events) == "A greeting."

            events = await whole_run(ada, say("m3", "Paint."))
            assert pending(events) == ["call_2"]
            events = await whole_run(ada, bring(("call_2", "It is red.")))
            assert text(events) == "Painted."

            events = await whole_run(ada, say("m4", "And bye?"))
            assert events[-1]["outcome"]["interrupts"][0]["id"] == "call_3"
            assert (await ada.post("/stop"))[1] == {"stopped": True}
            late = await whole_run(ada, ask(resume=[{**YES, "interruptId": "call_3"}]))
            assert {"interruptId": "call_3"} in [e.get("value") for e in late]
            assert late[-1]["outcome"] == {"type": "cancelled"}

            stored = (await whole_run(ada, ask(threadId="new")))[1]["messages"]
            results = {m["toolCallId"]: m["content"] for m in stored if m["role"] == "tool"}
            assert results["call_1"] == "hello means something."
            assert results["call_2"] == "It is red."
            assert "means" not in results.get("call_3", "")
