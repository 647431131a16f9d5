"""What a stop reason or an error text means.

The rules: docs/protocol.md ("Which stop reason counts")
and docs/protocol.md ("What a failure means").
"""

from __future__ import annotations

import pytest

from letta_adapters.engine.app_server_errors import find_failure
from letta_adapters.engine.stop_reasons import (
    DECISIVE_STOP_REASONS,
    SUCCESS_STOP_REASONS,
    Failure,
    StopReason,
    classify_text,
    failure_from_error_event,
    failure_from_stop_reason,
)
from letta_adapters.errors import (
    ConversationBusyError,
    InvalidInputError,
    ModelProviderError,
    PendingApprovalError,
    ProviderAuthenticationError,
    ProviderRateLimitError,
    TurnCancelledError,
    TurnFailedError,
    error_for_code,
)

STARTED = "An error occurred during agent execution."

# Every value of the `stop_reason` enum of letta 0.16.8, and the code it stands for (None: success).
STOP_REASONS = {
    "end_turn": None,
    "tool_rule": None,
    "requires_approval": None,
    "error": "internal_error",
    "llm_api_error": "provider_error",
    "invalid_llm_response": "provider_error",
    "invalid_tool_call": "invalid_tool_call",
    "max_steps": "max_steps",
    "max_tokens_exceeded": "max_tokens_exceeded",
    "no_tool_call": "no_tool_call",
    "cancelled": "cancelled",
    "insufficient_credits": "insufficient_credits",
    "context_window_overflow_in_system_prompt": "context_window_overflow",
}


@pytest.mark.parametrize(("reason", "code"), STOP_REASONS.items(), ids=list(STOP_REASONS))
def test_every_stop_reason_has_its_code(reason: str, code: str | None) -> None:
    failure = failure_from_stop_reason(reason)
    assert (failure.code if failure else None) == code
    if failure:
        assert failure.stop_reason == reason
        assert failure.message.endswith(".")


def test_a_stop_reason_of_the_future_is_a_failure_with_its_name() -> None:
    failure = failure_from_stop_reason("solar_flare")
    assert failure == Failure(
        "solar_flare", "The turn stopped: solar_flare.", stop_reason="solar_flare"
    )
    assert type(error_for_code(failure.code, "m")) is TurnFailedError


def test_successful_and_decisive_stop_reasons_do_not_overlap() -> None:
    assert not SUCCESS_STOP_REASONS & DECISIVE_STOP_REASONS
    assert {r for r, code in STOP_REASONS.items() if code is None} == SUCCESS_STOP_REASONS


@pytest.mark.parametrize(
    ("seen", "counts", "cause"),
    [
        ([], None, None),
        (["end_turn"], "end_turn", "end_turn"),
        (["error", "llm_api_error"], "error", "llm_api_error"),
        (["llm_api_error", "error"], "llm_api_error", "llm_api_error"),
        (["llm_api_error", "end_turn"], "llm_api_error", "llm_api_error"),
        (["cancelled", "end_turn"], "cancelled", "cancelled"),
        (["cancelled", "error"], "cancelled", "cancelled"),
        (["error", "cancelled"], "error", "error"),
        (["end_turn", "cancelled"], "cancelled", "cancelled"),
        (["end_turn", "max_steps"], "max_steps", "max_steps"),
        (["requires_approval", "end_turn"], "end_turn", "end_turn"),
    ],
)
def test_the_first_decisive_stop_reason_counts(
    seen: list[str], counts: str | None, cause: str | None
) -> None:
    stop = StopReason()
    for reason in seen:
        stop.see(reason)
    assert stop.value == counts
    assert stop.cause == cause
    assert stop.last == (seen[-1] if seen else None)


PENDING = (
    "CONFLICT: Cannot send a new message: The agent is waiting for approval on a tool call. "
    "Please approve or deny the pending request before continuing."
)
BUSY = (
    "CONFLICT: Cannot send a new message: Another request (run_id=run-1) is currently being "
    "processed for this conversation. Please wait for it to complete."
)
WRONG_IDS = "Invalid tool call IDs. Expected '['call_1']', but received '['call_2']'."
NOT_PENDING = (
    "Cannot process approval response: No tool call is currently awaiting approval. "
    "This may have been answered already."
)
RATE = "RATE_LIMIT_EXCEEDED: Rate limited by OpenAI: Error code: 429 - {'error': {}} [BYOK]"
AUTH = "UNAUTHENTICATED: Authentication failed with OpenAI: Error code: 401"
QUOTA = "RATE_LIMIT_EXCEEDED: Rate limited by OpenAI: {'code': 'insufficient_quota'}"
WINDOW = "INTERNAL_SERVER_ERROR: Request exceeds the context window of the model."


