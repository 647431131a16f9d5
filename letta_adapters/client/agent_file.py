"""Internal: read an agent file (``.af``, an export of the Letta API) and show what it asks for.

An agent file comes from anywhere, so it is checked as a whole and shown before anything believes
it; :func:`inspect_agent_file` sends nothing. It reads git bundles too, by ``bundle_file.py``. The
format is that of letta 0.16.8
(``letta/schemas/agent_file.py``): a JSON object of lists, whose entries refer to each other by ids
that hold in the file alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from letta_adapters._utils.files import read_regular
from letta_adapters.client.bundle_file import describe_bundle, is_bundle
from letta_adapters.client.file_parts import (
    AgentFile,
    FileAgent,
    FileBlock,
    FileMcpServer,
    FileTool,
)
from letta_adapters.client.strict_json import parse_object
from letta_adapters.errors import InvalidInputError

MAX_BYTES: Final = 64 << 20
_MAX_ITEMS: Final = 10_000
_LISTS: Final = ("agents", "groups", "blocks", "files", "sources", "tools", "mcp_servers")
# Tools by which an agent edits its own memory and searches its own history; they are a part of it.
OWN_TYPES: Final = ("letta_core", "letta_memory_core", "letta_sleeptime_core")
_LETTAS: Final = "letta_"
_MCP: Final = "external_mcp"
_ASKS: Final = "requires_approval"
# The fields of an agent that are imported. Others name things of the server by its own ids or by
# name (tools, folders, identities, projects), which a file from elsewhere has no business with.
AGENT_FIELDS: Final = frozenset(
    {
        *("id", "name", "system", "agent_type", "description", "metadata", "tags"),
        *("tool_ids", "block_ids", "source_ids", "tool_rules", "llm_config", "embedding_config"),
        *("messages", "in_context_message_ids", "files_agents", "response_format", "timezone"),
        *("message_buffer_autoclear", "max_files_open", "per_file_view_window_char_limit"),
        # Written anew by the import.
        *("model", "embedding", "secrets", "tool_exec_environment_variables"),
    }
)


def inspect_agent_file(file: str | os.PathLike[str] | bytes) -> AgentFile:
    """Return what an agent file holds and asks for; nothing is sent and nothing is run.

    Args:
        file: The path of an agent file (``.af``) or of a git bundle that was exported, or its
            content.

    Raises:
        InvalidInputError: It cannot be read, is larger than 64 MiB, or is no agent file: broken
            JSON, a name that stands twice in an object, deep nesting, another version of the
            format, ids or names that are missing, used twice or lead nowhere; a damaged bundle, or
            one that unpacks to more than it may.
    """
    # A copy of a bytearray, which somebody could change after it was looked at.
    data = bytes(file) if isinstance(file, bytes | bytearray) else read_regular(file, MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise _refuse(f"it is larger than {MAX_BYTES >> 20} MiB")
    if is_bundle(data):
        return describe_bundle(data)
    document = parse_object(data, _refuse)
    _check_shape(document)
    return _describe(document)


def make_digest(value: object) -> str:
    """Return ``"sha256:..."`` over a JSON value, whatever the order of its names."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def list_asking(agent: Mapping[str, Any]) -> set[str]:
    """Return the names of the tools whose calls need an approval, by the rules of an agent."""
    rules = agent.get("tool_rules") or ()
    return {str(rule.get("tool_name")) for rule in rules if rule.get("type") == _ASKS}


def _refuse(why: str) -> InvalidInputError:
    return InvalidInputError(f"This is no agent file that can be imported: {why}.")


def _check_shape(document: Mapping[str, Any]) -> None:
    if not isinstance(document.get("agents"), list):
        raise _refuse(
            "it has no list of agents (the older format with one agent is not imported by the "
            "Letta API either)"
        )
    for name in (*_LISTS, *(("skills",) if "skills" in document else ())):
        items = document.get(name)
        if not isinstance(items, list):
            raise _refuse(f"it has no list {name!r}, so it is of another version")
        if len(items) > _MAX_ITEMS:
            raise _refuse(f"{name!r} has more than {_MAX_ITEMS} entries")
        if not all(isinstance(item, dict) for item in items):
            raise _refuse(f"an entry of {name!r} is no object")
        _check_unique(name, items, "name" if name == "skills" else "id")
    if not document["agents"]:
        raise _refuse("it has no agent")
    _check_parts(document)


