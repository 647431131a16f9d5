"""Internal: Letta Code as a backend: the embedded runtime (``Local``) or a server (``Remote``).

Both speak the App Server protocol; this module only decides where to connect, and who starts the
server.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from letta_adapters._utils.files import disk_error
from letta_adapters.backends.app_server.backend import AppServerBackend
from letta_adapters.backends.app_server.connection import Endpoint, no_space
from letta_adapters.backends.app_server.server import Elsewhere, Setup, Timeouts
from letta_adapters.backends.app_server.switches import Reflecting, SystemInfo
from letta_adapters.backends.app_server.vision import Vision
from letta_adapters.backends.base import inside_a_turn
from letta_adapters.backends.config import (
    Local,
    Remote,
    RuntimeStatus,
    api_address,
    app_server_address,
)
from letta_adapters.backends.connector import Connector, check_connector
from letta_adapters.backends.runtime._compat import LETTA
from letta_adapters.backends.runtime.damage import StateFiles, corrupt, find_damage
from letta_adapters.backends.runtime.environment import (
    Places,
    find_places,
    may_sync_memory,
    model_server,
)
from letta_adapters.backends.runtime.errors import RuntimeCrashedError, RuntimeStartError
from letta_adapters.backends.runtime.manager import RuntimeHandle, acquire
from letta_adapters.errors import ConfigurationError, DiskFullError, LettaError


def remote_backend(spec: Remote, connector: Connector | None = None) -> AppServerBackend:
    """Return the backend of someone else's App Server.

    Args:
        spec: The server.
        connector: Opens the WebSocket, in place of ``websockets``.

    Raises:
        ConfigurationError: No server is named.
        InvalidInputError: The connector cannot be called.
    """
    url, token = app_server_address(spec)
    where = Endpoint(_socket_url(url), token, check_connector(connector))
    timeouts = Timeouts(
        connect=spec.connect_timeout,
        request=spec.request_timeout,
        turn=spec.turn_timeout,
        settle=spec.settle_timeout,
    )
    setup = Setup("remote", timeouts, own_directory=own_directory(spec))
    return AppServerBackend(setup, Elsewhere(where))


def own_directory(spec: Local | Remote) -> Path | None:
    """Return the directory for what this machine keeps of a server's agents; ``None`` for none.

    Raises:
        ConfigurationError: A server elsewhere is not named, or there is no home directory here.
    """
    if isinstance(spec, Local):
        return _places(spec).meet
    # One directory for each server: the same agent id may stand for another agent elsewhere.
    url = _socket_url(app_server_address(spec)[0])
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    try:
        return Path.home() / LETTA / "letta-adapters" / name
    except RuntimeError:  # a user without a home directory
        return None


def _socket_url(url: str) -> str:
    """Return the address of the socket; the server prints it with and without its path."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="/ws")) if parts.path in ("", "/") else url


def resolve_api(spec: Local) -> Local:
    """Return the settings with the API's address and key filled in from the environment.

    It counts as it is when the client is made: the directories are named by the address.
    """
    if spec.api is None:
        return spec
    url, key = api_address(spec.api)
    api = spec.api.model_copy(update={"base_url": url, "api_key": SecretStr(key)})
    return spec.model_copy(update={"api": api})


def local_backend(spec: Local, connector: Connector | None = None) -> AppServerBackend:
    """Return the embedded runtime, which starts at the first connection and is shared.

    It stops with its last user.

    Args:
        spec: The runtime's settings.
        connector: Opens the WebSocket, in place of ``websockets``.

    Raises:
        InvalidInputError: The connector cannot be called.
    """
    config = resolve_api(spec)
    places = _places(config)
    setup = Setup(
        "local",
        Timeouts(request=spec.request_timeout, turn=spec.turn_timeout),
        on_api=spec.api is not None,
        memory_in_git=may_sync_memory(config) is not False,
        state=None if spec.api is not None else StateFiles(places.state),
        own_directory=places.meet,
        machine=places.machine,
    )
    told = None if places.on_api else places.images_told
    return AppServerBackend(
        setup,
        _Runtime(config, places, check_connector(connector)),
        system_info=SystemInfo(places.no_system_info),
        reflecting=Reflecting(places.reflection),
        vision=Vision(lambda: model_server(config), told=told),
    )


