"""Internal: the objects that memory, tools and runs are read as; ``raw`` is the server's own.

Shapes: letta 0.16.8 (the Letta API) and letta 0.34.12 (Letta Code).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from letta_adapters.errors import ProtocolError
from letta_adapters.messages import Usage


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """One piece of an agent's memory: a block (Letta API), or a file (Letta Code).

    Attributes:
        label: The name that the agent knows it by (``persona``).
        value: The text.
        description: The words that tell the agent what it is for.
        limit: The greatest number of characters, where there is one.
        read_only: True if the agent must not change it.
        id: The block's id; ``None`` for a file.
        path: The file's path in the memory repository; ``None`` for a block.
        shared_by: The ids of all agents that have the block, where that was asked for; a file
            belongs to one agent.
        raw: The server's own object.
    """

    label: str
    value: str
    description: str | None = None
    limit: int | None = None
    read_only: bool = False
    id: str | None = None
    path: str | None = None
    shared_by: tuple[str, ...] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def version(self) -> str:
        """A fingerprint of value and description, for ``if_match``."""
        # Parted by a NUL, which `check_text` lets into neither: no text moves to the other.
        text = f"{self.description or ''}\0{self.value}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class MemoryCommit:
    """One change of a memory repository; ``created_at`` is a date with its time zone (ISO 8601)."""

    sha: str
    message: str
    created_at: str
    author: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Passage:
    """A text in an agent's archival memory; a search tells neither ``archive_id`` nor metadata."""

    id: str
    text: str
    tags: tuple[str, ...] = ()
    created_at: str | None = None
    archive_id: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that the Letta API's server runs.

    ``parameters`` is the JSON schema of its arguments. ``requires_approval`` is the default for
    agents that it is attached to.
    """

    id: str
    name: str
    description: str | None = None
    tool_type: str | None = None
    source_code: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    tags: tuple[str, ...] = ()
    requires_approval: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Run:
    """The server's record of one request.

    ``status`` is ``created``, ``running``, ``completed``, ``failed`` or ``cancelled``; ``error`` is
    the reason of a run that failed, where the server keeps it.
    """

    id: str
    status: str
    agent_id: str | None = None
    conversation_id: str | None = None
    stop_reason: str | None = None
    created_at: str | None = None
    completed_at: str | None = None
    background: bool = False
    error: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RunStep:
    """One model call of a run, with its own usage."""

    id: str
    model: str | None = None
    status: str | None = None
    stop_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


def read_block(found: Any, shared_by: tuple[str, ...] | None = None) -> MemoryItem:
    """Return a block of the Letta API; raise ProtocolError if it is none."""
    raw = _read_object(found, "block")
    limit = raw.get("limit")
    return MemoryItem(
        label=str(raw.get("label") or ""),
        value=str(raw.get("value") or ""),
        description=_read_text(raw, "description"),
        limit=limit if isinstance(limit, int) else None,
        read_only=raw.get("read_only") is True,
        id=str(raw["id"]),
        shared_by=shared_by,
        raw=raw,
    )


def read_commit(found: Any) -> MemoryCommit:
    """Return a commit of a memory repository; raise ProtocolError if it is none."""
    raw = _read_object(found, "commit", "sha")
    return MemoryCommit(
        str(raw["sha"]),
        str(raw.get("message") or ""),
        str(raw.get("timestamp") or ""),
        _read_text(raw, "author_name"),
        raw,
    )


def read_passage(found: Any) -> Passage:
    """Return a passage, as a list or a search has it; raise ProtocolError if it is none."""
    raw = _read_object(found, "passage")
    return Passage(
        str(raw["id"]),
        str(raw.get("text") or raw.get("content") or ""),
        tuple(map(str, raw.get("tags") or ())),
        _read_text(raw, "created_at") or _read_text(raw, "timestamp"),
        _read_text(raw, "archive_id"),
        raw,
    )


def read_tool(found: Any) -> ServerTool:
    """Return a tool of the server; raise ProtocolError if it is none."""
    raw = _read_object(found, "tool")
    schema = raw.get("json_schema")
    parameters = schema.get("parameters") if isinstance(schema, Mapping) else None
    return ServerTool(
        str(raw["id"]),
        str(raw.get("name") or ""),
        _read_text(raw, "description"),
        _read_text(raw, "tool_type"),
        _read_text(raw, "source_code"),
        parameters if isinstance(parameters, Mapping) else {},
        tuple(map(str, raw.get("tags") or ())),
        raw.get("default_requires_approval") is True,
        raw,
    )


def read_run(found: Any) -> Run:
    """Return a run; raise ProtocolError if it is none."""
    raw = _read_object(found, "run")
    metadata = raw.get("metadata")
    error = metadata.get("error") if isinstance(metadata, Mapping) else None
    return Run(
        str(raw["id"]),
        str(raw.get("status") or ""),
        _read_text(raw, "agent_id"),
        _read_text(raw, "conversation_id"),
        _read_text(raw, "stop_reason"),
        _read_text(raw, "created_at"),
        _read_text(raw, "completed_at"),
        raw.get("background") is True,
        None if error is None else str(error),
        raw,
    )


def read_step(found: Any) -> RunStep:
    """Return a step of a run; raise ProtocolError if it is none."""
    raw = _read_object(found, "step")

    def count(name: str) -> int:
        value = raw.get(name)
        return value if isinstance(value, int) else 0

    return RunStep(
        str(raw["id"]),
        _read_text(raw, "model_handle") or _read_text(raw, "model"),
        _read_text(raw, "status"),
        _read_text(raw, "stop_reason"),
        Usage(
            prompt_tokens=count("prompt_tokens"),
            completion_tokens=count("completion_tokens"),
            total_tokens=count("total_tokens"),
            cached_input_tokens=count("cached_input_tokens"),
            reasoning_tokens=count("reasoning_tokens"),
            step_count=1,
        ),
        raw,
    )


def read_list(found: Any, what: str) -> list[Any]:
    """Return a reply that must be a list; raise ProtocolError if it is none."""
    if not isinstance(found, list):
        raise ProtocolError(f"The server's answer is no list of {what}.")
    return found


def _read_object(found: Any, what: str, key: str = "id") -> Mapping[str, Any]:
    if not isinstance(found, Mapping) or not isinstance(found.get(key), str):
        raise ProtocolError(f"The server's answer is no {what}.")
    return found


def _read_text(raw: Mapping[str, Any], name: str) -> str | None:
    value = raw.get(name)
    return value if isinstance(value, str) and value else None
