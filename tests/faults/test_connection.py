"""The connection fails: before the message was accepted, after it, and nobody knows when."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    ConnectionFailedError,
    ProtocolError,
    StreamTruncatedError,
    TimeoutAfterAcceptanceError,
    TimeoutBeforeAcceptanceError,
)
from tests.faults import _events as ev
from tests.faults._server import Server, closed_port
from tests.faults._wire import (
    Wire,
    broken,
    deaf,
    echo,
    hang,
    status,
    stream,
)
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


async def usable(session: Any, server: Server, *before: str) -> None:
    """The conversation goes on, and nothing was sent twice."""
    assert (await session.run_turn("again")).result == "You said: again"
    assert server.texts() == [*before, "again"]


async def test_refused_connection_and_the_server_comes_back(face: Any) -> None:
    port = closed_port()
    async with face(Rest(base_url=f"http://127.0.0.1:{port}", api_key="")) as client:
        session = resume(client)
        for refused in (session.send, session.run_turn):
            with pytest.raises(ConnectionFailedError) as caught:
                await refused("hello")
            assert isinstance(caught.value, ConnectionError)
            assert caught.value.accepted is False
            assert f"127.0.0.1:{port}" in str(caught.value)
        with Server(port) as server:
            await usable(session, server)


async def test_prompt_raises_when_the_connection_is_refused(face: Any) -> None:
    rest = Rest(base_url=f"http://127.0.0.1:{closed_port()}", api_key="")
    async with face(rest) as client:
        with pytest.raises(ConnectionFailedError):
            await client.prompt("hello", ev.AGENT)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse when the queue is full")
async def test_connect_timeout_is_before_acceptance() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        rest = Rest(
            base_url=f"http://127.0.0.1:{full.getsockname()[1]}", api_key="", connect_timeout=0.2
        )
        async with AsyncLettaClient(rest) as client:
            with pytest.raises(TimeoutBeforeAcceptanceError) as caught:
                await resume(client).send("hello")
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.accepted is False


async def test_silence_before_the_answer_and_the_message_was_not_kept(
    server: Server, rest: MakeRest, face: Any
) -> None:
    def never_starts(wire: Wire) -> None:
        wire.run.end("failed")
        wire.wait()

    server.script(never_starts)
    async with face(rest(idle_timeout=0.2)) as client:
        session = resume(client)
        with pytest.raises(TimeoutBeforeAcceptanceError) as caught:
            await session.send("hello")
        assert caught.value.accepted is False
        assert "safe to send it again" in str(caught.value)
        await usable(session, server, "hello")


async def test_silence_before_the_answer_but_the_message_was_kept(
    server: Server, rest: MakeRest, face: Any
) -> None:
    def works_without_a_word(wire: Wire) -> None:
        wire.store()
        wire.run.end("completed")
        wire.wait()

    server.script(works_without_a_word)
    async with face(rest(idle_timeout=0.2)) as client:
        session = resume(client)
        with pytest.raises(TimeoutAfterAcceptanceError) as caught:
            await session.run_turn("hello")
        assert caught.value.accepted is True
        assert "do not send it again" in str(caught.value)
        await usable(session, server, "hello")


async def test_silence_before_the_answer_while_the_run_works_on(
    server: Server, rest: MakeRest
) -> None:
    """Its run is cancelled once ``settle_timeout`` is over: nobody would read its answer."""
    server.script(deaf)
    async with AsyncLettaClient(rest(idle_timeout=0.2)) as client:
        session = resume(client)
        with pytest.raises(TimeoutBeforeAcceptanceError) as caught:
            await session.send("hello")
        assert caught.value.accepted is False
        assert [run.status for run in server.runs] == ["cancelled"]
        await usable(session, server, "hello")


async def test_silence_and_nothing_can_be_found_out(server: Server, rest: MakeRest) -> None:
    server.script(deaf)
    server.override("GET", "/v1/runs/", status(500, {"detail": "An unknown error occurred"}), 99)
    async with AsyncLettaClient(rest(idle_timeout=0.2)) as client:
        session = resume(client)
        with pytest.raises(TimeoutBeforeAcceptanceError) as caught:
            await session.send("hello")
        assert caught.value.accepted is None
        assert "could not be found out" in str(caught.value)
        assert server.texts() == ["hello"]


async def test_finding_out_is_bounded_when_the_server_is_silent_altogether(
    server: Server, rest: MakeRest
) -> None:
    """``settle_timeout`` bounds it, not ``request_timeout`` times the attempts of each read."""
    server.override("GET", "/v1/", deaf, 99)
    server.script(deaf)
    async with AsyncLettaClient(rest(idle_timeout=0.2, request_timeout=3600)) as client:
        with pytest.raises(TimeoutBeforeAcceptanceError) as caught:
            await resume(client).send("hello")
        assert caught.value.accepted is None
        assert server.texts() == ["hello"]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("kept", [False, True], ids=["not kept", "kept"])
async def test_connection_lost_before_the_answer(
    server: Server, rest: MakeRest, reset: bool, kept: bool
) -> None:
    server.script(broken(reset=reset, keep=kept, run="completed" if kept else "failed"))
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        with pytest.raises(ConnectionFailedError) as caught:
            await session.send("hello")
        assert caught.value.accepted is kept
        await usable(session, server, "hello")


@pytest.mark.parametrize("how", [broken(), broken(reset=True)], ids=["closed", "reset"])
async def test_cut_in_mid_stream(server: Server, rest: MakeRest, face: Any, how: Any) -> None:
    """The server finished the turn without us: the result says so, and is no success."""
    server.script(stream(ev.ping(), ev.text("You sa"), how))
    async with face(rest()) as client:
        session = resume(client)
        await session.send("hello")
        messages = [message async for message in session.stream()]
        assert [m.type for m in messages] == ["init", "error", "result"]
        result = messages[-1]
        assert (result.success, result.result) == (False, None)
        assert result.error_code == messages[1].error_code == "stream_truncated"
        assert result.input_stored is True
        assert "do not send the message again" in (result.error_detail or "")
        with pytest.raises(StreamTruncatedError) as caught:
            result.raise_for_status()
        assert caught.value.accepted is True
        assert caught.value.run_id == ev.run_id(1)
        assert server.cancels == 0
        await usable(session, server, "hello")


@pytest.mark.parametrize("sent", [b"5\r\nda", b"ffff\r\n" + ev.text("You sa")])
async def test_cut_in_the_middle_of_a_chunk(server: Server, rest: MakeRest, sent: bytes) -> None:
    server.script(stream(ev.ping(), lambda wire: wire.raw(sent), broken(keep=False, run="failed")))
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        result = await session.run_turn("hello")
        assert result.error_code == "stream_truncated"
        assert result.input_stored is False
        assert "safe to send it again" in (result.error_detail or "")
        await usable(session, server, "hello")


async def test_clean_end_without_any_ending_is_no_answer(server: Server, rest: MakeRest) -> None:
    """A proxy may end the response in order: what is missing is the stop reason."""
    server.script(stream(ev.ping(), ev.text("You said: hello")))
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        result = await session.run_turn("hello")
        assert (result.error_code, result.result) == ("stream_truncated", None)
        await usable(session, server, "hello")


async def test_lost_connection_to_a_run_that_never_ends(server: Server, rest: MakeRest) -> None:
    server.script(stream(ev.ping(), ev.text("You sa"), broken(run="running", keep=False)))
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        result = await session.run_turn("hello")
        assert result.error_code == "stream_truncated"
        assert result.input_stored is False
        assert [run.status for run in server.runs] == ["cancelled"]
        await usable(session, server, "hello")


async def test_lost_connection_after_the_stop_reason_is_a_complete_answer(
    server: Server, rest: MakeRest
) -> None:
    server.script(stream(ev.ping(), ev.text("done"), ev.stop(), broken(reset=True)))
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        result = await session.run_turn("hello")
        assert (result.success, result.result) == (True, "done")
        await usable(session, server, "hello")


async def test_a_call_behind_a_lost_connection_waits_for_the_next_turn(
    server: Server, rest: MakeRest
) -> None:
    """The run ended in a tool call we did not see: nobody has decided about it."""
    request = ev.approval(ev.call())
    server.script(stream(ev.ping(), ev.frame(request)[:90], broken(stored=[request])))
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        result = await session.run_turn("hello")
        assert result.error_code == "stream_truncated"
        assert server.pending() == ["call_1"]
        again = await session.run_turn("again")
        assert again.success
        assert [r.call.tool_call_id for r in again.recovered] == ["call_1"]


async def test_a_call_behind_silence_waits_for_the_next_turn(
    server: Server, rest: MakeRest
) -> None:
    def asks_without_a_word(wire: Wire) -> None:
        wire.stored.append(ev.approval(ev.call()))
        wire.store()
        wire.run.end("completed")
        wire.wait()

    server.script(asks_without_a_word)
    async with AsyncLettaClient(rest(idle_timeout=0.2)) as client:
        session = resume(client)
        with pytest.raises(TimeoutAfterAcceptanceError):
            await session.send("hello")
        assert server.pending() == ["call_1"]
        again = await session.run_turn("again")
        assert again.success
        assert [r.call.tool_call_id for r in again.recovered] == ["call_1"]


@pytest.mark.parametrize("start", [(ev.ping(),), ()], ids=["after the ping", "after the headers"])
async def test_silence_after_acceptance(
    server: Server, rest: MakeRest, face: Any, start: tuple[bytes, ...]
) -> None:
    server.script(stream(*start, hang))
    async with face(rest(idle_timeout=0.2)) as client:
        session = resume(client)
        result = await session.run_turn("hello")
        assert result.error_code == "timeout_after_acceptance"
        with pytest.raises(TimeoutAfterAcceptanceError):
            result.raise_for_status()
        assert [run.status for run in server.runs] == ["cancelled"]
        assert result.input_stored is False
        await usable(session, server, "hello")


async def test_silence_after_acceptance_from_a_server_that_is_gone(
    server: Server, rest: MakeRest
) -> None:
    server.script(stream(ev.ping(), deaf))
    server.override("GET", "/v1/", deaf, 99)
    async with AsyncLettaClient(rest(idle_timeout=0.2, request_timeout=3600)) as client:
        result = await resume(client).run_turn("hello")
        assert (result.error_code, result.input_stored) == ("timeout_after_acceptance", None)
        assert server.texts() == ["hello"]


async def test_pings_keep_a_silent_turn_alive(server: Server, rest: MakeRest) -> None:
    def patient(wire: Wire) -> None:
        for _ in range(15):
            wire.chunk(ev.ping())
            time.sleep(0.1)

    server.script(stream(patient, ev.text("at last"), ev.ending()))
    async with AsyncLettaClient(rest(idle_timeout=1)) as client:
        assert (await resume(client).run_turn("hello")).result == "at last"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/html", b"<h1>Welcome</h1>"), ("application/json", b'{"messages": []}'), ("", b"")],
)
async def test_wrong_content_type(
    server: Server, rest: MakeRest, content_type: str, body: bytes
) -> None:
    def other_server(wire: Wire) -> None:
        wire.run.end("failed")
        wire.head(200, content_type, content_length=str(len(body)))
        wire.raw(body)

    server.script(other_server)
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        with pytest.raises(ProtocolError) as caught:
            await session.send("hello")
        assert (caught.value.status_code, caught.value.accepted) == (200, False)
        await usable(session, server, "hello")


async def test_redirects_keep_the_message(server: Server, rest: MakeRest) -> None:
    target = f"{server.url}/v1/conversations/{ev.CONV}/messages"
    server.override("POST", "/moved/", status(307, {}, location=target), 1)
    async with AsyncLettaClient(rest(base_url=f"{server.url}/moved")) as client:
        server.script(echo)
        assert (await resume(client).run_turn("hello")).result == "You said: hello"
