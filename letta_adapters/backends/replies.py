"""Internal: the check of replies' shapes, once, where they come in.

Behind it a list is a list, and an id is text. Only fields that this package reads are looked at:
unknown fields, kinds of message and values pass, because a newer server has more of them. Shapes:
letta 0.16.8 (the API) and letta 0.34.12 (the App Server).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import Required, TypedDict

from letta_adapters.errors import ProtocolError

# What the check builds is thrown away, so it need not hold the fields that nobody looks at.
_loose = with_config(ConfigDict(extra="ignore", strict=True))


@_loose
class _Tool(TypedDict, total=False):
    name: Required[str]
    tool_type: str | None


@_loose
class _Agent(TypedDict, total=False):
    id: Required[str]
    name: str | None
    description: str | None
    model: str | None
    system: str | None
    created_at: str | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
    tools: list[_Tool] | None
    tool_rules: list[dict[str, Any]] | None


@_loose
class _Conversation(TypedDict, total=False):
    id: Required[str]
    agent_id: str | None
    model: str | None
    summary: str | None
    created_at: str | None


@_loose
class _Call(TypedDict, total=False):
    tool_call_id: str | None
    name: str | None
    arguments: str | None


@_loose
class _Row(TypedDict, total=False):
    """A stored message."""

    id: Required[str]
    message_type: Required[str]
    otid: str | None
    run_id: str | None
    date: str | None
    tool_call: _Call | None
    tool_calls: list[_Call] | None
    tool_returns: list[dict[str, Any]] | None
    approvals: list[dict[str, Any]] | None


@_loose
class _Run(TypedDict, total=False):
    id: Required[str]
    status: str | None
    conversation_id: str | None
    stop_reason: str | None


@_loose
class _Model(TypedDict, total=False):
    handle: Required[str]
    model_type: str | None


@_loose
class _Runtime(TypedDict, total=False):
    agent_id: str | None
    conversation_id: str | None


# The shapes of the answers of the Letta API's routes, by method and path; of other routes nothing
# is known.
_ID: Final = r"/[^/]+"
_ROUTES: Final[Sequence[tuple[str, str, Any]]] = (
    ("GET", r"/v1/agents", list[_Agent]),
    ("POST", r"/v1/agents", _Agent),
    ("GET", rf"/v1/agents{_ID}", _Agent),
    ("PATCH", rf"/v1/agents{_ID}", _Agent),
    ("GET", r"/v1/conversations", list[_Conversation]),
    ("POST", r"/v1/conversations", _Conversation),
    ("GET", rf"/v1/conversations{_ID}", _Conversation),
    ("PATCH", rf"/v1/conversations{_ID}", _Conversation),
    ("POST", rf"/v1/conversations{_ID}/fork", _Conversation),
    ("GET", rf"/v1/conversations{_ID}/messages", list[_Row]),
    ("GET", rf"/v1/agents{_ID}/messages", list[_Row]),
    ("GET", r"/v1/runs", list[_Run]),
    ("GET", rf"/v1/runs{_ID}", _Run),
    ("GET", rf"/v1/runs{_ID}/messages", list[_Row]),
    ("GET", r"/v1/models", list[_Model]),
)
# The shapes of fields of an App Server's answer, whichever request it answers. A field may be
# missing or null: whoever needs it checks that.
_FIELDS: Final[Mapping[str, Any]] = {
    "agent": _Agent,
    "agents": list[_Agent],
    "agent_id": str,
    "available_handles": list[str],
    "commits": list[dict[str, Any]],
    "conversation": _Conversation,
    "conversations": list[_Conversation],
    "entries": list[dict[str, Any]],
    "messages": list[_Row],
    "reflection_settings": dict[str, Any],
    "runtime": _Runtime,
    "secrets": list[dict[str, Any]],
}


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    # Made at the first reply of its kind, so that importing this costs nothing.
    return TypeAdapter(shape)


@cache
def _find_shape(method: str, path: str) -> Any:
    for verb, pattern, shape in _ROUTES:
        if verb == method and re.fullmatch(pattern, path):
            return shape
    return None


def check_api(method: str, path: str, reply: Any) -> Any:
    """Return a reply of the Letta API, checked against the shape of its route.

    Args:
        method: ``"GET"``, ``"POST"``, ...
        path: The path of the request, with or without a query.
        reply: The decoded JSON.

    Raises:
        ProtocolError: It has another shape.
    """
    plain = path.partition("?")[0].rstrip("/")
    # There are as many paths as conversations, so ids are taken out before the cache is asked.
    shape = _find_shape(method, re.sub(r"(?<=/v1/)(\w+)/[^/]+", r"\1/x", plain))
    if shape is not None:
        _check(shape, reply, f"{method} {plain}")
    return reply


def check_answer(request: str, answer: Mapping[str, Any]) -> None:
    """Check the known fields of an App Server's answer.

    Args:
        request: The type of the request, for the error.
        answer: The frame that answers it.

    Raises:
        ProtocolError: A field has another shape.
    """
    for name in answer.keys() & _FIELDS.keys():
        if answer[name] is not None:
            _check(_FIELDS[name], answer[name], f"a {request} request ({name})")


def require_field(request: str, answer: Mapping[str, Any], field: str) -> Any:
    """Return a field that the answer must have; raise ProtocolError if it is missing."""
    if answer.get(field) is None:
        raise ProtocolError(f"The answer to a {request} request holds no {field}.")
    return answer[field]


def _check(shape: Any, value: Any, asked: str) -> None:
    try:
        _adapter(shape).validate_python(value)
    except (ValidationError, RecursionError) as error:
        raise ProtocolError(
            f"{asked[0].upper()}{asked[1:]} was answered with what its protocol does not allow: "
            f"{_problem(error)}.",
            hint="Check that the address is a Letta server's, of a version this package knows.",
        ) from error


def _problem(error: ValidationError | RecursionError) -> str:
    """Return the place and kind of the first fault, but not the value, which may be a secret."""
    if not isinstance(error, ValidationError):
        return "it is nested too deeply"
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
