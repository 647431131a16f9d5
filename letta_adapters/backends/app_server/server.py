"""Internal: the server of a backend: who runs it, and what is known before it is connected to.

The embedded runtime (``local``) and somebody else's server (``remote``) differ only in this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from letta_adapters.backends.app_server.connection import Endpoint, State
from letta_adapters.backends.config import RuntimeStatus
from letta_adapters.permissions.policy import Machine


class Host(Protocol):
    """The one who runs the server, or who knows at least where it listens."""

    @property
    def status(self) -> Callable[[], Awaitable[RuntimeStatus]] | None:
        """Asks the server's process for its status; ``None`` if that cannot be asked."""

    async def endpoint(self) -> Endpoint:
        """Return where to connect; it is asked again for every new connection."""

    def on_retire(self, listener: Callable[[], None]) -> None:
        """Call ``listener``, on the loop, when the server is to be exchanged for a new one."""

    async def release(self) -> None:
        """Take back the share in the server, which nobody is connected to any more."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The host of somebody else's server, of which nothing is known but its address."""

    where: Endpoint
    status: None = None

    async def endpoint(self) -> Endpoint:
        """Return the address."""
        return self.where

    def on_retire(self, listener: Callable[[], None]) -> None:
        """Forget the listener, as the server's owner does not tell."""

    async def release(self) -> None:
        """Do nothing, as there is no share in the server."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The time limits of a backend, in seconds.

    Attributes:
        connect: To reach the server.
        request: Of a management call.
        turn: Of a whole turn; ``None`` is no limit.
        settle: To find out, after a lost connection, what became of the turn.
    """

    connect: float = 10.0
    request: float = 60.0
    turn: float | None = None
    settle: float = 15.0


@dataclass(frozen=True, slots=True)
class Setup:
    """The facts of a server.

    Attributes:
        name: ``"local"`` (ours: nobody else answers its questions) or ``"remote"``.
        timeouts: The time limits.
        on_api: True if its agents live on a Letta API; a connected server tells that itself.
        memory_in_git: True if it can keep the memory of agents in git repositories.
        state: The directory of the server's agents, if that is on this machine.
        own_directory: Our directory on this machine for settings that are kept per machine.
        machine: The server's directories, if it is on this machine.
    """

    name: str
    timeouts: Timeouts = field(default_factory=Timeouts)
    on_api: bool = False
    memory_in_git: bool = True
    state: State | None = None
    own_directory: Path | None = None
    machine: Machine | None = None
