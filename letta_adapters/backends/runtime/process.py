"""Internal: the processes of the runtime: the server, and what it has started (shells, sub-agents).

Starting one, finding out its address and noticing its end blocks and has one daemon thread; there
is no event loop. The server is this process's child and yet does not end with it: whoever uses it
holds a lease (``lease.py``). Only until the first lease is taken does it depend on its starter, by
the other end of its ``stdin`` pipe, which the system closes however the starter ends. Its output
goes to a file, which whoever uses it can read.

What the server has started is found by a mark, a variable in its environment. The agent's shell
commands have sessions of their own, so no process group holds them together, and they outlive a
killed server. Only Linux lets us look into an environment; elsewhere the lists are empty, and the
server ends its foreground children by itself when it stops in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from letta_adapters.backends.runtime import _compat
from letta_adapters.backends.runtime.environment import GRACE_SECONDS, MARKER, Launch
from letta_adapters.backends.runtime.errors import RuntimeStartError

_TAIL_LINES: Final = 40
_TAIL_CHARS: Final = 4000
_POLL_SECONDS: Final = 0.02
_STOP_SECONDS: Final = GRACE_SECONDS + 3.0
_DOOR: Final = "letta-adapters door: "

# Servers whose start is under way in this process; a forked child drops its copies of their pipes.
_starting: set[ServerProcess] = set()


@dataclass(frozen=True, slots=True)
class Listening:
    """The addresses of a server: the App Server's URL, and the port at which leases are taken."""

    url: str
    door: int


class ServerProcess:
    """A running (or ended) server that this process has started."""

    def __init__(self, launch: Launch, log: Path) -> None:
        self._launch = launch
        self._log = log
        self._exited = threading.Event()
        self._process = self._spawn()
        _starting.add(self)
        threading.Thread(target=self._watch, name="letta-runtime-exit", daemon=True).start()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The code with which it ended; ``None`` while it runs."""
        return self._process.returncode

    def wait_ended(self, seconds: float) -> bool:
        """Wait at most so long until it is gone, and return whether it is."""
        return self._exited.wait(seconds)

    def wait_ready(self, timeout: float) -> Listening:
        """Return its addresses once it listens; raise :class:`RuntimeStartError` if it fails."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not self._exited.is_set():
            # It prints them to its log; the file is read again and again, as a pipe would end with
            # us.
            found = _listening(self._log)
            if found is not None:
                return found
            self._exited.wait(_POLL_SECONDS)
        ended = self._exited.is_set()
        self.stop()
        how = (
            f"ended with code {self.returncode} before it was ready"
            if ended
            else f"was not ready after {timeout:g} s"
        )
        raise RuntimeStartError(
            f"The embedded Letta runtime {how}.",
            stderr_tail=read_tail(self._log),
            returncode=self.returncode,
        )

    def let_go(self) -> None:
        """End its dependence on this process, because somebody has a lease."""
        _starting.discard(self)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def stop(self) -> None:
        """End a server that nobody uses yet: close its input, then terminate, then kill."""
        self.let_go()
        ladder = ((_STOP_SECONDS, self._process.terminate), (2.0, self._process.kill))
        for seconds, harder in ladder:
            if self._exited.wait(seconds):
                break
            harder()
        self._exited.wait()
        end_marked(self._launch.runtime_id)

    def forget(self) -> None:
        """Drop a forked child's copy of the pipe, so that the parent alone holds it."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                os.close(self._process.stdin.fileno())

    def _spawn(self) -> subprocess.Popen[bytes]:
        launch = self._launch
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        flags |= getattr(subprocess, "CREATE_NO_WINDOW", 0)
        # Appended to, as both output streams of the process write to the same file.
        how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        try:
            log = os.open(self._log, how, 0o600)
        except OSError as error:
            raise RuntimeStartError(f"The embedded Letta runtime did not start: {error}") from error
        try:
            process = subprocess.Popen(
                launch.argv,
                env=dict(launch.env),
                cwd=launch.cwd,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                # Ctrl-C in a terminal goes to the whole group, and must not end the server.
                start_new_session=sys.platform != "win32",
                creationflags=flags,
            )
        except OSError as error:
            raise RuntimeStartError(f"The embedded Letta runtime did not start: {error}") from error
        finally:
            os.close(log)
        assert process.stdin is not None
        launch.hand_over(process.stdin)
        return process

    def _watch(self) -> None:
        self._process.wait()  # also when it ends long after we left it to others: no zombie stays
        self._exited.set()


def forget_starts() -> None:
    """Forget, in a forked child, the starts that were under way: they are the parent's."""
    for process in tuple(_starting):
        process.forget()
    _starting.clear()


def read_tail(log: Path) -> str:
    """Return the last lines a server wrote, for error messages; empty if they are gone."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_CHARS))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "".join(text.splitlines(keepends=True)[-_TAIL_LINES:]).strip()


def _listening(log: Path) -> Listening | None:
    try:
        # The last piece may be a line that is still being written.
        lines = log.read_text("utf-8", "replace").split("\n")[:-1]
    except OSError:
        return None
    url, door = (
        [line.removeprefix(begin).strip() for line in lines if line.startswith(begin)]
        for begin in (_compat.SOCKET_LINE, _DOOR)
    )
    if not url or not door or not door[0].isdecimal():
        return None
    return Listening(url[0], int(door[0]))


def is_marked(pid: int, runtime_id: str) -> bool | None:
    """Return whether a process belongs to this runtime; ``None`` if the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    mark = f"{MARKER}={runtime_id}".encode()
    with contextlib.suppress(OSError):
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def list_marked(runtime_id: str) -> list[int]:
    """Return all processes of this runtime that are alive (a zombie has no environment)."""
    if not sys.platform.startswith("linux"):
        return []
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and is_marked(pid, runtime_id)]


def end_marked(runtime_id: str, patience: float = 0.3) -> None:
    """Terminate the runtime's processes, and kill those left after ``patience`` seconds."""
    if not list_marked(runtime_id):
        return
    # Politely first, as a shell may have children of its own to end.
    _signal_all(runtime_id, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and list_marked(runtime_id):
        time.sleep(_POLL_SECONDS)
    if sys.platform != "win32":
        _signal_all(runtime_id, signal.SIGKILL)


def _signal_all(runtime_id: str, number: int) -> None:
    for pid in list_marked(runtime_id):
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Return whether there is such a process; on Windows always ``True`` (ask the server)."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It exists, and belongs to another user.
        return True
    return True
