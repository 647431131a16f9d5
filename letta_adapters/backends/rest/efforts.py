"""Internal: give agents and conversations of the Letta API a reasoning effort.

The API has it among the settings of a model, and takes those of a conversation only together with a
model. What was there is read first and sent back, as the API would reset it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from letta_adapters.backends import model_settings
from letta_adapters.backends.base import Conversation
from letta_adapters.backends.rest.conversations import conversation_path
from letta_adapters.backends.rest.http import Http
from letta_adapters.errors import NotFoundError

_NAME = "rest"


async def for_model(http: Http, model: str, effort: str) -> dict[str, Any]:
    """Return the settings of a model with this effort, the others being its own.

    Raises:
        NotFoundError: The server does not list the model.
        UnsupportedOptionError: The model's provider has no effort.
    """
    return model_settings.with_effort(await _own(http, model), effort, model, _NAME)


async def for_agent(
    http: Http, agent: Mapping[str, Any], model: str | None, effort: str
) -> dict[str, Any]:
    """Return the settings for an agent that gets this effort, and another model if one is named."""
    current = agent.get("model")
    if model not in (None, current):
        return await for_model(http, str(model), effort)
    return model_settings.with_effort(model_settings.of_agent(agent), effort, current, _NAME)


async def for_conversation(
    http: Http, conversation: Conversation, model: str | None, effort: str
) -> dict[str, Any]:
    """Return the fields that give a conversation this effort, and another model if one is named."""
    found = await http.read(conversation_path(conversation))
    own = model_settings.of_conversation(found)
    wanted = model or found.get("model")
    agent: Mapping[str, Any] = {}
    if wanted is None or not own:
        agent = await http.read(f"/v1/agents/{found.get('agent_id')}")
        wanted = wanted or agent.get("model")
    if not own:
        return await for_new(http, agent, wanted, effort, {})
    # Those of another provider have another form.
    if wanted != found.get("model"):
        listed = await _own(http, str(wanted))
        own = own if own.get("provider_type") == listed.get("provider_type") else listed
    settings = model_settings.with_effort(own, effort, wanted, _NAME)
    return {"model": wanted, "model_settings": settings}


async def for_new(
    http: Http,
    agent: Mapping[str, Any],
    model: str | None,
    effort: str,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the fields that give a conversation without settings of its own this effort.

    Args:
        http: The connection.
        agent: The conversation's agent.
        model: The conversation's model, if it is not its agent's.
        effort: The effort.
        given: Other settings that it is to have.
    """
    wanted = model or agent.get("model")
    own = await _own(http, str(wanted)) if wanted != agent.get("model") else {}
    base = own or model_settings.of_agent(agent)
    settings = model_settings.with_effort({**base, **given}, effort, wanted, _NAME)
    return {"model": wanted, "model_settings": settings}


async def _own(http: Http, model: str) -> dict[str, Any]:
    for listed in await http.read("/v1/models/"):
        if listed.get("handle") == model:
            return model_settings.of_listed(listed)
    raise NotFoundError(
        f"The server has no model {model!r}.", hint="client.models.list() tells which it has."
    )
