"""Internal: the requests of a client that begin no turn: agents, conversations, models, providers.

They take and return the API's own objects (dicts). Only calls that are needed next to sessions are
here; ``client.request`` reaches everything else.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letta_adapters._utils.checks import check_id
from letta_adapters._utils.shown import show_object
from letta_adapters.backends.agent_settings import SETTINGS, without_own
from letta_adapters.backends.base import (
    Change,
)
from letta_adapters.client import agent_files
from letta_adapters.client.blocks import AsyncPassages
from letta_adapters.client.memory import AsyncMemory
from letta_adapters.client.requests import Requests
from letta_adapters.errors import InvalidInputError, NotFoundError, UnsupportedOptionError
from letta_adapters.options import AgentOptions, literal_prompt
from letta_adapters.options_base import did_you_mean, to_snake_case

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from letta_adapters.client.agent_files import ImportKwargs
    from letta_adapters.client.file_parts import AgentFile
    from letta_adapters.options import AgentKwargs


class AsyncAgents:
    """The agents of the backend, with their ``memory`` and their ``passages``."""

    def __init__(self, requests: Requests, memory: AsyncMemory, passages: AsyncPassages) -> None:
        self._requests = requests
        self.memory = memory
        self.passages = passages

    def __repr__(self) -> str:
        return show_object(self, backend=self._requests.backend.name)

    async def create(self, **options: Unpack[AgentKwargs]) -> str:
        """Create an agent and return its id, as ``client.create_agent`` does."""
        checked = AgentOptions(**dict[str, Any](**options))
        self._requests.check_usable()
        agent_id = await self._requests.backend.create_agent(checked)
        # Without one the backend has chosen, and tells the agent's id alone.
        if checked.model:
            self._requests.handles.note(agent_id, checked.model)
        return agent_id

    async def list(
        self,
        *,
        tags: Sequence[str] = (),
        query: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return agents with all ``tags`` whose name matches ``query``; page by ``after``."""
        params = {
            "tags": list(tags) or None,
            # Otherwise the API takes agents that have any of the tags.
            "match_all_tags": True if tags else None,
            "query_text": query,
            "limit": limit,
            "after": after,
        }
        found: list[dict[str, Any]] = await self._requests.make("GET", "/v1/agents/", params=params)
        return [without_own(agent) for agent in found]

    async def retrieve(self, agent_id: str) -> dict[str, Any]:
        """Return one agent; raise NotFoundError if there is none."""
        found: dict[str, Any] = await self._requests.make("GET", _build_path("agents", agent_id))
        return without_own(found)

    async def update(self, /, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Change fields of the API's agent object, and the settings that its sessions inherit.

        Fields are ``name``, ``model``, ``tags``, ...; for settings see :meth:`settings` (``None``
        takes one back). Sessions that are open get a changed setting within half a minute. ``tags``
        and ``metadata`` replace the user's own; the entries that this package keeps in them stay.
        ``reasoning_effort`` is the effort of the agent's model, whose other settings stay; a new
        model begins with its own.

        Raises:
            InvalidInputError: Nothing is to be changed, a setting does not take the value, or
                ``system`` is the name of a preset.
            UnsupportedOptionError: This backend does not have the setting.
        """
        self._requests.check_usable()
        effort = AgentOptions(
            reasoning_effort=fields.pop("reasoning_effort", None)
        ).reasoning_effort
        if effort is None:
            _check_change(fields)
        _check_fields(fields)
        # The API would store the name of a preset as the prompt itself.
        try:
            literal_prompt(fields.get("system"))
        except ValueError as error:
            raise InvalidInputError(f"system: {error}.") from None
        # The API's agent object does not have these; the backend keeps them, or refuses them.
        settings = {name: fields.pop(name) for name in SETTINGS if name in fields}
        if effort is not None and fields.get("model_settings") is not None:
            raise InvalidInputError("Give reasoning_effort or model_settings, not both.")
        found = await self._requests.backend.update_agent(
            _check_id(agent_id), fields, settings, effort
        )
        # The change did not go through `make`, which would have noticed it.
        self._requests.notice(Change(agent_id=agent_id))
        # After the notice, which makes everybody forget the agent's model.
        if found.get("model"):
            self._requests.handles.note(agent_id, found["model"])
        return without_own(found)

    async def settings(self, agent_id: str) -> dict[str, Any]:
        """Return the settings that the agent's sessions inherit by default (Letta Code).

        Of ``permission_mode``, ``allowed_tools``, ``disallowed_tools``, ``skill_sources``,
        ``system_info_reminder`` and ``cwd`` it holds those that are set.

        Raises:
            NotFoundError: There is no such agent.
        """
        self._requests.check_usable()
        return await self._requests.backend.agent_settings(_check_id(agent_id))

    async def delete(self, agent_id: str) -> None:
        """Delete an agent, its conversations and memory; raise NotFoundError if not found."""
        await self._requests.make("DELETE", _build_path("agents", agent_id))

    async def export_file(
        self,
        agent_id: str,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        conversation_id: str | None = None,
        scrub_messages: bool = False,
    ) -> AgentFile:
        """Export an agent to a file, with mode 0600, as a whole or not at all.

        The Letta API makes an agent file (``.af``): the values of its tools' environment variables
        are left out, their names stay. What was said in its history, its blocks and its tools'
        source is written as it is. Letta Code on this machine makes a git bundle: the agent's
        memory as of its last commit, with its history, and its name, description, model, prompt and
        tags. It has no conversations.

        Args:
            agent_id: The agent.
            path: The file to write; its folder exists.
            overwrite: Replace a file that is there.
            conversation_id: Export the messages of this conversation (Letta API).
            scrub_messages: Leave all messages out, as a bundle always does.

        Returns:
            The content of the file, as :func:`~letta_adapters.inspect_agent_file` shows it.

        Raises:
            CorruptStateError: The memory's repository cannot be read (a bundle).
            InvalidInputError: The file exists, or its folder does not; or the memory holds what no
                import would write (a bundle).
            NotFoundError: There is no such agent.
            UnsupportedOptionError: The agents live on a Letta Code elsewhere.
        """
        self._requests.check_usable()
        return await agent_files.export_file(
            self._requests,
            agent_id,
            path,
            overwrite=overwrite,
            conversation_id=conversation_id,
            scrub_messages=scrub_messages,
        )

    async def import_file(
        self,
        file: AgentFile | str | os.PathLike[str] | bytes,
        *,
        trust: str | Sequence[str] = (),
        allow: Collection[str] = (),
        **options: Unpack[ImportKwargs],
    ) -> Sequence[str]:
        """Import the agents of a file, which is not believed, and return their ids.

        The Letta API takes agent files (``.af``). Every tool that acts is imported as one whose
        calls need an approval, unless it is named in ``allow``. The settings of models are the
        server's own. Letta Code on this machine takes git bundles, and makes one agent with the
        memory and its history; if anything fails, no agent is left.

        Args:
            file: The path of a file, its content, or what
                :func:`~letta_adapters.inspect_agent_file` returned.
            trust: The digest of the file, or the digests of its tools that bring code along; with
                an object that was shown also the names of these tools.
            allow: Those of ``AgentFile.demands`` to grant: ``"run:TOOL"``, ``"mcp:SERVER"``,
                ``"pending:AGENT"``; of a bundle ``"skill:NAME"``, ``"mod:NAME"``,
                ``"executable:PATH"``.
            options: Those of :class:`~letta_adapters.client.agent_files.ImportOptions`: ``secrets``
                (the values of its tools' environment variables; those in the file are dropped),
                ``name``, ``model``, ``embedding``, ``strip_messages`` (leave the history out), and
                ``override_existing_tools`` (replace other tools and MCP servers of the same name,
                for all agents of the server).

        Raises:
            InvalidInputError: It is no such file, asks for what was not trusted or allowed, or
                holds what is never written. Nothing was sent.
            ConflictError: The server has another tool or MCP server of the same name.
            DiskFullError: There is no space (a bundle).
            UnsupportedOptionError: This backend takes files of the other kind, or none.
        """
        checked = agent_files.ImportOptions(**dict[str, Any](**options))
        self._requests.check_usable()
        return await agent_files.import_file(
            self._requests,
            file,
            trust=trust,
            allow=allow,
            options=checked,
        )

    # -- Letta Code only --------------------------------------------------------------------

    async def secrets(self, agent_id: str) -> tuple[str, ...]:
        """Return the names of the agent's secrets.

        A shell command that uses a secret gets it as a variable; the model never sees a value.
        """
        found = await self._command("secret_list", agent_id)
        return tuple(sorted(str(item["key"]) for item in found.get("secrets") or ()))

    async def set_secrets(self, agent_id: str, secrets: Mapping[str, str | None]) -> None:
        """Set secrets; ``None`` removes one.

        Raises:
            InvalidInputError: A name is not possible for a shell variable.
        """
        from letta_adapters.backends.app_server.agents import secrets_change

        made = secrets_change(_check_id(agent_id), secrets)
        await self._command(made.pop("type"), made.pop("agent_id"), **made)

    async def memory_files(self, agent_id: str) -> Sequence[dict[str, Any]]:
        """Return the files of the agent's memory.

        A file has ``relative_path``, ``description``, ``content`` and more.
        """
        found = await self._command("list_memory", agent_id)
        return [dict(item) for item in found.get("entries") or ()]

    async def memory_history(
        self, agent_id: str, path: str | None = None
    ) -> Sequence[dict[str, Any]]:
        """Return the commits of the agent's memory repository (of one file), newest first.

        A commit has ``sha``, ``message``, ``timestamp`` and ``author_name``.
        """
        given = {} if path is None else {"file_path": path}
        found = await self._command("memory_history", agent_id, **given)
        return [dict(item) for item in found.get("commits") or ()]

    async def memory_path(self, agent_id: str) -> Path:
        """Return the directory of the agent's memory repository (``Local`` only), a git work tree.

        Raises:
            NotFoundError: There is no such agent, or it has no repository.
            UnsupportedOptionError: The agent lives elsewhere.
        """
        # First of all an unknown agent is told from one that has no repository.
        await self.retrieve(agent_id)
        backend = self._requests.backend
        memory = backend.find_memory(agent_id)
        if memory is None:
            raise UnsupportedOptionError(
                "memory_path",
                backend=backend.name,
                supported_by=("local",),
                reason="its agents live elsewhere; use memory_files() and memory_history().",
            )
        return _check_exists(memory, agent_id)

    async def _command(self, name: str, agent_id: str, **fields: Any) -> dict[str, Any]:
        return await self._requests.command(name, agent_id=_check_id(agent_id), **fields)


class AsyncConversations:
    """The conversations of agents."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def __repr__(self) -> str:
        return show_object(self, backend=self._requests.backend.name)

    async def create(self, /, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Create a conversation (``summary``, ``model``, ``model_settings``, ...) and return it."""
        found: dict[str, Any] = await self._requests.make(
            "POST",
            "/v1/conversations/",
            params={"agent_id": _check_id(agent_id)},
            body=_check_fields(fields),
        )
        return found

    async def list(
        self, agent_id: str, *, limit: int = 50, after: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the agent's conversations, newest first, without its default one."""
        params = {"agent_id": _check_id(agent_id), "limit": limit, "after": after}
        found: list[dict[str, Any]] = await self._requests.make(
            "GET", "/v1/conversations/", params=params
        )
        return found

    async def retrieve(self, conversation_id: str) -> dict[str, Any]:
        """Return one conversation; raise NotFoundError if there is none."""
        path = _build_path("conversations", conversation_id)
        found: dict[str, Any] = await self._requests.make("GET", path)
        return found

    async def update(self, /, conversation_id: str, **fields: Any) -> dict[str, Any]:
        """Change ``summary``, ``model``, ``model_settings``; the API ignores ``None``."""
        path = _build_path("conversations", conversation_id)
        found: dict[str, Any] = await self._requests.make("PATCH", path, body=_check_change(fields))
        return found

    async def delete(self, conversation_id: str) -> None:
        """Delete a conversation; raise NotFoundError if there is none."""
        await self._requests.make("DELETE", _build_path("conversations", conversation_id))

    async def fork(self, conversation_id: str, *, agent_id: str | None = None) -> dict[str, Any]:
        """Make a new conversation with the same history (``agent_id`` for ``"default"``)."""
        found: dict[str, Any] = await self._requests.make(
            "POST",
            f"{_build_path('conversations', conversation_id)}/fork",
            params={"agent_id": None if agent_id is None else _check_id(agent_id)},
            body={},
        )
        return found

    async def recompile(self, conversation_id: str) -> None:
        """Show a conversation that has begun the memory as it is now.

        On the Letta API it goes on with the memory that it began with (letta 0.16.8); an agent's
        default conversation, new ones and those of Letta Code see every change by themselves.
        """
        path = f"{_build_path('conversations', conversation_id)}/recompile"
        await self._requests.make("POST", path)


class AsyncModels:
    """The models that the backend offers."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def __repr__(self) -> str:
        return show_object(self, backend=self._requests.backend.name)

    async def list(self) -> list[dict[str, Any]]:
        """Return the chat models; ``handle`` is the value for ``model=``."""
        found: list[dict[str, Any]] = await self._requests.make("GET", "/v1/models/")
        return found


async def connect_provider(
    requests: Requests, provider: str, given: Mapping[str, str | None]
) -> list[str]:
    """Connect a provider; see :meth:`~letta_adapters.AsyncLettaClient.connect_provider`."""
    if not requests.backend.capabilities.connects_providers:
        raise UnsupportedOptionError(
            "connect_provider",
            backend=requests.backend.name,
            supported_by=("local", "remote"),
            reason="the providers of a Letta API server are configured where it runs.",
        )
    # Letta Code stores what it is given and fails only when a model is used, so it is checked here.
    listed = await requests.command("list_connect_providers", target="local")
    known = {str(item["id"]): item for item in listed.get("providers") or ()}
    fields = {name: value for name, value in given.items() if value is not None}
    method = _choose_method(known, provider, fields)
    asked: dict[str, Any] = {"target": "local", "provider_id": provider, "fields": fields}
    if method is not None:
        asked["auth_method_id"] = method
    await requests.command("connect_provider", **asked)
    # A provider that was just connected is in the list only if that is made anew.
    models = await requests.command("list_models", force=True)
    handles = [str(e["handle"]) for e in models.get("entries") or () if e.get("handle")]
    return list(dict.fromkeys(handles))


def _choose_method(
    known: Mapping[str, Mapping[str, Any]], provider: str, fields: Mapping[str, str]
) -> str | None:
    """Return the sign-in method with these fields; ``None`` if the provider has only one."""
    about = known.get(provider)
    if about is None:
        near = difflib.get_close_matches(str(provider), known, n=3, cutoff=0.4)
        alike = ", ".join(map(repr, near or sorted(known)[:5]))
        raise InvalidInputError(
            f"Letta Code knows no provider {provider!r}.", hint=f"It knows {alike}, ..."
        )
    if about.get("is_oauth"):
        raise InvalidInputError(
            f"{provider!r} is connected by signing in, in a browser.",
            hint="Run `letta connect`, or use the provider's variant with an API key.",
        )
    # A provider has either several ways to sign in, or one set of fields.
    ways = [(m.get("id"), m.get("fields") or []) for m in about.get("auth_methods") or ()]
    ways = ways or [(None, about.get("fields") or [])]
    problem = ""
    for method, wanted in ways:
        names = [str(field["key"]) for field in wanted]
        missing = [f["key"] for f in wanted if f.get("required") and not fields.get(f["key"])]
        unknown = sorted(set(fields) - set(names))
        if not missing and not unknown:
            return None if method is None else str(method)
        problem = problem or f"{provider!r} takes {', '.join(names)}."
    raise InvalidInputError(problem, hint="api_key= and base_url= are apiKey and baseUrl there.")


def _build_path(kind: str, id: str) -> str:
    return f"/v1/{kind}/{_check_id(id)}"


def _check_id(id: str) -> str:
    return check_id(id, "an id")


def _check_change(fields: dict[str, Any]) -> dict[str, Any]:
    if not fields:
        raise InvalidInputError("There is nothing to change: no field was given.")
    return _check_fields(fields)


def _check_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Refuse names as TypeScript spells them, which the API does not have and would ignore."""
    for name in fields:
        if name != (snake := to_snake_case(name)):
            raise InvalidInputError(
                f"The Letta API has no field {name!r}.", hint=f"Did you mean {snake!r}?"
            )
    if "reasoning_effort" in fields:
        raise InvalidInputError(
            "The Letta API has no field 'reasoning_effort'.", hint=did_you_mean("reasoning_effort")
        )
    return fields


def _check_exists(path: Path, agent_id: str) -> Path:
    if not path.is_dir():
        raise NotFoundError(f"The agent {agent_id} has no memory repository.")
    return path
