"""Internal: the files by which the processes on one state directory find their common server.

There are three: ``owner.lock``, locked by whoever starts a server or clears up after one (the
system unlocks it, whatever ends that process); ``server.json`` (mode 0600) with the URL and the
tokens of the server that runs; ``users.lock``, locked by all who use it, together. The last one
tells whether a server that answers nobody may be killed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import threading
import uuid
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from letta_adapters._version import __version__
from letta_adapters.backends.runtime.environment import make_private
from letta_adapters.backends.runtime.errors import RuntimeOccupiedError
from letta_adapters.backends.runtime.lease import Door
from letta_adapters.backends.runtime.process import end_marked, is_alive, is_marked

_SCHEMA = 2
_PROBE_SECONDS = 5.0
# The locks this process has. A POSIX lock does not keep a process from itself, and closing *any*
# descriptor of the file gives it up, so they are counted here.
_held: dict[Path, int] = {}
_held_guard = threading.Lock()


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The content of ``server.json``; ``started_at`` is in milliseconds since the epoch.

    ``door`` is the port at which leases are taken. ``adapters`` is the version of this package
    whose server it is. Another ``schema`` may have other names for its fields, which are then left
    out.
    """

    pid: int
    runtime_id: str
    token: str = field(repr=False, default="")
    url: str = ""
    door: int = 0
    started_at: int = 0
    version: str = ""
    protocol: int = 0
    fingerprint: str = ""
    adapters: str = __version__
    schema: int = _SCHEMA

    @property
    def understood(self) -> bool:
        """True if it was written by a version that shares its servers as this one does."""
        return self.schema == _SCHEMA

    @property
    def where(self) -> Door:
        """The port and token with which to ask for a lease."""
        return Door(self.door, self.token)

    def still_there(self) -> bool:
        """Return whether the server's process runs, and not another one that got its id."""
        if not is_alive(self.pid):
            return False
        known = is_marked(self.pid, self.runtime_id)
        # Where the mark cannot be read, an answer to the token is the proof.
        return probe(self.url, self.token) is not None if known is None else known


class StateDirectory:
    """The files of one state directory, in ``folder`` (which is made, mode 0700)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self._record = folder / "server.json"
        self._lock = folder / "owner.lock"
        self._users = folder / "users.lock"

    def try_own(self) -> bool:
        """Become the one who starts a server or clears up, unless another is that just now."""
        return self._take(self._lock, shared=False)

    def release(self) -> None:
        """Let another process do it."""
        _give_up(self._lock)

    def enter(self) -> bool:
        """Be counted among the users of the server; return ``False`` while it is being killed."""
        return self._take(self._users, shared=True)

    def exit(self) -> None:
        """Be counted no longer."""
        _give_up(self._users)

    def alone(self) -> bool:
        """Return whether nobody else uses the server (while this process does not enter)."""
        with _held_guard:
            # A lock does not keep out the process that holds it, so asking for it would prove
            # nothing.
            mine = self._users in _held
        if mine or sys.platform == "win32" or not self._take(self._users, shared=False):
            return False
        _give_up(self._users)
        return True

    def _take(self, path: Path, *, shared: bool) -> bool:
        with _held_guard:
            if path in _held:
                return False
            try:
                make_private(self.folder)
                fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise RuntimeOccupiedError(
                    f"The state directory cannot be used: {error}",
                    hint="Make it writable, or use another Local(data_dir=...).",
                ) from error
            if not _lock(fd, shared=shared):
                os.close(fd)
                return False
            _held[path] = fd
            return True

    def read(self) -> ServerRecord | None:
        """Return the record, if there is a readable one; of another version the known fields."""
        try:
            raw = json.loads(self._record.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return _read_record(raw) if isinstance(raw, dict) else None

    def publish(self, record: ServerRecord) -> None:
        """Write the record as a whole, readable by this user only."""
        # Put in place by a rename, so that a reader never sees half a record.
        temporary = self.folder / f"server.json.{uuid.uuid4().hex}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        temporary.replace(self._record)

    def remove_record(self, record: ServerRecord) -> None:
        """Remove the files of a server that has ended, before there is another one."""
        end_marked(record.runtime_id)
        found = self.read()
        # Another server may have been started meanwhile; its files stay.
        if found is not None and found.runtime_id == record.runtime_id:
            for file in (self._record, self.log):
                with contextlib.suppress(OSError):
                    file.unlink()


def _read_record(raw: dict[str, Any]) -> ServerRecord | None:
    """Return a record of the fields with the right type; ``None`` if no process is named."""
    known: dict[str, Any] = {"schema": 0}
    for one in fields(ServerRecord):
        value = raw.get(one.name)
        # The types of fields are strings, because annotations are not evaluated in this module.
        wanted = int if one.type == "int" else str
        if isinstance(value, wanted) and not isinstance(value, bool):
            known[one.name] = value
    if not known.get("runtime_id") or known.get("pid", 0) <= 0:
        return None
    return ServerRecord(**known)


def reset_after_fork() -> None:
    """Forget the parent's locks in a forked child, where their guard may be held for ever."""
    global _held_guard
    _held_guard = threading.Lock()
    _held.clear()


def probe(url: str, token: str) -> dict[str, Any] | None:
    """Return the answer to ``GET /app-server-info``; ``None`` if there is none for that token."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(
        where.hostname or "127.0.0.1", where.port, timeout=_PROBE_SECONDS
    )
    try:
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", "/app-server-info", headers=headers)
        with connection.getresponse() as response:
            info = json.loads(response.read())
            return info if response.status == 200 and isinstance(info, dict) else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _give_up(path: Path) -> None:
    with _held_guard:
        fd = _held.pop(path, None)
        if fd is not None:
            os.close(fd)  # unlocks


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int, *, shared: bool) -> bool:
        if shared:  # there is no such lock: nobody is known to be alone
            return True
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(fd: int, *, shared: bool) -> bool:
        # A record lock belongs to the process: unlike that of flock(), a forked child does not keep
        # it.
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(fd, how | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
