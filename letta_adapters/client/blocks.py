"""Internal: blocks, archival passages, tools and runs of the Letta API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from letta_adapters._utils.checks import check_id
from letta_adapters.client.memory_blocks import list_sharers
from letta_adapters.client.memory_checks import check_label, check_limit, check_text
from letta_adapters.client.records import (
    MemoryItem,
    Passage,
    Run,
    RunStep,
    ServerTool,
    read_block,
    read_list,
    read_passage,
    read_run,
    read_step,
    read_tool,
)
from letta_adapters.client.requests import Requests
from letta_adapters.engine.stored import read_page
from letta_adapters.errors import InvalidInputError, ProtocolError, UnsupportedOptionError
from letta_adapters.messages import Message

_PAGE: Final = 50
_MOST: Final = 1000
_BLOCK: Final = ("block-",)
_TOOL: Final = ("tool-",)
_RUN: Final = ("run-",)
_PASSAGE: Final = ("passage-",)


class _ApiOnly:
    """Requests that no Letta Code has, refused there before anything is sent."""

    _name: str
    _reason: str

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def _make(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        backend = self._requests.backend
        if not backend.capabilities.memory_blocks:
            raise UnsupportedOptionError(
                self._name, backend=backend.name, supported_by=("rest",), reason=self._reason
            )
        return await self._requests.make(method, path, params=params, body=body)


class AsyncBlocks(_ApiOnly):
    """The blocks of memory, whichever agents have them (Letta API)."""

    _name = "blocks"
    _reason = "memory is made of files in the agents' repositories; use client.agents.memory."

    async def list(
        self, *, label: str | None = None, limit: int = _PAGE, after: str | None = None
    ) -> list[MemoryItem]:
        """Return blocks (of one label); page by ``after``, the ``id`` of the last one."""
        params = {"label": label, **_page(limit, after, _BLOCK), "order": "asc"}
        found = await self._make("GET", "/v1/blocks/", params=params)
        return [read_block(block) for block in read_list(found, "blocks")]

    async def retrieve(self, block_id: str, *, shared_by: bool = False) -> MemoryItem:
        """Return one block, and which agents have it if ``shared_by``.

        Raises:
            NotFoundError: There is none.
        """
        found = await self._make("GET", _path("blocks", block_id, _BLOCK))
        return read_block(
            found, await list_sharers(self._requests, block_id) if shared_by else None
        )

    async def create(
        self,
        label: str,
        value: str = "",
        *,
        description: str | None = None,
        limit: int | None = None,
        read_only: bool | None = None,
    ) -> MemoryItem:
        """Make a block that no agent has yet: see ``client.agents.memory.attach``.

        Raises:
            InvalidInputError: There can be no such label, or the value is longer than the limit.
        """
        check_label(label)
        check_text(value, "value")
        check_limit(label, value, limit)
        given = {"description": description, "limit": limit, "read_only": read_only}
        body: dict[str, Any] = {"label": label, "value": value}
        body |= {name: field for name, field in given.items() if field is not None}
        return read_block(await self._make("POST", "/v1/blocks/", body=body))

    async def update(
        self,
        block_id: str,
        *,
        value: str | None = None,
        description: str | None = None,
        limit: int | None = None,
        read_only: bool | None = None,
    ) -> MemoryItem:
        """Change a block for all agents that have it.

        Raises:
            InvalidInputError: There is nothing to change, or the value is longer than the limit.
            NotFoundError: There is no such block.
        """
        check_text(value, "value")
        given = {"value": value, "description": description, "limit": limit, "read_only": read_only}
        body = {name: field for name, field in given.items() if field is not None}
        if not body:
            raise InvalidInputError("There is nothing to change: no field was given.")
        path = _path("blocks", block_id, _BLOCK)
        # The API stores a value that is longer than its limit without a word.
        if value is not None or limit is not None:
            before = read_block(await self._make("GET", path))
            text = before.value if value is None else value
            check_limit(before.label, text, before.limit if limit is None else limit)
        return read_block(await self._make("PATCH", path, body=body))

    async def delete(self, block_id: str) -> None:
        """Delete a block, and with it what all agents that have it know by it."""
        await self._make("DELETE", _path("blocks", block_id, _BLOCK))


class AsyncPassages(_ApiOnly):
    """The archival memory of agents, as ``client.agents.passages`` (Letta API)."""

    _name = "passages"
    _reason = "an agent has no archival memory there; its memory is files."

    async def insert(
        self, agent_id: str, text: str, *, tags: Iterable[str] = ()
    ) -> Sequence[Passage]:
        """Store a text, and return the passages that it became: a long one may be cut."""
        check_text(text, "text")
        if not text.strip():
            raise InvalidInputError("A passage needs a text.")
        body = {"text": text, "tags": _tags(tags)}
        found = await self._make("POST", _archive(agent_id), body=_given(body))
        return [read_passage(passage) for passage in read_list(found, "passages")]

    async def list(
        self,
        agent_id: str,
        *,
        text: str | None = None,
        limit: int = _PAGE,
        after: str | None = None,
    ) -> list[Passage]:
        """Return passages (that hold ``text``), oldest first; page by ``after``, the last id."""
        params = {"search": text, **_page(limit, after, _PASSAGE), "ascending": True}
        found = await self._make("GET", _archive(agent_id), params=params)
        return [read_passage(passage) for passage in read_list(found, "passages")]

    async def search(
        self, agent_id: str, query: str, *, tags: Iterable[str] = (), limit: int = 10
    ) -> Sequence[Passage]:
        """Return the passages nearest to a query, best first.

        By meaning if the agent has an ``embedding``, else by the words. ``tags``: those with any of
        them.
        """
        if not query.strip():
            raise InvalidInputError("A search needs a query.")
        params = {"query": query, "tags": _tags(tags), "top_k": _check_limit(limit)}
        found = await self._make("GET", f"{_archive(agent_id)}/search", params=params)
        results = found.get("results") if isinstance(found, Mapping) else None
        return [read_passage(passage) for passage in read_list(results, "passages")]

    async def delete(self, agent_id: str, passage_id: str) -> None:
        """Delete a passage; raise NotFoundError if there is none."""
        check_id(passage_id, "a passage id", _PASSAGE)
        await self._make("DELETE", f"{_archive(agent_id)}/{passage_id}")


class AsyncTools(_ApiOnly):
    """The tools that the server runs (Letta API).

    Functions of this process are given to a session instead (``tools=``), on every backend.
    """

    _name = "tools"
    _reason = "its tools are built in; give functions of this process to a session (tools=)."

    async def list(
        self,
        *,
        agent_id: str | None = None,
        name: str | None = None,
        limit: int = _PAGE,
        after: str | None = None,
    ) -> list[ServerTool]:
        """Return tools (of one agent, of one name); page by ``after``, the ``id`` of the last."""
        params = _page(limit, after, _TOOL)
        path = "/v1/tools/"
        if agent_id is not None:
            path = f"/v1/agents/{check_id(agent_id, 'an agent id')}/tools"
        else:
            params["name"] = name
        found = await self._make("GET", path, params=params)
        tools = [read_tool(tool) for tool in read_list(found, "tools")]
        # The route of an agent's tools knows no name.
        return [tool for tool in tools if name is None or tool.name == name]

    async def retrieve(self, tool_id: str) -> ServerTool:
        """Return one tool with its source; raise NotFoundError if there is none."""
        return read_tool(await self._make("GET", _path("tools", tool_id, _TOOL)))

    async def create(
        self,
        source_code: str,
        *,
        tags: Iterable[str] = (),
        requires_approval: bool | None = None,
        replace: bool = False,
    ) -> ServerTool:
        """Make a tool of the source of a Python function, with types and a docstring.

        The server runs it, outside of every permission of this process.

        Args:
            source_code: The function. Its docstring describes each parameter (``Args:``).
            tags: Words to find it by.
            requires_approval: Ask before it runs, by default, on agents that it is attached to.
            replace: Change the tool of that name, if there is one, for all agents that have it.
                Otherwise the server keeps the old one and returns it.

        Raises:
            InvalidInputError: The server cannot make a tool of the source.
        """
        check_text(source_code, "source_code")
        body = {
            "source_code": source_code,
            "source_type": "python",
            "tags": _tags(tags),
            "default_requires_approval": requires_approval,
        }
        verb = "PUT" if replace else "POST"
        return read_tool(await self._make(verb, "/v1/tools/", body=_given(body)))

    async def attach(self, agent_id: str, tool_id: str) -> None:
        """Give an agent a tool; attaching it twice changes nothing."""
        await self._make("PATCH", self._link(agent_id, "attach", tool_id))

    async def detach(self, agent_id: str, tool_id: str) -> None:
        """Take a tool from an agent."""
        await self._make("PATCH", self._link(agent_id, "detach", tool_id))

    async def delete(self, tool_id: str) -> None:
        """Delete a tool, and take it from all agents."""
        await self._make("DELETE", _path("tools", tool_id, _TOOL))

    def _link(self, agent_id: str, verb: str, tool_id: str) -> str:
        check_id(agent_id, "an agent id")
        return f"/v1/agents/{agent_id}/tools/{verb}/{check_id(tool_id, 'a tool id', _TOOL)}"


class AsyncRuns(_ApiOnly):
    """The server's records of requests (Letta API)."""

    _name = "runs"
    _reason = "its App Server keeps no records of runs; session.device_status() tells what runs."

    async def list(
        self,
        *,
        agent_id: str | None = None,
        conversation_id: str | None = None,
        active: bool = False,
        limit: int = _PAGE,
        after: str | None = None,
    ) -> list[Run]:
        """Return runs, newest first; page by ``after``, the ``id`` of the last one.

        Args:
            agent_id: Those of one agent.
            conversation_id: Those of one conversation.
            active: Only those that have not ended.
            limit: The number of runs on a page, 1 to 1000.
            after: The id of a run: those behind it.
        """
        params = {**_page(limit, after, _RUN), "order": "desc", "active": active or None}
        for name, value in (("agent_id", agent_id), ("conversation_id", conversation_id)):
            if value is not None:
                params[name] = check_id(value, f"a {name}")
        found = await self._make("GET", "/v1/runs/", params=params)
        return [read_run(run) for run in read_list(found, "runs")]

    async def retrieve(self, run_id: str) -> Run:
        """Return one run; raise NotFoundError if there is none."""
        return read_run(await self._make("GET", _path("runs", run_id, _RUN)))

    async def messages(
        self, run_id: str, *, order: Literal["asc", "desc"] = "asc", limit: int = 100
    ) -> tuple[Message, ...]:
        """Return what was said in a run, as typed messages."""
        params = {"order": order, "limit": _check_limit(limit)}
        found = await self._make("GET", f"{_path('runs', run_id, _RUN)}/messages", params=params)
        return tuple(read_page(read_list(found, "messages"), order))

    async def steps(self, run_id: str, *, limit: int = 100) -> Sequence[RunStep]:
        """Return the model calls of a run, each with its usage, in order."""
        params = {"order": "asc", "limit": _check_limit(limit)}
        found = await self._make("GET", f"{_path('runs', run_id, _RUN)}/steps", params=params)
        return [read_step(step) for step in read_list(found, "steps")]

    async def cancel(self, run_id: str) -> None:
        """Ask the server to stop a run, and leave one alone that has ended.

        Raises:
            NotFoundError: There is no such run.
        """
        run = await self.retrieve(run_id)
        # A run that is over would be called cancelled from then on (letta 0.16.8).
        if run.status in ("completed", "failed", "cancelled"):
            return
        if run.agent_id is None:
            raise ProtocolError(f"The server does not tell the agent of {run_id}.")
        agent_id = check_id(run.agent_id, "an agent id")
        path = f"/v1/agents/{agent_id}/messages/cancel"
        await self._make("POST", path, body={"run_ids": [run_id]})


def _path(kind: str, id_: str, prefix: tuple[str, ...]) -> str:
    return f"/v1/{kind}/{check_id(id_, f'a {kind[:-1]} id', prefix)}"


def _archive(agent_id: str) -> str:
    return f"/v1/agents/{check_id(agent_id, 'an agent id')}/archival-memory"


def _page(limit: int, after: str | None, prefix: tuple[str, ...]) -> dict[str, Any]:
    if after is not None:
        check_id(after, "the id of what the last page ended with", prefix)
    return {"limit": _check_limit(limit), "after": after}


def _check_limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _MOST:
        raise InvalidInputError(f"limit must be between 1 and {_MOST}, not {limit!r}.")
    return limit


def _tags(tags: Iterable[str]) -> list[str] | None:
    if isinstance(tags, str):
        raise InvalidInputError("tags is a list of words, not one word.")
    return list(tags) or None


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}
