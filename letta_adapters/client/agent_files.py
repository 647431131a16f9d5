"""Internal: export agents to files, and import agents from files that nobody vouches for.

What a file brings is rewritten before it is sent: an agent comes out of an import with no more
power than its caller has named. The routes are those of letta 0.16.8 (``GET
/v1/agents/{id}/export``, ``POST /v1/agents/import``).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import Field
from typing_extensions import TypedDict

from letta_adapters._utils.checks import check_id
from letta_adapters._utils.files import publish
from letta_adapters.backends.agent_settings import METADATA_KEY, OWN_TAGS
from letta_adapters.backends.base import Backend
from letta_adapters.backends.runtime._compat import SUBAGENT_TAGS
from letta_adapters.client.agent_bundles import export_bundle, import_bundle
from letta_adapters.client.agent_file import (
    AGENT_FIELDS,
    OWN_TYPES,
    inspect_agent_file,
    list_asking,
)
from letta_adapters.client.file_parts import AgentFile
from letta_adapters.client.requests import Requests
from letta_adapters.errors import (
    ConflictError,
    InvalidInputError,
    ProtocolError,
    UnsupportedOptionError,
)
from letta_adapters.options_base import Options

_SECRETS: Final = ("secrets", "tool_exec_environment_variables")
# The fields of two tools by which one is told from the other.
_SAME: Final = ("tool_type", "source_code", "pip_requirements", "npm_requirements")


async def export_file(
    caller: Requests,
    agent_id: str,
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    conversation_id: str | None,
    scrub_messages: bool,
) -> AgentFile:
    """Export an agent; see :meth:`~letta_adapters.client.resources.AsyncAgents.export_file`."""
    _check_backend(caller.backend, "export_file")
    # So that nothing is exported in vain; `publish` makes sure of it again as it writes.
    where = check_target(path, overwrite=overwrite)
    if caller.backend.capabilities.agent_bundles:
        if conversation_id is not None:
            raise _refuse_in_bundle(caller.backend, "conversation_id", "has no conversations")
        return await export_bundle(caller, agent_id, where, overwrite=overwrite)
    params = {"conversation_id": conversation_id, "scrub_messages": scrub_messages or None}
    route = f"/v1/agents/{check_id(agent_id, 'an agent id')}/export"
    document = await caller.make("GET", route, params=params)
    # To check and write tens of MiB would hold the event loop.
    data, shown = await asyncio.to_thread(_blank_secrets, document)
    await asyncio.to_thread(publish, where, data, overwrite=overwrite)
    return shown


def _blank_secrets(document: Any) -> tuple[bytes, AgentFile]:
    """Return an export without the values of its secrets, as it is written and as it is shown.

    Raises:
        ProtocolError: The server exported something else than an agent.
    """
    try:
        # Before anything in it is changed: until then nothing is known of its shape.
        inspect_agent_file(_write(document))
        for agent in document["agents"]:
            for name in _SECRETS:
                # The names stay, so that whoever imports it knows what to give.
                agent[name] = dict.fromkeys(agent.get(name) or (), "")
        data = _write(document, indent=2)
        return data, inspect_agent_file(data)
    except (InvalidInputError, RecursionError) as error:
        raise ProtocolError(f"The server exported something else than an agent: {error}") from error


def _write(document: Any, indent: int | None = None) -> bytes:
    # Half a character is no UTF-8: it stands as its escape, which JSON reads as it was.
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return text.encode(errors="backslashreplace")


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Return the path of a file to write; raise InvalidInputError if it may not be written."""
    where = Path(path)
    if not where.parent.is_dir():
        raise InvalidInputError(f"There is no folder {where.parent}.")
    if os.path.lexists(where) and not overwrite:
        raise InvalidInputError(f"{where} exists.", hint="Pass overwrite=True to replace it.")
    return where


