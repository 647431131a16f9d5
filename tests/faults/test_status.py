"""The server refuses a message with a status: ``send`` / ``run_turn`` / ``prompt`` raise, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from letta_adapters import Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    AuthenticationError,
    ConflictError,
    ConversationBusyError,
    InvalidInputError,
    LettaError,
    ModelProviderError,
    NotFoundError,
    PendingApprovalError,
    ProviderAuthenticationError,
    ProviderRateLimitError,
    RateLimitError,
    ServerError,
)
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import status
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]

VALIDATION = (
    "[{'type': 'string_too_short', 'loc': ('path', 'conversation_id'), 'msg': 'String should have "
    "at least 41 characters', 'input': 'bogus', 'ctx': {'min_length': 41}}]"
)


def provider(kind: str, message: str) -> dict[str, Any]:
    """A failure of the model provider, as the routes without a stream report it."""
    return {"error": {"type": kind, "message": message, "detail": "Error code: ..."}}


@dataclass
class Refusal:
    """What the server answers, and what it must become."""

    name: str
    code: int
    body: Any
    error: type[LettaError]
    machine: str
    says: str = ""
    headers: dict[str, str] = field(default_factory=dict)


REFUSALS = [
    Refusal("400", 400, {"detail": "Failed to fetch image x"}, InvalidInputError, "invalid_input"),
    Refusal("401 api key", 401, {"detail": "Unauthorized"}, AuthenticationError, "authentication"),
    Refusal("403", 403, {"detail": "Forbidden"}, AuthenticationError, "authentication"),
    Refusal(
        "401 provider",
        401,
        provider("llm_authentication", "Authentication failed with the LLM model provider."),
        ProviderAuthenticationError,
        "provider_authentication",
        "not LETTA_API_KEY",
    ),
    Refusal(
        "402",
        402,
        provider("llm_insufficient_credits", "No credits."),
        LettaError,
        "insufficient_credits",
    ),
    Refusal(
        "404",
        404,
        {"detail": f"Conversation not found with id='['{ev.CONV}']'"},
        NotFoundError,
        "not_found",
        ev.CONV,
    ),
    Refusal(
        "404 model",
        404,
        {"detail": "NOT_FOUND: Handle nope/nope not found, must be one of []"},
        NotFoundError,
        "not_found",
        "nope/nope",
    ),
    Refusal(
        "409 pending approval",
        409,
        {"detail": ev.PENDING},
        PendingApprovalError,
        "pending_approval",
        "recover_pending_approvals",
    ),
    Refusal(
        "409 pending approval, structured",
        409,
        {
            "detail": {
                "code": "PENDING_APPROVAL",
                "message": "Cannot send a new message.",
                "pending_request_id": ev.message_id(1),
            }
        },
        PendingApprovalError,
        "pending_approval",
    ),
    Refusal(
        "409 busy",
        409,
        {"detail": ev.BUSY.format(run=ev.run_id(7)), "run_id": ev.run_id(7)},
        ConversationBusyError,
        "conversation_busy",
    ),
    # No server could be made to produce this one: hand-written after the server's source.
    Refusal(
        "409 database lock",
        409,
        {"detail": "CONFLICT: The resource is locked by another transaction."},
        ConflictError,
        "conflict",
        headers={"retry_after": "1"},
    ),
    Refusal(
        "422",
        422,
        {"trace_id": "", "detail": VALIDATION},
        InvalidInputError,
        "invalid_input",
        "path, conversation_id: String should have at least 41 characters",
    ),
    Refusal(
        "422 text",
        422,
        {"detail": "Messages must not be empty"},
        InvalidInputError,
        "invalid_input",
        "Messages must not be empty",
    ),
    Refusal("429", 429, {"detail": "Too many"}, RateLimitError, "rate_limit"),
    Refusal(
        "429 provider",
        429,
        provider("llm_rate_limit", "Rate limit exceeded."),
        ProviderRateLimitError,
        "provider_rate_limit",
    ),
    Refusal(
        "500",
        500,
        {"detail": "An unknown error occurred"},
        ServerError,
        "server_error",
        "safe to send it again",
    ),
    Refusal("500 no json", 500, b"Internal Server Error", ServerError, "server_error"),
    Refusal("502 html", 502, b"<html>Bad Gateway</html>", ServerError, "server_error"),
    Refusal(
        "500 provider",
        500,
        provider("llm_error", "The provider failed."),
        ModelProviderError,
        "provider_error",
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
async def test_refused_message(server: Server, rest: MakeRest, face: Any, refusal: Refusal) -> None:
    server.script(status(refusal.code, refusal.body, **refusal.headers))
    async with face(rest()) as client:
        session = resume(client)
        with pytest.raises(refusal.error) as caught:
            await session.send("hello")
        error = caught.value
        assert type(error).__name__ == refusal.error.__name__ or refusal.error is LettaError
        assert error.code == refusal.machine
        assert error.status_code == refusal.code
        assert error.accepted is False
        assert refusal.says in str(error)
        assert len(server.sent()) == 1
        # The conversation goes on, and the refused message is not part of it.
        assert (await session.run_turn("again")).result == "You said: again"
        assert server.texts() == ["hello", "again"]
        assert server.cancels == 0


async def test_run_turn_and_prompt_raise_too(server: Server, rest: MakeRest, face: Any) -> None:
    async with face(rest()) as client:
        for ask in (resume(client).run_turn, client.prompt):
            server.script(status(401, {"detail": "Unauthorized"}))
            with pytest.raises(AuthenticationError):
                await ask("hello", **({"agent_id": ev.AGENT} if ask == client.prompt else {}))
    assert server.texts() == ["hello", "hello"]


async def test_retry_after_is_handed_on(server: Server, rest: MakeRest) -> None:
    server.script(
        status(429, {"detail": "Too many"}, retry_after="7"),
        status(429, {"detail": "Too many"}, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"),
    )
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        for seconds in (7.0, None):
            with pytest.raises(RateLimitError) as caught:
                await session.send("hello")
            assert caught.value.retry_after == seconds
    assert len(server.sent()) == 2


async def test_busy_names_the_run(server: Server, rest: MakeRest) -> None:
    server.script(status(409, REFUSALS[9].body))
    async with AsyncLettaClient(rest()) as client:
        with pytest.raises(ConversationBusyError) as caught:
            await resume(client).send("hello")
    assert caught.value.run_id == ev.run_id(7)
    assert "another conversation" in str(caught.value)


async def test_run_turn_clears_a_pending_approval_that_the_status_reports(
    server: Server, rest: MakeRest, face: Any
) -> None:
    """Refused before it was accepted, so sending it once more is no repetition."""
    server.override("POST", "/messages$", status(409, {"detail": ev.PENDING}), 1)
    server.leave_pending()
    async with face(rest()) as client:
        result = await resume(client).run_turn("hello")
    assert result.result == "You said: hello"
    assert server.pending() == []
    (ended,) = server.sent()[1].body["messages"][0]["approvals"]
    assert (ended["type"], ended["status"]) == ("tool", "error")
    assert [r.asked for r in result.recovered] == [False]


async def test_a_5xx_whose_message_was_kept_is_looked_up(server: Server, rest: MakeRest) -> None:
    """A 500 does not prove that nothing happened: it is looked up."""

    def crashes_late(wire: Any) -> None:
        wire.store()
        wire.run.end("completed")
        wire.answer(500, {"detail": "An unknown error occurred"})

    server.script(crashes_late)
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        with pytest.raises(ServerError) as caught:
            await session.send("hello")
        assert caught.value.accepted is True
        assert "do not send" in str(caught.value)
        assert (await session.run_turn("again")).success
    assert server.texts() == ["hello", "again"]


async def test_a_server_that_hangs_up_after_a_500(server: Server, rest: MakeRest) -> None:
    """uvicorn drops the kept-alive connection after an unhandled error."""

    def crashes(wire: Any) -> None:
        wire.run.end("failed")
        wire.answer(500, {"detail": "An unknown error occurred"})
        wire.drop()

    server.script(crashes)
    async with AsyncLettaClient(rest()) as client:
        session = resume(client)
        with pytest.raises(ServerError):
            await session.send("hello")
        assert (await session.run_turn("again")).success


async def test_error_body_that_breaks_off(server: Server, rest: MakeRest) -> None:
    def cut(wire: Any) -> None:
        wire.run.end("failed")
        wire.head(401, "application/json", content_length="400")
        wire.raw(b'{"detail": "Unauth')
        wire.drop()

    server.script(cut)
    async with AsyncLettaClient(rest()) as client:
        with pytest.raises(AuthenticationError) as caught:
            await resume(client).send("hello")
        assert caught.value.status_code == 401


async def test_redirect_without_target_is_a_protocol_error(server: Server, rest: MakeRest) -> None:
    server.override("GET", "/v1/agents/", status(304, b""), 9)
    async with AsyncLettaClient(rest()) as client:
        with pytest.raises(LettaError) as caught:
            await client.agents.retrieve(ev.AGENT)
        assert caught.value.code == "protocol_error"


async def test_abort_with_nothing_to_abort_is_fine(
    server: Server, rest: MakeRest, face: Any
) -> None:
    """The third kind of 409: "No active runs to cancel"."""
    async with face(rest()) as client:
        await resume(client).abort()
    assert server.cancels == 1
    server.override("POST", "/cancel$", status(409, {"detail": "CONFLICT: locked"}), 9)
    async with face(rest()) as client:
        with pytest.raises(ConflictError):
            await resume(client).abort()
