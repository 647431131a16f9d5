"""Tools that go wrong: the model hears of it, and no call stays pending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import Allow, Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    ConnectionFailedError,
    TurnCancelledError,
)
from letta_adapters.tools.client_side import tool
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._tools import answered, answers, get_weather, read
from tests.faults._turns import until
from tests.faults._wire import (
    Wire,
    asks,
    broken,
    deaf,
    hang,
    status,
    stream,
)
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


# -- tools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_an_exception_in_a_tool_is_an_error_the_model_sees(
    server: Server, rest: MakeRest, face: Any, kind: str
) -> None:
    def fails(city: str) -> str:
        raise ValueError(f"no such city: {city}")

    async def fails_later(city: str) -> str:
        await asyncio.sleep(0)
        return fails(city)

    server.script(asks(ev.call()))
    handler = tool(fails if kind == "plain" else fails_later, name="get_weather")
    async with face(rest()) as client:
        messages = await read(resume(client, tools=[handler]))
    assert [m.type for m in messages] == ["init", "tool_call", "tool_result", "assistant", "result"]
    assert messages[2].is_error
    assert messages[-1].success
    assert answers(server) == [
        {
            "type": "tool",
            "tool_call_id": "call_1",
            "tool_return": "ValueError: no such city: Paris",
            "status": "error",
        }
    ]


@pytest.mark.parametrize(
    "arguments", ['{"city": ', '["Paris"]', '{"town": "Paris"}', '{"city": {}}', "nonsense"]
)
async def test_bad_arguments_are_an_error_the_model_sees(
    server: Server, client: AsyncLettaClient, arguments: str
) -> None:
    server.script(asks(ev.call(arguments=arguments)))
    messages = await read(resume(client, tools=[get_weather]))
    assert messages[-1].success
    assert answers(server)[0]["status"] == "error"
    assert "get_weather" in answers(server)[0]["tool_return"]


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration()])
async def test_exceptions_that_are_no_errors(
    server: Server, rest: MakeRest, error: BaseException
) -> None:
    """``sys.exit()`` in a tool must not take the event loop with it."""

    def leaves(city: str) -> str:
        raise error

    server.script(asks(ev.call("leaves")))
    async with AsyncLettaClient(rest()) as client:
        messages = await read(resume(client, tools=[leaves]))
    assert messages[-1].success
    assert answers(server)[0]["status"] == "error"


async def test_one_of_several_tools_fails(server: Server, client: AsyncLettaClient) -> None:
    """All pending calls are answered together, whatever became of each."""

    def fails() -> str:
        raise RuntimeError("broken")

    calls = [ev.call(), ev.call("fails", "call_2", "{}"), ev.call("unheard_of", "call_3", "{}")]
    server.script(asks(*calls))
    messages = await read(resume(client, tools=[get_weather, fails]))
    assert messages[-1].success
    assert [a["tool_call_id"] for a in answers(server)] == ["call_1", "call_2", "call_3"]
    # Nobody was asked about the third, and a denial would be told as the user's.
    assert [a.get("status") for a in answers(server)] == ["success", "error", "error"]
    assert "Nobody was asked" in answers(server)[2]["tool_return"]
    results = [m for m in messages if m.type == "tool_result"]
    assert [r.is_error for r in results] == [False, True, True]
    assert len(server.sent()) == 2


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_tool_that_hangs_meets_the_turn_limit(
    server: Server, rest: MakeRest, face: Any, kind: str
) -> None:
    never = threading.Event()
    cleaned_up: list[str] = []

    def hangs() -> str:
        never.wait()
        return "too late"

    async def hangs_too() -> str:
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned_up.append("yes")
        return "too late"

    handler = tool(hangs if kind == "plain" else hangs_too, name="hangs")
    server.script(asks(ev.call("hangs", arguments="{}")))
    async with face(rest()) as client:
        session = resume(client, tools=[handler], turn_timeout=0.3, recovery_attempts=0)
        messages = await read(session)
        assert [m.type for m in messages][-2:] == ["error", "result"]
        assert messages[-1].error_code == "timeout_after_acceptance"
        assert server.pending() == []
        assert answers(server)[0]["status"] == "error"
        assert "longer than 0.3 seconds" in answers(server)[0]["tool_return"]
        assert (await resume(client).run_turn("again")).success
    never.set()
    assert cleaned_up == (["yes"] if kind == "coroutine" else [])
    assert server.texts() == ["hello", "again"]


async def test_a_tool_that_hangs_has_a_limit_of_its_own(
    server: Server, client: AsyncLettaClient
) -> None:
    @tool(timeout=0.05)
    async def hangs() -> str:
        await asyncio.sleep(3600)
        return "too late"

    server.script(asks(ev.call("hangs", arguments="{}")))
    assert (await read(resume(client, tools=[hangs])))[-1].success
    assert "timed out after 0.05 s" in answers(server)[0]["tool_return"]


async def test_a_turn_that_ran_out_of_time_runs_no_tool(
    server: Server, client: AsyncLettaClient
) -> None:
    ran: list[str] = []

    def acts() -> str:
        ran.append("acted")
        return "done"

    server.script(asks(ev.call("acts", arguments="{}")))
    session = resume(client, tools=[acts], turn_timeout=0.1)
    await session.send("hello")
    messages = []
    async for message in session.stream():
        messages.append(message)
        if message.type == "tool_call":
            await asyncio.sleep(0.2)
    assert messages[-1].error_code == "timeout_after_acceptance"
    assert ran == []
    assert server.pending() == []


@pytest.mark.parametrize("way", ["abort", "close", "cancel"])
async def test_stopping_while_a_client_tool_runs(
    server: Server, client: AsyncLettaClient, way: str
) -> None:
    started = asyncio.Event()
    ended: list[str] = []

    async def works() -> str:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("cleaned up")
        return "too late"

    server.script(asks(ev.call("works", arguments="{}")))
    session = resume(client, tools=[works], recovery_attempts=0)
    turn = asyncio.create_task(session.run_turn("hello"))
    await started.wait()
    if way == "cancel":
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
    else:
        await (session.abort() if way == "abort" else session.close())
        result = await turn
        assert result.error_code == "cancelled"
        with pytest.raises(TurnCancelledError):
            result.raise_for_status()
    assert ended == ["cleaned up"]
    if way == "abort":
        assert server.pending() == []
        assert server.sent()[1].body["max_steps"] == 1
    else:
        assert server.pending() == ["call_1"]
        assert len(server.sent()) == 1
    assert (await resume(client).run_turn("again")).success
    # Never as a denial, which the agent would read as its user's.
    assert [(a["type"], a["status"]) for a in answered(server)] == [("tool", "error")]


async def test_abort_from_inside_a_tool(server: Server, client: AsyncLettaClient) -> None:
    async def gives_up() -> str:
        asyncio.get_running_loop().call_soon(
            lambda: aborts.append(asyncio.create_task(session.abort()))
        )
        await asyncio.sleep(3600)
        return "too late"

    aborts: list[asyncio.Task[None]] = []
    server.script(asks(ev.call("gives_up", arguments="{}")))
    session = resume(client, tools=[gives_up])
    assert (await session.run_turn("hello")).error_code == "cancelled"
    await asyncio.gather(*aborts)
    assert server.pending() == []


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_tool_that_sends_to_its_own_conversation(
    server: Server, rest: MakeRest, face: Any, kind: str
) -> None:
    """The turn would wait for its tool, and the tool for the turn: an error instead."""
    own: list[Any] = []

    async def sends() -> str:
        await own[0].run_turn("inner")
        return "sent"

    def sends_too() -> str:
        return asyncio.run(sends())

    plain = kind == "plain" and face is not AsyncLettaClient
    server.script(asks(ev.call("sends", arguments="{}")))
    async with face(rest()) as client:
        session = resume(client, tools=[tool(sends_too if plain else sends, name="sends")])
        own.append(session)
        assert (await session.run_turn("outer")).success
        assert "waits for the tool" in answers(server)[0]["tool_return"]
        assert (await session.run_turn("again")).success
    assert server.texts() == ["outer", "again"]


# -- the answers ----------------------------------------------------------------------------------


async def test_abort_while_the_answers_are_on_their_way(
    server: Server, client: AsyncLettaClient
) -> None:
    arrived = threading.Event()
    go_on = threading.Event()

    def slow(wire: Wire) -> None:
        arrived.set()
        wire.wait(go_on)
        stream(ev.ping(2), hang)(wire)

    server.script(asks(ev.call()), slow)
    session = resume(client, tools=[get_weather], recovery_attempts=0)
    turn = asyncio.create_task(session.run_turn("hello"))
    await until(arrived.is_set)
    aborting = asyncio.create_task(session.abort())
    await asyncio.sleep(0)
    go_on.set()
    await aborting
    assert (await turn).error_code == "cancelled"
    assert server.active == []
    # The cancelled run did not keep the answer, so the call waited again and was denied.
    assert server.pending() == []
    assert [r.body.get("max_steps") for r in server.sent()] == [None, None, 1]
    assert (await session.run_turn("again")).success


async def test_cancel_while_the_answers_are_on_their_way(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(asks(ev.call()), deaf)
    session = resume(client, tools=[get_weather])
    turn = asyncio.create_task(session.run_turn("hello"))
    await until(lambda: len(server.runs) == 2)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert server.active == []
    assert server.pending() == ["call_1"]
    assert (await session.run_turn("again")).success


REFUSED = "Invalid tool call IDs. Expected '['call_1']', but received '['call_9']'."
REFUSALS = {
    "event": stream(ev.ping(2), ev.internal_error(REFUSED, run=2), keep=False),
    "http": status(400, {"detail": REFUSED}),
    "gone": stream(ev.ping(2), ev.internal_error(ev.NOTHING_PENDING, run=2), keep=False),
    "provider": stream(
        ev.ping(2), lambda wire: wire.store(), ev.stop("llm_api_error"),
        ev.error("llm_error", "Failed", run=2), ev.DONE, keep=False,
    ),
    "overload": status(429, {"detail": "Too many"}),
    "crash": status(500, {"detail": "An unknown error occurred"}),
}  # fmt: skip
CODES = {
    "event": "invalid_tool_call_ids",
    "http": "invalid_tool_call_ids",
    "gone": "no_pending_approval",
    "provider": "provider_error",
    "overload": "rate_limit",
    "crash": "server_error",
}


@pytest.mark.parametrize("how", REFUSALS)
async def test_refused_answers(server: Server, rest: MakeRest, face: Any, how: str) -> None:
    """A failed result and no exception; the answers are sent once; the call waits on."""
    server.script(asks(ev.call()))
    async with face(rest()) as client:
        session = resume(client, tools=[get_weather])
        server.script(REFUSALS[how])
        messages = await read(session)
        assert [m.type for m in messages][-2:] == ["error", "result"]
        assert messages[-1].error_code == CODES[how]
        given = [r for r in server.sent() if r.text is None]
        assert len(given) == 1
        waits = server.pending()
        assert (await session.run_turn("again")).success
    assert server.texts() == ["hello", *["again"] * (1 + len(waits))]


@pytest.mark.parametrize("stored", [True, False], ids=["kept", "not kept"])
async def test_connection_lost_while_answering(
    server: Server, client: AsyncLettaClient, stored: bool
) -> None:
    server.script(asks(ev.call()), broken(keep=stored, run="completed" if stored else "failed"))
    session = resume(client, tools=[get_weather])
    result = await session.run_turn("hello")
    assert result.error_code == "connection_failed"
    with pytest.raises(ConnectionFailedError):
        result.raise_for_status()
    assert server.pending() == ([] if stored else ["call_1"])
    given = [r for r in server.sent() if r.text is None]
    assert len(given) == 1
    assert (await session.run_turn("again")).success


async def test_a_call_the_server_did_not_keep(server: Server, client: AsyncLettaClient) -> None:
    """With parallel calls off the stream shows two and the server keeps one."""

    def two_shown(wire: Wire) -> None:
        shown = ev.approval(ev.call(), ev.call("get_weather", "call_2"))
        kept = [ev.approval(ev.call())]
        stream(ev.ping(), ev.frame(shown), ev.ending("requires_approval"), stored=kept)(wire)

    server.script(two_shown)
    messages = await read(resume(client, tools=[get_weather]))
    assert [m.tool_call_id for m in messages if m.type == "tool_call"] == ["call_1"]
    assert [a["tool_call_id"] for a in answers(server)] == ["call_1"]
    assert messages[-1].success


@pytest.mark.parametrize("arguments", ['{"city": ', '["Paris"]', "nonsense"])
@pytest.mark.parametrize("name", ["get_weather", "a_tool_of_the_server"])
async def test_nobody_is_asked_about_arguments_that_cannot_be_read(
    server: Server, client: AsyncLettaClient, name: str, arguments: str
) -> None:
    asked: list[Any] = []

    def can_use_tool(name: str, given: Any, context: Any) -> Any:
        asked.append((name, given))
        return Allow(updated_input={"city": "Rome"})

    server.script(asks(ev.call(arguments=arguments, name=name)))
    messages = await read(resume(client, tools=[get_weather], can_use_tool=can_use_tool))
    assert messages[-1].success
    assert asked == []
    (told,) = answers(server)
    assert told.get("status") == "error" or told["approve"] is False
    assert arguments in (told.get("tool_return") or told["reason"])
