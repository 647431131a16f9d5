"""Internal: the frames this side sends, checked first: the server drops bad ones without a word.

Shapes and limits: the validators of ``letta`` 0.34.12. The frames that the server sends in a turn
are read by :mod:`letta_adapters.engine.app_server`.

The rules: docs/protocol.md ("What the App Server drops without a word").
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from letta_adapters._utils.checks import check_id
from letta_adapters.backends.base import Conversation, ToolCallResponse
from letta_adapters.errors import InvalidInputError, UnsupportedOptionError
from letta_adapters.messages import content_text
from letta_adapters.options import PERMISSION_MODES
from letta_adapters.permissions import denials

Frame = dict[str, Any]

MODES: Final = frozenset({"standard", "acceptEdits", "unrestricted", "strict"})
SKILL_SOURCES: Final = frozenset({"bundled", "global", "agent", "project"})
TRIGGERS: Final = frozenset({"off", "step-count", "compaction-event"})
# The time a client-side tool may take; the server allows no more.
_TOOL_TIMEOUT_MS: Final = 300_000


def encode(frame: Mapping[str, Any]) -> str:
    """Return the frame as JSON text.

    Raises:
        InvalidInputError: It holds a value that JSON has no form for.
    """
    try:
        return json.dumps(frame, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        kind = frame.get("type")
        raise InvalidInputError(f"The {kind} request cannot be written as JSON: {error}.") from None


def encode_runtime(conversation: Conversation) -> dict[str, str | None]:
    """Return the protocol's name of a conversation; one without an agent has ``null`` for it.

    Raises:
        InvalidInputError: An id is empty. A default conversation always has an agent.
    """
    ids = {
        "agent_id": conversation.agent_id,
        "conversation_id": conversation.conversation_id,
    }
    for name, value in ids.items():
        # Without an agent there is no default conversation, so that one always needs the id.
        may_be_empty = name == "agent_id" and conversation.conversation_id != "default"
        if not isinstance(value, str) or not (value or may_be_empty):
            raise InvalidInputError(f"{name} must be a non-empty string, not {value!r}.")
        if value:
            check_id(value, f"an id ({name})")
    return conversation.as_runtime()


def device_state(conversation: Conversation, settings: Mapping[str, Any]) -> Frame:
    """Return the change to another mode or directory, at once; the server does not answer it."""
    payload = {name: settings[name] for name in ("mode", "cwd") if settings.get(name)}
    runtime = encode_runtime(conversation)
    return {"type": "change_device_state", "runtime": runtime, "payload": payload}


def mode(name: str | None, backend: str) -> str:
    """Return the server's word for a permission mode of either vocabulary.

    ``standard`` is the default.
    """
    if name is None:
        return "standard"
    found = PERMISSION_MODES.get(name)
    if found not in MODES:
        raise UnsupportedOptionError(
            "permission_mode",
            backend=backend,
            reason=f"this version of Letta Code has no mode {name!r}. "
            "Use 'standard', 'acceptEdits', 'strict' or 'unrestricted'.",
        )
    return found


def external_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return client-side tools as the server takes them.

    They are never moved to the background and may take 5 minutes each.
    """
    made = []
    for tool in tools:
        if not isinstance(tool.get("parameters"), Mapping):
            raise InvalidInputError(f"Tool {tool.get('name')!r} has no object of parameters.")
        made.append(
            {
                "name": str(tool["name"]),
                "description": str(tool.get("description") or ""),
                "parameters": tool["parameters"],
                "timeout_ms": _TOOL_TIMEOUT_MS,
                # Else the model reads "still running" after 10 s and a second turn starts later.
                "auto_background": False,
            }
        )
    return made


def tools_update(conversation: Conversation, tools: Sequence[Mapping[str, Any]]) -> Frame:
    """Replace the conversation's client-side tools."""
    groups = [{"tools": external_tools(tools)}] if tools else []
    update = {"runtimes": [encode_runtime(conversation)], "external_tools": groups}
    return {"type": "runtime_external_tools_update", "updates": [update]}


