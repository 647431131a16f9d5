"""The management calls of the synchronous client: agents, conversations and models.

They are ``client.agents``, ``client.conversations`` and ``client.models``.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from letta_adapters.options import AgentKwargs
    from letta_adapters.sync.client import LettaClient


class _Resource:
    def __init__(self, client: LettaClient) -> None:
        self._client = client


class Agents(_Resource):
    """The agents of the backend; see :class:`~letta_adapters.client.resources.AsyncAgents`."""

    def create(self, **options: Unpack[AgentKwargs]) -> str:
        """Create an agent and return its id, as ``client.create_agent`` does."""
        return self._client.create_agent(**options)

    def list(
        self,
        *,
        tags: Sequence[str] = (),
        query: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return agents with all ``tags`` whose name matches ``query``; page by ``after``."""
        # Asked for at each call, as the client makes a new one in the child of a fork.
        core = self._client._core.agents
        return self._client._run(core.list(tags=tags, query=query, limit=limit, after=after))

    def retrieve(self, agent_id: str) -> dict[str, Any]:
        """Return one agent; raise NotFoundError if there is none."""
        return self._client._run(self._client._core.agents.retrieve(agent_id))

    def update(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Change fields of the API's agent object, and the settings that its sessions inherit.

        Fields are ``name``, ``model``, ``tags``, ...; for settings see :meth:`settings` (``None``
        takes one back).
        """
        return self._client._run(self._client._core.agents.update(agent_id, **fields))

    def settings(self, agent_id: str) -> dict[str, Any]:
        """Return the settings that the agent's sessions inherit by default (Letta Code)."""
        return self._client._run(self._client._core.agents.settings(agent_id))

    def delete(self, agent_id: str) -> None:
        """Delete an agent, its conversations and memory; raise NotFoundError if not found."""
        self._client._run(self._client._core.agents.delete(agent_id))

    def secrets(self, agent_id: str) -> tuple[str, ...]:
        """Return the names of the agent's secrets."""
        return self._client._run(self._client._core.agents.secrets(agent_id))

    def set_secrets(self, agent_id: str, secrets: Mapping[str, str | None]) -> None:
        """Set secrets; ``None`` removes one."""
        self._client._run(self._client._core.agents.set_secrets(agent_id, secrets))

    def memory_files(self, agent_id: str) -> Sequence[dict[str, Any]]:
        """Return the files of the agent's memory."""
        return self._client._run(self._client._core.agents.memory_files(agent_id))

    def memory_history(self, agent_id: str, path: str | None = None) -> Sequence[dict[str, Any]]:
        """Return the commits of the agent's memory repository (of one file), newest first."""
        return self._client._run(self._client._core.agents.memory_history(agent_id, path))

    def memory_path(self, agent_id: str) -> Path:
        """Return the directory of the agent's memory repository (``Local`` only)."""
        return self._client._run(self._client._core.agents.memory_path(agent_id))


class Conversations(_Resource):
    """The conversations of agents: :class:`~letta_adapters.client.resources.AsyncConversations`."""

    def create(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Create a conversation (``summary``, ``model``, ``model_settings``, ...) and return it."""
        return self._client._run(self._client._core.conversations.create(agent_id, **fields))

    def list(
        self, agent_id: str, *, limit: int = 50, after: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the agent's conversations, newest first, without its default one."""
        core = self._client._core.conversations
        return self._client._run(core.list(agent_id, limit=limit, after=after))

    def retrieve(self, conversation_id: str) -> dict[str, Any]:
        """Return one conversation; raise NotFoundError if there is none."""
        return self._client._run(self._client._core.conversations.retrieve(conversation_id))

    def update(self, conversation_id: str, **fields: Any) -> dict[str, Any]:
        """Change ``summary``, ``model``, ``model_settings``; the API ignores ``None``."""
        core = self._client._core.conversations
        return self._client._run(core.update(conversation_id, **fields))

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation; raise NotFoundError if there is none."""
        self._client._run(self._client._core.conversations.delete(conversation_id))

    def fork(self, conversation_id: str, *, agent_id: str | None = None) -> dict[str, Any]:
        """Make a new conversation with the same history (``agent_id`` for ``"default"``)."""
        core = self._client._core.conversations
        return self._client._run(core.fork(conversation_id, agent_id=agent_id))


class Models(_Resource):
    """The models that the backend offers."""

    def list(self) -> list[dict[str, Any]]:
        """Return the chat models; ``handle`` is the value for ``model=``."""
        return self._client._run(self._client._core.models.list())
