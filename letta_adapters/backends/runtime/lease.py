"""Internal: leases, which are connections to a shared server that keep it running.

The system closes one however its process ends; the server ends when the last lease is gone
(``leases.cjs`` has the protocol, lines of JSON on loopback). The code blocks. A lease that is held
has one daemon thread, which waits for messages of the server and for its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_ANSWER_SECONDS: Final = 5.0
_LINE_BYTES: Final = 65536

Said = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Door:
    """The port at which leases of a server are taken, and the server's token."""

    port: int
    token: str = field(repr=False)


class Lease:
    """A lease that was granted; ``granted`` is the server's answer."""

    def __init__(self, connection: socket.socket, rest: bytes, granted: Said) -> None:
        self.granted = granted
        self._socket: socket.socket | None = connection
        self._rest = rest
        self._left: Said | None = None
        self._ended = threading.Event()

    def watch(self, heard: Callable[[Said], None], ended: Callable[[], None]) -> None:
        """Call ``heard`` for each message of the server and ``ended`` at its end; on a thread."""
        work = (heard, ended)
        name = "letta-runtime-lease"
        # On a thread, because a lease outlives the event loops of those who use the server.
        threading.Thread(target=self._watch, args=work, name=name, daemon=True).start()

    def leave(self, keep: float) -> bool | None:
        """Give the lease back, and return whether the server ends now.

        Args:
            keep: Seconds the server shall stay if this was the last lease.

        Returns:
            ``None`` if the server does not answer.
        """
        if self._socket is None:
            return None
        with contextlib.suppress(OSError):
            self._socket.sendall(_line({"do": "leave", "keep": keep}))
            self._ended.wait(_ANSWER_SECONDS)
        # Nothing more will be said: a server that has not heard this sees the end of the
        # connection.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        return None if self._left is None else self._left.get("ending") is True

    def forget(self) -> None:
        """Drop a forked child's copy of the connection, which leaves the parent's open."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                os.close(self._socket.detach())

    def _watch(self, heard: Callable[[Said], None], ended: Callable[[], None]) -> None:
        connection = self._socket
        assert connection is not None
        rest = self._rest
        with contextlib.suppress(OSError):
            while data := connection.recv(_LINE_BYTES):
                # A message may come in pieces; only a finished line is one.
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    said = _parse(line)
                    if said.get("left") is True:
                        self._left = said
                    elif said:
                        heard(said)
        self._ended.set()
        ended()
        connection.close()


def take_lease(door: Door, *, keep: float, insist: bool = False) -> Lease | Said | None:
    """Ask for a lease.

    Args:
        door: The port and token to ask with.
        keep: Seconds the server shall stay if this process is killed and was the last.
        insist: Take one even from a server that waits for its last leases to go.

    Returns:
        The lease, the server's answer if it refused, or ``None`` if there is no answer.
    """
    asked = {"do": "lease", "keep": keep, "insist": insist, **_self()}
    connection = _connect(door, asked)
    if connection is None:
        return None
    answer, rest = _first_line(connection)
    if answer is not None and answer.get("granted") is True:
        # From now on it is read until it ends, however long that takes.
        connection.settimeout(None)
        return Lease(connection, rest, answer)
    connection.close()
    return answer


def ask(door: Door, what: str) -> Said | None:
    """Send ``"retire"`` or ``"status"`` and return the answer, ``None`` if none comes."""
    connection = _connect(door, {"do": what})
    if connection is None:
        return None
    try:
        return _first_line(connection)[0]
    finally:
        connection.close()


def _self() -> dict[str, Any]:
    """Return facts that tell this process from one of the same id in another container."""
    try:
        stat = Path("/proc/self/stat").read_text("latin-1")
    except OSError:
        return {"pid": os.getpid(), "birth": None}
    # The 22nd field, the start time; the name in brackets before it may hold spaces.
    return {"pid": os.getpid(), "birth": stat.rpartition(")")[2].split()[19]}


def _connect(door: Door, asked: Said) -> socket.socket | None:
    try:
        connection = socket.create_connection(("127.0.0.1", door.port), _ANSWER_SECONDS)
    except (OSError, OverflowError):
        # The port was read from a file, and may be no port at all.
        return None
    try:
        connection.sendall(_line({**asked, "token": door.token}))
    except OSError:
        connection.close()
        return None
    return connection


def _first_line(connection: socket.socket) -> tuple[Said | None, bytes]:
    data = b""
    with contextlib.suppress(OSError):
        while b"\n" not in data and len(data) < _LINE_BYTES:
            more = connection.recv(_LINE_BYTES)
            if not more:
                break
            data += more
    line, newline, rest = data.partition(b"\n")
    return (_parse(line), rest) if newline else (None, b"")


def _line(value: Said) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
