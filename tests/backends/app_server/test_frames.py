"""Frames are checked here, because the server drops what it does not like without a word."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import InvalidInputError, UnsupportedOptionError
from letta_adapters.backends.app_server import frames
from letta_adapters.backends.app_server.connection import Endpoint, refusal
from letta_adapters.backends.app_server.options import check_model
from letta_adapters.backends.base import Conversation, ToolCallResponse
from letta_adapters.engine import stored

HERE = Conversation("agent-1", "local-conv-1")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_what_json_has_no_form_for(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="input request cannot be written as JSON"):
        frames.encode({"type": "input", "value": value})


def test_ids_are_not_empty() -> None:
    with pytest.raises(InvalidInputError, match="agent_id"):
        frames.encode_runtime(Conversation("", "default"))
    with pytest.raises(InvalidInputError, match="conversation_id"):
        frames.encode_runtime(Conversation("agent-1", ""))
    with pytest.raises(InvalidInputError, match="needs an id"):
        frames.user_message(HERE, "hi", "", {})


def test_a_conversation_without_an_agent() -> None:
    assert frames.encode_runtime(Conversation("", "conv-1")) == {
        "agent_id": None,
        "conversation_id": "conv-1",
    }


def test_modes_of_both_vocabularies() -> None:
    names = ("default", "acceptEdits", "bypassPermissions", "strict", None)
    assert [frames.mode(name, "local") for name in names] == [
        "standard",
        "acceptEdits",
        "unrestricted",
        "strict",
        "standard",
    ]
    with pytest.raises(UnsupportedOptionError, match="'plan'"):
        frames.mode("plan", "local")


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "plan"},
        {},
        {"mode": "standard", "skill_sources": ["somewhere"]},
        {"mode": "standard", "cwd": "relative"},
    ],
)
def test_runtime_settings_the_server_would_drop(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        frames.runtime_start(settings)


def test_a_client_tool_needs_parameters() -> None:
    with pytest.raises(InvalidInputError, match="parameters"):
        frames.external_tools([{"name": "x", "parameters": None}])
    made = frames.external_tools([{"name": "x", "parameters": {}}])[0]
    assert (made["auto_background"], made["timeout_ms"], made["description"]) == (
        False,
        300_000,
        "",
    )


def test_answers_to_permission_questions() -> None:
    def decision(answer: ToolCallResponse | None) -> Any:
        return frames.approval(HERE, "perm-1", answer)["payload"]["decision"]

    assert decision(None) == {"behavior": "allow"}
    assert decision(ToolCallResponse("c", "t", reason="no")) == {
        "behavior": "deny",
        "message": "no",
    }
    edited = ToolCallResponse("c", "t", approve=True, updated_input={"a": 1}, suggestion_ids=("s",))
    assert decision(edited) == {
        "behavior": "allow",
        "updated_input": {"a": 1},
    }


def test_results_of_client_tools() -> None:
    def result(answer: ToolCallResponse) -> Any:
        return frames.tool_response("external-1", answer)["result"]

    text = [{"type": "text", "text": "42"}]
    assert result(ToolCallResponse("c", "t", returned="42")) == {"content": text, "is_error": False}
    assert result(ToolCallResponse("c", "t", returned=text)) == {"content": text, "is_error": False}
    denied = result(ToolCallResponse("c", "t", reason="no"))
    assert denied == {"content": [{"type": "text", "text": "no"}], "is_error": True}


@pytest.mark.parametrize(
    "settings", [{"trigger": "never", "step_count": 1}, {"trigger": "off", "step_count": 0}]
)
def test_reflection_settings_the_server_would_drop(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        frames.reflection(HERE, settings, "global")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Agent x not found", "not_found"),
        ("Conversation c belongs to a, not b", "not_found"),
        ("Approval request is no longer pending", "no_pending_approval"),
        ("Cannot change execution settings ... active or queued work", "conversation_busy"),
        ("Protocol violation: x", "invalid_input"),
        ("spawn git ENOENT", "server_error"),
    ],
)
def test_refusals_are_typed(text: str, code: str) -> None:
    error = refusal(text)
    assert (error.code, error.accepted) == (code, False)


def test_reminders_are_taken_out_of_the_users_messages_only() -> None:
    reminder = {"type": "text", "text": "<system-reminder>\nx\n</system-reminder>"}
    own = {"type": "text", "text": "what is a <system-reminder>?"}

    def cleaned(**message: Any) -> Any:
        return stored.without_reminders({"message_type": "user_message", **message})

    assert cleaned(content=[reminder, own])["content"] == [own]
    assert cleaned(content=[reminder]) is None
    assert cleaned(content=reminder["text"]) is None
    assert cleaned(content="hi")["content"] == "hi"
    assert cleaned(content=None)["content"] is None
    assert cleaned(content=[])["content"] == []
    said = {"message_type": "assistant_message", "content": [reminder]}
    assert stored.without_reminders(said) == said


def test_models_are_named_when_one_is_wrong() -> None:
    check_model("anything", [], "Model")
    with pytest.raises(InvalidInputError, match=r"It has 'a', 'b', 'c', 'd', 'e', \.\.\."):
        check_model("zzzzzz", list("abcdef"), "Model")


def test_a_token_is_in_no_repr() -> None:
    assert "secret" not in repr(Endpoint("ws://127.0.0.1:1/ws", "secret"))
