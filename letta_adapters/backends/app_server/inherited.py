"""Internal: the settings that sessions inherit from their agent, from the server and from here.

Their meaning is in :mod:`letta_adapters.backends.agent_settings`; this module has the I/O. One
file per agent (``agents/<id>.json``, mode 0600) holds the settings that are kept per machine; it is
replaced as a whole, so that many processes can use it.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from letta_adapters._utils.bounded import Bounded
from letta_adapters._utils.files import (
    hold_lock,
    is_ours_alone,
    make_private_folder,
    on_thread,
    write_private,
)
from letta_adapters.backends.agent_settings import (
    AgentSettings,
    MachineSettings,
    Restrictions,
    for_session,
    keep_own,
    with_metadata,
    with_tags,
)
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.switches import SystemInfo
from letta_adapters.backends.replies import require_field
from letta_adapters.errors import ConfigurationError, InvalidInputError, LettaError
from letta_adapters.options import SessionOptions

# Seconds a turn may go by settings that were read before; opening a session always reads anew.
_FRESH_SECONDS: Final = 30.0
_LOCK_SECONDS: Final = 30.0
_PLAIN_ID: Final = re.compile(r"agent-[A-Za-z0-9_-]{1,128}")
_UNREADABLE: Final = (OSError, ValueError, TypeError, RecursionError, InvalidInputError)
_NO_FOLDER: Final = "there is no directory of ours for it."

log = logging.getLogger("letta_adapters.agents")


class MachineFiles:
    """The settings files of one place where agents live; ``folder`` is ours, mode 0700."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "agents"

    @property
    def lock(self) -> Path:
        """The lock that is held while an agent's tags are read and written anew."""
        return self.folder / "lock"

    def load(self, agent_id: str) -> MachineSettings:
        """Return the agent's settings on this machine.

        Raises:
            ConfigurationError: The file is damaged, or others may have written it.
        """
        path = self._path(agent_id)
        if path is None:
            return MachineSettings()
        try:
            return _read(path)
        except (FileNotFoundError, NotADirectoryError):
            return MachineSettings()
        except _UNREADABLE as error:
            raise _unreadable(path, str(error)) from error

    def damaged(self) -> Iterator[tuple[Path, str]]:
        """Yield the files that :meth:`load` refuses, each with the reason."""
        for path in sorted(self.folder.glob("*.json")):
            if why := _why_not(path):
                yield path, why

    def check_writable(self) -> None:
        """Raise, before anything else is done, if nothing can be kept."""
        make_private_folder(self.folder)

    def save(self, agent_id: str, settings: MachineSettings) -> None:
        """Keep the settings, or remove the file if there are none.

        Raises:
            ConfigurationError: They cannot be written.
        """
        path, given = self._path(agent_id), settings.given()
        if not given:
            self.forget(agent_id)
        elif path is None:
            raise ConfigurationError(f"{agent_id!r} cannot be kept under its name.", hint="")
        else:
            write_private(path, json.dumps(given))

    def forget(self, agent_id: str) -> None:
        """Remove the agent's file; raise ConfigurationError if it cannot be removed."""
        path = self._path(agent_id)
        if path is None:
            return
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _unreadable(path, f"it cannot be removed: {error}") from error

    def _path(self, agent_id: str) -> Path | None:
        # The id comes from a server, and must not lead anywhere else.
        return self.folder / f"{agent_id}.json" if _PLAIN_ID.fullmatch(agent_id) else None


