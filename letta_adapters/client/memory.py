"""Internal: the memory of agents, through one face over blocks and files."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

from letta_adapters._utils.checks import check_id
from letta_adapters._utils.locks import process_lock
from letta_adapters.client.memory_blocks import BlockMemory
from letta_adapters.client.memory_checks import check_label, check_limit, check_text
from letta_adapters.client.memory_files import FileMemory
from letta_adapters.client.records import MemoryCommit, MemoryItem
from letta_adapters.client.requests import Requests
from letta_adapters.errors import ConflictError, InvalidInputError


class MemoryStore(Protocol):
    """One way of keeping the memory of agents."""

    async def list(self, agent_id: str) -> list[MemoryItem]: ...
    async def read(self, agent_id: str, label: str, *, shared: bool = False) -> MemoryItem: ...
    async def read_at(self, agent_id: str, label: str, sha: str) -> MemoryItem: ...
    async def create(self, agent_id: str, item: MemoryItem) -> MemoryItem: ...
    async def write(
        self, agent_id: str, item: MemoryItem, value: str | None, description: str | None
    ) -> MemoryItem: ...
    async def delete(self, agent_id: str, item: MemoryItem) -> None: ...
    async def list_others(self, agent_id: str, item: MemoryItem) -> Sequence[str]: ...
    async def attach(self, agent_id: str, block_id: str) -> None: ...
    async def detach(self, agent_id: str, label: str) -> None: ...
    async def history(
        self, agent_id: str, label: str | None, limit: int
    ) -> Sequence[MemoryCommit]: ...
    async def diff(self, agent_id: str, sha: str) -> str: ...


class AsyncMemory:
    """The memory of agents, as ``client.agents.memory``.

    On the Letta API it is made of blocks, on Letta Code of files in a git repository; ``label`` is
    a block's label, or a file's path without ``.md``. What only one of them has is refused by the
    other before anything is sent, with an error that names the backend which has it.
    """

    def __init__(self, requests: Requests, place: Hashable) -> None:
        self._requests = requests
        self._place = place

    @property
    def _store(self) -> MemoryStore:
        self._requests.check_usable()
        if self._requests.backend.capabilities.memory_blocks:
            return BlockMemory(self._requests)
        return FileMemory(self._requests)

    async def list(self, agent_id: str) -> list[MemoryItem]:
        """Return the whole memory of an agent, by label.

        Raises:
            NotFoundError: There is no such agent.
        """
        check_id(agent_id, "an agent id")
        found = await self._store.list(agent_id)
        return sorted(found, key=lambda item: item.label)

    async def read(
        self, agent_id: str, label: str, *, at: str | None = None, shared_by: bool = False
    ) -> MemoryItem:
        """Return one piece of an agent's memory.

        Args:
            agent_id: The agent.
            label: ``"persona"``, ...
            at: The id of a commit of :meth:`history` (Letta Code): as it was then.
            shared_by: Ask which agents have the block as well (Letta API); this costs a request,
                whose answer holds all those agents.

        Raises:
            NotFoundError: There is no such agent, or its memory has no such label.
            UnsupportedOptionError: ``at`` is given, and this backend keeps no history.
        """
        check_id(agent_id, "an agent id")
        check_label(label)
        if at is None:
            return await self._store.read(agent_id, label, shared=shared_by)
        return await self._store.read_at(agent_id, label, at)

    async def write(
        self,
        agent_id: str,
        label: str,
        value: str | None = None,
        *,
        description: str | None = None,
        if_match: str | None = None,
    ) -> MemoryItem:
        """Change the value, the description, or both, and return the new state.

        Args:
            agent_id: The agent.
            label: What to change; :meth:`create` makes what is not there.
            value: The new text, all of it.
            description: The new words for what it is for.
            if_match: The ``version`` of the state that the change was made of. If the memory has
                changed since, nothing is written. It is compared just before the write: two writes
                of this process never overlap, one of another process or of the agent itself may
                still come in between.

        Raises:
            ConflictError: The memory is not the one that ``if_match`` names.
            InvalidInputError: There is nothing to change, or the value is longer than the limit.
            NotFoundError: There is no such agent, or its memory has no such label.
        """
        check_id(agent_id, "an agent id")
        check_label(label)
        if value is None and description is None:
            raise InvalidInputError("There is nothing to change: give a value or a description.")
        check_text(value, "value")
        check_text(description, "description")
        store = self._store
        # Named after the server and not after this client: several clients may change one memory.
        async with process_lock(("memory", self._place, agent_id)):
            found = await store.read(agent_id, label)
            _check_version(found, if_match)
            if value is not None:
                check_limit(label, value, found.limit)
            return await store.write(agent_id, found, value, description)

    async def create(
        self,
        agent_id: str,
        label: str,
        value: str = "",
        *,
        description: str | None = None,
        limit: int | None = None,
        read_only: bool | None = None,
    ) -> MemoryItem:
        """Add a piece of memory to an agent, and return it.

        Args:
            agent_id: The agent.
            label: Its name, which no other piece of this agent's memory has.
            value: Its text.
            description: The words that tell the agent what it is for.
            limit: The greatest number of characters (Letta API).
            read_only: The agent must not change it (Letta API).

        Raises:
            ConflictError: The agent has one of that label.
            InvalidInputError: There can be no such label, or the value is longer than the limit.
            NotFoundError: There is no such agent.
            UnsupportedOptionError: This backend has no ``limit``, or no ``read_only``.
        """
        check_id(agent_id, "an agent id")
        check_label(label)
        check_text(value, "value")
        check_text(description, "description")
        if limit is not None and (isinstance(limit, bool) or limit < 1):
            raise InvalidInputError(f"limit must be a positive number, not {limit!r}.")
        check_limit(label, value, limit)
        wanted = MemoryItem(label, value, description, limit, bool(read_only))
        store = self._store
        async with process_lock(("memory", self._place, agent_id)):
            return await store.create(agent_id, wanted)

    async def delete(self, agent_id: str, label: str, *, if_match: str | None = None) -> None:
        """Delete a piece of an agent's memory.

        Raises:
            ConflictError: Other agents have it too (detach it instead), or it is not the one that
                ``if_match`` names.
            NotFoundError: There is no such agent, or its memory has no such label.
        """
        check_id(agent_id, "an agent id")
        check_label(label)
        store = self._store
        async with process_lock(("memory", self._place, agent_id)):
            found = await store.read(agent_id, label)
            _check_version(found, if_match)
            others = await store.list_others(agent_id, found)
            if others:
                raise ConflictError(
                    f"The block {label!r} is shared with {', '.join(others)}.",
                    hint="detach() takes it from this agent alone; client.blocks.delete(id) "
                    "deletes it for all.",
                )
            await store.delete(agent_id, found)

    async def attach(self, agent_id: str, block_id: str) -> None:
        """Let an agent share a block that exists (Letta API); attaching it twice changes nothing.

        Raises:
            ConflictError: The agent has another block of the same label.
            NotFoundError: There is no such agent, or no such block.
            UnsupportedOptionError: This is Letta Code, where memory belongs to one agent.
        """
        check_id(agent_id, "an agent id")
        check_id(block_id, "a block id", ("block-",))
        await self._store.attach(agent_id, block_id)

    async def detach(self, agent_id: str, label: str) -> None:
        """Take a block from an agent (Letta API); it stays for others, and in ``client.blocks``.

        Raises:
            NotFoundError: There is no such agent, or its memory has no such label.
            UnsupportedOptionError: This is Letta Code, where memory belongs to one agent.
        """
        check_id(agent_id, "an agent id")
        check_label(label)
        await self._store.detach(agent_id, label)

    async def history(
        self, agent_id: str, label: str | None = None, *, limit: int = 50
    ) -> Sequence[MemoryCommit]:
        """Return the changes of an agent's memory (of one piece of it), newest first (Letta Code).

        Raises:
            NotFoundError: There is no such agent, or never was such a label.
            UnsupportedOptionError: This is the Letta API, which keeps no history of blocks.
        """
        check_id(agent_id, "an agent id")
        if label is not None:
            check_label(label)
        if isinstance(limit, bool) or not 1 <= limit <= 1000:
            raise InvalidInputError(f"limit must be between 1 and 1000, not {limit!r}.")
        return await self._store.history(agent_id, label, limit)

    async def diff(self, agent_id: str, sha: str) -> str:
        """Return what one commit of :meth:`history` changed, as a unified diff (Letta Code).

        Raises:
            NotFoundError: There is no such agent, or no such commit.
            UnsupportedOptionError: This is the Letta API, which keeps no history of blocks.
        """
        check_id(agent_id, "an agent id")
        return await self._store.diff(agent_id, sha)


def _check_version(found: MemoryItem, wanted: str | None) -> None:
    if wanted is not None and found.version != wanted:
        raise ConflictError(
            f"The memory {found.label!r} has changed since it was read; nothing was written.",
            code="memory_changed",
            hint="Read it again, and make the change anew.",
        )
