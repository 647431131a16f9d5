"""Internal: the conversations of a server: the one a session means, and what is stored in it.

A conversation is opened with or without an agent. Pages of stored messages leave out the text that
Letta Code wrote into them itself; the rules are in docs/protocol.md ("Pages of stored messages").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from letta_adapters.backends.app_server import agents, frames
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.base import DEFAULT, Conversation, PageQuery, Target
from letta_adapters.engine.otids import is_same_call
from letta_adapters.engine.stored import (
    StoredPage,
    check_cursor,
    newest_first,
    refuse_cursor,
    without_reminders,
)
from letta_adapters.errors import (
    ConfigurationError,
    InvalidInputError,
    ProtocolError,
)
from letta_adapters.options import SessionOptions


async def name_runtime(
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
    model = await agents.choose_model(connection, options.model)
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
        "runtime": frames.encode_runtime(conversation),
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
                "runtime": frames.encode_runtime(conversation),
                "toolset_preference": options.toolset,
            }
        )


def read_conversation(answer: Mapping[str, Any]) -> Conversation:
    """Return the conversation that a ``runtime_start`` opened."""
    runtime = answer.get("runtime")
    if not isinstance(runtime, dict) or not runtime.get("conversation_id"):
        raise ProtocolError("The server's answer names no conversation.")
    return Conversation(str(runtime.get("agent_id") or ""), str(runtime["conversation_id"]))


def read_model(answer: Mapping[str, Any]) -> str | None:
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


def drop_unchanged(
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


_NEWEST: Final = 50


async def fetch_page(
    connection: Connection, conversation: Conversation, query: PageQuery
) -> StoredPage:
    """Return one page; ``limit`` counts stored messages, each of which can be several items.

    The server's own ``next_before`` and ``has_more`` are wrong in ascending order (``letta``
    0.34.12), so both are worked out here, by asking for one message more than is wanted.
    """
    # Only this request tells that there is no such conversation; the list would just be empty.
    if not conversation.agent_id:
        id_ = conversation.conversation_id
        await connection.request({"type": "conversation_retrieve", "conversation_id": id_})
    order = query.order
    given = query.ask_for(query.limit + 1)
    if connection.on_api and order == "desc":
        # Over the Letta API the server means "after" in the order of the list, whatever that is.
        given |= {"before": None, "after": query.before}
    messages = await _list(connection, conversation, given)
    ids = [str(message.get("id")) for message in messages]
    check_cursor(query.cursor, ids)
    cursor = query.before if order == "desc" else query.after
    if cursor is not None and ids:
        # An unknown cursor is answered with the first page.
        first = await _list(connection, conversation, {"order": order, "limit": 1})
        if first and first[0].get("id") == ids[0]:
            raise refuse_cursor(cursor)
    # One more than wanted was asked for, which tells whether there is another page.
    more = len(ids) > query.limit
    shown = messages[: query.limit]
    last = ids[len(shown) - 1] if shown else None
    raw = [cleaned for cleaned in map(without_reminders, shown) if cleaned is not None]
    return StoredPage(raw, order, last, more)


async def _list(
    connection: Connection, conversation: Conversation, query: Mapping[str, Any]
) -> list[dict[str, Any]]:
    wanted = {k: v for k, v in query.items() if v is not None}
    if conversation.agent_id:
        wanted["agent_id"] = conversation.agent_id
    answer = await connection.request(
        {
            "type": "conversation_messages_list",
            "conversation_id": conversation.conversation_id or DEFAULT,
            "query": wanted,
        }
    )
    found = answer.get("messages")
    if not isinstance(found, list):
        raise ProtocolError("The server's answer holds no list of messages.")
    messages = [message for message in found if isinstance(message, dict)]
    # A Letta API lists a default conversation oldest first, whatever was asked.
    on_api = connection.on_api and query.get("order") == "desc"
    return newest_first(messages) if on_api else messages


async def since(
    connection: Connection, conversation: Conversation, client_message_id: str
) -> list[dict[str, Any]] | None:
    """Return the messages stored after this one, oldest first; ``None`` if it is not stored."""
    newest = await _list(connection, conversation, {"order": "desc", "limit": _NEWEST})
    for at, message in enumerate(newest):
        if is_same_call(message.get("otid"), client_message_id):
            return newest[:at][::-1]
    return None


async def is_stored(
    connection: Connection, conversation: Conversation, client_message_id: str
) -> tuple[bool, bool]:
    """Return whether the conversation holds this message, and whether an answer follows it."""
    query = {"order": "desc", "limit": _NEWEST}
    newest = await _list(connection, conversation, query)
    # The list is newest first: what is passed before the message came after it.
    answered = False
    for message in newest:
        if is_same_call(message.get("otid"), client_message_id):
            return True, answered
        answered = answered or message.get("message_type") == "assistant_message"
    return False, False
