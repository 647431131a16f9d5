"""Calls that wait for an answer on a Letta API: they outlive the turn, and anybody may answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import (
    Allow,
    ConversationBusyError,
    Deny,
    InvalidInputError,
    PendingApprovalError,
    PendingToolCall,
    Postpone,
    Rest,
    TimeoutBeforeAcceptanceError,
    TurnCancelledError,
    TurnDetachedError,
    TurnFailedError,
    UnsupportedOptionError,
    WaitsForItselfError,
    WrongToolCallsError,
)
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.options import SessionOptions
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._tools import answered, answers, get_weather, read
from tests.faults._turns import until
from tests.faults._wire import asks, held, status, stream
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]
TWO = (ev.call("get_weather", "call_1"), ev.call("danger", "call_2", "{}"))


def knows_danger(server: Server) -> None:
    """Give the agent a tool of the server that asks."""
    server.agents[ev.AGENT]["tools"] = [{"name": "danger", "tool_type": "custom"}]
    server.agents[ev.AGENT]["tool_rules"] = [{"type": "requires_approval", "tool_name": "danger"}]


class Person:
    """Somebody who is asked whether a tool may run, and does not answer before going away."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.gone = threading.Event()

    def __call__(self, *_: Any) -> bool:
        self.asked.set()
        self.gone.wait()
        return True


# -- what ends a turn, and what it does to its calls ----------------------------------------------


@pytest.mark.parametrize("what", ["session", "client"])
async def test_closing_leaves_a_question_as_it_is(
    server: Server, rest: MakeRest, face: Any, what: str
) -> None:
    """The agent would read a denial as its user's, and nobody has refused anything."""
    person = Person()
    server.script(asks(ev.call()))
    client = face(rest())
    session = resume(client, can_use_tool=person, tools=[get_weather])
    await session.initialize()
    turn = asyncio.ensure_future(session.run_turn("hello"))
    await until(person.asked.is_set)
    await (session if what == "session" else client).close()
    assert (await turn).error_code == "cancelled"
    await client.close()
    person.gone.set()
    assert server.pending() == ["call_1"]
    assert len(server.sent()) == 1


async def test_what_the_application_gives_up_is_no_refusal_of_the_users(
    server: Server, rest: MakeRest, face: Any
) -> None:
    server.leave_pending(*TWO)
    async with face(rest()) as client:
        ended = await resume(client).recover_pending_approvals()
    assert [call.tool_call_id for call in ended.denied] == ["call_1", "call_2"]
    assert [(a["type"], a["status"]) for a in answered(server)] == [("tool", "error")] * 2
    assert all("has not refused it" in a["tool_return"] for a in answered(server))


async def test_an_interrupting_denial_keeps_its_reason(
    server: Server, client: AsyncLettaClient
) -> None:
    """The user has refused one of the calls; about the other nobody was asked."""
    server.script(asks(*TWO))
    knows_danger(server)
    session = resume(
        client, can_use_tool=lambda *_: Deny("not today", interrupt=True), tools=[get_weather]
    )
    messages = await read(session)
    assert messages[-1].error_code == "cancelled"
    first, second = answers(server)
    assert (first["approve"], first["reason"]) == (False, "not today")
    assert (second["approve"], second["reason"]) == (False, "not today")


