"""Internal: an agent's memory in the files of a git repository, on Letta Code (letta 0.34.12).

Everything is read and written by the server that runs the agent, and by its commands: it commits
each change, and no file is touched here. Only where the repository is on this machine it is looked
at, so that a link in it is not followed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final

from letta_adapters.backends.memory_headers import (
    make_header,
    read_fields,
    replace_description,
    split,
    tidy,
)
from letta_adapters.client.memory_checks import INDEX, check_file_label
from letta_adapters.client.records import MemoryCommit, MemoryItem, read_commit
from letta_adapters.client.requests import Requests
from letta_adapters.errors import (
    ConflictError,
    InvalidInputError,
    LettaError,
    NotFoundError,
    UnsupportedOptionError,
)

_SHA: Final = re.compile(r"[0-9a-fA-F]{7,64}")
# The agent may be committing: git lets one of two go first.
_TRIES: Final = 4
_PAUSE_SECONDS: Final = 0.3
# Words of git, of Node and of Letta Code's own check, by which failures are told apart.
_BUSY: Final = "index.lock"
_REFUSED: Final = "Memory validation"
_MISSING: Final = ("ENOENT", "does not exist in", "exists on disk, but not in")
_NO_COMMIT: Final = ("unknown revision", "bad object", "invalid object name", "bad revision")


class FileMemory:
    """The files of agents' memory repositories."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def list(self, agent_id: str) -> list[MemoryItem]:
        """Return the Markdown files."""
        answer = await self._requests.command("list_memory", agent_id=agent_id)
        entries = answer.get("entries") or []
        # The server shows an empty memory for an agent that does not exist.
        if not entries:
            await self._find_agent(agent_id)
        items = []
        for entry in entries:
            path = str(entry.get("relative_path") or "")
            if path.endswith(".md") and not self._is_linked(agent_id, path):
                items.append(_read_entry(path, entry))
        return items

    async def read(self, agent_id: str, label: str, *, shared: bool = False) -> MemoryItem:
        """Return one file as it is now, committed or not."""
        path = check_file_label(label)
        self._refuse_link(agent_id, path)
        try:
            answer = await self._requests.command("read_memory_file", agent_id=agent_id, path=path)
        except LettaError as error:
            raise await self._explain(error, agent_id, label) from error
        return _parse(label, path, str(answer.get("content") or ""), answer)

    async def read_at(self, agent_id: str, label: str, sha: str) -> MemoryItem:
        """Return one file as it was at a commit."""
        path = check_file_label(label)
        ref = _check_sha(sha)
        await self._find_agent(agent_id)
        try:
            answer = await self._requests.command(
                "memory_file_at_ref", agent_id=agent_id, file_path=path, ref=ref
            )
        except LettaError as error:
            raise await self._explain(error, agent_id, label, sha) from error
        return _parse(label, path, str(answer.get("content") or ""), answer)

    async def create(self, agent_id: str, item: MemoryItem) -> MemoryItem:
        """Make a file, and the index files of folders that are new."""
        for option, given in (("limit", item.limit is not None), ("read_only", item.read_only)):
            if given:
                raise UnsupportedOptionError(
                    f"memory.{option}",
                    backend=self._requests.backend.name,
                    supported_by=("rest",),
                    reason="blocks are files in the agent's memory repository here.",
                )
        path = check_file_label(item.label)
        _refuse_index(item.label, "created")
        # Before folders are made for it.
        header = make_header(item.label, item.description)
        await self._find_agent(agent_id)
        # The server would write over a file that is there.
        if await self._exists(agent_id, item.label):
            raise ConflictError(
                f"The memory of {agent_id} has {item.label!r} already.",
                hint="Use client.agents.memory.write() to change it.",
            )
        await self._make_folders(agent_id, item.label)
        await self._commit(agent_id, path, header + item.value, None)
        return await self.read(agent_id, item.label)

    async def write(
        self, agent_id: str, item: MemoryItem, value: str | None, description: str | None
    ) -> MemoryItem:
        """Change a file; a header keeps the fields that it has."""
        path = check_file_label(item.label)
        # The file as it is stored, with its header: this is also what a refused write puts back.
        before = str(item.raw.get("content") or "")
        header, _ = split(before)
        body = item.value if value is None else value
        if _is_index(item.label):
            if description is not None:
                raise InvalidInputError(f"{item.label!r} is an index, which has no description.")
        # Letta Code refuses the commit of a file that has no header.
        elif description is not None or not header:
            header = replace_description(header, item.label, description)
        await self._commit(agent_id, path, header + body, before)
        return await self.read(agent_id, item.label)

    async def delete(self, agent_id: str, item: MemoryItem) -> None:
        """Delete a file."""
        path = check_file_label(item.label)
        _refuse_index(item.label, "deleted")
        await self._send("delete_memory_file", agent_id, item.label, path=path)

    async def list_others(self, agent_id: str, item: MemoryItem) -> Sequence[str]:
        """Return nobody."""
        return ()

    async def attach(self, agent_id: str, block_id: str) -> None:
        """Refuse: memory belongs to one agent."""
        raise self._not_shared("memory.attach")

    async def detach(self, agent_id: str, label: str) -> None:
        """Refuse: memory belongs to one agent."""
        raise self._not_shared("memory.detach")

    async def history(self, agent_id: str, label: str | None, limit: int) -> Sequence[MemoryCommit]:
        """Return commits, newest first."""
        # Literal, as git would read the path as a pattern.
        where = {} if label is None else {"file_path": f":(literal){check_file_label(label)}"}
        # The server gives no answer at all for an agent that does not exist.
        await self._find_agent(agent_id)
        answer = await self._requests.command(
            "memory_history", agent_id=agent_id, limit=limit, **where
        )
        found = [read_commit(commit) for commit in answer.get("commits") or ()]
        if label is not None and not found:
            raise NotFoundError(f"The memory of {agent_id} never had {label!r}.", hint="")
        return found

    async def diff(self, agent_id: str, sha: str) -> str:
        """Return the changes of one commit."""
        ref = _check_sha(sha)
        await self._find_agent(agent_id)
        try:
            answer = await self._requests.command("memory_commit_diff", agent_id=agent_id, sha=ref)
        except LettaError as error:
            raise await self._explain(error, agent_id, "", sha) from error
        return str(answer.get("diff") or "")

    # -- the server's part ----------------------------------------------------------------------

    async def _find_agent(self, agent_id: str) -> None:
        """Raise NotFoundError for an agent that does not exist."""
        await self._requests.make("GET", f"/v1/agents/{agent_id}")

    async def _exists(self, agent_id: str, label: str) -> bool:
        try:
            await self.read(agent_id, label)
        except NotFoundError:
            return False
        return True

    async def _make_folders(self, agent_id: str, label: str) -> None:
        """Make the index that every folder must have before a file in it can be committed."""
        parts = label.split("/")[:-1]
        for depth in range(len(parts)):
            index = "/".join([*parts[: depth + 1], INDEX])
            if not await self._exists(agent_id, index):
                await self._commit(agent_id, f"{index}.md", f"# {parts[depth]}\n", None)

    async def _commit(self, agent_id: str, path: str, content: str, before: str | None) -> None:
        """Write and commit a file; if the server refuses the commit, put back what was there."""
        label = path.removesuffix(".md")
        self._refuse_link(agent_id, path)
        try:
            await self._send("write_memory_file", agent_id, label, path=path, content=content)
        except LettaError:
            # A refused file stays where it is, and the agent is told to mend it (letta 0.34.12).
            await self._undo(agent_id, path, before)
            raise

    async def _undo(self, agent_id: str, path: str, before: str | None) -> None:
        try:
            if before is None:
                await self._requests.command("delete_memory_file", agent_id=agent_id, path=path)
            else:
                await self._requests.command(
                    "write_memory_file", agent_id=agent_id, path=path, content=before
                )
        except LettaError:
            pass  # the file is gone, or as it was: what fails is a commit without a change

    async def _send(self, name: str, agent_id: str, label: str, **fields: Any) -> None:
        for attempt in range(_TRIES):
            try:
                await self._requests.command(name, agent_id=agent_id, **fields)
            except LettaError as error:
                # The same content again: it cannot be written twice.
                if _BUSY in error.message and attempt + 1 < _TRIES:
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                raise await self._explain(error, agent_id, label) from error
            return

    async def _explain(
        self, error: LettaError, agent_id: str, label: str, sha: str | None = None
    ) -> LettaError:
        """Return the typed error for what git or the file system said."""
        text = error.message
        if any(word in text for word in _NO_COMMIT):
            return NotFoundError(f"The memory of {agent_id} has no commit {sha!r}.", hint="")
        if any(word in text for word in _MISSING) or "memfs is not enabled" in text:
            await self._find_agent(agent_id)
            when = "" if sha is None else f" at {sha}"
            return NotFoundError(
                f"The memory of {agent_id} has no {label!r}{when}.",
                hint="client.agents.memory.list(agent_id) shows the labels.",
            )
        if _BUSY in text:
            return ConflictError(
                f"The memory of {agent_id} is being changed by somebody else.",
                hint="Try again in a moment.",
            )
        if _REFUSED in text:
            why = text[text.index(_REFUSED) :]
            return InvalidInputError(f"Letta Code refused the file {label!r}. {why}")
        if "ENAMETOOLONG" in text or "EISDIR" in text or "ENOTDIR" in text:
            return InvalidInputError(f"{label!r} cannot be a file in the memory of {agent_id}.")
        return error

    def _is_linked(self, agent_id: str, path: str) -> bool:
        """Return whether the path goes over a link, where the repository is on this machine."""
        root = self._requests.backend.find_memory(agent_id)
        if root is None:
            return False
        steps = path.split("/")
        return any(root.joinpath(*steps[: n + 1]).is_symlink() for n in range(len(steps)))

    def _refuse_link(self, agent_id: str, path: str) -> None:
        if self._is_linked(agent_id, path):
            raise InvalidInputError(
                f"{path!r} is, or is behind, a link in the memory of {agent_id}, which is not "
                "followed.",
                hint="Look at it, and delete it, in client.agents.memory_path(agent_id).",
            )

    def _not_shared(self, option: str) -> UnsupportedOptionError:
        return UnsupportedOptionError(
            option,
            backend=self._requests.backend.name,
            supported_by=("rest",),
            reason="a memory repository belongs to one agent.",
        )


def _check_sha(sha: object) -> str:
    """Return a commit's id, and nothing that git would read as an option or a range."""
    if not isinstance(sha, str) or not _SHA.fullmatch(sha):
        raise InvalidInputError(f"{str(sha)[:80]!r} is not the id of a commit.")
    return sha


def _is_index(label: str) -> bool:
    return label.rpartition("/")[2] == INDEX


def _refuse_index(label: str, done: str) -> None:
    if _is_index(label):
        raise InvalidInputError(
            f"{label!r} is the index of a folder, which cannot be {done} by itself."
        )


def _parse(label: str, path: str, content: str, raw: dict[str, Any]) -> MemoryItem:
    header, body = split(content)
    fields = read_fields(header)
    return MemoryItem(
        label,
        body,
        fields.get("description") or None,
        read_only=fields.get("read_only") == "true",
        path=path,
        raw=raw,
    )


def _read_entry(path: str, entry: dict[str, Any]) -> MemoryItem:
    return MemoryItem(
        path.removesuffix(".md"),
        str(entry.get("content") or ""),
        tidy(str(entry.get("description") or "")),
        path=path,
        raw=entry,
    )
