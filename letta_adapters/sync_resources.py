"""``client.agents``, ``client.conversations`` and ``client.models`` of the sync client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from letta_adapters.options import AgentKwargs
    from letta_adapters.sync import LettaClient


class _Resource:
    def __init__(self, client: LettaClient) -> None:
        self._client = client


class Agents(_Resource):
    """Agents of the backend. See :class:`~letta_adapters.resources.AsyncAgents`."""

    def create(self, **options: Unpack[AgentKwargs]) -> str:
        """The same as ``client.create_agent``: returns the id."""
        return self._client.create_agent(**options)

    def list(
        self,
        *,
        tags: Sequence[str] = (),
        query: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[dict[str, Any]]:
        """Agents that have all ``tags`` and whose name matches ``query``; go on with ``after``."""
        core = self._client._core.agents
        return self._client._run(core.list(tags=tags, query=query, limit=limit, after=after))

    def retrieve(self, agent_id: str) -> dict[str, Any]:
        """One agent. Raises NotFoundError."""
        return self._client._run(self._client._core.agents.retrieve(agent_id))

    def update(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Change fields of the API's agent object (``name``, ``model``, ``tags``, ...), and what
        its sessions inherit (:meth:`settings`; ``None`` takes a setting back)."""
        return self._client._run(self._client._core.agents.update(agent_id, **fields))

    def settings(self, agent_id: str) -> dict[str, Any]:
        """Return what the agent's sessions inherit where they say nothing (Letta Code)."""
        return self._client._run(self._client._core.agents.settings(agent_id))

    def delete(self, agent_id: str) -> None:
        """Delete an agent with its conversations and memory. Raises NotFoundError."""
        self._client._run(self._client._core.agents.delete(agent_id))

    def secrets(self, agent_id: str) -> tuple[str, ...]:
        """The names of the agent's secrets."""
        return self._client._run(self._client._core.agents.secrets(agent_id))

    def set_secrets(self, agent_id: str, secrets: Mapping[str, str | None]) -> None:
        """Set secrets; ``None`` removes one."""
        self._client._run(self._client._core.agents.set_secrets(agent_id, secrets))

    def memory_files(self, agent_id: str) -> Sequence[dict[str, Any]]:
        """The files of the agent's memory."""
        return self._client._run(self._client._core.agents.memory_files(agent_id))

    def memory_history(self, agent_id: str, path: str | None = None) -> Sequence[dict[str, Any]]:
        """The commits of the agent's memory repository (of one file), newest first."""
        return self._client._run(self._client._core.agents.memory_history(agent_id, path))

    def memory_path(self, agent_id: str) -> Path:
        """The directory of the agent's memory repository (``Local`` only)."""
        return self._client._run(self._client._core.agents.memory_path(agent_id))


class Conversations(_Resource):
    """Conversations. See :class:`~letta_adapters.resources.AsyncConversations`."""

    def create(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """A new conversation (``summary``, ``model``, ``model_settings``, ...)."""
        return self._client._run(self._client._core.conversations.create(agent_id, **fields))

    def list(
        self, agent_id: str, *, limit: int = 50, after: str | None = None
    ) -> list[dict[str, Any]]:
        """The agent's conversations, newest first; without its default one."""
        core = self._client._core.conversations
        return self._client._run(core.list(agent_id, limit=limit, after=after))

    def retrieve(self, conversation_id: str) -> dict[str, Any]:
        """One conversation. Raises NotFoundError."""
        return self._client._run(self._client._core.conversations.retrieve(conversation_id))

    def update(self, conversation_id: str, **fields: Any) -> dict[str, Any]:
        """Change ``summary``, ``model``, ``model_settings``; the API ignores ``None``."""
        core = self._client._core.conversations
        return self._client._run(core.update(conversation_id, **fields))

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation. Raises NotFoundError."""
        self._client._run(self._client._core.conversations.delete(conversation_id))

    def fork(self, conversation_id: str, *, agent_id: str | None = None) -> dict[str, Any]:
        """A new conversation with the same history (``agent_id`` for ``"default"``)."""
        core = self._client._core.conversations
        return self._client._run(core.fork(conversation_id, agent_id=agent_id))


class Models(_Resource):
    """Models the backend offers."""

    def list(self) -> list[dict[str, Any]]:
        """Chat models; ``handle`` is what ``model=`` takes."""
        return self._client._run(self._client._core.models.list())