def _check_parts(document: Mapping[str, Any]) -> None:
    _check_unique("tools", document["tools"], "name")
    _check_unique("mcp_servers", document["mcp_servers"], "server_name")
    for tool in document["tools"]:
        _check_texts("a tool", tool, "tool_type", optional=("source_code",))
        for name in ("pip_requirements", "npm_requirements"):
            if not isinstance(tool.get(name) or [], list):
                raise _refuse(f"{name!r} of a tool is no list")
    for source in document["sources"]:
        _check_config("a source", source, "embedding_config")
    for block in document["blocks"]:
        _check_texts("a block", block, "label", "value")
    for agent in document["agents"]:
        _check_agent(document, agent)


def _check_unique(what: str, items: Sequence[Mapping[str, Any]], name: str) -> None:
    seen: set[str] = set()
    for item in items:
        value = item.get(name)
        if not isinstance(value, str) or not value:
            raise _refuse(f"an entry of {what!r} has no {name!r}")
        if value in seen:
            raise _refuse(f"two entries of {what!r} have the {name} {value!r}")
        seen.add(value)


def _check_texts(
    what: str, item: Mapping[str, Any], *names: str, optional: tuple[str, ...] = ()
) -> None:
    for name in (*names, *optional):
        value = item.get(name)
        if not isinstance(value, str) and not (value is None and name in optional):
            raise _refuse(f"{name!r} of {what} is no text")


def _check_agent(document: Mapping[str, Any], agent: Mapping[str, Any]) -> None:
    _check_texts("an agent", agent, "name", optional=("system",))
    for name, kind in (("tool_ids", "tools"), ("block_ids", "blocks"), ("source_ids", "sources")):
        ids = agent.get(name) or []
        known = {item["id"] for item in document[kind]}
        if not isinstance(ids, list) or any(not isinstance(i, str) or i not in known for i in ids):
            raise _refuse(f"{name!r} of an agent names what is not in the file")
    for name in ("tool_rules", "messages", "files_agents"):
        items = agent.get(name) or []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise _refuse(f"{name!r} of an agent is no list of objects")
    for name in ("in_context_message_ids", "tags"):
        if not isinstance(agent.get(name) or [], list):
            raise _refuse(f"{name!r} of an agent is no list")
    for name in ("metadata", "secrets", "tool_exec_environment_variables"):
        if not isinstance(agent.get(name) or {}, dict):
            raise _refuse(f"{name!r} of an agent is no object")
    for name in ("llm_config", "embedding_config"):
        _check_config("an agent", agent, name)


def _check_config(what: str, item: Mapping[str, Any], name: str) -> None:
    config = item.get(name) or {}
    if not isinstance(config, dict) or not isinstance(config.get("handle") or "", str):
        raise _refuse(f"{name!r} of {what} is no object with a handle")


def _describe(document: Mapping[str, Any]) -> AgentFile:
    agents: list[dict[str, Any]] = document["agents"]
    tools = tuple(_describe_tool(tool, agents) for tool in document["tools"])
    servers = tuple(_describe_server(server) for server in document["mcp_servers"])
    variables = [pair for agent in agents for pair in _list_variables(agent)]
    return AgentFile(
        digest=make_digest(document),
        agents=tuple(_describe_agent(document, agent) for agent in agents),
        blocks=tuple(
            FileBlock(block["label"], block["value"], block.get("read_only") is True)
            for block in document["blocks"]
        ),
        tools=tools,
        mcp_servers=servers,
        files=tuple(str(item.get("file_name")) for item in document["files"]),
        skills=tuple(item["name"] for item in document.get("skills") or ()),
        secrets=tuple(sorted({name for name, _ in variables})),
        exposed_secrets=tuple(sorted({name for name, value in variables if value})),
        demands=(
            *(f"run:{tool.name}" for tool in tools if not tool.asks and _acts(tool)),
            *(f"mcp:{server.name}" for server in servers),
            *(f"pending:{agent['name']}" for agent in agents if _waits(agent)),
        ),
        left_out=tuple(_list_left_out(document)),
        content=json.dumps(document),
    )