class ImportKwargs(TypedDict, total=False):
    """Keyword arguments of ``import_file``; see :class:`ImportOptions`."""

    secrets: Mapping[str, str]
    name: str
    model: str
    embedding: str
    strip_messages: bool
    override_existing_tools: bool


class ImportOptions(Options):
    """The options of ``import_file``.

    Args:
        secrets: The values of its tools' environment variables; those in the file are dropped.
        name: The name of the agent, in place of the file's.
        model: The model, in place of the file's.
        embedding: The embedding model, in place of the file's.
        strip_messages: Leave the history out.
        override_existing_tools: Replace other tools (and MCP servers) of the same name, for all
            agents of the server.
    """

    secrets: Mapping[str, str] = Field(default_factory=dict, repr=False)
    name: str | None = None
    model: str | None = None
    embedding: str | None = None
    strip_messages: bool = False
    override_existing_tools: bool = False


async def import_file(
    caller: Requests,
    file: AgentFile | str | os.PathLike[str] | bytes,
    *,
    trust: str | Sequence[str],
    allow: Collection[str],
    options: ImportOptions,
) -> list[str]:
    """Import agents; see :meth:`~letta_adapters.client.resources.AsyncAgents.import_file`."""
    _check_backend(caller.backend, "import_file")
    secrets, strip_messages = options.secrets, options.strip_messages
    # To read and check tens of MiB would hold the event loop.
    shown = file if isinstance(file, AgentFile) else await asyncio.to_thread(_inspect, file)
    _check_kind(caller.backend, shown)
    _check_trust(shown, trust, named=isinstance(file, AgentFile))
    _check_allowed(shown, allow, strip_messages=strip_messages)
    if unknown := set(secrets) - set(shown.secrets):
        raise InvalidInputError(
            f"secrets: no tool of the file knows {', '.join(sorted(unknown))}.",
            hint=f"It knows {', '.join(shown.secrets) or 'none'}.",
        )
    if shown.bundle is not None:
        for name in ("embedding", "override_existing_tools"):
            if getattr(options, name):
                raise _refuse_in_bundle(caller.backend, name, "has none")
        return await import_bundle(caller, shown, name=options.name, model=options.model)
    document: dict[str, Any] = json.loads(shown.content)
    form = {
        "name": options.name,
        "model": options.model or _one_handle(document, "llm_config", "model"),
        "embedding": options.embedding or _one_handle(document, "embedding_config", "embedding"),
        "override_existing_tools": options.override_existing_tools,
        # By default the server calls the agent `NAME_copy`.
        "append_copy_suffix": False,
    }
    _rewrite(document, shown, set(allow), secrets, strip_messages=strip_messages)
    await _check_existing(caller, document, replace=options.override_existing_tools)
    upload = ("agent.af", json.dumps(document).encode(), "application/json")
    answer = await caller.make("POST", "/v1/agents/import", body=form, files={"file": upload})
    ids = _read_ids(answer)
    for agent_id in ids:
        await _check_imported(caller, agent_id, set(allow))
    return ids


def _check_backend(backend: Backend, option: str) -> None:
    able = backend.capabilities
    if not (able.agent_files or able.agent_bundles):
        raise UnsupportedOptionError(
            option,
            backend=backend.name,
            supported_by=("rest", "local"),
            reason="the App Server has no agent files; rest has those of the Letta API (.af), and "
            "Local, where the agents are kept on this machine, git bundles of their memory.",
        )


def _check_kind(backend: Backend, shown: AgentFile) -> None:
    able, is_bundle = backend.capabilities, shown.bundle is not None
    if is_bundle and not able.agent_bundles:
        raise UnsupportedOptionError(
            "import_file",
            backend=backend.name,
            supported_by=("local",),
            reason="the file is a git bundle, an agent of Letta Code.",
        )
    if not is_bundle and not able.agent_files:
        raise UnsupportedOptionError(
            "import_file",
            backend=backend.name,
            supported_by=("rest",),
            reason="the file is an export of the Letta API (.af).",
        )