class Inherited:
    """The settings of agents, as far as this client has read them.

    Args:
        files: This machine's part; ``None`` if there is no directory for it.
        system_info: Decides whether the server can leave the system info out.
    """

    def __init__(self, files: MachineFiles | None, system_info: SystemInfo) -> None:
        self._files = files
        self._system_info = system_info
        self._known: Bounded[str, tuple[float, AgentSettings]] = Bounded()
        self._warned = False

    async def check_writable(self, settings: AgentSettings) -> None:
        """Raise ConfigurationError if this machine's part could not be kept."""
        if settings.machine.given() and self._files is not None:
            await on_thread(self._files.check_writable)

    async def of(
        self, connection: Connection, agent_id: str, *, fresh: bool = False
    ) -> AgentSettings:
        """Return the agent's settings; without an agent they are empty.

        Raises:
            NotFoundError: There is no such agent.
        """
        if not agent_id:
            return AgentSettings()
        known = self._known.get(agent_id)
        if known is not None and not fresh and time.monotonic() - known[0] < _FRESH_SECONDS:
            return known[1]
        # Before the read: a change that is made while it is under way must not count as read.
        at = time.monotonic()
        agent = await _agent(connection, agent_id)
        machine = MachineSettings()
        if self._files is not None:
            machine = await on_thread(self._files.load, agent_id)
        settings = AgentSettings(Restrictions.of_agent(agent), machine)
        self._known[agent_id] = (at, settings)
        return settings

    async def session(
        self,
        connection: Connection,
        agent_id: str,
        options: SessionOptions,
        *,
        fresh: bool = False,
    ) -> SessionOptions:
        """Return the options, with the agent's where the session does not set its own.

        Raises:
            InvalidInputError: They ask for something that the agent rules out.
        """
        made = for_session(await self.of(connection, agent_id, fresh=fresh), options)
        asked = options.system_info_reminder
        # The wish is the agent's and not this session's, so it is a warning and no refusal.
        if made.system_info_reminder is asked:
            return made
        if not await on_thread(lambda: self._system_info.works):
            if not self._warned:
                log.warning(
                    "The agent %s is to be told nothing of the machine "
                    "(system_info_reminder=False), and this server tells every agent.",
                    agent_id,
                )
            self._warned = True
            return made.model_copy(update={"system_info_reminder": asked})
        return made

    async def store(self, connection: Connection, agent_id: str, settings: AgentSettings) -> None:
        """Write both parts.

        Raises:
            ConfigurationError: This machine's part cannot be written.
        """
        agent = await _agent(connection, agent_id)
        # Nothing is sent to the server where nothing has changed.
        if Restrictions.of_agent(agent) != settings.restrictions:
            body = _restricting(connection, agent, settings.restrictions)
            await _update(connection, agent_id, body)
        if self._files is not None:
            await on_thread(self._files.save, agent_id, settings.machine)
        elif settings.machine.given():
            raise ConfigurationError(
                f"{', '.join(settings.machine.given())} cannot be kept: {_NO_FOLDER}"
            )
        self.forget(agent_id)

    async def update(
        self,
        connection: Connection,
        agent_id: str,
        fields: Mapping[str, Any],
        changes: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Change an agent's fields and its settings, and return the agent."""
        async with self._alone():
            # Read under the lock, so that another process's change is not undone.
            before = await _agent(connection, agent_id)
            after: dict[str, Any] = before
            if fields:
                after = await _update(connection, agent_id, keep_own(fields, before))
            if changes:
                # The base is what is stored now, and not what this client remembers.
                settings = (await self.of(connection, agent_id, fresh=True)).changed(changes)
                await self.check_writable(settings)
                await self.store(connection, agent_id, settings)
                after = await _agent(connection, agent_id)
        return after

    def forget(self, agent_id: str, *, deleted: bool = False) -> None:
        """Read the settings anew next time; remove the file of an agent that is deleted."""
        self._known.pop(agent_id, None)
        if deleted and self._files is not None:
            self._files.forget(agent_id)

    def clear(self) -> None:
        """Forget all settings that were read over a connection that is lost."""
        self._known.clear()

    def _alone(self) -> AbstractAsyncContextManager[None]:
        """Return a lock, as two processes that change one agent must not undo each other."""
        if self._files is None:
            return nullcontext()
        return hold_lock(self._files.lock, _LOCK_SECONDS)


async def _agent(connection: Connection, agent_id: str) -> dict[str, Any]:
    answer = await connection.request({"type": "agent_retrieve", "agent_id": agent_id})
    return dict(require_field("agent_retrieve", answer, "agent"))


async def _update(connection: Connection, agent_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    frame = {"type": "agent_update", "agent_id": agent_id, "body": dict(body)}
    return dict(require_field("agent_update", await connection.request(frame), "agent"))


def _restricting(
    connection: Connection, agent: Mapping[str, Any], restrictions: Restrictions
) -> dict[str, Any]:
    # Over a Letta API an agent's tags are stored but not shown; its metadata is.
    if connection.on_api:
        return {"metadata": with_metadata(agent.get("metadata"), restrictions)}
    tags = [str(tag) for tag in agent.get("tags") or ()]
    return {"tags": with_tags(tags, restrictions)}


def _read(path: Path) -> MachineSettings:
    """Return the content of a file; raise one of ``_UNREADABLE`` if it is not to be used."""
    # Read before it is judged, so that a missing file is told from one that is not to be used.
    text = path.read_text("utf-8")
    if not is_ours_alone(path):
        raise ValueError("other users may write it")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return MachineSettings(**found)


def _why_not(path: Path) -> str:
    """Return the reason why a file is not used; ``""`` if it is, or is gone meanwhile."""
    try:
        _read(path)
    except FileNotFoundError:
        return ""
    except _UNREADABLE as error:
        return str(error)
    return ""


def _unreadable(path: Path, why: str) -> LettaError:
    return ConfigurationError(
        f"{path}, which holds what this machine was told of an agent, cannot be used: {why}.",
        hint="Remove the file and give the agent's permission_mode, allowed_tools, skill_sources "
        "and cwd again (client.agents.update), or put it right.",
    )
