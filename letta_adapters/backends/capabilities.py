"""The options and the capabilities of each kind of backend.

Run as a module, it prints their tables for ``docs/options.md``.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from letta_adapters.errors import UnsupportedOptionError
from letta_adapters.options import AgentOptions, SessionOptions

# Options that not every backend has, each with the backends that do.
_LETTA_CODE = ("local", "remote")
OPTION_SUPPORT: Mapping[str, tuple[str, ...]] = {
    "agent_free": _LETTA_CODE,
    "append_system_prompt": _LETTA_CODE,
    "personality": _LETTA_CODE,
    "secrets": _LETTA_CODE,
    "toolset": _LETTA_CODE,
    "memfs": _LETTA_CODE,
    "memfs_startup": _LETTA_CODE,
    "skill_sources": _LETTA_CODE,
    "system_info_reminder": _LETTA_CODE,
    "sleeptime": _LETTA_CODE,
    "stateless": ("local",),
    "cwd": _LETTA_CODE,
    "permission_mode": _LETTA_CODE,
    "allowed_tools": _LETTA_CODE,
    "disallowed_tools": _LETTA_CODE,
    "include_status_messages": _LETTA_CODE,
    "block_ids": ("rest",),
    "max_steps": ("rest",),
    "embedding": ("rest",),
    "tool_ids": ("rest",),
}
# Limits of an option on a backend that has it, each refused by name. Every entry is held by a test.
LETTA_CODE_LIMITS: Final[Mapping[str, str]] = {
    "allowed_tools": "names of tools, no patterns",
    "base_tools": "not `False`",
    "disallowed_tools": "names of tools, no patterns",
    "memfs": "not `False` for a session",
    "memfs_startup": "`blocking` only",
    "memory": "without `limit` and `read_only`",
    "permission_mode": "not `plan`",
    "sleeptime": 'not `behavior="reminder"`; on this machine only `trigger="off"`, or with '
    '`permission_mode="unrestricted"`',
    "stateless": "`local` only",
    "system_info_reminder": "`False` on `local` only",
    "system_prompt": "for a session: with `agent_free` only",
}
REST_LIMITS: Final[Mapping[str, str]] = {
    "can_use_tool": "refused if the agent has a tool that the server runs without asking",
    "model": "for a session: not on the default conversation",
    "system_prompt": "for an agent only",
}
# The kind of Letta Code over agents that live on a Letta API: ``Local(api=...)``, or such an App
# Server.
ON_API = "api"
# Properties of conversations that are no options, each with the kinds of backend that have it.
_ANY_CODE = (*_LETTA_CODE, ON_API)
CAPABILITIES: Mapping[str, tuple[str, ...]] = {
    "durable_pending_calls": ("rest",),
    "editable_server_tools": _ANY_CODE,
    "exact_failures": ("rest", *_LETTA_CODE),
    "failed_input_is_dropped": ("rest", ON_API),
    "final_refusals": ("rest", ON_API),
    "live_history": _LETTA_CODE,
    "messages_of_any_role": ("rest",),
    "model_settings": ("rest",),
    "parallel_calls": _ANY_CODE,
    "removable_conversations": ("rest",),
    "shared_queue": _ANY_CODE,
    "system_message_listed": ("rest", ON_API),
    "tool_errors_listed": ("rest", ON_API),
    "tools_told": ("rest", *_LETTA_CODE),
    "usable_after_a_cut": ("rest", ON_API),
    "whole_answers_only": ("rest", ON_API),
}
# The meaning of each capability, and how a backend is without it.
MEANINGS: Final[Mapping[str, tuple[str, str]]] = {
    "durable_pending_calls": (
        "a tool call that waits for its caller survives a lost connection and a new process",
        "it lives as long as its connection, 300 s at most; a later result goes in as a "
        "labelled message",
    ),
    "editable_server_tools": (
        "`can_use_tool` may change the input of a tool that the server runs",
        "such a change ends the turn with `unsupported_option`",
    ),
    "exact_failures": (
        "an answer cut at the model's output limit ends in `max_tokens_exceeded`, an empty account "
        "in `insufficient_credits` (on `rest` without `include_partial_messages`: letta 0.16.8 "
        "tells less while it streams tokens)",
        "the cut answer looks like a shorter one, the empty account like a rate limit",
    ),
    "failed_input_is_dropped": (
        "a turn whose first model call failed leaves nothing: it can be sent again",
        "its message stays in the conversation (`result.input_stored` says so)",
    ),
    "final_refusals": (
        "what a model provider refuses (a wrong key, a bad request) ends the turn at once",
        "it is asked again, for about 35 s",
    ),
    "live_history": (
        "`list_messages` shows a turn while it runs",
        "it shows each step once it is done",
    ),
    "messages_of_any_role": (
        "a history of others is stored as the messages it is",
        "it is told as one labelled message",
    ),
    "model_settings": (
        "a conversation can have a `temperature` and `max_tokens` of its own",
        "refused by name: they are the agent's",
    ),
    "parallel_calls": (
        "an agent's model may call several tools at once",
        "one at a time, unless the agent's `model_settings` say `parallel_tool_calls`",
    ),
    "removable_conversations": (
        "a conversation for one call is deleted afterwards",
        "it is archived",
    ),
    "shared_queue": (
        "a message waits while the turn of another client runs",
        "`ConversationBusyError`; messages of one client wait on both",
    ),
    "system_message_listed": (
        "the list of messages begins with the system message",
        "it holds what was said, and no more",
    ),
    "tool_errors_listed": (
        "the list of messages says that a client-side tool failed",
        "it is listed as a success, with the error as its text",
    ),
    "tools_told": (
        "`InitMessage.tools` names the agent's own tools (on Letta Code from a conversation's "
        "second turn on)",
        "it names those of the session alone",
    ),
    "usable_after_a_cut": (
        "a conversation goes on after its connection was lost in the middle of a turn",
        "the server holds the turn until it is restarted (`conversation_busy`); fork it",
    ),
    "whole_answers_only": (
        "a stored answer is a whole one",
        "what was said before a connection was lost is stored like an answer; the same call, made "
        "again in this process, asks the agent to go on",
    ),
}


def has(kind: str, capability: str) -> bool:
    """Return whether conversations of that kind of backend have it; see ``docs/options.md``."""
    return kind in CAPABILITIES[capability]


def check_supported(options: BaseModel, backend: str) -> None:
    """Refuse, before any I/O, an option that was set and that ``backend`` does not have."""
    # Sorted, so that of several such options the same one is always named.
    for option in sorted(options.model_fields_set):
        supported = OPTION_SUPPORT.get(option)
        if supported and backend not in supported and getattr(options, option) not in (None, ()):
            raise UnsupportedOptionError(option, backend=backend, supported_by=supported)


def capability_table() -> str:
    """Return a Markdown table: capability, its meaning, and how a backend is without it."""
    rows = ["| capability | on | means | elsewhere |", "|---|---|---|---|"]
    for name, backends in CAPABILITIES.items():
        where = ", ".join(f"`{backend}`" for backend in backends)
        rows.append(f"| `{name}` | {where} | {' | '.join(MEANINGS[name])} |")
    return "\n".join(rows)


def option_table() -> str:
    """Return a Markdown table: option, where it is given, Letta API, Letta Code."""
    agent, session = AgentOptions.model_fields, SessionOptions.model_fields
    rows = ["| option | given to | `rest` | `local`, `remote` |", "|---|---|---|---|"]
    for option in sorted({*agent, *session}):
        given = [
            name for name, fields in (("agent", agent), ("session", session)) if option in fields
        ]
        rest = _cell(option, "rest", REST_LIMITS)
        code = _cell(option, "local", LETTA_CODE_LIMITS)
        rows.append(f"| `{option}` | {', '.join(given)} | {rest} | {code} |")
    return "\n".join(rows)


def _cell(option: str, backend: str, limits: Mapping[str, str]) -> str:
    # An option without an entry exists everywhere.
    if backend not in OPTION_SUPPORT.get(option, (backend,)):
        return "no"
    return f"yes; {limits[option]}" if option in limits else "yes"


if __name__ == "__main__":
    import sys

    sys.stdout.write(f"{option_table()}\n\n{capability_table()}\n")