def _refuse_in_bundle(backend: Backend, option: str, why: str) -> UnsupportedOptionError:
    return UnsupportedOptionError(
        option, backend=backend.name, supported_by=("rest",), reason=f"a git bundle {why}."
    )


def _inspect(file: str | os.PathLike[str] | bytes) -> AgentFile:
    return inspect_agent_file(file)


def _check_trust(shown: AgentFile, trust: str | Sequence[str], *, named: bool) -> None:
    given = {trust} if isinstance(trust, str) else set(trust)
    if shown.digest in given:
        given.discard(shown.digest)
        trusted = {tool.digest for tool in shown.untrusted}
    else:
        trusted = {tool.digest for tool in shown.untrusted if tool.digest in given}
        # A name says nothing of a file that may be another one since it was looked at.
        if named:
            trusted |= {tool.digest for tool in shown.untrusted if tool.name in given}
    missing = [tool for tool in shown.untrusted if tool.digest not in trusted]
    if missing:
        raise InvalidInputError(
            f"The file brings tools that nobody has trusted: "
            f"{', '.join(tool.name for tool in missing)}.",
            hint="Read their source with inspect_agent_file(), then pass trust=shown.digest, the "
            "digests of the tools, or the object that was shown with the tools' names.",
        )
    known = {part for tool in shown.tools for part in (tool.digest, *([tool.name] * named))}
    if unknown := given - known:
        raise InvalidInputError(
            f"trust: the file has nothing of the name or digest {sorted(unknown)[0]!r}.",
            hint="It is another file than the one that was shown.",
        )


def _check_allowed(shown: AgentFile, allow: Collection[str], *, strip_messages: bool) -> None:
    if isinstance(allow, str):
        raise InvalidInputError("allow must be a list of demands.", hint=f"allow=[{allow!r}]")
    if unknown := set(allow) - set(shown.demands):
        raise InvalidInputError(
            f"allow: the file does not ask for {sorted(unknown)[0]!r}.",
            hint=f"It asks for {', '.join(shown.demands) or 'nothing'}.",
        )
    for demand in shown.demands:
        kind = demand.partition(":")[0]
        # A tool that nobody allowed to run unasked is imported as one that asks.
        if demand in allow or kind == "run" or (kind == "pending" and strip_messages):
            continue
        hint = "strip_messages=True leaves the history out, or " if kind == "pending" else ""
        raise InvalidInputError(
            f"The file asks for {demand!r}, which nobody has allowed.",
            hint=f"{hint}allow=[{demand!r}] takes it as it is.",
        )


def _one_handle(document: Mapping[str, Any], config: str, option: str) -> str | None:
    """Return the model that all agents of the file have, as this server knows it.

    It is always named, so that the server takes its own settings of it: those of the file hold the
    address to which every prompt would be sent.
    """
    configs = [agent[config] for agent in document["agents"] if agent.get(config)]
    configs += [item[config] for item in document["sources"] if item.get(config)]
    handles = {config.get("handle") for config in configs}
    if option == "embedding" and not configs:
        return None
    (handle, *others) = handles or {None}
    if others or not isinstance(handle, str) or not handle:
        raise InvalidInputError(
            f"The file does not say which {option} of this server its agents use.",
            hint=f"Pass {option}=.",
        )
    return handle


