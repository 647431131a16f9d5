"""Internal: make agents, by default with Letta's own prompt and memory blocks as files in git."""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from letta_adapters.backends.app_server import frames
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.options import (
    check_model,
    no_memory_in_git,
    reflection_settings,
)
from letta_adapters.backends.base import DEFAULT, Conversation
from letta_adapters.backends.memory_headers import make_header
from letta_adapters.backends.replies import require_field
from letta_adapters.errors import (
    ConfigurationError,
    InvalidInputError,
    LettaError,
    ProtocolError,
    UnsupportedOptionError,
)
from letta_adapters.options import AgentOptions, MemoryBlock, Sleeptime

# The personality whose agents the Letta Code application makes itself.
_PERSONALITY: Final = "memo"
# The number of tries, and the seconds between them, to find a model that was there before.
_FIND_TIMES: Final = 8
_FIND_SECONDS: Final = 1.0
_SECRET: Final = re.compile(r"[A-Z_][A-Z0-9_]*")
_DEFAULTS_ID: Final = "agent-letta-adapters-defaults"


async def model_handles(connection: Connection, *, force: bool = False) -> list[str]:
    """Return the handles that ``model=`` takes on this server."""
    answer = await connection.request({"type": "list_models", "force": force})
    entries = answer.get("entries")
    handles = [str(e["handle"]) for e in entries or () if isinstance(e, dict) and e.get("handle")]
    handles += [str(h) for h in answer.get("available_handles") or () if isinstance(h, str)]
    return list(dict.fromkeys(handles))


async def require_model(connection: Connection, handle: str, what: str = "Model") -> None:
    """Refuse, before the first turn, a model that would only fail in it."""
    known = await model_handles(connection)
    # The server caches its list: a model server may have been started since.
    if handle not in known:
        known = await model_handles(connection, force=True)
    if not known and what == "Model":  # the agent's own may be looked at without one
        raise _no_model(connection, handle)
    check_model(handle, known, what)


async def find_model(connection: Connection, handle: str | None) -> None:
    """Wait until a server that was started anew has found a model again that it had before.

    It asks a model server once, for 2 s (letta 0.34.12), and without an answer fails the turn.
    """
    for attempt in range(_FIND_TIMES):
        if handle is None or handle in await model_handles(connection, force=attempt > 0):
            return
        await asyncio.sleep(_FIND_SECONDS)
    await require_model(connection, str(handle), "The agent's model")


async def choose_model(connection: Connection, asked: str | None) -> str:
    """Return the model asked for, ``LETTA_MODEL``, or the server's first; refuse an unknown one."""
    asked = asked or os.environ.get("LETTA_MODEL")
    if asked:
        await require_model(connection, asked)
        return asked
    known = await model_handles(connection) or await model_handles(connection, force=True)
    if not known:
        raise _no_model(connection, "")
    return known[0]


def _no_model(connection: Connection, asked: str) -> ConfigurationError:
    """Return the error for a server without a model, with advice that fits where it runs."""
    wanted = f", {asked!r} among them" if asked else ""
    if connection.on_api:
        return ConfigurationError(
            f"The Letta API lists no model for chats{wanted}.",
            hint="Configure a provider of models where that API runs.",
        )
    if not connection.ours:
        return ConfigurationError(
            f"The App Server has no model{wanted}.",
            hint="Connect a provider: set OPENAI_API_KEY, ANTHROPIC_API_KEY, LMSTUDIO_BASE_URL, "
            "... where it runs, use client.connect_provider(...), or `letta connect`.",
        )
    return ConfigurationError(
        f"Letta Code on this machine has no model to use{wanted}: no provider of models is set up.",
        hint="Set a provider's key before it starts (OPENAI_API_KEY, ANTHROPIC_API_KEY, "
        "GEMINI_API_KEY, ...), name a model server with Local(openai_compatible={'base_url': "
        "...}), or call client.connect_provider('anthropic', api_key=...). Without any of them: "
        "letta-adapters demo",
    )


async def create_agent(connection: Connection, options: AgentOptions, backend: str) -> str:
    """Create an agent and return its id; if anything fails on the way, none is left."""
    blocks = options.blocks()
    _check_blocks(blocks, backend)
    _check_prompt(options)
    if options.memfs and not connection.memory_in_git:
        raise no_memory_in_git("memfs", backend)
    model = await choose_model(connection, options.model)
    made: list[str] = []
    try:
        await _make(connection, options, model, blocks, made)
        if options.secrets:
            await connection.request(secrets_change(made[-1], options.secrets))
    except BaseException:
        for agent_id in made:
            await delete(connection, agent_id)
        raise
    return made[-1]