async def test_too_many_denials_are_told_as_they_were_given(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(asks(ev.call()))
    session = resume(
        client, can_use_tool=lambda *_: Deny("no"), tools=[get_weather], max_denied_rounds=0
    )
    assert (await read(session))[-1].error_code == "denied_rounds"
    assert answers(server)[0]["reason"] == "no"
    assert server.pending() == []


# -- a time limit for the question ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (Allow(), {"tool_return": "sunny in Paris", "status": "success"}),
        (Deny("too late"), {"approve": False, "reason": "too late"}),
        (False, {"tool_return": "Nobody has answered within 0.05 seconds.", "status": "error"}),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_question_that_takes_too_long_gets_the_chosen_answer(
    server: Server, rest: MakeRest, face: Any, answer: Any, sent: dict[str, Any], kind: str
) -> None:
    never = threading.Event()

    def hangs(*_: Any) -> bool:
        never.wait()
        return True

    async def hangs_too(*_: Any) -> bool:
        await asyncio.sleep(3600)
        return True

    server.script(asks(ev.call()))
    async with face(rest()) as client:
        session = resume(
            client,
            can_use_tool=hangs if kind == "plain" else hangs_too,
            ask_timeout=0.05,
            ask_timeout_answer=answer,
            tools=[get_weather],
        )
        assert (await read(session))[-1].success
    never.set()
    assert sent.items() <= answers(server)[0].items()


async def test_a_time_out_of_the_callback_itself_is_a_failure_of_it(
    server: Server, client: AsyncLettaClient
) -> None:
    async def fails(*_: Any) -> bool:
        raise TimeoutError("the dialog")

    server.script(asks(ev.call()))
    session = resume(
        client,
        can_use_tool=fails,
        ask_timeout=60,
        ask_timeout_answer=Allow(),
        tools=[get_weather],
    )
    assert (await read(session))[-1].success
    assert "the dialog" in answers(server)[0]["tool_return"]


@pytest.mark.parametrize(
    "options",
    [
        {"ask_timeout": 1.0},
        {"ask_timeout_answer": Deny()},
        {"ask_timeout": 0, "ask_timeout_answer": Deny()},
        {"ask_timeout": 1.0, "ask_timeout_answer": "later"},
        {"ask_timeout": 1.0, "ask_timeout_answer": Deny(), "can_use_tool": None},
    ],
)
def test_a_time_limit_names_its_answer(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"ask_timeout|can_use_tool"):
        SessionOptions(**{"can_use_tool": lambda *_: True, **options})


# -- later ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["callback", "time-out"])
async def test_a_postponed_question_ends_the_stream_and_stays(
    server: Server, rest: MakeRest, face: Any, how: str
) -> None:
    async def hangs(*_: Any) -> bool:
        await asyncio.sleep(3600)
        return True

    options: dict[str, Any] = {"can_use_tool": lambda *_: Postpone()}
    if how == "time-out":
        options = {
            "can_use_tool": hangs,
            "ask_timeout": 0.05,
            "ask_timeout_answer": Postpone(),
        }
    server.script(asks(ev.call()))
    async with face(rest()) as client:
        messages = await read(resume(client, tools=[get_weather], **options))
        result = messages[-1]
        assert (result.success, result.error_code) == (False, "detached")
        assert result.stop_reason == "requires_approval"
        assert result.input_stored is True
        assert "get_weather (call_1)" in result.error_detail
        with pytest.raises(TurnDetachedError):
            result.raise_for_status()
    assert server.pending() == ["call_1"]
    assert len(server.sent()) == 1


async def test_detaching_in_the_middle_of_a_question(
    server: Server, rest: MakeRest, face: Any
) -> None:
    person = Person()
    server.script(asks(ev.call()))
    async with face(rest()) as client:
        session = resume(client, can_use_tool=person, tools=[get_weather])
        await session.initialize()
        turn = asyncio.ensure_future(session.run_turn("hello"))
        await until(person.asked.is_set)
        await session.detach()
        assert (await turn).error_code == "detached"
        await session.detach()  # no turn runs: no error
    person.gone.set()
    assert server.pending() == ["call_1"]
    assert server.cancels == 0
    assert len(server.sent()) == 1


async def test_detaching_from_inside_the_callback(server: Server, client: AsyncLettaClient) -> None:
    async def can_use_tool(*_: Any) -> bool:
        await session.detach()
        return True

    server.script(asks(ev.call()))
    session = resume(client, can_use_tool=can_use_tool, tools=[get_weather])
    assert (await read(session))[-1].error_code == "detached"
    assert server.pending() == ["call_1"]


async def test_detaching_lets_a_run_go_on(server: Server, client: AsyncLettaClient) -> None:
    go_on = threading.Event()
    server.script(stream(ev.ping(), ev.text("You "), held(go_on), ev.text("said"), ev.ending()))
    session = resume(client, include_partial_messages=True)
    await session.send("hello")
    reading = session.stream()
    async for message in reading:
        if message.type == "stream_event":
            break
    await session.detach()
    rest_of_it = [message async for message in reading]
    assert rest_of_it[-1].error_code == "detached"
    assert rest_of_it[-1].input_stored is None
    assert server.cancels == 0
    assert server.active
    await session.close()
    assert server.active
    go_on.set()


# -- an answer from elsewhere ---------------------------------------------------------------------


async def test_another_session_answers_all_calls_together(
    server: Server, rest: MakeRest, face: Any
) -> None:
    server.leave_pending(*TWO)
    async with face(rest()) as client:
        session = resume(client, tools=[get_weather])
        waiting = await session.pending_approvals()
        assert waiting == (
            PendingToolCall("call_1", "get_weather", '{"city": "Paris"}'),
            PendingToolCall("call_2", "danger", "{}"),
        )
        assert waiting[0].tool_input == {"city": "Paris"}
        assert waiting[0].message_id is not None
        assert waiting[0].run_id is not None
        await session.respond({"call_1": Allow(), "call_2": Deny("not now")})
        messages = [message async for message in session.stream()]
    assert [m.type for m in messages] == [
        "init",
        "tool_result",
        "tool_result",
        "assistant",
        "result",
    ]
    assert next(m.content for m in messages if m.type == "tool_result") == "sunny in Paris"
    assert messages[-1].success
    first, second = answered(server)
    assert (first["tool_return"], first["status"]) == ("sunny in Paris", "success")
    assert (second["approve"], second["reason"]) == (False, "not now")
    assert len(server.sent()) == 1


async def test_an_approved_tool_of_the_server_runs_there(
    server: Server, rest: MakeRest, face: Any
) -> None:
    knows_danger(server)
    server.leave_pending(ev.call("danger", "call_2", "{}"))
    async with face(rest()) as client:
        result = await resume(client).respond_turn({"call_2": True})
    assert result.result == "You said: an answer"
    assert answered(server) == [{"type": "approval", "tool_call_id": "call_2", "approve": True}]


@pytest.mark.parametrize(
    ("given", "missing", "unknown"),
    [
        ({"call_1": True}, ("call_2",), ()),
        ({"call_1": True, "call_2": False, "call_9": True}, (), ("call_9",)),
        ({"call_9": True}, ("call_1", "call_2"), ("call_9",)),
    ],
)
async def test_a_part_of_the_answers_is_refused_by_name(
    server: Server,
    rest: MakeRest,
    face: Any,
    given: dict[str, bool],
    missing: tuple[str, ...],
    unknown: tuple[str, ...],
) -> None:
    ran: list[str] = []

    def acts(city: str) -> str:
        ran.append(city)
        return "done"

    server.leave_pending(*TWO)
    async with face(rest()) as client:
        with pytest.raises(WrongToolCallsError) as caught:
            await resume(client, tools=[acts]).respond(given)
    assert (caught.value.missing, caught.value.unknown) == (missing, unknown)
    assert caught.value.accepted is False
    for name in (*missing, *unknown):
        assert name in str(caught.value)
    assert server.sent() == []
    assert ran == []


@pytest.mark.parametrize("given", [{}, [], None, {"call_1": "yes"}, {"call_1": None}])
async def test_no_decision_is_refused_before_any_request(
    server: Server, client: AsyncLettaClient, given: Any
) -> None:
    with pytest.raises(InvalidInputError):
        await resume(client).respond(given)
    assert server.requests == []


async def test_nothing_waits(server: Server, client: AsyncLettaClient) -> None:
    session = resume(client)
    assert await session.pending_approvals() == ()
    with pytest.raises(WrongToolCallsError, match="call_1"):
        await session.respond({"call_1": True})
    assert server.sent() == []


async def test_a_client_side_tool_that_nobody_here_has_is_not_allowed(
    server: Server, rest: MakeRest, face: Any
) -> None:
    """The server would tell the agent that there is no such tool, and the call would be lost."""
    server.leave_pending(ev.call())
    async with face(rest()) as client:
        session = resume(client)
        with pytest.raises(InvalidInputError, match="get_weather"):
            await session.respond({"call_1": Allow()})
        assert server.pending() == ["call_1"]
        assert (await session.respond_turn({"call_1": Deny("no")})).success


async def test_an_edit_that_the_server_would_ignore_is_refused(
    server: Server, client: AsyncLettaClient
) -> None:
    knows_danger(server)
    server.leave_pending(ev.call("danger", "call_2", '{"a": 1}'))
    with pytest.raises(UnsupportedOptionError, match="updated_input"):
        await resume(client).respond({"call_2": Allow({"a": 2})})
    assert server.pending() == ["call_2"]


async def test_an_edited_input_of_a_client_side_tool(
    server: Server, client: AsyncLettaClient
) -> None:
    server.leave_pending(ev.call())
    session = resume(client, tools=[get_weather])
    assert (await session.respond_turn({"call_1": Allow({"city": "Rome"})})).success
    assert answered(server)[0]["tool_return"] == "sunny in Rome"


async def test_an_answer_that_ends_the_turn(server: Server, rest: MakeRest, face: Any) -> None:
    knows_danger(server)
    server.leave_pending(*TWO)
    async with face(rest()) as client:
        session = resume(client, tools=[get_weather])
        with pytest.raises(TurnCancelledError, match="stop"):
            await session.respond({"call_1": Deny("stop", interrupt=True), "call_2": Allow()})
    first, second = answered(server)
    assert (first["approve"], first["reason"]) == (False, "stop")
    assert second["status"] == "error"
    assert server.sent()[0].body["max_steps"] == 1


async def test_answers_that_are_refused_raise_and_the_conversation_is_free(
    server: Server, client: AsyncLettaClient
) -> None:
    server.leave_pending(ev.call())
    session = resume(client, tools=[get_weather])
    refused = status(429, {"detail": "Too many"})
    server.override("POST", "/messages$", refused, 1)
    with pytest.raises(Exception, match="Too many"):
        await session.respond({"call_1": True})
    assert (await session.respond_turn({"call_1": True})).success


async def test_a_turn_of_this_client_answers_its_calls_itself(
    server: Server, client: AsyncLettaClient
) -> None:
    asked = asyncio.Event()

    async def can_use_tool(*_: Any) -> bool:
        asked.set()
        await asyncio.sleep(3600)
        return True

    server.script(asks(ev.call()))
    session = resume(client, can_use_tool=can_use_tool, tools=[get_weather])
    turn = asyncio.create_task(session.run_turn("hello"))
    await asked.wait()
    other = resume(client, tools=[get_weather])
    with pytest.raises(ConversationBusyError, match="detach"):
        await other.respond({"call_1": True})
    await session.detach()
    assert (await turn).error_code == "detached"
    assert (await other.respond_turn({"call_1": True})).success


async def test_a_tool_that_answers_its_own_turn_does_not_wait_for_itself(
    server: Server, client: AsyncLettaClient
) -> None:
    seen: list[type] = []

    async def acts() -> str:
        try:
            await session.respond({"call_1": True})
        except WaitsForItselfError as error:
            seen.append(type(error))
        return "done"

    server.leave_pending(ev.call("acts", arguments="{}"))
    session = resume(client, tools=[acts])
    assert (await session.respond_turn({"call_1": True})).success
    assert seen == [WaitsForItselfError]


# -- a turn that meets calls left open ------------------------------------------------------------


async def test_a_call_left_open_is_asked_about_again(
    server: Server, rest: MakeRest, face: Any
) -> None:
    knows_danger(server)
    server.leave_pending(*TWO)
    asked: list[Any] = []

    def can_use_tool(name: str, tool_input: Any, context: Any) -> Any:
        asked.append((name, tool_input, context.client_tool, context.recovered))
        return Allow() if name == "get_weather" else Deny("not that one")

    async with face(rest()) as client:
        session = resume(client, can_use_tool=can_use_tool, tools=[get_weather])
        result = await session.run_turn("hello")
        assert result.result == "You said: hello"
        later = await session.run_turn("again")
    assert asked == [
        ("get_weather", {"city": "Paris"}, True, True),
        ("danger", {}, False, True),
    ]
    assert [(r.call.tool_name, r.asked, r.allowed) for r in result.recovered] == [
        ("get_weather", True, True),
        ("danger", True, False),
    ]
    assert later.recovered == ()
    refused, sent, _ = server.sent()
    assert refused.text == sent.text == "hello"
    first, second = sent.approvals
    assert first["tool_return"] == "sunny in Paris"
    assert (second["approve"], second["reason"]) == (False, "not that one")


async def test_a_call_of_this_turn_is_not_called_recovered(
    server: Server, client: AsyncLettaClient
) -> None:
    asked: list[bool] = []

    def can_use_tool(name: str, tool_input: Any, context: Any) -> bool:
        asked.append(context.recovered)
        return True

    server.script(asks(ev.call()))
    session = resume(client, can_use_tool=can_use_tool, tools=[get_weather])
    assert (await session.run_turn("hello")).recovered == ()
    assert asked == [False]


async def test_a_call_whose_tool_is_gone_is_ended_and_named(
    server: Server, client: AsyncLettaClient
) -> None:
    server.leave_pending(ev.call("gone", "call_1"))
    result = await resume(client, can_use_tool=lambda *_: True).run_turn("hello")
    assert result.success
    assert [(r.call.tool_name, r.asked, r.allowed) for r in result.recovered] == [
        ("gone", False, False)
    ]
    assert "its tool is not here" in answered(server)[0]["tool_return"]


async def test_a_recovered_call_that_is_postponed_blocks_the_message(
    server: Server, client: AsyncLettaClient
) -> None:
    server.leave_pending(ev.call())
    session = resume(client, can_use_tool=lambda *_: Postpone(), tools=[get_weather])
    with pytest.raises(PendingApprovalError, match="get_weather") as caught:
        await session.run_turn("hello")
    assert caught.value.accepted is False
    assert caught.value.tool_call_ids == ("call_1",)
    assert server.pending() == ["call_1"]


async def test_a_recovered_call_that_is_denied_for_good_ends_the_turn(
    server: Server, client: AsyncLettaClient
) -> None:
    server.leave_pending(ev.call())
    session = resume(
        client, can_use_tool=lambda *_: Deny("no", interrupt=True), tools=[get_weather]
    )
    with pytest.raises(TurnFailedError, match="no"):
        await session.run_turn("hello")
    assert answered(server)[0]["reason"] == "no"
    assert (await session.run_turn("hello")).success


async def test_a_recovered_call_meets_the_turn_limit(
    server: Server, client: AsyncLettaClient
) -> None:
    async def hangs(*_: Any) -> bool:
        await asyncio.sleep(3600)
        return True

    server.leave_pending(ev.call())
    session = resume(client, can_use_tool=hangs, tools=[get_weather], turn_timeout=0.05)
    with pytest.raises(TimeoutBeforeAcceptanceError) as caught:
        await session.run_turn("hello")
    assert caught.value.accepted is False
    assert server.pending() == ["call_1"]


async def test_closing_while_a_recovered_call_is_asked_about(
    server: Server, client: AsyncLettaClient
) -> None:
    asked = asyncio.Event()

    async def hangs(*_: Any) -> bool:
        asked.set()
        await asyncio.sleep(3600)
        return True

    server.leave_pending(ev.call())
    session = resume(client, can_use_tool=hangs, tools=[get_weather])
    turn = asyncio.create_task(session.run_turn("hello"))
    await asked.wait()
    await session.close()
    with pytest.raises(Exception, match="closed"):
        await turn
    assert server.pending() == ["call_1"]
