"""The events of runs: legal ones, in a legal order, each thing once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta_adapters import ToolContext, tool
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.web.agui.conftest import ask, build, run, whole_run
from tests.web.conftest import Room

pytestmark = pytest.mark.timeout(30)
STARTED = {"type": "RUN_STARTED", "threadId": "thread-1", "runId": "run-1"}
# Of the events of a tool call, its beginning and its result.
SHOWN = ("STEP_STARTED", "STEP_FINISHED", "TOOL_CALL_START", "TOOL_CALL_RESULT")
YES = {"interruptId": "call_1", "status": "resolved", "payload": {"approved": True}}


@tool
def lookup(word: str) -> str:
    """Look a word up.

    Args:
        word: The word.
    """
    return f"{word} means something."


def script_call(room: Room) -> None:
    room.tools = [lookup]
    call = Reply("I look it up.", tool_calls=[ToolUse("lookup", {"word": "hello"}, id="call_1")])
    room.letta.script(call, "It means something.")


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def text(events: list[dict[str, Any]]) -> str:
    return "".join(e["delta"] for e in events if e["type"] == "TEXT_MESSAGE_CONTENT")


async def test_what_a_tool_reports_is_a_custom_event(room: Room) -> None:
    @tool
    def lookup(word: str, context: ToolContext) -> str:
        """Look a word up."""
        context.report(f"Looking for {word}", progress=1, total=2)
        return word

    script_call(room)
    room.tools, room.asked_about = [lookup], set()
    async with build(room):
        events = await whole_run(room.browser("ada"), ask(("user", "What is hello?")))
    told = [e for e in events if e["type"] == "CUSTOM" and e["name"] == "letta.tool_progress"]
    assert [(e["value"]["tool_call_id"], e["value"]["content"]) for e in told] == [
        ("call_1", "Looking for hello")
    ]
    order = kinds(events)
    at = events.index(told[0])
    assert order.index("TOOL_CALL_END") < at < order.index("TOOL_CALL_RESULT")


async def test_a_message_is_answered_by_a_whole_run(room: Room) -> None:
    room.letta.script(Reply("Hello Ada.", reasoning="Who is it?"))
    async with build(room):
        events = await whole_run(room.browser("ada"), ask(("user", "I am Ada.")))
    assert events[0] == STARTED
    names = [name for n, name in enumerate(kinds(events)) if n == 0 or kinds(events)[n - 1] != name]
    assert names == [
        "RUN_STARTED",
        "STEP_STARTED",
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "STEP_FINISHED",
        "RUN_FINISHED",
    ]
    assert text(events) == "Hello Ada."
    assert events[-1]["outcome"] == {"type": "success"}
    assert events[-1]["usage"][0]["totalTokens"] > 0
    assert room.letta.said == ["I am Ada."]


async def test_a_question_ends_the_run_and_its_answer_goes_on_without_a_gap(room: Room) -> None:
    script_call(room)
    async with build(room):
        ada = room.browser("ada")
        first = await whole_run(ada, ask(("user", "What is hello?")))
        end = first[-1]
        (interrupt,) = end["outcome"]["interrupts"]
        assert (interrupt["id"], interrupt["toolCallId"]) == ("call_1", "call_1")
        assert interrupt["metadata"]["input"] == {"word": "hello"}
        assert text(first) == "I look it up."
        call = [e for e in first if e.get("toolCallId") == "call_1"]
        assert kinds(call) == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
        assert call[1]["delta"] == '{"word": "hello"}'
        second = await whole_run(ada, ask(runId="run-2", resume=[YES]))
    assert kinds(second)[:2] == ["RUN_STARTED", "TOOL_CALL_RESULT"]
    assert second[1]["content"] == "hello means something."
    assert text(second) == "It means something."
    assert second[-1]["outcome"] == {"type": "success"}
    assert second[-1]["runId"] == "run-2"


def steps(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(e["type"], e["stepName"]) for e in events if "stepName" in e]


async def test_each_call_of_the_model_is_a_step(room: Room) -> None:
    script_call(room)
    async with build(room):
        ada = room.browser("ada")
        first = await whole_run(ada, ask(("user", "What is hello?")))
        second = await whole_run(ada, ask(resume=[YES]))
    # A question ends the run, and so its step; the result of the tool belongs to none.
    assert steps(first) == [("STEP_STARTED", "step-1"), ("STEP_FINISHED", "step-1")]
    assert kinds(first)[1] == "STEP_STARTED"
    assert kinds(first)[-2:] == ["STEP_FINISHED", "RUN_FINISHED"]
    assert kinds(second)[:3] == ["RUN_STARTED", "TOOL_CALL_RESULT", "STEP_STARTED"]
    assert steps(second) == [("STEP_STARTED", "step-2"), ("STEP_FINISHED", "step-2")]


async def test_calls_of_one_step_and_a_call_after_them_are_two_steps(room: Room) -> None:
    room.tools = [lookup]
    room.asked_about = set()
    both = [ToolUse("lookup", {"word": w}, id=f"call_{w}") for w in ("a", "b")]
    third = ToolUse("lookup", {"word": "c"}, id="call_c")
    room.letta.script(Reply(tool_calls=both), Reply(tool_calls=[third]), "Done.")
    async with build(room):
        events = await whole_run(room.browser("ada"), ask(("user", "Go.")))
    shown = [e.get("stepName") or e["toolCallId"] for e in events if e["type"] in SHOWN]
    assert shown == [
        *["step-1", "call_a", "call_b", "step-1", "call_a", "call_b"],
        *["step-2", "call_c", "step-2", "call_c", "step-3", "step-3"],
    ]


async def test_the_question_waits_longer_than_a_room_that_nobody_watches(room: Room) -> None:
    script_call(room)
    room.options["close_after"] = 0.01
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "What is hello?")))
        await asyncio.sleep(0.1)
        events = await whole_run(ada, ask(resume=[YES]))
        assert events[-1]["outcome"] == {"type": "success"}


@pytest.mark.parametrize(
    ("entry", "reads"),
    [
        ({"status": "resolved", "payload": {"approved": False, "message": "Not now."}}, "Not now."),
        ({"status": "cancelled"}, "has not refused it"),
    ],
)
async def test_a_refused_tool_does_not_run(room: Room, entry: Any, reads: str) -> None:
    script_call(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "What is hello?")))
        events = await whole_run(ada, ask(resume=[{"interruptId": "call_1", **entry}]))
    (result,) = [e for e in events if e["type"] == "TOOL_CALL_RESULT"]
    assert reads in result["content"]


async def test_a_page_that_is_loaded_anew_shows_all_once(room: Room) -> None:
    script_call(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "What is hello?")))
        # A new page knows nothing: it asks for a run without a message.
        events = await whole_run(ada, ask(threadId="thread-2"))
        assert kinds(events)[:3] == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "STATE_SNAPSHOT"]
        assert text(events) == "What is hello?I look it up."
        assert events[-1]["outcome"]["interrupts"][0]["id"] == "call_1"
        events = await whole_run(ada, ask(threadId="thread-2", resume=[YES]))
        assert text(events) == "It means something."
        events = await whole_run(ada, ask())
        history = events[1]["messages"]
        shown = [
            m["content"] for m in history if m["role"] in ("user", "assistant") and "content" in m
        ]
        assert shown == ["What is hello?", "I look it up.", "It means something."]
        assert [m["role"] for m in history].count("tool") == 1
        assert events[-1]["outcome"] == {"type": "success"}


async def test_a_run_that_is_sent_again_is_the_same_one(room: Room) -> None:
    room.letta.script("Hello Ada.")
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "I am Ada.")))
        again = await whole_run(ada, ask(("user", "I am Ada.")))
        assert again[-1]["outcome"] == {"type": "success"}
    assert room.letta.said == ["I am Ada."]


async def test_a_turn_that_is_stopped_is_a_cancelled_run(room: Room) -> None:
    room.letta.script(Reply("word " * 200, token_delay=0.02))
    async with build(room):
        ada = room.browser("ada")
        async with run(ada, ask(("user", "Go."))) as stream:
            while (await stream.read())["type"] != "TEXT_MESSAGE_CONTENT":
                pass
            await ada.post("/stop")
            events = await stream.rest()
    assert kinds(events)[-3:] == ["TEXT_MESSAGE_END", "STEP_FINISHED", "RUN_FINISHED"]
    assert events[-1]["outcome"] == {"type": "cancelled"}


async def test_a_turn_that_fails_is_an_error(room: Room) -> None:
    room.letta.script(Reply(error=429))
    async with build(room):
        events = await whole_run(room.browser("ada"), ask(("user", "Go.")))
    assert kinds(events)[-1] == "RUN_ERROR"
    assert events[-1]["code"]


async def test_a_viewer_who_may_not_answer_waits_for_one_who_may(room: Room) -> None:
    script_call(room)
    async with build(room):
        async with run(room.browser("guest"), ask(("user", "What is hello?"))) as stream:
            while (await stream.read())["type"] != "TOOL_CALL_END":
                pass
            grace = room.browser("grace")
            events = await whole_run(grace, ask())
            assert events[-1]["outcome"]["interrupts"][0]["id"] == "call_1"
            await whole_run(grace, ask(resume=[YES]))
            events = await stream.rest()
    assert text(events) == "It means something."
    assert events[-1]["outcome"] == {"type": "success"}
