"""Internal: the options and the capabilities of each kind of backend.

Run as a module, it prints their tables for ``docs/options.md``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from pydantic import BaseModel

from letta_adapters.errors import UnsupportedOptionError
from letta_adapters.options import AgentOptions, SessionOptions
from letta_adapters.permissions import Postpone

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
    "offered_tools": _LETTA_CODE,
    "include_status_messages": _LETTA_CODE,
    "block_ids": ("rest",),
    "max_steps": ("rest",),
    "embedding": ("rest",),
    "tool_ids": ("rest",),
}
# Limits of an option on a backend that has it, each refused by name. Every entry is held by a test.
LETTA_CODE_LIMITS: Final[Mapping[str, str]] = {
    "allowed_tools": "names of tools, no patterns",
    "ask_timeout_answer": "not `Postpone()`",
    "base_tools": "not `False`",
    "disallowed_tools": "names of tools, no patterns",
    "memfs": "not `False` for a session",
    "memfs_startup": "`blocking` only",
    "memory": "without `limit` and `read_only`",
    "offered_tools": "not over a Letta API",
    "permission_mode": "not `plan`",
    "reasoning_effort": "not for models of LM Studio, Ollama, llama.cpp or `openai-compatible`; "
    "for a session: not on the default conversation",
    "sleeptime": 'not `behavior="reminder"`; on this machine only `trigger="off"`, or with '
    '`permission_mode="unrestricted"`',
    "stateless": "`local` only",
    "system_info_reminder": "`False` on `local` only",
    "system_prompt": "for a session: with `agent_free` only",
}
REST_LIMITS: Final[Mapping[str, str]] = {
    "can_use_tool": "refused if the agent has a tool that the server runs without asking",
    "model": "for a session: not on the default conversation",
    "reasoning_effort": "not for models whose provider has none; for a session: not on the default "
    "conversation",
    "system_prompt": "for an agent only",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Properties of a kind of backend that are no options; ``docs/options.md`` has their table.

    The first paragraph of each says what a backend that has it does, the second what others do.
    """

    agent_bundles: bool
    """`client.agents.export_file` and `import_file` carry agents in git bundles: their memory with
    its history, and their settings.

    On `rest` they carry agent files; else refused by name.
    """
    agent_files: bool
    """`client.agents.export_file` and `import_file` carry agents in agent files (`.af`), and
    `client.request` takes `files`.

    On `local` they carry git bundles; else, and `files`, refused by name.
    """
    agent_tags_listed: bool
    """An agent's tags are shown.

    They are stored and searched for; the default agent is made with its last tag at once.
    """
    agents_optional: bool
    """A conversation can be one between the user and a model, without an agent.

    `agent_free` is refused.
    """
    checked_efforts: bool
    """A `reasoning_effort` that the model's provider does not know is refused by name.

    The model gets the nearest that it has; one that does not think gets none.
    """
    connects_providers: bool
    """`client.connect_provider` gives the server the key of a model provider.

    Refused: the providers are configured where the server runs.
    """
    durable_pending_calls: bool
    """A tool call that waits for its caller survives a lost connection, the end of its session and
    a new process: `respond()`, `detach()`, `Postpone()`.

    It lives as long as its connection, 300 s at most, and closing interrupts its turn: those three
    are refused. To an adapter a later result goes in as a labelled message.
    """
    editable_server_tools: bool
    """`can_use_tool` may change the input of a tool that the server runs.

    Such a change ends the turn with `unsupported_option`.
    """
    exact_failures: bool
    """An answer cut at the model's output limit ends in `max_tokens_exceeded`, an empty account in
    `insufficient_credits` (on `rest` without `include_partial_messages`: letta 0.16.8 tells less
    while it streams tokens).

    The cut answer looks like a shorter one, the empty account like a rate limit.
    """
    failed_input_is_dropped: bool
    """A turn whose first model call failed leaves nothing: it can be sent again.

    Its message stays in the conversation (`result.input_stored` says so).
    """
    final_refusals: bool
    """A refusal of the model provider (a wrong key, a bad request) ends the turn at once.

    It is asked again, for about 35 s.
    """
    live_history: bool
    """`list_messages` shows a turn while it runs.

    It shows each step once it is done.
    """
    memory_blocks: bool
    """Memory is blocks with ids, limits and `read_only`, which agents can share: `client.blocks`,
    `client.agents.memory.attach`, `detach`; beside them are `client.agents.passages`,
    `client.tools` and `client.runs`.

    Memory is files, each of one agent. All those are refused.
    """
    memory_history: bool
    """Memory has a history: `client.agents.memory.history`, `diff`, `read(at=...)`.

    Refused. `api` has it over Letta Cloud alone; over another API all of `client.agents.memory` is
    refused.
    """
    messages_of_any_role: bool
    """A history of others is stored as the messages it is.

    It is told as one labelled message.
    """
    model_per_message: bool
    """A message can be answered by another model than its conversation's.

    The conversation is given that model, and its own one again before the next message.
    """
    model_settings: bool
    """A conversation can have a `temperature` and `max_tokens` of its own.

    Refused by name: they are the agent's.
    """
    parallel_calls: bool
    """An agent's model may call several tools at once.

    One at a time, unless the agent's `model_settings` say `parallel_tool_calls`.
    """
    removable_conversations: bool
    """A conversation for one call is deleted afterwards.

    It is archived.
    """
    shared_queue: bool
    """A message waits while the turn of another client runs.

    `ConversationBusyError`; messages of one client wait on both.
    """
    system_message_listed: bool
    """The list of messages begins with the system message.

    It holds what was said, and no more.
    """
    tool_errors_listed: bool
    """The list of messages says that a client-side tool failed.

    It is listed as a success, with the error as its text.
    """
    tools_told: bool
    """`InitMessage.tools` names the agent's own tools (on Letta Code from a conversation's second
    turn on).

    It names those of the session alone.
    """
    usable_after_a_cut: bool
    """A conversation goes on after its connection was lost in the middle of a turn.

    The server holds the turn until it is restarted (`conversation_busy`); fork it.
    """
    whole_answers_only: bool
    """A stored answer is a whole one.

    What was said before a connection was lost is stored like an answer; the same call, made again,
    asks the agent to go on: in this process, and on this machine also in another one.
    """