def _rewrite(
    document: dict[str, Any],
    shown: AgentFile,
    allow: set[str],
    secrets: Mapping[str, str],
    *,
    strip_messages: bool,
) -> None:
    """Take out of a file what its importer has not named."""
    free = {f"run:{tool.name}" for tool in shown.tools} & allow
    acting = {demand.partition(":")[2] for demand in shown.demands if demand.startswith("run:")}
    asking = acting - {demand.partition(":")[2] for demand in free}
    names = {tool["id"]: tool["name"] for tool in document["tools"]}
    for tool in document["tools"]:
        if tool["name"] in asking:
            # For agents that get the tool later; those of the file get a rule of their own below.
            tool["default_requires_approval"] = True
        tool["project_id"] = None
    document["groups"] = []
    document.pop("skills", None)
    for agent in document["agents"]:
        for field in set(agent) - AGENT_FIELDS:
            del agent[field]
        # A file must not have the server add tools that it does not show.
        agent |= {"include_base_tools": False, "include_base_tool_rules": False}
        # This package and Letta Code act upon such tags, so a file must not set them.
        agent["tags"] = [
            tag
            for tag in agent.get("tags") or ()
            if isinstance(tag, str) and not tag.startswith((OWN_TAGS, *SUBAGENT_TAGS))
        ]
        metadata = agent.get("metadata") or {}
        agent["metadata"] = {k: v for k, v in metadata.items() if k != METADATA_KEY}
        known = {*(agent.get("secrets") or ()), *(agent.get(_SECRETS[1]) or ())}
        agent["secrets"] = {key: secrets[key] for key in sorted(known & set(secrets))}
        agent["tool_exec_environment_variables"] = None
        held = {names[id_] for id_ in agent.get("tool_ids") or ()}
        silent = sorted((held & asking) - list_asking(agent))
        agent["tool_rules"] = [
            *(agent.get("tool_rules") or ()),
            *({"type": "requires_approval", "tool_name": tool} for tool in silent),
        ]
        if strip_messages:
            agent |= {"messages": [], "in_context_message_ids": []}


async def _check_existing(caller: Requests, document: Mapping[str, Any], *, replace: bool) -> None:
    """Refuse a file whose names mean something else on the server.

    Raises:
        ConflictError: The server has a tool, or an MCP server, of the same name that is another.
    """
    tools = {tool["name"]: tool for tool in document["tools"]}
    found = []
    if tools:
        params = {"names": sorted(tools), "limit": len(tools)}
        found = await caller.make("GET", "/v1/tools/", params=params)
    for other in found:
        tool = tools.get(other.get("name"))
        # An empty list and none at all mean the same.
        if tool is None or all((tool.get(f) or None) == (other.get(f) or None) for f in _SAME):
            continue
        # The agent would get the other one; with a type of Letta's own it would never ask.
        if tool["tool_type"] != other.get("tool_type") or not replace:
            raise ConflictError(
                f"The server has another tool {tool['name']!r} than the file.",
                hint="override_existing_tools=True replaces it for all agents that have it; a "
                "tool of another type is never replaced.",
            )
    servers = {server["server_name"] for server in document["mcp_servers"]}
    if servers and not replace:
        known = await caller.make("GET", "/v1/tools/mcp/servers")
        if taken := sorted(servers & set(known)):
            raise ConflictError(
                f"The server has an MCP server {taken[0]!r} already.",
                hint="override_existing_tools=True gives it the address of the file.",
            )


def _read_ids(answer: Any) -> list[str]:
    ids = answer.get("agent_ids") if isinstance(answer, Mapping) else None
    if not isinstance(ids, list) or not ids:
        raise ProtocolError("The server imported the file and names no agent.", accepted=True)
    return [check_id(id_, "an agent id") for id_ in ids]


async def _check_imported(caller: Requests, agent_id: str, allow: set[str]) -> None:
    """Look whether the server kept the approvals, and delete the agent if it did not."""
    agent = await caller.make("GET", f"/v1/agents/{agent_id}")
    asking = list_asking(agent)
    silent = [
        tool["name"]
        for tool in agent.get("tools") or ()
        if tool.get("tool_type") not in OWN_TYPES
        and tool["name"] not in asking
        and f"run:{tool['name']}" not in allow
    ]
    if silent:
        await caller.make("DELETE", f"/v1/agents/{agent_id}")
        raise ProtocolError(
            f"The server imported {', '.join(silent)} without the approvals that were asked for; "
            "the agent was deleted again.",
            hint="This server's import cannot be used.",
        )