def runtime_start(settings: Mapping[str, Any]) -> Frame:
    """Open (or create) a conversation with the settings that are not ``None``."""
    given = {k: v for k, v in settings.items() if v is not None}
    # Checked here, as the server would drop the frame and never answer.
    if given.get("mode") not in MODES:
        raise InvalidInputError(f"Not a permission mode: {given.get('mode')!r}.")
    sources = given.get("skill_sources")
    if sources is not None and not SKILL_SOURCES.issuperset(sources):
        raise InvalidInputError(f"Not skill sources: {sources!r}.")
    # A relative path would begin at the server's own directory.
    cwd = given.get("cwd")
    if cwd is not None and not Path(cwd).is_absolute():
        raise InvalidInputError(f"cwd must be an absolute path, not {cwd!r}.")
    return {
        "type": "runtime_start",
        "client_info": {"name": "letta-adapters"},
        # The state comes before the answer then, so it is here once the answer is.
        "wait_for_replay": True,
        **given,
    }


def user_message(
    conversation: Conversation, content: Any, client_message_id: str, selection: Mapping[str, Any]
) -> Frame:
    """Send a message; ``selection`` names the server's tools that the model may use."""
    if not client_message_id:
        raise InvalidInputError("The message needs an id.")
    message = {"role": "user", "content": content, "client_message_id": client_message_id}
    return {
        "type": "input",
        "runtime": encode_runtime(conversation),
        "payload": {
            "kind": "create_message",
            "messages": [message],
            # An image that cannot be shown is an error, not a silent omission.
            "image_failure_mode": "strict",
            **selection,
        },
    }


def approval(conversation: Conversation, request_id: str, answer: ToolCallResponse | None) -> Frame:
    """Answer a permission request; without an ``answer`` it is allowed as it is.

    Letta Code takes no result in place of a decision: the text of one is the reason of a denial.
    """
    decision: dict[str, Any] = {"behavior": "allow"}
    if answer is not None and not answer.approve:
        reason = answer.reason or content_text(answer.returned)
        decision = {"behavior": "deny", "message": reason or denials.WITHOUT_REASON}
    elif answer is not None:
        if answer.updated_input is not None:
            decision["updated_input"] = dict(answer.updated_input)
        if answer.reason:
            decision["message"] = answer.reason
    return {
        "type": "input",
        "runtime": encode_runtime(conversation),
        "payload": {
            "kind": "approval_response",
            "request_id": request_id,
            "decision": decision,
        },
    }


def denial(conversation: Conversation, request_id: str, reason: str) -> Frame:
    """Deny a permission request."""
    return approval(conversation, request_id, ToolCallResponse("", "", reason=reason))


def tool_response(request_id: str, answer: ToolCallResponse) -> Frame:
    """Return a client-side tool's result, or the denial that the model reads in its place."""
    returned = answer.returned
    if returned is None:
        content: list[Any] = [{"type": "text", "text": answer.reason or denials.WITHOUT_REASON}]
    elif isinstance(returned, str):
        content = [{"type": "text", "text": returned}]
    else:
        content = [dict(part) for part in returned]
    result = {"content": content, "is_error": returned is None or answer.is_error}
    return {"type": "external_tool_call_response", "request_id": request_id, "result": result}


def tool_failure(request_id: str, reason: str) -> Frame:
    """Return the answer for a client-side tool that will give no result."""
    return {"type": "external_tool_call_response", "request_id": request_id, "error": reason}


def nobody(conversation: Conversation, question: Frame) -> Frame | None:
    """Return the answer to a question of no turn; ``None`` if the frame is no question."""
    if question.get("type") == "control_request":
        return denial(conversation, str(question.get("request_id")), denials.NO_TURN_ASKED)
    if question.get("type") == "external_tool_call_request":
        return tool_failure(str(question.get("request_id")), denials.NO_TURN_ASKED)
    return None


def reflection(conversation: Conversation, settings: Mapping[str, Any], scope: str) -> Frame:
    """Change when the agent reflects."""
    count = settings.get("step_count")
    if settings.get("trigger") not in TRIGGERS or not isinstance(count, int) or count < 1:
        raise InvalidInputError(f"Not reflection settings: {dict(settings)!r}.")
    return {
        "type": "set_reflection_settings",
        "runtime": encode_runtime(conversation),
        "settings": dict(settings),
        "scope": scope,
    }
