"""Internal: what a file of an agent brings along, as it is shown before anything believes it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FileTool:
    """A tool in an agent file.

    Attributes:
        name: Its name.
        kind: Letta's type of it: ``"custom"``, ``"external_mcp"``, ``"letta_core"``, ...
        source: The source code that the server would run; ``None`` where the file brings none.
        digest: ``"sha256:..."`` over all that the file says of the tool.
        requirements: The packages that are installed for it.
        asks: True if the file says that each call needs an approval.
        needs_trust: True if it is code, or a door to somewhere else, that the file brings along.
    """

    name: str
    kind: str
    source: str | None
    digest: str
    requirements: tuple[str, ...]
    asks: bool
    needs_trust: bool


@dataclass(frozen=True, slots=True)
class FileAgent:
    """An agent in an agent file: its model's handle, and how much comes with it."""

    name: str
    system: str
    model: str | None
    tools: tuple[str, ...]
    blocks: tuple[str, ...]
    messages: int
    description: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileBlock:
    """A memory block in an agent file."""

    label: str
    value: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class FileMcpServer:
    """An MCP server that an agent file sets up; ``address`` is its URL, or its command."""

    name: str
    kind: str
    address: str


@dataclass(frozen=True, slots=True)
class FileMemory:
    """A file of an agent's memory in a git bundle.

    Attributes:
        path: Its path in the memory.
        size: Its size in bytes.
        content: Its text; ``None`` where it holds something else.
        executable: True if it may be run as a program.
    """

    path: str
    size: int
    content: str | None
    executable: bool = False


@dataclass(frozen=True, slots=True)
class AgentFile:
    """Hold what an agent file brings along and asks for.

    It is one of two kinds: ``.af``, an export of the Letta API, or a git bundle, an export of Letta
    Code on one machine.

    Attributes:
        digest: ``"sha256:..."`` over the whole content; ``import_file(trust=...)`` takes it.
        agents: The agents.
        blocks: Their memory blocks.
        tools: Their tools, with their source.
        mcp_servers: The MCP servers that would be set up on the server.
        files: The names of documents that come along.
        skills: The names of skills; the Letta API imports none, and those of a bundle are demands.
        secrets: The names of the tools' environment variables.
        exposed_secrets: Those of them whose value stands in the file.
        demands: What an import would loosen, each to be named in ``import_file(allow=...)``:
            ``"run:TOOL"`` (a tool that runs with no approval), ``"mcp:SERVER"``, and
            ``"pending:AGENT"`` (a history that ends in a tool call or its approval); of a bundle
            ``"skill:NAME"``, ``"mod:NAME"`` (code that the ``letta`` command runs) and
            ``"executable:PATH"``.
        left_out: Parts of the file that are not imported, as they name things of another server.
        memory: The files of the agent's memory, as they are now; its ``.md`` files are ``blocks``.
        commits: The number of commits in the history of the memory.
        refused: The reasons for which no import takes it, whatever is trusted or allowed.
        bundle: The content of the file, if it is a git bundle; else ``None``.
    """

    digest: str
    agents: tuple[FileAgent, ...]
    blocks: tuple[FileBlock, ...]
    tools: tuple[FileTool, ...]
    mcp_servers: tuple[FileMcpServer, ...]
    files: tuple[str, ...]
    skills: tuple[str, ...]
    secrets: tuple[str, ...]
    exposed_secrets: tuple[str, ...]
    demands: tuple[str, ...]
    left_out: tuple[str, ...]
    # As text, so that nobody can change what was shown.
    content: str = field(repr=False)
    memory: tuple[FileMemory, ...] = ()
    commits: int = 0
    refused: tuple[str, ...] = ()
    bundle: bytes | None = field(default=None, repr=False)

    @property
    def untrusted(self) -> tuple[FileTool, ...]:
        """The tools that have to be trusted before an import."""
        return tuple(tool for tool in self.tools if tool.needs_trust)
