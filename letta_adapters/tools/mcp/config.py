"""The settings of MCP servers: :class:`McpStdio`, :class:`McpHttp`, or dicts of their fields.

::

    mcp_servers={
        "files": {"command": "npx", "args": ["-y", "server-files"], "env": {"TOKEN": "..."}},
        "docs": {"type": "http", "url": "https://example.com/mcp", "headers": {...}},
    }
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import unquote, unquote_plus, urlsplit

from pydantic import Field, SecretStr

from letta_adapters.errors import InvalidInputError
from letta_adapters.options_base import Options

_SPELLINGS: Final = {"streamable_http": "http", "streamable-http": "http"}


class _Server(Options):
    connect_timeout: float = Field(default=30.0, gt=0)
    tool_timeout: float | None = Field(default=240.0, gt=0)


class McpStdio(_Server):
    """An MCP server that this process starts, and talks to over its stdin and stdout.

    Args:
        command: The program to start.
        args: Its arguments.
        cwd: Its working directory.
        env: Variables added to the few the server inherits (``PATH``, ``HOME``, ``USER``, ...).
        connect_timeout: Seconds to start and to list the tools.
        tool_timeout: Seconds a call may take; ``None`` is no limit.
    """

    type: Literal["stdio"] = "stdio"
    command: str = Field(min_length=1)
    args: tuple[str, ...] = Field(default=(), repr=False)
    env: Mapping[str, SecretStr] = Field(default_factory=dict)
    cwd: Path | None = None


class McpHttp(_Server):
    """An MCP server at a URL.

    Args:
        type: ``"http"`` (streamable HTTP), or ``"sse"`` for the older transport.
        url: An http(s) URL.
        headers: Sent with every request.
        connect_timeout: Seconds to connect and to list the tools.
        tool_timeout: Seconds a call may take; ``None`` is no limit.
    """

    type: Literal["http", "sse"] = "http"
    url: str = Field(pattern=r"^https?://[^\s/]", repr=False)
    headers: Mapping[str, SecretStr] = Field(default_factory=dict)


McpServer: TypeAlias = McpStdio | McpHttp


def list_secrets(spec: McpServer) -> list[str]:
    """Return the words that no text shown to anybody may contain, the longest first."""
    if isinstance(spec, McpStdio):
        values = [value.get_secret_value() for value in spec.env.values()]
    else:
        url = urlsplit(spec.url)
        values = [value.get_secret_value() for value in spec.headers.values()]
        # A server may quote its query as a whole, or a value out of it: as it is written in the
        # address, or as the server has read it.
        written = [url.query, *re.split("[=&]", url.query), url.password or ""]
        values += [*written, *map(unquote, written), *map(unquote_plus, written)]
    # "Bearer abc..." may be quoted without its first word.
    words = {word for value in values for word in (value, *value.split()) if len(word) >= 6}
    return sorted(words, key=len, reverse=True)


def parse_servers(servers: Mapping[str, Any]) -> dict[str, McpServer]:
    """Return checked configurations, in order; this does no I/O.

    Args:
        servers: By name an :class:`McpStdio`, an :class:`McpHttp`, or a dict of their fields.
            Without ``type``, a dict with a ``url`` is an HTTP server and any other a stdio server.

    Raises:
        InvalidInputError: A configuration is wrong.
    """
    if not isinstance(servers, Mapping):
        raise InvalidInputError(f"mcp_servers is {type(servers).__name__}, not a dict.")
    return {name: _parse(name, value) for name, value in servers.items()}


def _parse(name: Any, value: Any) -> McpServer:
    if not isinstance(name, str) or not name.strip():
        raise InvalidInputError(f"{name!r} is not a name for an MCP server.")
    if isinstance(value, McpStdio | McpHttp):
        return value
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"The MCP server {name!r} is {type(value).__name__}, not a dict.")
    given = {str(key): item for key, item in value.items()}
    # The configuration files of other MCP clients leave the type out.
    kind = given.get("type", "http" if "url" in given else "stdio")
    given["type"] = _SPELLINGS.get(str(kind), kind)
    try:
        return McpHttp(**given) if given["type"] in ("http", "sse") else McpStdio(**given)
    except InvalidInputError as error:
        raise InvalidInputError(f"MCP server {name!r}: {error.message}") from None
