"""Internal: find, create, configure and remove the conversations that calls go to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from letta_adapters._utils.tasks import run_within
from letta_adapters.backends import model_settings
from letta_adapters.backends.base import Conversation, Opened, Target
from letta_adapters.backends.capabilities import check_supported
from letta_adapters.chat.cache import get_cache
from letta_adapters.chat.context import ChatContext
from letta_adapters.chat.request import ChatRequest
from letta_adapters.client.client import get_requests, get_slots
from letta_adapters.errors import (
    InvalidInputError,
    LettaError,
    NotFoundError,
    UnsupportedOptionError,
)
from letta_adapters.options import SessionOptions

if TYPE_CHECKING:
    from letta_adapters.client.client import AsyncLettaClient

# The summary of a thread's conversation begins with this, so that it is found again.
THREAD_PREFIX: Final = "thread:"
_PAGE: Final = 100
# The longest time, in seconds, that a removal may take.
_REMOVE_SECONDS: Final = 5.0
# The frameworks' names of model settings, and the Letta API's.
_SETTINGS: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "max_tokens": "max_output_tokens",
}
_log = logging.getLogger("letta_adapters.chat")


def check_call(client: AsyncLettaClient, call: ChatRequest) -> None:
    """Refuse, before any I/O, what the backend cannot do.

    Raises:
        UnsupportedOptionError: The backend lacks an option of the call; the error names it.
        InvalidInputError: Options contradict each other, or a model setting is unknown.
    """
    # Checked first: a refusal later could leave a conversation behind that nobody uses.
    check_supported(call.session, client.backend.name)
    if call.agent_free and not client.backend.capabilities.agents_optional:
        raise UnsupportedOptionError(
            "agent_free",
            backend=client.backend.name,
            supported_by=("local", "remote"),
            reason="the Letta API has no conversations without an agent.",
        )
    if call.agent_free and call.agent_id:
        raise InvalidInputError("agent_free means no agent: leave agent_id out.")
    if call.settings and not client.backend.capabilities.model_settings:
        raise UnsupportedOptionError(
            sorted(call.settings)[0],
            backend=client.backend.name,
            supported_by=("rest",),
            reason="Letta Code takes the model's settings from the agent, not from a call.",
        )
    unknown = sorted(set(call.settings) - set(_SETTINGS))
    if unknown:
        raise InvalidInputError(f"{unknown[0]!r} is not a model setting of a conversation.")


async def find_agent(client: AsyncLettaClient, call: ChatRequest) -> str:
    """Return the id of the agent that the call is for; ``""`` for a call without one."""
    if call.agent_free:
        return ""
    if call.agent_id is not None:
        return call.agent_id
    cache = get_cache(client)
    known = cache.known_default()
    # A conversation's id names its agent, which need not be the default one.
    if known is None and call.conversation_id not in (None, "default"):
        found = await client.conversations.retrieve(str(call.conversation_id))
        return str(found.get("agent_id") or "")
    if known is None:
        known = await client.backend.default_agent(None)
        cache.default_agent = (known, time.monotonic())
    return known


async def check_asks(client: AsyncLettaClient, call: ChatRequest, agent_id: str) -> None:
    """Refuse a callback that would not be asked about every tool, as a session does.

    The same object asks about an agent, or a conversation that the call names, once.

    Args:
        client: The client.
        call: The call.
        agent_id: The agent that the call is for; ``""`` for none.

    Raises:
        UnsupportedOptionError: The server runs a tool of the agent's without asking.
    """
    asks, named = call.asks, call.conversation_id
    if asks is None or not agent_id:
        return
    # A conversation's id tells its agent, and need not be one of the default agent's.
    where = (agent_id, None) if named in (None, "default") else (call.agent_id, named)
    if not asks.knows(*where):
        await client.backend.check_asks(*where)
        asks.note(*where)


async def find_model(client: AsyncLettaClient, agent_id: str) -> str | None:
    """Return the agent's model handle; the server is asked unless it told the handle lately."""
    if not agent_id:
        return None
    if not client.handles.knows(agent_id):
        agent = await client.agents.retrieve(agent_id)
        client.handles.note(agent_id, agent.get("model"))
    return client.handles.get(agent_id)


async def describe_model(
    client: AsyncLettaClient, agent_id: str | None
) -> tuple[str, str | None, int | None]:
    """Return the agent's id, its model's handle and context window in tokens, where known.

    Args:
        client: The client.
        agent_id: The agent; ``None``: the backend's default agent.
    """
    agent_id = agent_id or await client.backend.default_agent(None)
    agent = await client.agents.retrieve(agent_id)
    config = agent.get("llm_config")
    inner = config.get("context_window") if isinstance(config, Mapping) else None
    sizes = (agent.get("context_window_limit"), inner)
    # A limit set on the agent holds before the model's own.
    window = next((size for size in sizes if isinstance(size, int) and size > 0), None)
    client.handles.note(agent_id, agent.get("model"))
    return agent_id, client.handles.get(agent_id), window