def _describe_tool(tool: Mapping[str, Any], agents: Sequence[Mapping[str, Any]]) -> FileTool:
    kind, source = tool["tool_type"], tool.get("source_code")
    holders = [agent for agent in agents if tool["id"] in (agent.get("tool_ids") or ())]
    wanted = [*(tool.get("pip_requirements") or ()), *(tool.get("npm_requirements") or ())]
    return FileTool(
        name=tool["name"],
        kind=kind,
        source=source,
        # The id means something in this file alone: another file with this tool has another.
        digest=make_digest({k: v for k, v in tool.items() if k != "id"}),
        requirements=tuple(_describe_requirement(item) for item in wanted),
        # `all` is true of no agents, but a tool that none of them has is not known to ask.
        asks=all(tool["name"] in list_asking(agent) for agent in holders) and bool(holders),
        # What is Letta's own has no source in a file; whoever adds one wants it run.
        needs_trust=bool(source) or bool(wanted) or not kind.startswith(_LETTAS),
    )


def _describe_requirement(item: object) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    version = f"=={item['version']}" if item.get("version") else ""
    return f"{item.get('name')}{version}"


def _acts(tool: FileTool) -> bool:
    return tool.kind not in OWN_TYPES or tool.needs_trust


def _describe_agent(document: Mapping[str, Any], agent: Mapping[str, Any]) -> FileAgent:
    names = {tool["id"]: tool["name"] for tool in document["tools"]}
    labels = {block["id"]: block["label"] for block in document["blocks"]}
    handle = (agent.get("llm_config") or {}).get("handle")
    return FileAgent(
        name=agent["name"],
        system=agent.get("system") or "",
        model=handle if isinstance(handle, str) and handle else None,
        tools=tuple(names[id_] for id_ in agent.get("tool_ids") or ()),
        blocks=tuple(labels[id_] for id_ in agent.get("block_ids") or ()),
        messages=len(agent.get("messages") or ()),
    )


def _describe_server(server: Mapping[str, Any]) -> FileMcpServer:
    stdio = server.get("stdio_config") or {}
    arguments = stdio.get("args") or [] if isinstance(stdio, Mapping) else None
    if not isinstance(stdio, Mapping) or not isinstance(arguments, list):
        raise _refuse("'stdio_config' of an MCP server is no command")
    command = [stdio.get("command"), *arguments]
    address = server.get("server_url") or " ".join(str(part) for part in command if part)
    return FileMcpServer(server["server_name"], str(server.get("server_type")), str(address))


def _list_variables(agent: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("secrets", "tool_exec_environment_variables"):
        yield from (agent.get(name) or {}).items()


def _waits(agent: Mapping[str, Any]) -> bool:
    """Return whether the history ends in a call, or in an approval that the server acts upon."""
    messages = agent.get("messages") or []
    shown = agent.get("in_context_message_ids") or []
    last = [message for message in messages if shown and message.get("id") == shown[-1]]
    # The list may be in another order than the context, so a call at either end counts.
    ends = [*messages[-1:], *last]
    return any(m.get("role") == "approval" or m.get("tool_calls") for m in ends)


def _list_left_out(document: Mapping[str, Any]) -> Iterator[str]:
    for number, agent in enumerate(document["agents"]):
        for name, value in agent.items():
            if name not in AGENT_FIELDS and value not in (None, False, "", [], {}):
                yield f"agents[{number}].{name}"
    yield from (name for name in ("groups", "skills") if document.get(name))
