"""Internal: MCP servers as client-side tools, hosted by this process and called by the agent.

A tool is called ``mcp__<server>__<tool>``. The official ``mcp`` package speaks the protocol (1.30
to 2.x; as they decode results differently, these are read in the shape of the wire). Only tools
are used, with the progress that they report: not resources, prompts, sampling or elicitation, and
no changes of the list of tools.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from letta_adapters._utils.tasks import await_all
from letta_adapters.errors import (
    ConfigurationError,
    InvalidInputError,
    LettaError,
    LettaTimeoutError,
    SessionClosedError,
)
from letta_adapters.tools.client_side import Tool
from letta_adapters.tools.context import ToolContext, current_call
from letta_adapters.tools.mcp.config import McpServer, parse_servers
from letta_adapters.tools.mcp.connection import McpConnection
from letta_adapters.tools.result import ToolResult

_log = logging.getLogger("letta_adapters.mcp")


def tool_names(tools: Sequence[tuple[str, str]]) -> list[str]:
    """Return names the model can call, one for each ``(server, tool)``, all different.

    The name is ``mcp__<server>__<tool>`` with ``_`` for characters that a name cannot hold. If it
    is too long, or the same as another's, it ends in a hash of the pair.
    """
    plain = [re.sub(r"[^A-Za-z0-9_-]", "_", f"mcp__{server}__{tool}") for server, tool in tools]
    count = Counter(plain)
    names = []
    for name, pair in zip(plain, tools, strict=True):
        # The hash of the pair, so that a tool keeps its name whatever the others are called.
        short = f"{name[:55]}_{hashlib.sha256(json.dumps(pair).encode()).hexdigest()[:8]}"
        names.append(short if count[name] > 1 or len(name) > 64 else name)
    return names


class McpHost:
    """The MCP servers of one session.

    It belongs to the event loop :meth:`start` ran on; the handlers of its tools can be awaited on
    any loop, in any thread.
    """

    def __init__(self) -> None:
        #: The servers that have no connection, each with the reason (``str()`` of it is text).
        self.errors: dict[str, LettaError] = {}
        self._connections: dict[str, McpConnection] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def start(self, specs: Mapping[str, Any]) -> tuple[Tool, ...]:
        """Connect to all servers at once, and return the tools of those that answer, in order.

        A server that does not answer is in :attr:`problems`, and logged as a warning. This can be
        called only once.

        Raises:
            InvalidInputError: A configuration is wrong.
            ConfigurationError: The ``mcp`` package is not installed.
        """
        servers = parse_servers(specs)
        if servers and find_spec("mcp") is None:
            raise ConfigurationError(
                "mcp_servers needs the mcp package.", hint="pip install 'letta-adapters[mcp]'"
            )
        self._loop = asyncio.get_running_loop()
        self._locks = {name: asyncio.Lock() for name in servers}
        try:
            listed = await asyncio.gather(*(self._try(name, servers[name]) for name in servers))
        except BaseException:
            # Cancelled while some were connected already, none of which may stay behind.
            await self.aclose()
            raise
        # By both names, as two servers may have tools of the same name.
        found = {
            (name, item["name"]): item
            for name, items in zip(servers, listed, strict=True)
            for item in items
        }
        made = [
            self._tool(name, server, item)
            for name, ((server, _), item) in zip(tool_names([*found]), found.items(), strict=True)
        ]
        return tuple(tool for tool in made if tool is not None)

    def _tool(self, name: str, server: str, item: Mapping[str, Any]) -> Tool | None:
        tool = item["name"]

        async def call(**arguments: Any) -> ToolResult:
            work = self._call(server, tool, arguments, current_call.get())
            if asyncio.get_running_loop() is self._loop:
                return await work
            if self._closed or self._loop is None or self._loop.is_closed():
                work.close()
                return ToolResult("The session was closed.", is_error=True)
            # The sync client runs handlers on loops of their own; the connection belongs to this
            # one.
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

        about = item.get("description") or item.get("title") or tool
        schema = item.get("inputSchema") or {}
        # The mcp package writes null for fields that the server left out.
        schema = {key: value for key, value in schema.items() if value is not None}
        try:
            return Tool(name, about, schema, handler=call)
        except InvalidInputError as error:
            # One bad tool must not cost the user all the others of the server.
            _log.warning("A tool of MCP server %r is left out: %s", server, error)
            return None

    async def _try(self, name: str, spec: McpServer) -> list[dict[str, Any]]:
        try:
            return await self._connect(name, spec)
        except LettaError:
            return []

    async def _connect(self, name: str, spec: McpServer) -> list[dict[str, Any]]:
        """Make a connection, note it in ``_connections`` or ``errors``, and return the tools."""
        if self._closed:
            raise SessionClosedError("The session was closed.")
        connection = self._connections[name] = McpConnection(name, spec)
        try:
            # The task that owns the connection may fail before it is ready; waiting for both tells
            # at once.
            either: set[asyncio.Future[Any]] = {connection.ready, connection.owner}
            done, _ = await asyncio.wait(
                either, timeout=spec.connect_timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            if not (connected := connection.ready.done() and not connection.ready.cancelled()):
                await connection.end()
        if connected:
            self.errors.pop(name, None)
            return connection.ready.result()
        if self._closed:
            raise SessionClosedError("The session was closed.")
        text = f"The MCP server {name!r} did not answer within {spec.connect_timeout:g} s."
        problem = connection.problem() if done else LettaTimeoutError(text)
        self.errors[name] = problem
        _log.warning("%s", problem)
        raise problem

    async def _call(
        self, server: str, tool: str, arguments: dict[str, Any], context: ToolContext | None
    ) -> ToolResult:
        try:
            # Two calls at once must not both connect a lost server again.
            async with self._locks[server]:
                connection = self._connections[server]
                # A server that was restarted is connected again here, so that only one call is
                # lost.
                if connection.lost():
                    await connection.end()
                    await self._connect(server, connection.spec)
                    connection = self._connections[server]
        except LettaError as error:
            return ToolResult(str(error), is_error=True)
        return await connection.call(tool, arguments, context)

    async def aclose(self) -> None:
        """End all connections and the processes started for them; it can be called more than once.

        A cancellation of the caller waits for that too: a few seconds, with a server that does
        not end when it is asked to.
        """
        self._closed = True
        ending = asyncio.gather(*(connection.end() for connection in self._connections.values()))
        await await_all({ending})
        ending.result()
