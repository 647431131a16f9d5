"""Internal: carry out management calls, which name routes of the Letta API, by App Server commands.

``client.agents``, ``client.conversations`` and ``client.models`` speak of REST routes; the ones
that have a counterpart work here with the same arguments and the same kind of objects.
All that has none there is reached by its command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from letta_adapters._utils.checks import check_id
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.options import no_memory_in_git
from letta_adapters.backends.replies import require_field
from letta_adapters.errors import InvalidInputError, UnsupportedOptionError

Call = tuple[dict[str, Any], str]
_Make = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Call]

_COMMAND: Final = re.compile(r"[a-z][a-z_]*")
# Commands that read an agent's memory from its git repository, and clone that first.
_IN_GIT: Final = (
    *("list_memory", "memory_history", "memory_file_at_ref", "memory_commit_diff"),
    *("read_memory_file", "write_memory_file", "delete_memory_file", "enable_memfs"),
)
# Fields of a request's envelope that a caller must not replace.
_RESERVED: Final = ("type", "request_id")


def _pick_given(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if values.get(name) is not None}


def _list_agents(_: str, params: Mapping[str, Any], __: Mapping[str, Any]) -> Call:
    query = _pick_given(params, "tags", "query_text", "limit", "after", "before", "order")
    return {"type": "agent_list", "query": query}, "agents"


def _create_agent(_: str, __: Mapping[str, Any], body: Mapping[str, Any]) -> Call:
    return {"type": "agent_create", "body": dict(body)}, "agent"


def _agent(id_: str, _: Mapping[str, Any], __: Mapping[str, Any]) -> Call:
    return {"type": "agent_retrieve", "agent_id": id_}, "agent"


def _update_agent(id_: str, _: Mapping[str, Any], body: Mapping[str, Any]) -> Call:
    return {"type": "agent_update", "agent_id": id_, "body": dict(body)}, "agent"


def _delete_agent(id_: str, _: Mapping[str, Any], __: Mapping[str, Any]) -> Call:
    return {"type": "agent_delete", "agent_id": id_}, ""


def _list_conversations(_: str, params: Mapping[str, Any], __: Mapping[str, Any]) -> Call:
    query = _pick_given(params, "agent_id", "limit", "after", "before", "order")
    return {"type": "conversation_list", "query": query}, "conversations"


def _create_conversation(_: str, params: Mapping[str, Any], body: Mapping[str, Any]) -> Call:
    made = {**body, **_pick_given(params, "agent_id")}
    return {"type": "conversation_create", "body": made}, "conversation"


def _conversation(id_: str, _: Mapping[str, Any], __: Mapping[str, Any]) -> Call:
    return {"type": "conversation_retrieve", "conversation_id": id_}, "conversation"


def _update_conversation(id_: str, _: Mapping[str, Any], body: Mapping[str, Any]) -> Call:
    frame = {"type": "conversation_update", "conversation_id": id_, "body": dict(body)}
    return frame, "conversation"


def _fork(id_: str, params: Mapping[str, Any], body: Mapping[str, Any]) -> Call:
    made = {**body, **_pick_given(params, "agent_id")}
    frame: dict[str, Any] = {"type": "conversation_fork", "conversation_id": id_}
    return frame | ({"body": made} if made else {}), "conversation"


def _compact(id_: str, params: Mapping[str, Any], body: Mapping[str, Any]) -> Call:
    made = {**body, **_pick_given(params, "agent_id")}
    frame: dict[str, Any] = {"type": "conversation_compact", "conversation_id": id_}
    return frame | ({"body": made} if made else {}), "compaction"


def _recompile(id_: str, _: Mapping[str, Any], __: Mapping[str, Any]) -> Call:
    return {"type": "conversation_recompile", "conversation_id": id_}, ""


def _models(_: str, __: Mapping[str, Any], ___: Mapping[str, Any]) -> Call:
    return {"type": "list_models"}, "entries"


_ID: Final = r"/([^/]+)"
_ROUTES: Final[tuple[tuple[str, str, _Make], ...]] = (
    ("GET", r"/v1/agents", _list_agents),
    ("POST", r"/v1/agents", _create_agent),
    ("GET", rf"/v1/agents{_ID}", _agent),
    ("PATCH", rf"/v1/agents{_ID}", _update_agent),
    ("DELETE", rf"/v1/agents{_ID}", _delete_agent),
    ("GET", r"/v1/conversations", _list_conversations),
    ("POST", r"/v1/conversations", _create_conversation),
    ("GET", rf"/v1/conversations{_ID}", _conversation),
    ("PATCH", rf"/v1/conversations{_ID}", _update_conversation),
    ("POST", rf"/v1/conversations{_ID}/fork", _fork),
    ("POST", rf"/v1/conversations{_ID}/compact", _compact),
    ("POST", rf"/v1/conversations{_ID}/recompile", _recompile),
    ("GET", r"/v1/models", _models),
)


async def perform(
    connection: Connection,
    backend: str,
    method: str,
    path: str,
    params: Mapping[str, Any],
    body: Mapping[str, Any],
) -> Any:
    """Carry out a call, and return the object that the API would return.

    Raises:
        UnsupportedOptionError: The App Server has no counterpart.
    """
    for verb, pattern, make in _ROUTES:
        # The API has routes with a slash at the end and without one.
        found = re.fullmatch(pattern, path.rstrip("/"))
        if verb == method and found:
            # The path was quoted for HTTP; a frame takes the id itself.
            id_ = check_id(unquote(found[1])) if found.groups() else ""
            frame, field = make(id_, params, body)
            answer = await connection.request(frame)
            return require_field(str(frame["type"]), answer, field) if field else None
    raise UnsupportedOptionError(
        f"{method} {path}",
        backend=backend,
        supported_by=("rest",),
        reason="the App Server has no such request.",
    )


async def command(
    connection: Connection, backend: str, name: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Send any App Server command and return its answer.

    Raises:
        InvalidInputError: This is no name of a command, or a field is the client's own.
        UnsupportedOptionError: It needs an agent's memory in git, where this server has none.
    """
    if not _COMMAND.fullmatch(name):
        raise InvalidInputError(f"{name!r} is not the name of an App Server command.")
    # They would replace the id by which the answer finds its request.
    taken = [field for field in _RESERVED if field in fields]
    if taken:
        raise InvalidInputError(f"{taken[0]!r} is set by the client itself.")
    if name in _IN_GIT and not connection.memory_in_git:
        raise no_memory_in_git(name, backend)
    return await connection.request({"type": name, **fields})
