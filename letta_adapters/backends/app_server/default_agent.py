"""The default agent of an App Server; see :mod:`letta_adapters.backends.default_agent`.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.default_agent import DEFAULT_AGENT_TAG, options
from letta_adapters.options import AgentOptions

_PAGE: Final = 50


class ServerPlace:
    """The home of default agents: :class:`~letta_adapters.backends.default_agent.Place`.

    Args:
        connection: The connection to the server.
        create: Makes an agent and returns its id.
        model: The agent's model; ``None`` means the server's choice.
    """

    def __init__(
        self,
        connection: Connection,
        create: Callable[[AgentOptions], Awaitable[str]],
        model: str | None,
    ) -> None:
        self._connection = connection
        self._create = create
        self._model = model

    @property
    def promotes(self) -> bool:
        """False over a Letta API, where an agent's tags are not shown and so cannot be changed."""
        return not self._connection.on_api

    async def tagged(self, tag: str) -> Sequence[str]:
        """Return the ids of the agents with that tag, oldest first."""
        query = {"tags": [tag], "limit": _PAGE}
        answer = await self._connection.request({"type": "agent_list", "query": query})
        # Over a Letta API the list is filtered and does not show the tags.
        agents = [
            agent
            for agent in answer.get("agents") or ()
            if self._connection.on_api or tag in (agent.get("tags") or ())
        ]
        agents.sort(key=lambda agent: (str(agent.get("created_at") or ""), str(agent["id"])))
        return [str(agent["id"]) for agent in agents]

    async def make(self, tag: str) -> str:
        """Make an agent; the server answers once its memory repository is there."""
        return await self._create(options(tag, self._model))

    async def promote(self, agent_id: str, tag: str) -> None:
        """Make it the default agent; raise NotFoundError if it is gone."""
        found = await self._connection.request({"type": "agent_retrieve", "agent_id": agent_id})
        # An update replaces all tags, so the others are sent along.
        tags = [str(t) for t in (found.get("agent") or {}).get("tags") or () if t != tag]
        body = {"tags": [*tags, DEFAULT_AGENT_TAG]}
        await self._connection.request({"type": "agent_update", "agent_id": agent_id, "body": body})

    async def remove(self, agent_id: str) -> None:
        """Delete an agent."""
        await self._connection.request({"type": "agent_delete", "agent_id": agent_id})