def _nothing() -> None:
    """Do nothing."""


def _places(config: Local) -> Places:
    try:
        return find_places(config)
    except RuntimeError as error:  # neither HOME nor the user database names a directory
        raise ConfigurationError(
            f"There is no home directory to keep agents in ({error}).",
            hint="Set HOME, or pass Local(data_dir=...).",
        ) from error


# Files of the state directory are looked at only when something is wrong with them.
_NO_STATE: Final = Path(os.devnull)


class _Runtime:
    """One client's share in the runtime."""

    def __init__(self, config: Local, places: Places, connector: Connector | None) -> None:
        self._config = config
        self._connector = connector
        self._places = places
        self._home = places.home
        self._handle: RuntimeHandle | None = None
        self._starting: asyncio.Future[RuntimeHandle] | None = None
        self._retire: Callable[[], None] = _nothing

    def on_retire(self, listener: Callable[[], None]) -> None:
        """Call ``listener``, on the loop, when the runtime is to be exchanged for a new one."""
        self._retire = listener

    async def endpoint(self) -> Endpoint:
        """Return where the runtime listens; start it if it does not run (any more)."""
        # A share in a runtime that has ended is given back before another one is taken.
        if self._handle is not None and not await self._handle.alive():
            await self.release()
        if self._handle is None:
            self._handle = await self._start()
            loop = asyncio.get_running_loop()

            def tell() -> None:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._retire)

            self._handle.on_retire(tell)
        return Endpoint(self._handle.url, self._handle.token, self._connector)

    async def _start(self) -> RuntimeHandle:
        # A start cannot be taken back half-way. Whoever gives up waiting leaves it to the next
        # caller, or to release().
        starting = self._starting
        torn = await asyncio.to_thread(lambda: list(find_damage(_NO_STATE, self._places.ledgers)))
        if torn:  # the runtime would end with the first message
            raise corrupt(torn)
        if starting is None or (starting.done() and (starting.cancelled() or starting.exception())):
            # A tool must not wait for the exchange of the runtime, which waits for the tool's own
            # turn.
            work = acquire(self._config, insist=inside_a_turn.get())
            starting = self._starting = asyncio.ensure_future(work)
            # Its error is looked at here, as all who wait for it may have given up.
            starting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            handle = await asyncio.shield(starting)
        except (OSError, LettaError) as error:
            explained = self._explained(error)
            if explained is error:
                raise
            raise explained from error
        self._starting = None
        return handle

    async def status(self) -> RuntimeStatus:
        """Return the runtime's account of itself; raise RuntimeCrashedError if it has none."""
        handle = self._handle
        said = {} if handle is None else await handle.status()
        try:
            return RuntimeStatus(
                pid=handle.pid if handle else 0,
                version=handle.version if handle else "",
                started_at=datetime.fromtimestamp(said["started_at"] / 1000, timezone.utc),
                clients=int(said["clients"]),
                heap_mb=float(said["heap_mb"]),
                heap_limit_mb=float(said["heap_limit_mb"]),
                recycle_at_mb=float(said["recycle_at_mb"]),
                recycling=said["recycling"] is True,
                memory_mb=float(said["rss_mb"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RuntimeCrashedError("The embedded Letta runtime says nothing.") from error

    def _explained(self, error: Exception) -> Exception:
        """Return a full disk as such, and a typed error in place of the system's OSError."""
        if isinstance(error, RuntimeStartError) and no_space(error.stderr_tail):
            return DiskFullError(f"The disk that holds {self._home} is full: {error.message}")
        ours = isinstance(error, LettaError)  # some of them are OSErrors as well
        # The system's own error, here the cause, tells whether the disk is full.
        cause = error.__cause__ if ours else error
        if isinstance(cause, OSError) and not isinstance(cause, LettaError):
            found = disk_error(cause, self._home)
            return found if isinstance(found, DiskFullError) or not ours else error
        return error

    async def release(self) -> None:
        """Give the share back; the last one stops the runtime."""
        starting, self._starting = self._starting, None
        # A start that is under way brings a share as well, which has to be given back.
        if starting is not None:
            await asyncio.wait({starting})
            if not starting.cancelled() and starting.exception() is None:
                await starting.result().release()
        handle, self._handle = self._handle, None
        if handle is not None:
            await handle.release()
