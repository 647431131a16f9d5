"""The management calls of ``client.agents``, ``client.conversations`` and ``client.models``.

They take and return the API's own objects (dicts). Only calls that are needed next to sessions are
here; ``client.request`` reaches everything else.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letta_adapters._utils.checks import checked_id
from letta_adapters.backends.agent_settings import SETTINGS, without_own
from letta_adapters.backends.base import Change
from letta_adapters.client.requests import Requests
from letta_adapters.errors import InvalidInputError, NotFoundError, UnsupportedOptionError
from letta_adapters.options import AgentOptions, literal_prompt

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from letta_adapters.options import AgentKwargs


class AsyncAgents:
    """The agents of the backend."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def create(self, **options: Unpack[AgentKwargs]) -> str:
        """Create an agent and return its id, as ``client.create_agent`` does."""
        checked = AgentOptions(**dict[str, Any](**options))
        self._requests.check_usable()
        agent_id = await self._requests.backend.create_agent(checked)
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
        found: dict[str, Any] = await self._requests.make("GET", _path("agents", agent_id))
        return without_own(found)

    async def update(self, /, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Change fields of the API's agent object, and the settings that its sessions inherit.

        Fields are ``name``, ``model``, ``tags``, ...; for settings see :meth:`settings` (``None``
        takes one back). Sessions that are open get a changed setting within half a minute. ``tags``
        and ``metadata`` replace the user's own; the entries that this package keeps in them stay.

        Raises:
            InvalidInputError: Nothing is to be changed, a setting does not take the value, or
                ``system`` is the name of a preset.
            UnsupportedOptionError: This backend does not have the setting.
        """
        self._requests.check_usable()
        _fields(fields)
        # The API would store the name of a preset as the prompt itself.
        try:
            literal_prompt(fields.get("system"))
        except ValueError as error:
            raise InvalidInputError(f"system: {error}.") from None
        # The API's agent object does not have these; the backend keeps them, or refuses them.
        settings = {name: fields.pop(name) for name in SETTINGS if name in fields}
        found = await self._requests.backend.update_agent(_checked(agent_id), fields, settings)
        # The change did not go through `make`, which would have noticed it.
        self._requests.notice(Change(agent_id=agent_id))
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
        return await self._requests.backend.agent_settings(_checked(agent_id))

    async def delete(self, agent_id: str) -> None:
        """Delete an agent, its conversations and memory; raise NotFoundError if not found."""
        await self._requests.make("DELETE", _path("agents", agent_id))

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

        made = secrets_change(_checked(agent_id), secrets)
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
        state = getattr(backend, "state_directory", None)
        if state is None:
            raise UnsupportedOptionError(
                "memory_path",
                backend=self._requests.backend.name,
                supported_by=("local",),
                reason="its agents live elsewhere; use memory_files() and memory_history().",
            )
        return _existing(state / "memfs" / agent_id / "memory", agent_id)

    async def _command(self, name: str, agent_id: str, **fields: Any) -> dict[str, Any]:
        # Without this the Letta API would be asked for a path that it does not know.
        if self._requests.backend.name == "rest":
            raise UnsupportedOptionError(
                name,
                backend="rest",
                supported_by=("local", "remote"),
                reason="it is a part of Letta Code.",
            )
        body = {"agent_id": _checked(agent_id), **fields}
        found: dict[str, Any] = await self._requests.make("COMMAND", name, body=body)
        return found


class AsyncConversations:
    """The conversations of agents."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def create(self, /, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Create a conversation (``summary``, ``model``, ``model_settings``, ...) and return it."""
        found: dict[str, Any] = await self._requests.make(
            "POST", "/v1/conversations/", params={"agent_id": _checked(agent_id)}, body=fields
        )
        return found

    async def list(
        self, agent_id: str, *, limit: int = 50, after: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the agent's conversations, newest first, without its default one."""
        params = {"agent_id": _checked(agent_id), "limit": limit, "after": after}
        found: list[dict[str, Any]] = await self._requests.make(
            "GET", "/v1/conversations/", params=params
        )
        return found

    async def retrieve(self, conversation_id: str) -> dict[str, Any]:
        """Return one conversation; raise NotFoundError if there is none."""
        path = _path("conversations", conversation_id)
        found: dict[str, Any] = await self._requests.make("GET", path)
        return found

    async def update(self, /, conversation_id: str, **fields: Any) -> dict[str, Any]:
        """Change ``summary``, ``model``, ``model_settings``; the API ignores ``None``."""
        path = _path("conversations", conversation_id)
        found: dict[str, Any] = await self._requests.make("PATCH", path, body=_fields(fields))
        return found

    async def delete(self, conversation_id: str) -> None:
        """Delete a conversation; raise NotFoundError if there is none."""
        await self._requests.make("DELETE", _path("conversations", conversation_id))

    async def fork(self, conversation_id: str, *, agent_id: str | None = None) -> dict[str, Any]:
        """Make a new conversation with the same history (``agent_id`` for ``"default"``)."""
        found: dict[str, Any] = await self._requests.make(
            "POST",
            f"{_path('conversations', conversation_id)}/fork",
            params={"agent_id": None if agent_id is None else _checked(agent_id)},
            body={},
        )
        return found


class AsyncModels:
    """The models that the backend offers."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def list(self) -> list[dict[str, Any]]:
        """Return the chat models; ``handle`` is the value for ``model=``."""
        found: list[dict[str, Any]] = await self._requests.make("GET", "/v1/models/")
        return found


def _path(kind: str, id: str) -> str:
    return f"/v1/{kind}/{_checked(id)}"


def _checked(id: str) -> str:
    return checked_id(id, "an id")


def _fields(fields: dict[str, Any]) -> dict[str, Any]:
    if not fields:
        raise InvalidInputError("There is nothing to change: no field was given.")
    return fields


def _existing(path: Path, agent_id: str) -> Path:
    if not path.is_dir():
        raise NotFoundError(f"The agent {agent_id} has no memory repository.")
    return path