async def _make(
    connection: Connection,
    options: AgentOptions,
    model: str,
    blocks: Sequence[MemoryBlock],
    made: list[str],
) -> None:
    """Append the agent to ``made``, after those that were needed to make it and exist still."""
    if options.system_prompt is not None:
        system = _join_prompts(options.system_prompt, options.append_system_prompt)
        body = _body(options, model, system, blocks)
        made.append(await _create(connection, body, options.memfs))
        return
    # Letta's own prompt exists on the server only, in the agents it makes itself.
    made.append(await _by_the_server(connection, options, model))
    if connection.memory_in_git:
        await _furnish(connection, made[0], options, blocks)
        if options.memfs is not False:
            return
    # It is made anew, as whether an agent has a memory filesystem is decided at its creation.
    first = await _retrieve(connection, made[0])
    changes: dict[str, Any] = {"memfs": False}
    if connection.memory_in_git:
        blocks = await _list_blocks(connection, made[0])
        system = str(first.get("system"))
    else:
        blocks = [*blocks, *_other_blocks(first, blocks)]
        system = _join_prompts(str(first.get("system")), options.append_system_prompt)
    for field in ("name", "description"):
        changes[field] = getattr(options, field) or first.get(field)
    body = _body(options.model_copy(update=changes), str(first.get("model")), system, blocks)
    made.append(await _create(connection, body, False))
    # Only now that its successor exists: until then the caller would delete both after a failure.
    await connection.request({"type": "agent_delete", "agent_id": made[0]})
    del made[0]


async def delete(connection: Connection, agent_id: str) -> None:
    """Delete an agent that was made in vain; this never fails."""
    with suppress(LettaError):
        await connection.request({"type": "agent_delete", "agent_id": agent_id})


def _check_prompt(options: AgentOptions) -> None:
    if options.personality is not None and options.system_prompt is not None:
        raise InvalidInputError(
            "A personality has its own prompt.", hint="Leave system_prompt out."
        )
    secrets_change("", options.secrets or {})


def _join_prompts(system: str, more: str | None) -> str:
    return f"{system}\n\n{more}" if more else system


