"""Processes that the runtime has started (shells, sub-agents), found by a mark.

The mark is a variable in their environment. The agent's shell commands have sessions of their own,
so no process group holds them together, and they outlive a killed server. Only Linux lets us look
into an environment; elsewhere the lists are empty, and the server ends its foreground children by
itself when it stops in order.

Internal: not part of the public API.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from letta_adapters.backends.runtime.environment import MARKER

_POLL = 0.02


def is_marked(pid: int, runtime_id: str) -> bool | None:
    """Return whether a process belongs to this runtime; ``None`` if the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    mark = f"{MARKER}={runtime_id}".encode()
    with contextlib.suppress(OSError):
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def marked(runtime_id: str) -> list[int]:
    """Return all processes of this runtime that are alive (a zombie has no environment)."""
    if not sys.platform.startswith("linux"):
        return []
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and is_marked(pid, runtime_id)]


def end_marked(runtime_id: str, patience: float = 0.3) -> None:
    """Terminate the runtime's processes, and kill those left after ``patience`` seconds."""
    if not marked(runtime_id):
        return
    # Politely first, as a shell may have children of its own to end.
    _signal_all(runtime_id, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and marked(runtime_id):
        time.sleep(_POLL)
    if sys.platform != "win32":
        _signal_all(runtime_id, signal.SIGKILL)


def _signal_all(runtime_id: str, number: int) -> None:
    for pid in marked(runtime_id):
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
