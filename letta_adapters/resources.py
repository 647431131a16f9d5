"""Management calls: ``client.agents``, ``client.conversations``, ``client.models``.

They take and return the API's own objects (dicts); only what is needed next to sessions is here,
``client.request`` reaches everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from letta_adapters.errors import InvalidInputError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from letta_adapters.client import AsyncLettaClient
    from letta_adapters.options import AgentKwargs


class AsyncAgents:
    """Agents of the backend."""

    def __init__(self, client: AsyncLettaClient) -> None:
        self._client = client

    async def create(self, **options: Unpack[AgentKwargs]) -> str:
        """The same as ``client.create_agent``: returns the id."""
        return await self._client.create_agent(**options)

    async def list(
        self,
        *,
        tags: Sequence[str] = (),
        query: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[dict[str, Any]]:
        """Agents that have all ``tags`` and whose name matches ``query``; go on with ``after``."""
        params = {
            "tags": list(tags) or None,
            "match_all_tags": True if tags else None,
            "query_text": query,
            "limit": limit,
            "after": after,
        }
        found: list[dict[str, Any]] = await self._client.request(
            "GET", "/v1/agents/", params=params
        )
        return found

    async def retrieve(self, agent_id: str) -> dict[str, Any]:
        """One agent. Raises NotFoundError."""
        found: dict[str, Any] = await self._client.request("GET", _path("agents", agent_id))
        return found

    async def update(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Change fields of the API's agent object (``name``, ``model``, ``tags``, ...)."""
        found: dict[str, Any] = await self._client.request(
            "PATCH", _path("agents", agent_id), body=_fields(fields)
        )
        return found

    async def delete(self, agent_id: str) -> None:
        """Delete an agent with its conversations and memory. Raises NotFoundError."""
        await self._client.request("DELETE", _path("agents", agent_id))


class AsyncConversations:
    """Conversations of an agent."""

    def __init__(self, client: AsyncLettaClient) -> None:
        self._client = client

    async def create(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """A new conversation (``summary``, ``model``, ``model_settings``, ...)."""
        found: dict[str, Any] = await self._client.request(
            "POST", "/v1/conversations/", params={"agent_id": agent_id}, body=fields
        )
        return found

    async def list(
        self, agent_id: str, *, limit: int = 50, after: str | None = None
    ) -> list[dict[str, Any]]:
        """The agent's conversations, newest first; without its default one."""
        params = {"agent_id": agent_id, "limit": limit, "after": after}
        found: list[dict[str, Any]] = await self._client.request(
            "GET", "/v1/conversations/", params=params
        )
        return found

    async def retrieve(self, conversation_id: str) -> dict[str, Any]:
        """One conversation. Raises NotFoundError."""
        path = _path("conversations", conversation_id)
        found: dict[str, Any] = await self._client.request("GET", path)
        return found

    async def update(self, conversation_id: str, **fields: Any) -> dict[str, Any]:
        """Change ``summary``, ``model``, ``model_settings``; the API ignores ``None``."""
        path = _path("conversations", conversation_id)
        found: dict[str, Any] = await self._client.request("PATCH", path, body=_fields(fields))
        return found

    async def delete(self, conversation_id: str) -> None:
        """Delete a conversation. Raises NotFoundError."""
        await self._client.request("DELETE", _path("conversations", conversation_id))

    async def fork(self, conversation_id: str, *, agent_id: str | None = None) -> dict[str, Any]:
        """A new conversation with the same history (``agent_id`` for ``"default"``)."""
        found: dict[str, Any] = await self._client.request(
            "POST",
            f"{_path('conversations', conversation_id)}/fork",
            params={"agent_id": agent_id},
            body={},
        )
        return found


class AsyncModels:
    """Models the backend offers."""

    def __init__(self, client: AsyncLettaClient) -> None:
        self._client = client

    async def list(self) -> list[dict[str, Any]]:
        """Chat models; ``handle`` is what ``model=`` takes."""
        found: list[dict[str, Any]] = await self._client.request("GET", "/v1/models/")
        return found


def _path(kind: str, id: str) -> str:
    if not isinstance(id, str) or not id.strip():
        raise InvalidInputError(f"An id is needed, not {id!r}.")
    return f"/v1/{kind}/{quote(id, safe='')}"


def _fields(fields: dict[str, Any]) -> dict[str, Any]:
    if not fields:
        raise InvalidInputError("There is nothing to change: no field was given.")
    return fields