def secrets_change(agent_id: str, secrets: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the command that sets an agent's secrets, and removes those that are ``None``.

    Raises:
        InvalidInputError: A name is not possible for a shell variable, or a value is no text.
    """
    for name, value in secrets.items():
        if not _SECRET.fullmatch(name):
            raise InvalidInputError(
                f"{name!r} cannot be the name of a secret.",
                hint="Use capital letters, digits and underscores: it becomes a shell variable.",
            )
        if value is not None and not isinstance(value, str):
            raise InvalidInputError(f"The secret {name} must be text.")
    given = {name: value for name, value in secrets.items() if value is not None}
    gone = [name for name, value in secrets.items() if value is None]
    return {"type": "secret_apply", "agent_id": agent_id, "set": given, "unset": gone}


def _body(
    options: AgentOptions, model: str, system: str, blocks: Sequence[MemoryBlock]
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": options.name or "Letta agent",
        "description": options.description,
        "model": model,
        "system": system,
        "tags": list(options.tags) or None,
        "hidden": options.hidden,
        "memory_blocks": [b.model_dump(exclude_none=True) for b in blocks],
    }
    return {k: v for k, v in body.items() if v is not None}


async def _create(connection: Connection, body: Mapping[str, Any], memfs: bool | None) -> str:
    memfs = memfs is not False and connection.memory_in_git
    # The default conversation is not stored until it is used, so none is left behind.
    answer = await connection.request(
        {
            "type": "runtime_start",
            "create_agent": {"body": body, "pin_global": False, "memfs": memfs},
            "conversation_id": DEFAULT,
            # Without a mode the server takes the one in which it runs everything unasked.
            "mode": "strict",
        }
    )
    return str(require_field("runtime_start", answer, "agent")["id"])


async def _by_the_server(connection: Connection, options: AgentOptions, model: str) -> str:
    answer = await connection.request(
        {
            "type": "create_agent",
            "personality": options.personality or _PERSONALITY,
            "model": model,
            "tags": list(options.tags),
            "pin_global": False,
        }
    )
    return str(require_field("create_agent", answer, "agent_id"))


async def _furnish(
    connection: Connection, agent_id: str, options: AgentOptions, blocks: Sequence[MemoryBlock]
) -> None:
    """Give an agent that the server has made the options it was not asked for, and its memory."""
    changes: dict[str, Any] = {
        "name": options.name,
        "description": options.description,
        "hidden": options.hidden,
    }
    if options.append_system_prompt:
        system = str((await _retrieve(connection, agent_id)).get("system") or "")
        changes["system"] = _join_prompts(system, options.append_system_prompt)
    given = {k: v for k, v in changes.items() if v is not None}
    if given:
        await connection.request({"type": "agent_update", "agent_id": agent_id, "body": given})
    for block in blocks:
        await _write_block(connection, agent_id, block)


async def _retrieve(connection: Connection, agent_id: str) -> dict[str, Any]:
    answer = await connection.request({"type": "agent_retrieve", "agent_id": agent_id})
    found: dict[str, Any] = require_field("agent_retrieve", answer, "agent")
    return found


def _other_blocks(agent: Mapping[str, Any], blocks: Sequence[MemoryBlock]) -> list[MemoryBlock]:
    """Return the agent's blocks on the Letta API, without those that are given anew."""
    given = {block.label for block in blocks}
    return [
        MemoryBlock(
            label=str(block["label"]),
            value=str(block.get("value") or ""),
            description=block.get("description"),
        )
        for block in agent.get("blocks") or ()
        if block.get("label") and block["label"] not in given
    ]


async def _list_blocks(connection: Connection, agent_id: str) -> list[MemoryBlock]:
    """Return the content of its memory repository as blocks."""
    listed = await connection.request({"type": "list_memory", "agent_id": agent_id})
    return [
        MemoryBlock(
            label=str(entry["relative_path"]).removesuffix(".md"),
            value=str(entry.get("content") or ""),
            description=entry.get("description") or None,
        )
        for entry in listed.get("entries") or ()
        # What is no block has none: the index MEMORY.md, and pictures.
        if entry.get("description")
    ]


def _check_blocks(blocks: Sequence[MemoryBlock], backend: str) -> None:
    for block in blocks:
        for option in ("limit", "read_only"):
            if getattr(block, option) is not None:
                raise UnsupportedOptionError(
                    f"memory.{option}",
                    backend=backend,
                    supported_by=("rest",),
                    reason="blocks are files in the agent's memory repository here.",
                )
        # A label becomes the name of a file: it must not leave the folder, nor be a file of
        # Letta's.
        label = block.label
        parts = label.split("/")
        bad = not all(part.strip(". ") == part and part for part in parts) or "\\" in label
        if bad or len(parts) > 1 or label == "MEMORY":
            raise InvalidInputError(f"{label!r} cannot be the label of a memory block here.")
        make_header(label, block.description)  # for its check of the description


async def _write_block(connection: Connection, agent_id: str, block: MemoryBlock) -> None:
    # A commit without a header is refused, and the refused file would stand in the way of every
    # later one.
    content = f"{make_header(block.label, block.description)}{block.value.strip()}\n"
    answer = await connection.request(
        {
            "type": "write_memory_file",
            "agent_id": agent_id,
            "path": f"{block.label}.md",
            "content": content,
        }
    )
    if answer.get("committed") is False:
        raise ProtocolError(f"The memory block {block.label!r} could not be committed.")


async def set_sleeptime(
    connection: Connection, conversation: Conversation, sleeptime: Sleeptime
) -> None:
    """Set when this agent reflects; every other agent keeps its own setting and the default.

    The server writes the default as well whenever it writes an agent's setting (``letta`` 0.34.12),
    so the default is put back.
    """
    # The settings of an agent that does not exist are the defaults.
    nobody = Conversation(f"agent-{uuid.uuid4()}", DEFAULT)
    before = await _reflection(connection, nobody)
    wanted = reflection_settings(sleeptime)
    now = await _reflection(connection, conversation)
    if all(now.get(name) == value for name, value in wanted.items()):
        return
    await connection.request(frames.reflection(conversation, wanted, "global"))
    if any(before.get(name) != value for name, value in wanted.items()):
        back = {k: v for k, v in before.items() if k != "agent_id" and v is not None}
        defaults = Conversation(_DEFAULTS_ID, DEFAULT)
        await connection.request(frames.reflection(defaults, back, "global"))
    after = await _reflection(connection, conversation)
    if any(after.get(name) != value for name, value in wanted.items()):
        raise ConfigurationError(
            "The agent's sleeptime is fixed by .letta/settings.local.json of the working "
            "directory and was not changed."
        )


async def _reflection(connection: Connection, conversation: Conversation) -> dict[str, Any]:
    answer = await connection.request(
        {"type": "get_reflection_settings", "runtime": frames.encode_runtime(conversation)}
    )
    found = answer.get("reflection_settings")
    if not isinstance(found, dict):
        raise ProtocolError("The server's answer holds no reflection settings.")
    return found
