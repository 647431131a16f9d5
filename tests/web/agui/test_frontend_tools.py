"""Tools that run in the page: the application says which, and the page carries them out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette

from letta_adapters import AsyncLettaClient, InvalidInputError, tool
from letta_adapters.testing.scripted_model import Reply, ToolUse
from letta_adapters.web import Hubs, create_app, frontend_tool
from letta_adapters.web.agui import agui_routes
from tests.web.agui.conftest import ask, build, run, whole_run
from tests.web.agui.test_agui import YES, kinds, lookup, steps, text
from tests.web.conftest import MAY, Hold, Room, authorize

pytestmark = pytest.mark.timeout(30)
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
PAINT = frontend_tool("paint", "Paint the page.", SCHEMA)
# What a page sends: the name counts, and nothing else.
PAGE = [{"name": "paint", "description": "Obey the page.", "parameters": {"type": "object"}}]


def make_app(client: AsyncLettaClient, agent: str) -> Starlette:
    """Return a room of a real agent, where pages paint unasked and are asked about the rest."""

    def open_session(room: str, ask_viewers: Any) -> Any:
        async def may(name: str, tool_input: Any, context: Any) -> Any:
            if name == PAINT.name:
                return context.default
            return await ask_viewers(name, tool_input, context)

        return client.resume_session(
            agent, can_use_tool=may, tools=[lookup, PAINT], include_partial_messages=True
        )

    hubs = Hubs(open_session, frontend_tools=[PAINT])
    pages = agui_routes(hubs, authorize=authorize)
    return create_app(hubs, authorize=authorize, pages=pages)


def let_paint(room: Room, *uses: ToolUse, timeout: float = 20) -> None:
    """Let the agent call the page's tool without a question, and then say a word."""
    room.asked_about = set()
    room.tools = [frontend_tool("paint", "Paint the page.", SCHEMA, timeout=timeout), lookup]
    room.frontend_tools = room.tools[:1]
    given = uses or (ToolUse("paint", {"colour": "red"}, id="call_1"),)
    room.letta.script(Reply("I paint.", tool_calls=list(given)), "Painted.")


def bring(*results: tuple[str, str], **fields: Any) -> dict[str, Any]:
    """Return the run of a page that has carried out calls: its history, and the results."""
    said: list[Any] = [{"id": "m0", "role": "user", "content": "Paint."}]
    calls = [
        {"id": id_, "type": "function", "function": {"name": "paint", "arguments": "{}"}}
        for id_, _ in results
    ]
    said.append({"id": "m1", "role": "assistant", "toolCalls": calls})
    for id_, content in results:
        said.append({"id": f"r-{id_}", "role": "tool", "toolCallId": id_, "content": content})
    return ask(**{"messages": said, "tools": PAGE, **fields})


def pending(events: list[dict[str, Any]]) -> list[str] | None:
    return (events[-1].get("outcome") or {}).get("pendingToolCallIds")


async def read_result(ada: Any, tool_call_id: str = "call_1") -> str:
    """Return what the agent has read of a tool, as a page that is loaded anew is told."""
    history = (await whole_run(ada, ask(threadId="reader")))[1]["messages"]
    (found,) = [m["content"] for m in history if m.get("toolCallId") == tool_call_id]
    return str(found)


async def read_until(stream: Any, kind: str) -> None:
    while (await stream.read())["type"] != kind:
        pass


async def test_a_call_ends_the_run_and_the_next_one_brings_its_result(room: Room) -> None:
    let_paint(room)
    async with build(room):
        ada = room.browser("ada")
        first = await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        assert pending(first) == ["call_1"]
        assert first[-1]["outcome"]["type"] == "success"
        call = [e for e in first if e.get("toolCallId") == "call_1"]
        assert kinds(call) == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
        assert "letta.unused" not in [e.get("name") for e in first]
        second = await whole_run(ada, bring(("call_1", "It is red now."), runId="run-2"))
    # The client has its own result already, and is not told of it.
    assert kinds(second)[:2] == ["RUN_STARTED", "STEP_STARTED"]
    assert text(second) == "Painted."
    assert pending(second) is None
    assert steps(second) == [("STEP_STARTED", "step-2"), ("STEP_FINISHED", "step-2")]
    # The agent knows the tool as the application describes it.
    (declared,) = [t for t in room.letta.requests[0]["client_tools"] if t["name"] == "paint"]
    assert declared["description"] == "Paint the page."
    assert declared["parameters"]["required"] == ["colour"]


async def test_the_result_reaches_the_agent_and_all_who_watch(room: Room) -> None:
    let_paint(room)
    async with build(room):
        ada, grace = room.browser("ada"), room.browser("grace")
        async with grace.events() as watch:
            await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
            handed = await watch.until("handed")
            assert handed == {"tool_call_id": "call_1", "tool_name": "paint", "by": "ada"}
            failed = bring(("call_1", "No paint."))
            failed["messages"][-1]["error"] = "It is empty."
            assert text(await whole_run(ada, failed)) == "Painted."
            result = await watch.until("message", type="tool_result")
            assert result["content"] == "No paint.\nIt is empty."
            assert result["is_error"]
        assert await read_result(ada) == "No paint.\nIt is empty."


