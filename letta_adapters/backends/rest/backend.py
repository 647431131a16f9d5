"""Internal: the Letta API as a :class:`~letta_adapters.backends.base.Backend`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from letta_adapters._utils.checks import check_id
from letta_adapters.backends import default_agent, model_settings
from letta_adapters.backends.agent_settings import keep_own
from letta_adapters.backends.base import (
    DEFAULT,
    Change,
    Conversation,
    Files,
    LiveState,
    Opened,
    PageQuery,
    Sent,
    Target,
    ToolCallResponse,
    TurnSettings,
    refuse_model,
)
from letta_adapters.backends.capabilities import REST, check_supported
from letta_adapters.backends.config import Rest, RuntimeStatus
from letta_adapters.backends.rest import conversations, efforts, recovery
from letta_adapters.backends.rest.http import Http
from letta_adapters.backends.rest.turn import BackgroundRuns, RestBackendTurn
from letta_adapters.engine.stored import StoredPage
from letta_adapters.errors import (
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    UnsupportedOptionError,
)
from letta_adapters.messages import PendingToolCall
from letta_adapters.options import AgentOptions, ReasoningEffort, SessionOptions

# Tools through which an agent edits its own memory and searches its own history. They are part of
# the agent, not actions in the world, and Letta Code never asks about them either.
_OWN_TOOL_TYPES: Final = ("letta_core", "letta_memory_core", "letta_sleeptime_core")


class RestBackend:
    """Agents that live on the Letta API."""

    name = "rest"
    capabilities = REST

    def __init__(self, rest: Rest, http_client: Any = None) -> None:
        self.turn_timeout = rest.turn_timeout
        self._rest = rest
        self._http = Http(rest, http_client)
        wanted = self._http.cloud if rest.background is None else rest.background
        self._background = BackgroundRuns(wanted)
        self._first_use = asyncio.Lock()

    # -- agents -----------------------------------------------------------------------------

    async def create_agent(self, options: AgentOptions) -> str:
        """Create an agent and return its id.

        ``model`` defaults to ``LETTA_MODEL``, else to the first model listed.
        """
        check_supported(options, self.name)
        body = await self._agent_body(options)
        if options.reasoning_effort is not None:
            settings = await efforts.for_model(self._http, body["model"], options.reasoning_effort)
            body["model_settings"] = settings
        agent = await self._http.send("POST", "/v1/agents/", body=body)
        agent_id = _read_id(agent, "agent")
        if options.reasoning_effort is not None:
            await self._keep(f"/v1/agents/{agent_id}", agent, options.reasoning_effort)
        return agent_id

    async def _keep(self, path: str, made: Any, effort: str) -> None:
        """Remove what was made if the server has not given it the effort."""
        try:
            model_settings.check_kept(made, effort, self.name)
        except UnsupportedOptionError:
            await self._http.send("DELETE", path)
            raise

    async def update_agent(
        self,
        agent_id: str,
        fields: Mapping[str, Any],
        settings: Mapping[str, Any],
        effort: ReasoningEffort | None = None,
    ) -> dict[str, Any]:
        """Change an agent's fields and return it; our own tags and metadata stay."""
        check_supported(AgentOptions(**settings), self.name)
        path = f"/v1/agents/{agent_id}"
        # Each replaces the whole field, and with it the entries of this package.
        if "tags" in fields or "metadata" in fields or effort is not None:
            before = await self._http.read(path, {"include": "agent.tags"})
            fields = keep_own(fields, before)
            if effort is not None:
                made = await efforts.for_agent(self._http, before, fields.get("model"), effort)
                fields = {**fields, "model_settings": made}
        found: dict[str, Any] = await self._http.send("PATCH", path, body=dict(fields))
        if effort is not None:
            model_settings.check_kept(found, effort, self.name)
        return found

    async def agent_settings(self, agent_id: str) -> dict[str, Any]:
        """Return no settings, as they are for Letta Code's own tools, which are not here.

        Raises:
            NotFoundError: There is no such agent.
        """
        await self._http.read(f"/v1/agents/{agent_id}")
        return {}

    async def _agent_body(self, options: AgentOptions) -> dict[str, Any]:
        body: dict[str, Any] = {
            "agent_type": "letta_v1_agent",
            "model": options.model or await self._default_model(),
            "memory_blocks": [b.model_dump(exclude_none=True) for b in options.blocks()],
        }
        given = {
            "name": options.name,
            "description": options.description,
            "embedding": options.embedding,
            "system": options.system_prompt,
            "tags": list(options.tags) or None,
            "block_ids": list(options.block_ids) or None,
            "tool_ids": list(options.tool_ids) or None,
            "hidden": options.hidden,
        }
        if options.base_tools is not None:
            given |= dict.fromkeys(
                ("include_base_tools", "include_base_tool_rules"), options.base_tools
            )
        return body | {k: v for k, v in given.items() if v is not None}

    async def _default_model(self) -> str:
        if from_env := os.environ.get("LETTA_MODEL"):
            return from_env
        models = await self._http.read("/v1/models/")
        # The list may hold embedding models as well.
        handles = [m["handle"] for m in models if m.get("model_type", "llm") == "llm"]
        if not handles:
            raise ConfigurationError(
                "The server lists no chat model.",
                hint="Configure a model provider on it, or pass model='provider/name'.",
            )
        return str(handles[0])

    async def default_agent(self, model: str | None) -> str:
        """Return the agent used when none is named: found by its tag, made once."""
        agents = default_agent.Agents(
            self,
            model,
            persona="I am a helpful assistant with a memory that lasts.",
            human="Nothing is known about the user yet.",
        )
        return await default_agent.find(agents, lambda: self._first_use, shared=False)

    # -- conversations ----------------------------------------------------------------------

    async def open(self, target: Target, options: SessionOptions) -> Opened:
        """Find or create the conversation, with the requests that must come before a message."""
        agent_id, conversation_id = target.agent_id, target.conversation_id
        both = agent_id is not None and conversation_id is not None
        model, effort = options.model, options.reasoning_effort
        # Both ids say all that is needed, unless the tools or the model have to be looked at.
        if both and not options.can_use_tool and not model and effort is None:
            return Opened(Conversation(str(agent_id), str(conversation_id)))
        if conversation_id in (None, DEFAULT):
            agent_id = agent_id or await self.default_agent(model)
        where = Conversation(agent_id or "", conversation_id or DEFAULT)
        look_up = partial(self._look_up, where, model=None if target.new else model)
        opened = Opened(where, look_up=None if target.lean else look_up)
        # Before anything is created or changed, so that a refusal leaves nothing behind.
        if options.can_use_tool or (both and model):
            opened = await self._look_up(where, asks=bool(options.can_use_tool))
        if target.new:
            return await self._create(opened, target, options)
        if model or effort is not None:
            await self.set_model(opened.conversation, model, effort)
            opened = replace(opened, model=model or opened.model)
        return opened

    async def _create(self, opened: Opened, target: Target, options: SessionOptions) -> Opened:
        """Create a conversation of the agent whose default conversation is open."""
        agent_id, effort = opened.conversation.agent_id, options.reasoning_effort
        body = {**target.fields, **({"model": options.model} if options.model else {})}
        if effort is not None:
            agent = await self._http.read(f"/v1/agents/{agent_id}")
            given = body.get("model_settings") or {}
            body |= await efforts.for_new(self._http, agent, body.get("model"), effort, given)
        try:
            found = await self._http.send(
                "POST", "/v1/conversations/", params={"agent_id": agent_id}, body=body
            )
        except NotFoundError:
            # The server does not say which agent it has not found, nor that the id is none.
            await self._http.read(f"/v1/agents/{agent_id}")
            raise
        made = Conversation(agent_id, _read_id(found, "conv"))
        if effort is not None:
            await self._keep(conversations.conversation_path(made), found, effort)
        look_up = opened.look_up and partial(self._look_up, made, found)
        return Opened(made, found.get("model") or opened.model, opened.tools, look_up)

    async def _look_up(
        self,
        where: Conversation,
        found: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
        asks: bool = False,
    ) -> Opened:
        """Read the properties of a conversation and of its agent.

        Args:
            where: The conversation; its agent need not be known.
            found: The conversation's own properties, if they are known.
            model: The model that the conversation was just given.
            asks: Refuse tools that the server would run without asking.
        """
        if found is None and where.conversation_id != DEFAULT:
            found = await self._http.read(f"/v1/conversations/{where.conversation_id}")
            owner = str(found.get("agent_id"))
            if where.agent_id not in ("", owner):
                raise NotFoundError(
                    f"{where.conversation_id} is not a conversation of {where.agent_id}."
                )
            where = Conversation(owner, where.conversation_id)
        agent = await self._http.read(f"/v1/agents/{where.agent_id}", {"include": "agent.tools"})
        if asks:
            _refuse_silent_tools(agent)
        tools = tuple(tool["name"] for tool in agent.get("tools") or ())
        return Opened(where, model or (found or {}).get("model") or agent.get("model"), tools)

    def turn(self, conversation: Conversation, settings: TurnSettings) -> RestBackendTurn:
        """Return a turn that is not started yet."""
        return RestBackendTurn(
            self._http, conversation, settings, self._background, self._rest.settle_timeout
        )

    async def list_messages(self, conversation: Conversation, query: PageQuery) -> StoredPage:
        """Return one page of stored messages."""
        return await conversations.fetch_page(self._http, conversation, query)

    async def pending_calls(self, conversation: Conversation) -> tuple[PendingToolCall, ...]:
        """Return the tool calls that wait for an answer."""
        return await conversations.pending_calls(self._http, conversation)

    async def clear(
        self,
        conversation: Conversation,
        calls: Sequence[PendingToolCall],
        why: str,
        answers: Sequence[ToolCallResponse] = (),
    ) -> None:
        """End pending calls without a model call, each with a result that tells why."""
        await conversations.clear(self._http, conversation, calls, why, answers)

    async def abort(self, conversation: Conversation) -> bool:
        """Cancel the active run; return ``False`` if there was none."""
        return await recovery.cancel(self._http, conversation)

    async def wait_until_idle(self, conversation: Conversation, sent: Sent) -> bool | None:
        """Wait for a run that somebody else began.

        See :class:`~letta_adapters.backends.base.Backend`. The message that an active run was sent
        is not listed before its step is stored (letta 0.16.8), so any run counts.
        """
        return await recovery.wait_until_idle(self._http, conversation, sent.seconds, sent.after)

    async def was_cut(self, conversation: Conversation, message_id: str) -> bool:
        """Return false: the Letta API stores whole answers alone."""
        return False

    async def check_asks(self, agent_id: str | None, conversation_id: str | None) -> None:
        """Look at the agent's tools, as a session with a ``can_use_tool`` does."""
        where = Conversation(agent_id or "", conversation_id or DEFAULT)
        await self._look_up(where, asks=True)

    async def live(self, conversation: Conversation) -> LiveState:
        """Refuse: the Letta API has no queue and no device."""
        raise _no("device_status")

    async def set_model(
        self,
        conversation: Conversation,
        model: str | None,
        effort: ReasoningEffort | None = None,
    ) -> None:
        """Give a conversation a model of its own, an effort, or both."""
        if conversation.conversation_id == DEFAULT:
            raise refuse_model(self.name, "model" if model else "reasoning_effort")
        path, body = conversations.conversation_path(conversation), {"model": model}
        if effort is None:
            await self._http.send("PATCH", path, body=body)
            return
        body = await efforts.for_conversation(self._http, conversation, model, effort)
        found = await self._http.send("PATCH", path, body=body)
        model_settings.check_kept(found, effort, self.name)

    async def change_state(self, conversation: Conversation, options: SessionOptions) -> None:
        """Refuse: a conversation of the Letta API has no permission mode and no directory."""
        raise _no("change_device_state")

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        files: Files | None = None,
    ) -> Any:
        """Make a management call; GET is retried, everything else is sent once."""
        if method == "GET" and files is None:
            return await self._http.read(path, params)
        return await self._http.send(method, path, params=params, body=body, files=files)

    def find_memory(self, agent_id: str) -> Path | None:
        """Return nothing: agents live on the API's server."""
        return None

    async def command(self, name: str, /, **fields: Any) -> dict[str, Any]:
        """Refuse: the Letta API has routes alone."""
        raise UnsupportedOptionError(
            name,
            backend=self.name,
            supported_by=("local", "remote"),
            reason="it is a part of Letta Code.",
        )

    def notice(self, change: Change) -> None:
        """Do nothing: no facts of agents and conversations are cached here."""

    async def runtime_status(self) -> RuntimeStatus:
        """Refuse: this backend has no runtime."""
        raise UnsupportedOptionError("runtime_status", backend=self.name, supported_by=("local",))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _read_id(found: Any, what: str) -> str:
    try:
        # An id goes into later paths, so even the server's own is checked.
        return check_id(found["id"] if isinstance(found, dict) else None, "", (f"{what}-",))
    except (KeyError, InvalidInputError):
        raise ProtocolError(f"The server's answer holds no {what} id.") from None


def _refuse_silent_tools(agent: Mapping[str, Any]) -> None:
    """Refuse ``can_use_tool`` for tools that the server runs without asking.

    It must not give false safety: the API asks only where a rule requires it.
    """
    rules = agent.get("tool_rules") or ()
    # Such a rule is the only thing that makes the API ask about a tool.
    asking = {r.get("tool_name") for r in rules if r.get("type") == "requires_approval"}
    silent = [
        tool["name"]
        for tool in agent.get("tools") or ()
        if tool.get("tool_type") not in _OWN_TOOL_TYPES and tool["name"] not in asking
    ]
    if silent:
        raise UnsupportedOptionError(
            "can_use_tool",
            backend="rest",
            supported_by=("local", "remote"),
            reason=f"the server runs {', '.join(sorted(silent))} without asking. Make them ask "
            "(PATCH /v1/agents/{id}/tools/approval/{name} with requires_approval: true), or "
            "detach them.",
        )


def _no(what: str) -> UnsupportedOptionError:
    return UnsupportedOptionError(
        what,
        backend="rest",
        supported_by=("local", "remote"),
        reason="the Letta API has no such state.",
    )
