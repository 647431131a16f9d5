"""Messages sent one after the other: each is a turn of its own, and none is lost or aborted."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters.client.client import AsyncLettaClient, get_slots, is_busy
from letta_adapters.client.turn_slots import MAX_QUEUED
from letta_adapters.errors import ConversationBusyError, InvalidInputError, WaitsForItselfError
from letta_adapters.messages import AssistantMessage, InitMessage, ResultMessage
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._turns import LONG, until
from tests.faults._wire import asks, echo, hang, held, status, stream
from tests.faults.conftest import resume
from tests.faults.test_queueing import alone

MakeRest = Callable[..., Rest]


async def read(session: Any) -> ResultMessage:
    """Read the next stream."""
    return await end_of(session.stream())


async def end_of(reading: Any) -> ResultMessage:
    """Read a stream; it ends with one result, and nothing follows."""
    said = [message async for message in reading]
    results = [message for message in said if isinstance(message, ResultMessage)]
    assert results == said[-1:]
    return results[0]


async def sent(client: Any, *texts: str) -> Any:
    """Make a session that has sent these, one after the other."""
    session = resume(client)
    for text in texts:
        await session.send(text)
    return session


def first_waits(go_on: threading.Event, text: str = "first") -> Any:
    return stream(ev.ping(), held(go_on), ev.text(text), ev.ending())


# -- sending --------------------------------------------------------------------------------------


async def test_each_stream_is_the_turn_of_one_message_in_order(
    server: Server, rest: MakeRest, face: Any
) -> None:
    server.script(*[alone(server)] * 3)
    async with face(rest()) as client:
        session = await sent(client, "one", "two", "three")
        results = [await read(session) for _ in range(3)]
    assert [result.result for result in results] == [f"You said: {t}" for t in server.texts()]
    assert server.texts() == ["one", "two", "three"]
    assert server.cancels == 0
    assert all(run.status == "completed" for run in server.runs)


async def test_there_is_one_stream_a_message(server: Server, client: AsyncLettaClient) -> None:
    session = await sent(client, "one", "two")
    assert [m.type async for m in session.stream()] == ["init", "assistant", "result"]
    assert [m.type async for m in session.stream()] == ["assistant", "result"]
    with pytest.raises(InvalidInputError, match="call send"):
        session.stream()


async def test_a_message_that_waits_is_sent_when_the_turn_before_it_is_over(
    server: Server, rest: MakeRest, face: Any
) -> None:
    """Not when its stream is read: by then the answer is there."""
    async with face(rest()) as client:
        session = await sent(client, "one", "two")
        assert server.texts() == ["one"]
        await read(session)
        await until(lambda: server.texts() == ["one", "two"])
        assert (await read(session)).result == "You said: two"


async def test_a_turn_can_be_read_before_it_has_begun(
    server: Server, client: AsyncLettaClient
) -> None:
    session = await sent(client, "one", "two")
    first, second = session.stream(), session.stream()

    async def texts(reading: Any) -> list[str]:
        return [m.content async for m in reading if isinstance(m, AssistantMessage)]

    assert await asyncio.gather(
        asyncio.create_task(texts(second)), asyncio.create_task(texts(first))
    ) == [["You said: two"], ["You said: one"]]
    assert server.cancels == 0


async def test_a_send_from_inside_the_loop_leaves_its_turn_alone(
    server: Server, rest: MakeRest, face: Any
) -> None:
    async with face(rest()) as client:
        session = await sent(client, "one")
        async for message in session.stream():
            if isinstance(message, AssistantMessage):
                await session.send("two")
        assert isinstance(message, ResultMessage) and message.success
        assert (await read(session)).result == "You said: two"
    assert server.cancels == 0


async def test_a_message_sent_by_a_task_that_has_ended_is_not_given_up(
    server: Server, client: AsyncLettaClient
) -> None:
    """``wait_for`` sends in a task of its own on Python 3.10 and 3.11."""
    session = resume(client)
    for text in ("one", "two"):
        await asyncio.create_task(session.send(text))
    assert [(await read(session)).result for _ in range(2)] == ["You said: one", "You said: two"]
    assert server.cancels == 0


async def test_tasks_that_share_a_session_read_what_each_has_sent(
    server: Server, client: AsyncLettaClient
) -> None:
    session = resume(client)

    async def ask(text: str) -> str | None:
        await session.send(text)
        await asyncio.sleep(0)
        return (await read(session)).result

    texts = [f"message {n}" for n in range(5)]
    answers = await asyncio.gather(*(asyncio.create_task(ask(text)) for text in texts))
    assert answers == [f"You said: {text}" for text in texts]


async def test_one_task_sends_and_another_reads(server: Server, client: AsyncLettaClient) -> None:
    session = resume(client)
    texts = [f"message {n}" for n in range(4)]
    sent = asyncio.Event()

    async def produce() -> None:
        for text in texts:
            await session.send(text)
        sent.set()
        await asyncio.Event().wait()

    producer = asyncio.create_task(produce())
    await sent.wait()
    answers = [(await read(session)).result for _ in texts]
    producer.cancel()
    assert answers == [f"You said: {text}" for text in texts]


async def test_only_so_many_messages_wait(server: Server, client: AsyncLettaClient) -> None:
    server.script(LONG)
    session = resume(client)
    for number in range(MAX_QUEUED + 1):
        await session.send(str(number))
    with pytest.raises(ConversationBusyError, match="100 messages") as caught:
        await session.send("one too many")
    assert caught.value.accepted is False
    assert MAX_QUEUED == 100
    await session.close()
    assert server.texts() == ["0"]


# -- what goes wrong ------------------------------------------------------------------------------


async def test_what_the_server_refuses_of_a_message_that_waited_is_in_its_stream(
    server: Server, rest: MakeRest, face: Any
) -> None:
    server.script(echo, status(422, {"detail": "Messages must not be empty"}), echo)
    async with face(rest()) as client:
        session = await sent(client, "one", "two", "three")
        first, second, third = [await read(session) for _ in range(3)]
    assert (first.result, third.result) == ("You said: one", "You said: three")
    assert (second.success, second.input_stored) == (False, False)
    with pytest.raises(InvalidInputError, match="must not be empty") as caught:
        second.raise_for_status()
    assert caught.value.accepted is False


async def test_a_refused_first_message_lets_the_second_go(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(status(422, {"detail": "Messages must not be empty"}), echo)
    session = resume(client)
    first = asyncio.create_task(session.send("one"))
    await asyncio.sleep(0)
    await session.send("two")
    with pytest.raises(InvalidInputError):
        await first
    assert [m.type async for m in session.stream()] == ["init", "assistant", "result"]


async def test_a_failed_first_turn_lets_the_second_go(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(stream(ev.ping(), ev.internal_error("broken"), keep=False), echo)
    session = await sent(client, "one", "two")
    assert not (await read(session)).success
    assert (await read(session)).result == "You said: two"


async def test_a_second_message_waits_while_the_first_ones_tool_is_asked_about(
    server: Server, client: AsyncLettaClient
) -> None:
    asked, allow = asyncio.Event(), asyncio.Event()

    async def get_weather(city: str) -> str:
        return "sunny"

    async def decide(*_: Any) -> bool:
        asked.set()
        await allow.wait()
        return True

    server.script(asks(ev.call()), echo, echo)
    session = resume(client, tools=[get_weather], can_use_tool=decide)
    await session.send("one")
    await session.send("two")
    reading = asyncio.create_task(read(session))
    await asked.wait()
    assert server.texts() == ["one"]
    allow.set()
    assert (await reading).result == "You said: an answer"
    assert (await read(session)).result == "You said: two"


async def test_a_tool_does_not_stand_in_line_behind_itself(
    server: Server, client: AsyncLettaClient
) -> None:
    raised: list[Exception] = []

    async def get_weather(city: str) -> str:
        try:
            await session.send("from inside")
        except WaitsForItselfError as error:
            raised.append(error)
        return "sunny"

    server.script(asks(ev.call()), echo)
    session = resume(client, tools=[get_weather])
    assert (await session.run_turn("one")).success
    assert len(raised) == 1


# -- giving up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "drop", "keep"])
async def test_an_abandoned_stream_is_aborted_and_what_waits_goes_on(
    server: Server, client: AsyncLettaClient, how: str
) -> None:
    server.script(LONG)
    session = resume(client)
    for text in ("one", "two", "three"):
        await session.send(text)
    reading: Any = session.stream()
    assert isinstance(await anext(reading), InitMessage)
    if how == "close":
        await reading.aclose()
    if how == "drop":
        del reading
        gc.collect()
    results = [(await read(session)).result for _ in range(2)]
    assert results == ["You said: two", "You said: three"]
    assert [run.status for run in server.runs] == ["cancelled", "completed", "completed"]
    assert server.cancels == 1


def test_a_loop_that_was_left_is_aborted_and_what_waits_goes_on(
    server: Server, rest: MakeRest
) -> None:
    server.script(LONG)
    with LettaClient(rest()) as client:
        session = resume(client)
        session.send("one")
        session.send("two")
        for _ in session.stream():
            break
        gc.collect()
        assert [m.type for m in session.stream()] == ["assistant", "result"]
    assert [run.status for run in server.runs] == ["cancelled", "completed"]


async def test_a_stream_given_up_before_its_turn_began_takes_its_message_back(
    server: Server, client: AsyncLettaClient
) -> None:
    go_on = threading.Event()
    server.script(first_waits(go_on))
    session = resume(client)
    for text in ("one", "never", "three"):
        await session.send(text)
    first = session.stream()
    await session.stream().aclose()
    go_on.set()
    assert [m.type async for m in first][-1] == "result"
    assert (await read(session)).result == "You said: three"
    assert server.texts() == ["one", "three"]


async def test_a_reader_that_is_cancelled_takes_its_message_back(
    server: Server, client: AsyncLettaClient
) -> None:
    go_on = threading.Event()
    server.script(first_waits(go_on))
    session = await sent(client, "one", "never")
    first, second = session.stream(), session.stream()
    reading = asyncio.ensure_future(anext(second))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    go_on.set()
    assert [m.type async for m in first][-1] == "result"
    assert (await session.run_turn("three")).success
    assert server.texts() == ["one", "three"]


@pytest.mark.parametrize("reads", [True, False])
async def test_an_abort_stops_the_turn_that_runs_alone(
    server: Server, rest: MakeRest, face: Any, reads: bool
) -> None:
    server.script(stream(ev.ping(), ev.text("You sa"), hang))
    async with face(rest()) as client:
        session = await sent(client, "one", "two")
        reading = asyncio.create_task(read(session)) if reads else None
        await until(lambda: server.active)
        await session.abort()
        first = await (reading or read(session))
        assert (first.success, first.error_code) == (False, "cancelled")
        assert (await read(session)).result == "You said: two"
    assert [run.status for run in server.runs] == ["cancelled", "completed"]


async def test_an_aborted_turn_that_nobody_read_is_in_nobodys_way(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(LONG)
    session = await sent(client, "one")
    await session.abort()
    await session.send("two")
    assert (await read(session)).result == "You said: two"


@pytest.mark.parametrize("closes", ["session", "client"])
async def test_what_still_waits_when_all_is_closed_is_reported(
    server: Server, rest: MakeRest, face: Any, closes: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(LONG)
    client = face(rest())
    session = await sent(client, "one")
    await session.send("two", otid="otid-2")
    await session.send("three", otid="otid-3")
    with caplog.at_level(logging.WARNING, "letta_adapters.client.session"):
        await (session if closes == "session" else client).close()
    assert [(item["id"], item["content"]) for item in session.unsent] == [
        ("otid-2", "two"),
        ("otid-3", "three"),
    ]
    assert len(caplog.records) == 1
    assert "otid-2, otid-3" in caplog.text
    assert [run.status for run in server.runs] == ["cancelled"]
    await client.close()
    assert server.texts() == ["one"]


async def test_the_reader_of_a_turn_that_waits_is_told_of_the_close(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(LONG)
    session = await sent(client, "one", "two")
    _, second = session.stream(), session.stream()
    reading = asyncio.create_task(end_of(second))
    await asyncio.sleep(0)
    await session.close()
    result = await reading
    assert (result.error_code, result.input_stored) == ("cancelled", False)


async def test_nothing_unsent_nothing_reported(
    server: Server, client: AsyncLettaClient, caplog: pytest.LogCaptureFixture
) -> None:
    session = await sent(client, "one", "two")
    await read(session)
    await read(session)
    await session.close()
    assert session.unsent == ()
    assert not caplog.records
    slots = get_slots(client)
    assert not slots.queue and not slots.turns and not is_busy(client)


# -- waiting in vain ------------------------------------------------------------------------------


async def test_run_turn_does_not_wait_for_streams_its_own_caller_has_not_read(
    server: Server, rest: MakeRest, face: Any
) -> None:
    async with face(rest()) as client:
        session = await sent(client, "one", "two")
        with pytest.raises(ConversationBusyError, match=r"2 message\(s\)") as caught:
            await session.run_turn("three")
        assert caught.value.accepted is False
        assert [(await read(session)).result for _ in range(2)] == [
            "You said: one",
            "You said: two",
        ]
        assert (await session.run_turn("three")).success
    assert server.texts() == ["one", "two", "three"]
    assert server.cancels == 0


async def test_two_sessions_of_a_conversation_stand_in_one_line(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(*[alone(server)] * 3)
    one, two = resume(client), resume(client)
    await one.send("one")
    await two.send("two")
    await one.send("three")
    assert [item["content"] for item in await one.queued()] == ["two", "three"]
    answers = [(await read(session)).result for session in (one, two, one)]
    assert answers == ["You said: one", "You said: two", "You said: three"]


async def test_a_turn_behind_one_that_its_reader_has_not_read_says_so(
    server: Server, client: AsyncLettaClient
) -> None:
    one, two = resume(client), resume(client)
    await one.send("one")
    await two.send("two")
    result = await read(two)
    assert (result.error_code, result.input_stored) == ("conversation_busy", False)
    assert "have not been read" in str(result.error_detail)
    assert (await read(one)).result == "You said: one"
    assert server.texts() == ["one"]


async def test_a_turn_that_a_dropped_session_left_is_in_nobodys_way(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(LONG)
    left = resume(client)
    await left.send("one")
    del left
    gc.collect()
    assert (await resume(client).run_turn("two")).success
    assert [run.status for run in server.runs] == ["cancelled", "completed"]


# -- the queue ------------------------------------------------------------------------------------


async def test_the_queue_shows_what_waits_and_lets_it_be_taken_out(
    server: Server, rest: MakeRest, face: Any
) -> None:
    go_on = threading.Event()
    server.script(first_waits(go_on))
    async with face(rest()) as client:
        session = resume(client)
        assert await session.queued() == ()
        for text in ("one", "two", "three"):
            await session.send(text, otid=f"otid-{text}")
        waiting = await session.queued()
        assert [(item["id"], item["content"]) for item in waiting] == [
            ("otid-two", "two"),
            ("otid-three", "three"),
        ]
        assert await session.remove_queued("otid-two")
        assert not await session.remove_queued("otid-two")
        assert not await session.remove_queued("otid-one")
        go_on.set()
        assert (await read(session)).result == "first"
        assert (await read(session)).result == "You said: three"
    assert server.texts() == ["one", "three"]
