"""The message was accepted, then the turn fails: an ``ErrorMessage`` and one failed result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    ConversationBusyError,
    InvalidInputError,
    LettaError,
    ModelProviderError,
    PendingApprovalError,
    ProtocolError,
    ProviderAuthenticationError,
    ProviderRateLimitError,
    RateLimitError,
    StreamTruncatedError,
    TurnCancelledError,
    TurnFailedError,
)
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import Wire, broken, hang, status, stream
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]

LLM_ERROR = ev.stop("llm_api_error")


async def failed_turn(session: Any, text: str = "hello") -> Any:
    """Send, read everything, check the one shape of failure; its result."""
    await session.send(text)
    messages = [message async for message in session.stream()]
    assert [m.type for m in messages].count("error") == 1
    assert [m.type for m in messages].count("result") == 1
    error, result = messages[-2:]
    assert (error.type, result.type) == ("error", "result")
    assert result.success is False and result.result is None
    assert error.error_code == result.error_code
    assert error.stop_reason == result.stop_reason
    assert error.message in result.error_detail
    return result


@pytest.mark.parametrize(
    ("tail", "code", "error", "says"),
    [
        (
            LLM_ERROR + ev.error("llm_rate_limit", "Rate limit exceeded.", "429") + ev.DONE,
            "provider_rate_limit",
            ProviderRateLimitError,
            "Rate limit exceeded.",
        ),
        (
            LLM_ERROR
            + ev.error("llm_authentication", "Authentication failed.", "401 bad key")
            + ev.DONE,
            "provider_authentication",
            ProviderAuthenticationError,
            "not LETTA_API_KEY",
        ),
        (
            LLM_ERROR + ev.error("llm_error", "The provider failed.", "500") + ev.DONE,
            "provider_error",
            ModelProviderError,
            "The provider failed.",
        ),
        (
            ev.text("one ")
            + ev.stop("error")
            + LLM_ERROR
            + ev.error("internal_error", "An error occurred during agent execution.", "cut"),
            "provider_error",
            ModelProviderError,
            "during agent execution",
        ),
        (
            LLM_ERROR + ev.error("llm_timeout", "Timed out.") + ev.DONE,
            "provider_timeout",
            ModelProviderError,
            "Timed out.",
        ),
        (ev.internal_error("Boom"), "internal_error", TurnFailedError, "Boom"),
        (
            ev.internal_error(ev.BUSY.format(run="run-7")),
            "conversation_busy",
            ConversationBusyError,
            "currently being processed",
        ),
        (
            ev.internal_error("Message content is empty or invalid"),
            "invalid_input",
            InvalidInputError,
            "empty or invalid",
        ),
        (ev.ending("max_steps"), "max_steps", TurnFailedError, "step limit"),
        (
            ev.text("cut o") + ev.ending("max_tokens_exceeded"),
            "max_tokens_exceeded",
            TurnFailedError,
            "token limit",
        ),
        (ev.CANCELLED, "cancelled", TurnCancelledError, "cancelled"),
        (ev.CANCELLED + ev.stop("end_turn"), "cancelled", TurnCancelledError, "cancelled"),
        (
            ev.frame({"error": "stream crashed", "code": "INTERNAL_SERVER_ERROR"}, "error"),
            "internal_error",
            TurnFailedError,
            "stream crashed",
        ),
        (ev.ending("requires_approval"), "protocol_error", ProtocolError, "did not show"),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
async def test_failed_turn(
    server: Server,
    rest: MakeRest,
    face: Any,
    tail: bytes,
    code: str,
    error: type[LettaError],
    says: str,
) -> None:
    server.script(stream(ev.ping(), tail, keep=False))
    async with face(rest()) as client:
        session = resume(client)
        result = await failed_turn(session)
        assert result.error_code == code
        assert result.run_ids == (ev.run_id(1),)
        assert result.input_stored is False
        with pytest.raises(error) as caught:
            result.raise_for_status()
        assert says in str(caught.value)
        assert caught.value.run_id == ev.run_id(1)
        assert len(server.sent()) == 1
        assert (await session.run_turn("again")).result == "You said: again"
        assert server.texts() == ["hello", "again"]


async def test_rate_limits_of_both_kinds_are_rate_limits(server: Server, rest: MakeRest) -> None:
    server.script(stream(ev.ping(), LLM_ERROR, ev.error("llm_rate_limit", "Slow"), ev.DONE))
    async with AsyncLettaClient(rest()) as client:
        result = await resume(client).run_turn("hello")
    with pytest.raises(RateLimitError) as caught:
        result.raise_for_status()
    assert isinstance(caught.value, ModelProviderError)


async def test_failure_in_a_later_step_says_that_the_message_is_stored(
    server: Server, rest: MakeRest
) -> None:
    """Each step is stored by itself: sending the message again would double it."""
    server.script(stream(ev.ping(), lambda wire: wire.store(), LLM_ERROR, ev.DONE, keep=False))
    async with AsyncLettaClient(rest()) as client:
        result = await failed_turn(resume(client))
    assert result.input_stored is True


async def test_input_stored_is_none_when_it_cannot_be_found_out(
    server: Server, rest: MakeRest
) -> None:
    server.script(stream(ev.ping(), LLM_ERROR, ev.DONE))
    server.override("GET", "/messages$", status(500, {"detail": "?"}), 99)
    async with AsyncLettaClient(rest()) as client:
        result = await failed_turn(resume(client))
    assert (result.error_code, result.input_stored) == ("provider_error", None)


MALFORMED = {
    "json": b'data: {"message_type": "assistant_message", "content": \n\n',
    "no object": b"data: [1, 2]\n\n",
    "text": b"data: Internal Server Error\n\n",
    "utf-8": b'data: {"message_type":"assistant_message","content":"caf\xc3"}\n\n',
    "nested too deep": b"data: " + b"[" * 100_000 + b"\n\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_event(server: Server, rest: MakeRest, face: Any, name: str) -> None:
    """Not guessed at: the turn fails, its run is cancelled, the conversation goes on."""
    server.script(stream(ev.ping(), ev.text("You sa"), MALFORMED[name], hang))
    async with face(rest()) as client:
        session = resume(client)
        result = await failed_turn(session)
        assert result.error_code == "protocol_error"
        with pytest.raises(ProtocolError):
            result.raise_for_status()
        assert [run.status for run in server.runs] == ["cancelled"]
        assert (await session.run_turn("again")).success
        assert server.texts() == ["hello", "again"]


async def test_truncated_utf8(server: Server, rest: MakeRest, face: Any) -> None:
    """Cut in the middle of a character: a fragment is not handed out as an answer."""
    cut = ev.text("caf\u00e9")[: ev.text("caf\u00e9").index(b"\xc3") + 1]
    server.script(stream(ev.ping(), ev.text("a ", step=1), cut, broken()))
    async with face(rest()) as client:
        session = resume(client, include_partial_messages=True)
        await session.send("hello")
        messages = [message async for message in session.stream()]
        assert [m.type for m in messages] == ["init", "stream_event", "error", "result"]
        assert messages[-1].error_code == "stream_truncated"
        with pytest.raises(StreamTruncatedError):
            messages[-1].raise_for_status()
        assert (await session.run_turn("again")).success


async def test_characters_cut_between_chunks_are_whole(server: Server, rest: MakeRest) -> None:
    data = ev.text("caf\u00e9 \U0001f600")

    def slowly(wire: Wire) -> None:
        for byte in data:
            wire.chunk(bytes([byte]))

    server.script(stream(ev.ping(), slowly, ev.ending()))
    async with AsyncLettaClient(rest()) as client:
        assert (await resume(client).run_turn("hello")).result == "caf\u00e9 \U0001f600"


async def test_what_comes_after_the_end_is_ignored(server: Server, rest: MakeRest) -> None:
    server.script(stream(ev.ping(), ev.text("ok"), ev.ending() + b"data: {nonsense\n\n"))
    async with AsyncLettaClient(rest()) as client:
        assert (await resume(client).run_turn("hello")).result == "ok"


async def test_a_server_that_keeps_the_stream_open_after_its_end(
    server: Server, rest: MakeRest
) -> None:
    server.script(
        stream(
            ev.ping(),
            ev.text("ok"),
            ev.ending(),
            lambda wire: wire.run.end("completed"),
            lambda wire: wire.wait(),
        )
    )
    async with AsyncLettaClient(rest(idle_timeout=30)) as client:
        session = resume(client)
        assert (await session.run_turn("hello")).result == "ok"
        assert (await session.run_turn("again")).success


async def test_unknown_events_survive(server: Server, rest: MakeRest) -> None:
    odd = {"message_type": "event_message", "event_type": "compaction", "event_data": {"n": 1}}
    server.script(stream(ev.ping(), ev.frame(odd), ev.text("ok"), ev.ending()))
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        await session.send("hello")
        messages = [message async for message in session.stream()]
    assert [m.type for m in messages] == ["init", "unknown", "assistant", "result"]
    assert messages[1].raw == odd


# -- a pending approval, met while streaming: HTTP 200 and an error event -------------------------


async def test_pending_approval_met_while_streaming(
    server: Server, rest: MakeRest, face: Any
) -> None:
    server.leave_pending(ev.call("get_weather", "call_9"))
    async with face(rest()) as client:
        session = resume(client)
        result = await failed_turn(session)
        assert result.error_code == "pending_approval"
        assert result.input_stored is False
        with pytest.raises(PendingApprovalError, match="recover_pending_approvals"):
            result.raise_for_status()
        # What another client may still want to answer is not denied behind its back ...
        assert server.pending() == ["call_9"]
        # ... but when asked to.
        recovery = await session.recover_pending_approvals()
        assert recovery.recovered
        assert [call.tool_call_id for call in recovery.denied] == ["call_9"]
        assert (await session.run_turn("again")).success
        assert not (await session.recover_pending_approvals()).recovered
    assert server.texts() == ["hello", "again"]


async def test_run_turn_recovers_once(server: Server, rest: MakeRest, face: Any) -> None:
    server.leave_pending(ev.call("a", "call_1"), ev.call("b", "call_2"))
    async with face(rest()) as client:
        result = await resume(client).run_turn("hello")
    assert result.result == "You said: hello"
    refused, again = server.sent()
    assert refused.text == again.text == "hello"
    answered = [(a["tool_call_id"], a["status"]) for a in again.messages[0]["approvals"]]
    assert answered == [("call_1", "error"), ("call_2", "error")]
    assert [(r.call.tool_call_id, r.asked, r.allowed) for r in result.recovered] == [
        ("call_1", False, False),
        ("call_2", False, False),
    ]
    stored = [m for m in server.stored[ev.CONV] if m["message_type"] == "user_message"]
    assert len(stored) == 1


async def test_bounded_recovery_names_what_is_pending(server: Server, rest: MakeRest) -> None:
    server.leave_pending(ev.call("get_weather", "call_9"))
    async with AsyncLettaClient(rest()) as client:
        result = await resume(client, recovery_attempts=0).run_turn("hello")
        assert result.error_code == "pending_approval"
        assert "call_9" in (result.error_detail or "")
        assert "get_weather" in (result.error_detail or "")
        with pytest.raises(PendingApprovalError, match="get_weather"):
            result.raise_for_status()
        server.override("POST", "/messages$", status(409, {"detail": ev.PENDING}), 1)
        with pytest.raises(PendingApprovalError, match="get_weather") as caught:
            await resume(client, recovery_attempts=0).run_turn("hello")
        assert caught.value.tool_call_ids == ("call_9",)
    assert server.texts() == ["hello", "hello"]


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_recovery_that_does_not_help_ends(
    server: Server, rest: MakeRest, attempts: int
) -> None:
    refuse = stream(ev.ping(), ev.internal_error(ev.PENDING), keep=False)
    server.script(*[refuse] * 9)
    async with AsyncLettaClient(rest()) as client:
        result = await resume(client, recovery_attempts=attempts).run_turn("hello")
    assert result.error_code == "pending_approval"
    assert len(server.texts()) == 1 + attempts


async def test_a_refused_denial_raises(server: Server, rest: MakeRest) -> None:
    server.leave_pending()
    bad_ids = "Invalid tool call IDs. Expected '['call_1']', but received '['call_2']'."
    server.override("POST", "/messages$", stream(ev.ping(), ev.internal_error(bad_ids)), 1)
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        with pytest.raises(LettaError) as caught:
            await session.recover_pending_approvals()
        assert caught.value.code == "invalid_tool_call_ids"
        server.override("POST", "/messages$", stream(ev.ping(), broken(reset=True)), 1)
        with pytest.raises(StreamTruncatedError):
            await session.recover_pending_approvals()
        server.override("POST", "/messages$", stream(ev.ping(), keep=False), 1)
        with pytest.raises(StreamTruncatedError):
            await session.recover_pending_approvals()
        assert (await session.recover_pending_approvals()).recovered