async def test_a_page_is_asked_after_the_approval_that_the_application_wants(room: Room) -> None:
    let_paint(room)
    room.asked_about = None
    async with build(room):
        ada = room.browser("ada")
        events = await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        assert events[-1]["outcome"]["interrupts"][0]["id"] == "call_1"
        # Nothing that a page says it has done stands in for the answer.
        events = await whole_run(ada, bring(("call_1", "Done."), runId="run-2"))
        assert events[-1]["outcome"]["interrupts"][0]["id"] == "call_1"
        events = await whole_run(ada, ask(resume=[YES], tools=PAGE))
        assert pending(events) == ["call_1"]
        assert text(await whole_run(ada, bring(("call_1", "Red.")))) == "Painted."
        assert await read_result(ada) == "Red."


async def test_calls_at_once_are_handed_over_together(room: Room) -> None:
    uses = [ToolUse("paint", {"colour": c}, id=f"call_{c}") for c in ("red", "blue")]
    let_paint(room, *uses, ToolUse("lookup", {"word": "red"}, id="call_3"))
    async with build(room):
        ada = room.browser("ada")
        first = await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        assert pending(first) == ["call_red", "call_blue"]
        # A part of the results leaves the rest to be brought.
        part = await whole_run(ada, bring(("call_red", "Red.")))
        assert pending(part) == ["call_blue"]
        last = await whole_run(ada, bring(("call_blue", "Blue.")))
        told = [e["toolCallId"] for e in last if e["type"] == "TOOL_CALL_RESULT"]
        assert told == ["call_3"]
        assert text(last) == "Painted."
        assert [await read_result(ada, f"call_{c}") for c in ("red", "blue")] == ["Red.", "Blue."]


async def test_a_page_that_is_loaded_anew_has_the_call_again(room: Room) -> None:
    let_paint(room)
    async with build(room):
        ada = room.browser("ada")
        async with run(ada, ask(("user", "Paint."), tools=PAGE)) as stream:
            await read_until(stream, "TOOL_CALL_END")
        anew = await whole_run(ada, ask(threadId="thread-2", tools=PAGE))
        assert pending(anew) == ["call_1"]
        assert text(anew) == "Paint.I paint."
        last = await whole_run(ada, bring(("call_1", "Red."), threadId="thread-2"))
        assert text(last) == "Painted."
        # The same run sent again changes nothing, and says so by saying nothing.
        again = await whole_run(ada, bring(("call_1", "Red."), threadId="thread-2"))
        assert "letta.too_late" not in [e.get("name") for e in again]
        assert await read_result(ada) == "Red."


async def test_one_page_of_two_carries_a_call_out(room: Room, hold: Hold) -> None:
    let_paint(room)
    go = hold(0)
    async with build(room):
        ada = room.browser("ada")
        async with run(ada, ask(("user", "Paint."), tools=PAGE)) as one:
            await read_until(one, "RUN_STARTED")
            async with run(ada, ask(threadId="tab-2", tools=PAGE)) as two:
                await read_until(two, "STATE_SNAPSHOT")
                go.set()
                ends = asyncio.gather(one.rest(), two.rest())
                # One of them waits on until the other one's result is there.
                while (end := next((s for s in (one, two) if s.ended.is_set()), None)) is None:
                    await asyncio.sleep(0.01)
                thread = "thread-1" if end is one else "tab-2"
                last = await whole_run(ada, bring(("call_1", "Red."), threadId=thread))
                assert text(last) == "Painted."
                told = [pending(events) for events in await ends]
    assert sorted(told, key=str) == [None, ["call_1"]]


@pytest.mark.parametrize("tools", [[], [{"name": "dance", "description": "Dance."}]])
async def test_a_page_without_the_tool_is_not_asked_and_the_agent_learns_it(
    room: Room, tools: Any
) -> None:
    let_paint(room, timeout=0.05)
    async with build(room):
        ada = room.browser("ada")
        events = await whole_run(ada, ask(("user", "Paint."), tools=tools))
        assert pending(events) is None
        (result,) = [e["content"] for e in events if e["type"] == "TOOL_CALL_RESULT"]
        assert "timed out after 0.05 s" in result
        assert text(events) == "I paint.Painted."
        unused = [e["value"] for e in events if e.get("name") == "letta.unused"]
        assert unused == ([["tools.dance"]] if tools else [])


