"""Choose the runtime of the server that a session means, with or without an agent.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from letta_adapters.backends.app_server import agents, frames
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.base import DEFAULT, Conversation, Target
from letta_adapters.errors import (
    ConfigurationError,
    InvalidInputError,
    ProtocolError,
    UnsupportedOptionError,
)
from letta_adapters.options import SessionOptions


async def runtime_of(
    connection: Connection,
    target: Target,
    options: SessionOptions,
    default_agent: Callable[[str | None], Awaitable[str]],
) -> dict[str, Any]:
    """Return the part of ``runtime_start`` that names the agent and the conversation."""
    # A conversation that exists has its agent, or none, already.
    if options.agent_free and target.new:
        return {"create_conversation": {"body": await _without_agent(connection, target, options)}}
    agent_id = target.agent_id
    if agent_id is None and target.conversation_id is not None:
        # A runtime is named by the agent and the conversation together.
        agent_id = await _owner(connection, target.conversation_id)
    elif agent_id is None:
        agent_id = await default_agent(options.model)
    where: dict[str, Any] = {"agent_id": agent_id or None}
    if target.new:
        # A fresh conversation gets its model here, one that exists by a request of its own.
        body = {"model": options.model} if options.model else {}
        where["create_conversation"] = {"body": {**target.fields, **body}}
    else:
        where["conversation_id"] = target.conversation_id or DEFAULT
    return where


async def _without_agent(
    connection: Connection, target: Target, options: SessionOptions
) -> dict[str, Any]:
    """Return a conversation in which the model sees exactly one system text and the messages.

    It has no memory, no skills and no reminders.
    """
    model = await agents.chosen_model(connection, options.model)
    return {**target.fields, "model": model, "system": options.system_prompt or ""}


async def _owner(connection: Connection, conversation_id: str) -> str:
    """Return the conversation's agent; ``""`` if it has none."""
    found = await connection.request(
        {"type": "conversation_retrieve", "conversation_id": conversation_id}
    )
    owner = (found.get("conversation") or {}).get("agent_id")
    return owner if isinstance(owner, str) else ""


def model_update(conversation: Conversation, model: str) -> dict[str, Any]:
    """Return the frame that gives a conversation a model of its own."""
    return {
        "type": "update_model",
        "runtime": frames.runtime_of(conversation),
        "payload": {"model_handle": model},
    }


async def use_toolset(
    connection: Connection, conversation: Conversation, options: SessionOptions
) -> None:
    """Choose the set of the server's own tools that the conversation has."""
    if options.toolset is not None:
        await connection.request(
            {
                "type": "update_toolset",
                "runtime": frames.runtime_of(conversation),
                "toolset_preference": options.toolset,
            }
        )


def conversation_of(answer: Mapping[str, Any]) -> Conversation:
    """Return the conversation that a ``runtime_start`` opened."""
    runtime = answer.get("runtime")
    if not isinstance(runtime, dict) or not runtime.get("conversation_id"):
        raise ProtocolError("The server's answer names no conversation.")
    return Conversation(str(runtime.get("agent_id") or ""), str(runtime["conversation_id"]))


def model_of(answer: Mapping[str, Any]) -> str | None:
    """Return the conversation's model, as far as the server names it."""
    # A conversation's own model comes before its agent's.
    for part in ("conversation", "agent"):
        found = (answer.get(part) or {}).get("model")
        if isinstance(found, str) and found:
            return found
    return None


def same_directory(asked: str, used: str) -> bool:
    """Return whether the server works where it was told to."""
    return asked == used or Path(asked).resolve() == Path(used)


def changed(
    settings: Mapping[str, Any], before: Mapping[str, Any], directory: str
) -> Mapping[str, Any]:
    """Leave out a directory that is not changed.

    The server looks at each in its own time: one that is merely repeated could be set after the
    one that comes next (``handleCwdChange`` of ``letta`` 0.34.12).
    """
    asked = settings.get("cwd")
    same = asked and asked == before.get("cwd") and same_directory(asked, directory)
    return {**settings, "cwd": None} if same else settings


def working_directory() -> Path:
    """Return this process's directory; raise ConfigurationError if it was deleted."""
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigurationError(
            f"This process's working directory is gone ({error.strerror}).",
            hint="Change to one that exists, or name one with cwd=.",
        ) from error


def no_directory(asked: str, used: str) -> InvalidInputError:
    """Return the error for a server that works somewhere else than it was told to."""
    return InvalidInputError(
        f"cwd={asked!r} is not a directory on the server, which would use {used!r}."
    )


def agents_model(backend: str) -> UnsupportedOptionError:
    """Return the refusal of a model of its own for the default conversation."""
    return UnsupportedOptionError(
        "model",
        backend=backend,
        reason="the default conversation always uses its agent's model; change it with "
        "client.agents.update(agent_id, model=...), or use create_session(model=...).",
    )