@pytest.mark.parametrize(
    ("detail", "code", "error"),
    [
        (PENDING, "pending_approval", PendingApprovalError),
        (BUSY, "conversation_busy", ConversationBusyError),
        (WRONG_IDS, "invalid_tool_call_ids", TurnFailedError),
        (NOT_PENDING, "no_pending_approval", TurnFailedError),
        ("Message content is empty or invalid", "invalid_input", InvalidInputError),
        ("Failed to fetch image from http://x/y.png", "invalid_input", InvalidInputError),
        (RATE, "provider_rate_limit", ProviderRateLimitError),
        (AUTH, "provider_authentication", ProviderAuthenticationError),
        (QUOTA, "insufficient_credits", TurnFailedError),
        (WINDOW, "context_window_overflow", TurnFailedError),
        ("CONTEXT_WINDOW_EXCEEDED: too long", "context_window_overflow", TurnFailedError),
    ],
)
def test_once_something_was_streamed_only_the_error_text_tells(
    detail: str, code: str, error: type[Exception]
) -> None:
    event = {"error_type": "internal_error", "message": STARTED, "detail": detail}
    failure = failure_from_error_event(event, "error")
    assert failure == Failure(code, STARTED, "internal_error", detail, "error")
    assert classify_text(detail) == code
    assert type(error_for_code(failure.code, failure.message)) is error


@pytest.mark.parametrize(
    ("error_type", "code", "error"),
    [
        ("llm_timeout", "provider_timeout", ModelProviderError),
        ("llm_rate_limit", "provider_rate_limit", ProviderRateLimitError),
        ("llm_authentication", "provider_authentication", ProviderAuthenticationError),
        ("llm_empty_response", "provider_error", ModelProviderError),
        ("llm_error", "provider_error", ModelProviderError),
        ("llm_insufficient_credits", "insufficient_credits", TurnFailedError),
        ("context_window_overflow_in_system_prompt", "context_window_overflow", TurnFailedError),
    ],
)
def test_the_error_type_of_a_failing_first_model_call_tells(
    error_type: str, code: str, error: type[Exception]
) -> None:
    event = {"error_type": error_type, "message": "Please wait.", "detail": None}
    failure = failure_from_error_event(event, "llm_api_error")
    assert failure == Failure(code, "Please wait.", error_type, None, "llm_api_error")
    assert type(error_for_code(failure.code, failure.message)) is error


@pytest.mark.parametrize("error_type", ["internal_error", "stream_incomplete", "cleanup_error"])
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("llm_api_error", "provider_error"),
        ("invalid_llm_response", "provider_error"),
        ("error", "internal_error"),
        (None, "internal_error"),
    ],
)
def test_without_a_telling_text_the_stop_reason_tells(
    error_type: str, reason: str | None, code: str
) -> None:
    failure = failure_from_error_event({"error_type": error_type, "message": STARTED}, reason)
    assert failure == Failure(code, STARTED, error_type, None, reason)


def test_a_provider_that_quotes_the_conversation_does_not_change_the_state_of_the_server() -> None:
    quoted = f"LLM_BAD_REQUEST: flagged: 'is it {PENDING}?'"
    for error_type in ("llm_error", "llm_rate_limit", "llm_authentication"):
        event = {"error_type": error_type, "message": "Refused.", "detail": quoted}
        code = failure_from_error_event(event, "llm_api_error").code
        assert code.startswith("provider_"), error_type


def test_a_general_provider_error_is_made_precise_by_its_text() -> None:
    event = {"error_type": "llm_error", "message": "Failed.", "detail": AUTH}
    assert failure_from_error_event(event, "llm_api_error").code == "provider_authentication"
    event = {"error_type": "llm_rate_limit", "message": "Failed.", "detail": QUOTA}
    assert failure_from_error_event(event, "llm_api_error").code == "insufficient_credits"


def test_the_error_body_of_the_non_streaming_routes_is_understood() -> None:
    event = {"error": {"type": "llm_rate_limit", "message": "Slow down.", "detail": "429"}}
    failure = failure_from_error_event(event, None)
    assert failure == Failure("provider_rate_limit", "Slow down.", "llm_rate_limit", "429", None)


def test_what_the_server_sends_when_its_stream_crashes_is_understood() -> None:
    event = {"error": "deadlock detected", "code": "INTERNAL_SERVER_ERROR"}
    failure = failure_from_error_event(event, None)
    assert failure == Failure("internal_error", "deadlock detected", None, None, None)


def test_an_error_without_any_text_is_an_internal_error() -> None:
    failure = failure_from_error_event({}, None)
    assert failure == Failure("internal_error", "The server reported an error.", None, None, None)


def test_a_cancel_is_an_error_class_of_its_own() -> None:
    failure = failure_from_stop_reason("cancelled")
    assert failure is not None
    assert failure.message == "The turn was cancelled."
    assert type(error_for_code(failure.code, failure.message)) is TurnCancelledError


def test_a_text_that_means_nothing_special() -> None:
    assert classify_text("The weather is fine.") is None


@pytest.mark.parametrize("front", ["", "401: ", '{"error": '])
def test_an_error_text_nested_by_the_thousand_is_shown_as_it_is(front: str) -> None:
    text = front + "[" * 100_000
    failure = find_failure("error", {}, text)
    assert failure is not None
    assert failure.message == text