#: The Letta API.
REST: Final = Capabilities(
    agent_bundles=False,
    agent_files=True,
    agent_tags_listed=True,
    agents_optional=False,
    checked_efforts=True,
    connects_providers=False,
    durable_pending_calls=True,
    editable_server_tools=False,
    exact_failures=True,
    failed_input_is_dropped=True,
    final_refusals=True,
    live_history=False,
    memory_blocks=True,
    memory_history=False,
    messages_of_any_role=True,
    model_per_message=True,
    model_settings=True,
    parallel_calls=False,
    removable_conversations=True,
    shared_queue=False,
    system_message_listed=True,
    tool_errors_listed=True,
    tools_told=True,
    usable_after_a_cut=True,
    whole_answers_only=True,
)
#: Letta Code with its agents, elsewhere.
LETTA_CODE: Final = Capabilities(
    agent_bundles=False,
    agent_files=False,
    agent_tags_listed=True,
    agents_optional=True,
    checked_efforts=False,
    connects_providers=True,
    durable_pending_calls=False,
    editable_server_tools=True,
    exact_failures=True,
    failed_input_is_dropped=False,
    final_refusals=False,
    live_history=True,
    memory_blocks=False,
    memory_history=True,
    messages_of_any_role=False,
    model_per_message=False,
    model_settings=False,
    parallel_calls=True,
    removable_conversations=False,
    shared_queue=True,
    system_message_listed=False,
    tool_errors_listed=False,
    tools_told=True,
    usable_after_a_cut=False,
    whole_answers_only=False,
)
#: Letta Code with its agents on this machine, where their memory is.
LETTA_CODE_HERE: Final = replace(LETTA_CODE, agent_bundles=True)
#: Letta Code over agents that live on a Letta API: ``Local(api=...)``, or such an App Server.
LETTA_CODE_ON_API: Final = replace(
    LETTA_CODE,
    agent_tags_listed=False,
    checked_efforts=True,
    exact_failures=False,
    failed_input_is_dropped=True,
    final_refusals=True,
    live_history=False,
    memory_history=False,
    system_message_listed=True,
    tool_errors_listed=True,
    tools_told=False,
    usable_after_a_cut=True,
    whole_answers_only=True,
)
# The columns of the table.
_KINDS: Final[Mapping[str, Capabilities]] = {
    "rest": REST,
    "local": LETTA_CODE_HERE,
    "remote": LETTA_CODE,
    "api": LETTA_CODE_ON_API,
}


def of_kind(backend: str) -> Capabilities:
    """Return what a kind of backend can do, as far as its name tells before it is connected.

    Args:
        backend: ``"rest"``, ``"local"`` or ``"remote"``.
    """
    return _KINDS.get(backend, LETTA_CODE)


def of_letta_code(*, on_api: bool, here: bool) -> Capabilities:
    """Return what Letta Code can do with agents of a Letta API, of this machine, or elsewhere."""
    if on_api:
        return LETTA_CODE_ON_API
    return LETTA_CODE_HERE if here else LETTA_CODE


def check_supported(options: BaseModel, backend: str) -> None:
    """Refuse, before any I/O, an option that was set and that ``backend`` does not have."""
    # Sorted, so that of several such options the same one is always named.
    for option in sorted(options.model_fields_set):
        supported = OPTION_SUPPORT.get(option)
        # An empty list asks for nothing, but for the one that says what all the tools are.
        unset = (None,) if option == "offered_tools" else (None, ())
        if supported and backend not in supported and getattr(options, option) not in unset:
            raise UnsupportedOptionError(option, backend=backend, supported_by=supported)


def check_ask_timeout(answer: object, backend: str) -> None:
    """Refuse to postpone a question that nobody answers where no call outlives its connection.

    Args:
        answer: The ``ask_timeout_answer``.
        backend: The backend's name.

    Raises:
        UnsupportedOptionError: The backend keeps no calls.
    """
    if isinstance(answer, Postpone) and not of_kind(backend).durable_pending_calls:
        raise UnsupportedOptionError(
            "ask_timeout_answer",
            backend=backend,
            supported_by=("rest",),
            reason="a call that waits ends with the connection of its turn: choose Allow() or "
            "Deny(...).",
        )


def capability_table() -> str:
    """Return a Markdown table: capability, its meaning, and how a backend is without it."""
    rows = ["| capability | on | means | elsewhere |", "|---|---|---|---|"]
    for name, meaning in describe_capabilities().items():
        where = ", ".join(f"`{kind}`" for kind, has in _KINDS.items() if getattr(has, name))
        rows.append(f"| `{name}` | {where} | {' | '.join(meaning)} |")
    return "\n".join(rows)


def describe_capabilities() -> dict[str, list[str]]:
    """Return the paragraphs of each capability's docstring, which only the source holds."""
    (found,) = ast.parse(inspect.getsource(Capabilities)).body
    assert isinstance(found, ast.ClassDef)
    meanings: dict[str, list[str]] = {}
    for node, after in pairwise(found.body):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            paragraphs = inspect.cleandoc(ast.literal_eval(after.value)).split("\n\n")
            meanings[ast.unparse(node.target)] = [" ".join(text.split()) for text in paragraphs]
    return meanings


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