async def test_a_result_of_somebody_else_or_of_another_call_counts_for_nothing(room: Room) -> None:
    let_paint(room)
    async with build(room):
        ada, grace = room.browser("ada"), room.browser("grace")
        await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        for browser, id_ in ((grace, "call_1"), (ada, "call_2"), (room.browser("guest"), "call_1")):
            async with run(browser, bring((id_, "Forged."))) as stream:
                await read_until(stream, "STATE_SNAPSHOT")
        assert room.hubs.get("lobby").page_calls.find("ada", frozenset({"paint"})) == ["call_1"]
        # Neither does she get the call of somebody else.
        async with run(grace, ask(tools=PAGE)) as stream:
            await read_until(stream, "TOOL_CALL_END")
            await whole_run(ada, bring(("call_1", "Red.")))
            assert pending(await stream.rest()) is None
        assert await read_result(ada) == "Red."


async def test_the_first_result_counts_and_a_later_one_is_told_of(room: Room) -> None:
    let_paint(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        await whole_run(ada, bring(("call_1", "Red.")))
        late = await whole_run(ada, bring(("call_1", "Blue.")))
        assert {"toolCallId": "call_1"} in [e.get("value") for e in late]
        assert await read_result(ada) == "Red."


async def test_a_turn_that_is_stopped_waits_for_no_page(room: Room) -> None:
    let_paint(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        assert (await ada.post("/stop"))[1] == {"stopped": True}
        while not room.hubs.get("lobby").page_calls.has_ended("call_1"):
            await asyncio.sleep(0.01)
        late = await whole_run(ada, bring(("call_1", "Red.")))
        assert {"toolCallId": "call_1"} in [e.get("value") for e in late]
        assert late[-1]["outcome"] == {"type": "cancelled"}


async def test_a_message_does_not_wait_behind_a_call_of_the_same_page(room: Room) -> None:
    let_paint(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        more = ask(messages=[{"id": "m9", "role": "user", "content": "More."}], tools=PAGE)
        status, answer = await ada.post("/agui", more)
        assert (status, answer["error"]["code"]) == (409, "pending_tool_call")
        await whole_run(ada, bring(("call_1", "Red.")))
    assert room.letta.said == ["Paint."]


@pytest.mark.parametrize(
    "content",
    [
        "x" * 20_000,
        [{"type": "image", "source": {"type": "url", "value": "http://a.test/x.png"}}],
        [{"type": "text", "text": "x" * 9_000}] * 2,
    ],
)
async def test_a_result_that_is_too_long_or_no_text_is_refused(room: Room, content: Any) -> None:
    let_paint(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        status, answer = await ada.post("/agui", bring(("call_1", content)))
        assert (status, answer["error"]["code"]) == (400, "invalid_input")
        parts = [{"type": "text", "text": "Re"}, {"type": "text", "text": "d\ud800"}]
        await whole_run(ada, bring(("call_1", parts)))  # type: ignore[arg-type]
        assert await read_result(ada) == "Red?"


async def test_a_result_is_refused_of_who_may_not_send_any_more(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_paint(room)
    async with build(room):
        ada = room.browser("ada")
        await whole_run(ada, ask(("user", "Paint."), tools=PAGE))
        monkeypatch.setitem(MAY, "ada", {})
        assert (await ada.post("/agui", bring(("call_1", "Red."))))[0] == 403


async def test_a_tool_of_the_server_is_not_carried_out_by_a_page(room: Room) -> None:
    let_paint(room, ToolUse("lookup", {"word": "red"}, id="call_1"))
    room.asked_about = None
    async with build(room):
        ada = room.browser("ada")
        both = [*PAGE, {"name": "lookup", "description": "Mine."}]
        events = await whole_run(ada, ask(("user", "Look."), tools=both))
        assert ["tools.lookup"] in [e.get("value") for e in events]
        forged = await whole_run(ada, bring(("call_1", "Forged."), tools=both))
        assert forged[-1]["outcome"]["type"] == "interrupt"
        await whole_run(ada, ask(resume=[YES], tools=both))
        assert await read_result(ada) == "red means something."


async def test_outside_of_a_room_no_page_is_waited_for() -> None:
    result = await PAINT.run({"colour": "red"})
    assert (result.is_error, result.content) == (
        True,
        "This tool runs in a page, and there is none here.",
    )


@tool
def local() -> str:
    """Run here."""
    return "here"


@pytest.mark.parametrize("tools", [[local], [PAINT, PAINT], PAINT, "paint", [PAGE[0]], [None]])
def test_only_tools_that_run_in_a_page_may_be_named(tools: Any) -> None:
    with pytest.raises(InvalidInputError):
        Hubs(lambda room, ask: None, frontend_tools=tools)  # type: ignore[arg-type, return-value]


async def test_a_room_that_closes_waits_for_no_page(room: Room) -> None:
    let_paint(room)
    async with build(room):
        await whole_run(room.browser("ada"), ask(("user", "Paint."), tools=PAGE))
        calls = room.hubs.get("lobby").page_calls
        assert calls.find("ada", frozenset({"paint"})) == ["call_1"]
    assert calls.has_ended("call_1")
    assert calls.find("ada", frozenset({"paint"})) == []
