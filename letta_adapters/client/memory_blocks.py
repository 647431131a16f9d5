"""Internal: an agent's memory in blocks, on the Letta API (letta 0.16.8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from letta_adapters.client.records import MemoryCommit, MemoryItem, read_block, read_list
from letta_adapters.client.requests import Requests
from letta_adapters.errors import ConflictError, NotFoundError, UnsupportedOptionError

# More blocks than an agent's prompt could hold; the API's own page is a hundred.
_ALL: Final = 1000
# The agents that are told of as sharing a block.
_SHARERS: Final = 1000


class BlockMemory:
    """The blocks of agents.

    A block is found in the list of its agent's, and then named by its id: a label may hold a slash
    or dots, which no path of the API can carry.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def list(self, agent_id: str) -> list[MemoryItem]:
        """Return the agent's blocks."""
        path = f"/v1/agents/{agent_id}/core-memory/blocks"
        found = await self._requests.make("GET", path, params={"limit": _ALL})
        return [read_block(block) for block in read_list(found, "blocks")]

    async def read(self, agent_id: str, label: str, *, shared: bool = False) -> MemoryItem:
        """Return one block; ``shared``: with the agents that have it."""
        for item in await self.list(agent_id):
            if item.label == label:
                if not shared:
                    return item
                return read_block(item.raw, await list_sharers(self._requests, str(item.id)))
        raise NotFoundError(
            f"The memory of {agent_id} has no block {label!r}.",
            hint="client.agents.memory.list(agent_id) shows the labels.",
        )

    async def read_at(self, agent_id: str, label: str, sha: str) -> MemoryItem:
        """Refuse: there is no history."""
        raise self._no_history("at")

    async def create(self, agent_id: str, item: MemoryItem) -> MemoryItem:
        """Make a block and attach it; if that fails, it is deleted again."""
        # The server would find a second label only as the block, which exists by then, is attached.
        await self._refuse_second(agent_id, item.label)
        body: dict[str, Any] = {"label": item.label, "value": item.value}
        given = {"description": item.description, "limit": item.limit}
        body |= {name: value for name, value in given.items() if value is not None}
        if item.read_only:
            body["read_only"] = True
        made = read_block(await self._requests.make("POST", "/v1/blocks/", body=body))
        try:
            await self.attach(agent_id, str(made.id))
        except BaseException:
            # Not even a cancelled caller leaves a block behind that nobody knows.
            await self._requests.make_last("DELETE", f"/v1/blocks/{made.id}")
            raise
        return made

    async def _refuse_second(self, agent_id: str, label: str) -> None:
        if any(item.label == label for item in await self.list(agent_id)):
            raise ConflictError(
                f"The memory of {agent_id} has a block {label!r} already.",
                hint="Use client.agents.memory.write() to change it.",
            )

    async def write(
        self, agent_id: str, item: MemoryItem, value: str | None, description: str | None
    ) -> MemoryItem:
        """Change a block for all agents that have it."""
        given = {"value": value, "description": description}
        body = {name: text for name, text in given.items() if text is not None}
        return read_block(await self._requests.make("PATCH", f"/v1/blocks/{item.id}", body=body))

    async def delete(self, agent_id: str, item: MemoryItem) -> None:
        """Delete a block."""
        await self._requests.make("DELETE", f"/v1/blocks/{item.id}")

    async def list_others(self, agent_id: str, item: MemoryItem) -> Sequence[str]:
        """Return other agents that have the block, not necessarily all of them."""
        # Of two agents at least one is another, which is all that has to be known.
        found = await list_sharers(self._requests, str(item.id), limit=2)
        return [other for other in found if other != agent_id]

    async def attach(self, agent_id: str, block_id: str) -> None:
        """Attach a block; the database's own words for a second label are of no use."""
        path = f"/v1/agents/{agent_id}/core-memory/blocks/attach/{block_id}"
        try:
            await self._requests.make("PATCH", path)
        except ConflictError as error:
            # The database's name of its constraint is all that tells this conflict from others.
            if "unique_label_per_agent" not in error.message:
                raise
            raise ConflictError(
                f"The memory of {agent_id} has another block with the label of {block_id}.",
                hint="Detach that one first.",
                status_code=error.status_code,
            ) from error

    async def detach(self, agent_id: str, label: str) -> None:
        """Detach a block."""
        item = await self.read(agent_id, label)
        path = f"/v1/agents/{agent_id}/core-memory/blocks/detach/{item.id}"
        await self._requests.make("PATCH", path)

    async def history(self, agent_id: str, label: str | None, limit: int) -> Sequence[MemoryCommit]:
        """Refuse: there is no history."""
        raise self._no_history("memory.history")

    async def diff(self, agent_id: str, sha: str) -> str:
        """Refuse: there is no history."""
        raise self._no_history("memory.diff")

    def _no_history(self, option: str) -> UnsupportedOptionError:
        return UnsupportedOptionError(
            option,
            backend=self._requests.backend.name,
            supported_by=("local", "remote"),
            reason="the Letta API keeps no history of blocks.",
        )


async def list_sharers(
    requests: Requests, block_id: str, *, limit: int = _SHARERS
) -> tuple[str, ...]:
    """Return the ids of agents that have a block.

    Args:
        requests: The requests of the client.
        block_id: The block.
        limit: The greatest number of agents.
    """
    # Without their tools, blocks and sources, which would be most of the answer.
    params = {"limit": limit, "include": "agent.tags"}
    found = await requests.make("GET", f"/v1/blocks/{block_id}/agents", params=params)
    return tuple(sorted(str(agent["id"]) for agent in read_list(found, "agents")))
