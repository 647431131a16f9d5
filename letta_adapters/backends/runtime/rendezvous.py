"""How the processes on one state directory find their common server.

Two files: ``owner.lock``, locked as long as the process that started the server lives (the system
unlocks it, whatever ends that process), and ``server.json`` (mode 0600) with the URL and the token.
Whoever gets the lock starts a server; everybody else reads the file and joins.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from letta_adapters.backends.runtime.children import end_marked, is_alive, is_marked
from letta_adapters.backends.runtime.environment import GRACE_SECONDS
from letta_adapters.backends.runtime.errors import RuntimeOccupiedError, RuntimeVersionError

_SCHEMA = 1
_PROBE_SECONDS = 5.0
# How long a server without its owner may need to end in order.
_WIND_DOWN_SECONDS = GRACE_SECONDS + 4.0
# The locks this process has. A POSIX lock does not keep a process from itself, and closing *any*
# descriptor of the file gives it up.
_held: set[Path] = set()
_held_guard = threading.Lock()


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """What ``server.json`` says. ``started_at`` in milliseconds since the epoch."""

    url: str
    token: str = field(repr=False)
    pid: int
    owner_pid: int
    started_at: int
    version: str
    protocol: int
    runtime_id: str
    fingerprint: str
    schema: int = _SCHEMA


class Meeting:
    """The two files of one state directory, in ``folder`` (which is made, mode 0700)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._record = folder / "server.json"
        self._lock = folder / "owner.lock"
        self._fd: int | None = None

    def try_own(self) -> bool:
        """Become the owner, unless another process, or another object of this one, is it."""
        with _held_guard:
            return self._try_own()

    def disown(self) -> None:
        """Let another process become the owner."""
        with _held_guard:
            self._disown()

    def owned_elsewhere(self) -> bool:
        """Does a living process other than this one own it?"""
        with _held_guard:
            if self._lock in _held:
                return False
            if self._try_own():
                self._disown()
                return False
            return True

    def _try_own(self) -> bool:
        if self._lock in _held:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RuntimeOccupiedError(
                f"The state directory cannot be used: {error}",
                hint="Make it writable, or use another Local(data_dir=...).",
            ) from error
        if not _lock(fd):
            os.close(fd)
            return False
        self._fd = fd
        _held.add(self._lock)
        return True

    def _disown(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            _held.discard(self._lock)
            os.close(fd)  # unlocks

    def read(self) -> ServerRecord | None:
        """The record, if there is a readable one."""
        try:
            raw: dict[str, Any] = json.loads(self._record.read_text("utf-8"))
            if raw.get("schema") != _SCHEMA:
                raise RuntimeVersionError(
                    "Another version of letta-adapters runs the server of this state directory.",
                    hint="Use one version: pip install --upgrade letta-adapters",
                )
            return ServerRecord(**raw)
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def publish(self, record: ServerRecord) -> None:
        """Write the record, all or nothing, for this user's eyes only."""
        temporary = self.folder / f"server.json.{uuid.uuid4().hex}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        temporary.replace(self._record)

    def withdraw(self, runtime_id: str) -> None:
        """Remove the record of this server, after it has stopped."""
        found = self.read()
        if found is not None and found.runtime_id == runtime_id:
            with contextlib.suppress(OSError):
                self._record.unlink()

    def bury(self) -> ServerRecord | None:
        """As the new owner: wait until the last owner's server has ended, and return its record.

        ``None`` when it was stopped in order (or there was none).
        """
        record = self.read()
        if record is None:
            return None
        deadline = time.monotonic() + _WIND_DOWN_SECONDS
        while _still_there(record):
            if time.monotonic() > deadline:
                end_marked(record.runtime_id)
                break
            time.sleep(0.05)
        end_marked(record.runtime_id)
        return record


def reset_after_fork() -> None:
    """In a forked child: the parent's locks are not ours, and its guard may be held for ever."""
    global _held_guard
    _held_guard = threading.Lock()
    _held.clear()


def probe(url: str, token: str) -> dict[str, Any] | None:
    """``GET /app-server-info``; ``None`` if nothing with that token answers there."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(
        where.hostname or "127.0.0.1", where.port, timeout=_PROBE_SECONDS
    )
    try:
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", "/app-server-info", headers=headers)
        response = connection.getresponse()
        info = json.loads(response.read())
        return info if response.status == 200 and isinstance(info, dict) else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _still_there(record: ServerRecord) -> bool:
    if not is_alive(record.pid):
        return False
    known = is_marked(record.pid, record.runtime_id)
    # Process ids are used again: where the mark cannot be read, the token is the proof.
    return probe(record.url, record.token) is not None if known is None else known


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(fd: int) -> bool:
        # A record lock belongs to the process: unlike flock(), a forked child does not keep it.
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