async def make(
    client: AsyncLettaClient, call: ChatRequest, agent_id: str, system: str, summary: str | None
) -> Opened:
    """Create a conversation that has the call's model settings as its own.

    Args:
        client: The client.
        call: The call.
        agent_id: The agent; ``""`` for none.
        system: The system text of the history, for a conversation without an agent.
        summary: The conversation's name, if it is to be found again by one.
    """
    fields: dict[str, Any] = {"summary": summary} if summary else {}
    options = call.session
    # The Letta API takes a model with each message; Letta Code, and settings, need it here.
    if call.model and (call.tuned or not client.backend.capabilities.model_per_message):
        options = _with(options, model=call.model)
    if call.settings:
        fields |= await _model_settings(client, call, agent_id, {})
    if call.agent_free:
        options = _with(options, agent_free=True, system_prompt=system or None)
    target = Target(agent_id=agent_id or None, new=True, fields=fields, lean=True)
    return await client.backend.open(target, options)


def _with(options: SessionOptions, **changes: Any) -> SessionOptions:
    """Return the options with some changed; options that were never given stay so."""
    given = {name: getattr(options, name) for name in options.model_fields_set}
    return SessionOptions(**given | {k: v for k, v in changes.items() if v is not None})


async def _model_settings(
    client: AsyncLettaClient, call: ChatRequest, agent_id: str, conversation: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields that give a conversation model settings.

    The Letta API takes them only together with a model, and in the form of that model's provider;
    and it replaces them as a whole, so that those in use are sent along.

    Args:
        client: The client.
        call: The call.
        agent_id: The conversation's agent.
        conversation: The conversation as the server shows it; nothing for a new one.
    """
    cache = get_cache(client)
    known = cache.known_model(agent_id)
    if known is None:
        agent = await client.agents.retrieve(agent_id)
        known = (model_settings.of_agent(agent), agent.get("model"))
        cache.models[agent_id] = (*known, time.monotonic())
    used, model = known
    if call.model not in (None, model):
        # Only the form is the same; what the other model is set to is for the server to say.
        used = {"provider_type": used.get("provider_type")}
    made = {"provider_type": "openai"}
    made |= {**used, **model_settings.of_conversation(conversation)}
    made |= {_SETTINGS[name]: value for name, value in call.settings.items()}
    return {"model": call.model or model, "model_settings": made}


async def make_named(
    client: AsyncLettaClient, call: ChatRequest, agent_id: str, system: str, name: str
) -> tuple[Conversation, bool]:
    """Create a conversation of a name; return the one to use and whether it is the new one.

    Another process may have created one at the same time. The oldest is the one to use; what was
    created for this call holds nothing yet, and is removed.

    Args:
        client: The client.
        call: The call.
        agent_id: The agent.
        system: The system text of the history.
        name: The conversation's name, which is stored as its summary.
    """
    # Created first and looked up afterwards: two processes that do so find each other's.
    opened = await make(client, call, agent_id, system, name)
    made = opened.conversation
    oldest = await _look_up(client, agent_id, name) or made
    get_cache(client).threads[agent_id, name] = oldest.conversation_id
    if oldest != made:
        await remove(client, made)
        return oldest, False
    note_made(client, call, opened)
    return made, True


def note_made(client: AsyncLettaClient, call: ChatRequest, opened: Opened) -> None:
    """Remember the model of a conversation that was created."""
    cache, where = get_cache(client), opened.conversation
    if not client.backend.capabilities.model_per_message:
        if call.model:
            cache.changed[where] = call.model
        elif opened.model and not client.handles.knows(where.agent_id):
            client.handles.note(where.agent_id, opened.model)


async def open_conversation(client: AsyncLettaClient, context: ChatContext) -> ChatContext:
    """Return the context of a call with a conversation: a new one, if its route leads to none."""
    if context.route.conversation is not None:
        return context
    call, agent_id = context.request, context.agent_id
    opened = await make(client, call, agent_id, context.split.system, None)
    note_made(client, call, opened)
    return context.take(context.route.at(opened.conversation))


async def set_up(client: AsyncLettaClient, context: ChatContext) -> None:
    """Give an existing conversation the call's model and settings."""
    call, conversation = context.request, context.conversation
    if context.route.fresh:
        return  # it was created with them
    switched = False
    if not client.backend.capabilities.model_per_message:
        switched = await _set_model(client, call, conversation)
    if call.tuned and (switched or not context.has_settings):
        await _set_settings(client, call, conversation)


async def _set_model(
    client: AsyncLettaClient, call: ChatRequest, conversation: Conversation
) -> bool:
    """Switch the conversation to the call's model, or back to its agent's own.

    A call's model is for that call: the next one without a model gets the agent's own again.

    Returns:
        Whether it was switched, and so has the other model's settings.
    """
    changed = get_cache(client).changed
    # Nothing to switch: the conversation has this model already, or its agent's own as before.
    if call.model == changed.get(conversation):
        return False
    model = call.model or await find_model(client, conversation.agent_id)
    if model is None:
        return False
    await client.backend.command(
        "update_model", runtime=conversation.as_runtime(), payload={"model_handle": model}
    )
    if call.model is None:
        del changed[conversation]
    else:
        changed[conversation] = call.model
    return True


async def _set_settings(
    client: AsyncLettaClient, call: ChatRequest, conversation: Conversation
) -> None:
    """Give the conversation the call's model settings and effort.

    Raises:
        UnsupportedOptionError: It is the agent's default conversation, which has none of its own.
    """
    effort = call.session.reasoning_effort
    if conversation.conversation_id == "default":
        raise UnsupportedOptionError(
            sorted(call.settings)[0] if call.settings else "reasoning_effort",
            backend=client.backend.name,
            reason="the default conversation always uses its agent's model settings.",
        )
    if call.settings:
        found = await client.conversations.retrieve(conversation.conversation_id)
        fields = await _model_settings(client, call, conversation.agent_id, found)
        await client.conversations.update(conversation.conversation_id, **fields)
    if effort is not None:
        model = None
        if client.backend.capabilities.model_per_message:
            # The model that an earlier call gave it was for that call.
            model = call.model or await find_model(client, conversation.agent_id)
        await client.backend.set_model(conversation, model, effort)


async def find_named(client: AsyncLettaClient, agent_id: str, name: str) -> Conversation | None:
    """Return the oldest conversation of that name, or ``None``; two may be made at once."""
    cache = get_cache(client)
    known = cache.threads.get((agent_id, name))
    if known is not None:
        return Conversation(agent_id, known)
    found = await _look_up(client, agent_id, name)
    if found is not None:
        cache.threads[agent_id, name] = found.conversation_id
    return found


async def _look_up(client: AsyncLettaClient, agent_id: str, summary: str) -> Conversation | None:
    """Return the oldest conversation whose summary is this text, or ``None``."""
    found: str | None = None
    after: str | None = None
    while True:
        # The newest come first, so the last match of all pages is the oldest. Only the Letta API
        # searches by summary, and a search may find longer texts too, so each is compared.
        page = await client.request(
            "GET",
            "/v1/conversations/",
            params={
                "agent_id": agent_id,
                "limit": _PAGE,
                "after": after,
                "summary_search": summary,
            },
        )
        for item in page:
            if item.get("summary") == summary and not item.get("archived"):
                found = str(item["id"])
        if len(page) < _PAGE or page[-1]["id"] == after:
            break
        after = str(page[-1]["id"])
    return Conversation(agent_id, found) if found is not None else None


async def move_to_fork(client: AsyncLettaClient, where: Conversation) -> Conversation:
    """Fork a conversation that an App Server will not go on with; its name goes along."""
    made = await client.conversations.fork(where.conversation_id, agent_id=where.agent_id or None)
    fork = Conversation(where.agent_id, str(made["id"]))
    known = {"agent_id": fork.agent_id, "conversation_id": fork.conversation_id}
    _log.info("The conversation was forked.", extra=known)
    before = await client.conversations.retrieve(where.conversation_id)
    name = str(before.get("summary") or "")
    if name.startswith(THREAD_PREFIX):
        # Named before the old one is removed: other calls find the thread at any moment.
        await client.conversations.update(fork.conversation_id, summary=name)
        await remove(client, where)
        get_cache(client).threads[where.agent_id, name] = fork.conversation_id
    return fork


async def remove(client: AsyncLettaClient, where: Conversation) -> None:
    """Remove a conversation that was for one call; Letta Code can only archive it.

    Its time is limited, and a failure is logged: the call has its answer, and that a server cannot
    clean up must not turn it into a failure.
    """
    try:
        await run_within(_REMOVE_SECONDS, _remove(client, where))
    except NotFoundError:
        pass  # somebody else has removed it
    except (LettaError, asyncio.TimeoutError) as error:
        _log.warning("The conversation %s was not removed: %r", where.conversation_id, error)


async def _remove(client: AsyncLettaClient, where: Conversation) -> None:
    requests, path = get_requests(client), f"/v1/conversations/{where.conversation_id}"
    if client.backend.capabilities.removable_conversations:
        await requests.make_last("DELETE", path)
    else:
        await requests.make_last("PATCH", path, body={"archived": True})


def remove_later(client: AsyncLettaClient, where: Conversation) -> None:
    """Remove a conversation in the background; the client's ``close`` waits for it."""

    async def surely() -> None:
        try:
            await remove(client, where)
        except asyncio.CancelledError:
            # An event loop that ends cancels all tasks and waits for them. Nobody else will remove
            # the conversation, and to ask for it twice does no harm.
            await remove(client, where)

    get_slots(client).finish_later(surely())
