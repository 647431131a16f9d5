"""Internal: give agents and conversations of Letta Code a reasoning effort.

``update_model`` has a field for it, and drops it for all models but a few (``letta`` 0.34.12). The
settings of the agent or the conversation hold it for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from letta_adapters.backends import model_settings
from letta_adapters.backends.app_server.agents import choose_model
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.base import Conversation
from letta_adapters.backends.replies import require_field

# Letta Code never sends an effort to models of these providers, which are servers of one's own.
_NONE: Final = frozenset(
    ("lmstudio", "ollama", "ollama-cloud", "llama-cpp", "llama.cpp", "openai-compatible")
)
# It looks for the effort under all of these, and settings of the agent may hold any.
_ALL: Final = ("effort", "reasoning_effort")


def refuse_none(connection: Connection, model: str | None, backend: str) -> None:
    """Refuse, before anything is changed, an effort for a model that is known to get none."""
    provider = (model or "").partition("/")[0]
    # On a Letta API that is for its own providers to say.
    if provider in _NONE and not connection.on_api:
        raise model_settings.refuse_effort(
            model, backend, f"Letta Code sends none to models of {provider!r}."
        )


async def refuse_for_agent(
    connection: Connection, agent_id: str, model: str | None, effort: str, backend: str
) -> None:
    """Refuse, before anything is changed, an effort that the agent's model cannot have.

    Args:
        connection: The connection.
        agent_id: The agent; ``""`` for none.
        model: Another model than the agent's.
        effort: The effort.
        backend: The name of the backend.
    """
    if model is not None or not agent_id:
        refuse_none(connection, model or await choose_model(connection, None), backend)
        return
    agent = await _agent(connection, agent_id)
    used = model_settings.of_agent(agent)
    _changed(connection, used, effort, agent.get("model"), backend)


async def set_for_agent(
    connection: Connection, agent_id: str, effort: str, backend: str
) -> dict[str, Any]:
    """Give an agent's model this effort and return the agent."""
    agent = await _agent(connection, agent_id)
    settings = model_settings.of_agent(agent)
    body = {"model_settings": _changed(connection, settings, effort, agent.get("model"), backend)}
    frame = {"type": "agent_update", "agent_id": agent_id, "body": body}
    answer = require_field("agent_update", await connection.request(frame), "agent")
    model_settings.check_kept(answer, effort, backend)
    return dict(answer)


async def set_for_conversation(
    connection: Connection, conversation: Conversation, effort: str, backend: str
) -> None:
    """Give a conversation's model this effort, in this conversation alone."""
    found = await _conversation(connection, conversation)
    own, model, body = model_settings.of_conversation(found), found.get("model"), {}
    if conversation.agent_id and not (own and model):
        agent = await _agent(connection, conversation.agent_id)
        model = model or agent.get("model")
        if connection.on_api:
            # The API takes settings as a whole, and only together with a model.
            own = own or model_settings.of_agent(agent)
            body = {"model": model}
    body["model_settings"] = _changed(connection, own, effort, model, backend)
    frame = {
        "type": "conversation_update",
        "conversation_id": conversation.conversation_id,
        "body": body,
    }
    answer = await connection.request(frame)
    found = require_field("conversation_update", answer, "conversation")
    model_settings.check_kept(found, effort, backend)


async def own_effort(connection: Connection, conversation: Conversation) -> str | None:
    """Return the effort that the conversation has as its own."""
    found = await _conversation(connection, conversation)
    return model_settings.read_effort(found.get("model_settings"))


def _changed(
    connection: Connection,
    settings: Mapping[str, Any],
    effort: str,
    model: str | None,
    backend: str,
) -> dict[str, Any]:
    if connection.on_api:
        return model_settings.with_effort(settings, effort, model, backend)
    refuse_none(connection, model, backend)
    nested = {**(settings.get("reasoning") or {}), "reasoning_effort": effort}
    return {**settings, "reasoning": nested, **dict.fromkeys(_ALL, effort)}


async def _agent(connection: Connection, agent_id: str) -> dict[str, Any]:
    answer = await connection.request({"type": "agent_retrieve", "agent_id": agent_id})
    return dict(require_field("agent_retrieve", answer, "agent"))


async def _conversation(connection: Connection, conversation: Conversation) -> dict[str, Any]:
    answer = await connection.request(
        {"type": "conversation_retrieve", "conversation_id": conversation.conversation_id}
    )
    return dict(require_field("conversation_retrieve", answer, "conversation"))
