"""Internal: the server of one state directory, as seen by a process that holds a lease on it.

Whoever finds no server starts one; everybody else joins. Afterwards both are the same: the server
belongs to all who use it, and ends when the last of them leaves. Everything here blocks;
``manager.py`` calls it on worker threads.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from letta_adapters.backends.runtime.environment import GRACE_SECONDS, Places
from letta_adapters.backends.runtime.errors import RuntimeCrashedError
from letta_adapters.backends.runtime.lease import Lease, Said, ask
from letta_adapters.backends.runtime.ledger import UnfinishedInput, clear_leftovers, report
from letta_adapters.backends.runtime.process import ServerProcess, read_tail
from letta_adapters.backends.runtime.state_directory import ServerRecord, StateDirectory, probe

_NOTICE_SECONDS: Final = 1.0
# Seconds that a server which ends in order may need.
WIND_DOWN_SECONDS: Final = GRACE_SECONDS + 4.0
_SETTLE_SECONDS: Final = WIND_DOWN_SECONDS + 3.0
POLL_SECONDS: Final = 0.05

log = logging.getLogger("letta_adapters.runtime")


class Server:
    """A server that this process uses; ``users`` counts its handles.

    Args:
        places: The directories.
        state_dir: The files by which it is found.
        record: The facts known of it.
        lease: This process's lease.
        process: The process, if this one has started it.
        leftovers: Inputs that an earlier server had left unfinished.
    """

    def __init__(
        self,
        places: Places,
        state_dir: StateDirectory,
        record: ServerRecord,
        lease: Lease,
        *,
        process: ServerProcess | None = None,
        leftovers: tuple[UnfinishedInput, ...] = (),
    ) -> None:
        self._places = places
        self._state_dir = state_dir
        self._lease = lease
        self._process = process
        self._tail = ""
        self._leaving = False
        self._gone = threading.Event()
        self._settled = threading.Event()
        self._telling = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self.record = record
        self.leftovers = leftovers
        self.users = 0
        # True if it takes nobody new and ends when all have left.
        self.retiring = lease.granted.get("recycling") is True
        lease.watch(self._heard, self._ended)

    @property
    def owned(self) -> bool:
        """True if this process has started it."""
        return self._process is not None

    def healthy(self) -> bool:
        """Return whether it still runs; if not, all that it left is cleared up by then."""
        # A lost connection is noticed before the end of the lease. A server that runs and does not
        # answer is busy.
        if not self._gone.is_set() and (
            probe(self.record.url, self.record.token) is not None
            or not self._gone.wait(_NOTICE_SECONDS)
        ):
            return True
        self._settled.wait(_SETTLE_SECONDS)
        return False

    def stderr_tail(self) -> str:
        """Return the last lines it wrote."""
        return self._tail or read_tail(self._state_dir.log)

    def failure(self) -> RuntimeCrashedError:
        """Return the error for a connection that was lost because the server is gone."""
        # Only the process that has started it can learn its exit code.
        code = None
        if self._process is not None and self._process.wait_ended(_NOTICE_SECONDS):
            code = self._process.returncode
        how = "" if code is None else f" (code {code})"
        return RuntimeCrashedError(
            f"The embedded Letta runtime (pid {self.record.pid}) ended unexpectedly{how}.",
            stderr_tail=self.stderr_tail(),
            returncode=code,
        )

    def leave(self, keep: float) -> None:
        """Give the lease back.

        If it was the last one, no process is left when this returns, unless the server shall stay
        for ``keep`` seconds.
        """
        self._leaving = True
        gone = self._gone.is_set()
        ending = self._lease.leave(keep)
        self._state_dir.exit()
        if gone:
            self._settled.wait(_SETTLE_SECONDS)
        elif ending or (ending is None and self._state_dir.alone()):
            # Either the server says that it ends, or it is silent and nobody else is there to be
            # served.
            self._see_to_the_end()

    def forget(self) -> None:
        """Forget the lease in a forked child: it is the parent's alone."""
        self._lease.forget()

    def status(self) -> Said:
        """Return its own account of itself; empty if it does not answer."""
        answer = ask(self.record.where, "status")
        found = None if answer is None else answer.get("status")
        return found if isinstance(found, dict) else {}

    def on_retire(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener``, on any thread, when it takes nobody new.

        Returns:
            A function that forgets the listener.
        """
        with self._telling:
            self._listeners.append(listener)
            retiring = self.retiring
        # It may have happened before: then the listener would never be told.
        if retiring:
            listener()

        def forget() -> None:
            with self._telling, suppress(ValueError):
                self._listeners.remove(listener)

        return forget

    def _heard(self, said: Said) -> None:
        """Handle, on the lease's thread, a message that the server sends unasked."""
        event, status = said.get("event"), said.get("status")
        if event == "memory":
            log.warning("%s It is exchanged when that is full.", _filling(status))
        if event != "recycle":
            return
        log.warning("%s It is exchanged now, between turns.", _filling(status))
        with self._telling:
            self.retiring = True
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def _ended(self) -> None:
        """Handle, on the lease's thread, the end of the lease.

        This process has left, or the server is ending, or it is dead.
        """
        if self._leaving:
            self._gone.set()
            self._settled.set()
            return
        # Read now, as the log is removed when its leftovers are cleared up.
        self._tail = read_tail(self._state_dir.log)
        self._state_dir.exit()
        self._gone.set()
        try:
            if not self.retiring:
                log.warning("%s", self.failure().message)
            if wait_gone(self.record):
                self._clear_up()
        finally:
            self._settled.set()

    def _see_to_the_end(self) -> None:
        """Wait until the server has ended, and end it if it does not do so by itself."""
        ladder = (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM))
        for seconds, number in zip((WIND_DOWN_SECONDS, 2.0), ladder, strict=True):
            if wait_gone(self.record, seconds):
                break
            signal_server(self.record, number)
        if wait_gone(self.record):
            self._clear_up()

    def _clear_up(self) -> None:
        """Clear up after a crash, before anybody starts it again; otherwise there is nothing."""
        deadline = time.monotonic() + WIND_DOWN_SECONDS
        while _is_recorded(self._state_dir, self.record):
            if self._state_dir.try_own():
                try:
                    # Whoever was faster may have started the next one.
                    if _is_recorded(self._state_dir, self.record):
                        self.leftovers += clear_up(self._places, self._state_dir, self.record)
                finally:
                    self._state_dir.release()
            elif time.monotonic() > deadline:
                break
            else:
                time.sleep(POLL_SECONDS)


def clear_up(
    places: Places, state_dir: StateDirectory, record: ServerRecord
) -> tuple[UnfinishedInput, ...]:
    """Clear up after a server that crashed: end its children, neutralise its open inputs.

    Call it as the owner of the state_dir, when the server has ended.
    """
    state_dir.remove_record(record)
    left = clear_leftovers(places, since=record.started_at)
    report(left)
    return tuple(item for item in left if item.neutralised)


def wait_gone(record: ServerRecord, seconds: float = WIND_DOWN_SECONDS) -> bool:
    """Wait at most so long until the server's process has ended, and return whether it has."""
    deadline = time.monotonic() + seconds
    while record.still_there():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def signal_server(record: ServerRecord, number: int) -> None:
    """Send a signal to a server that is still there."""
    if record.still_there() and (sys.platform != "win32" or record.pid != os.getpid()):
        with suppress(OSError):
            os.kill(record.pid, number)


def _filling(status: object) -> str:
    values = status if isinstance(status, dict) else {}
    heap, limit = values.get("heap_mb", 0), values.get("recycle_at_mb", 0)
    return f"The embedded Letta runtime fills its heap ({heap:.0f} of {limit:.0f} MB)."


def _is_recorded(state_dir: StateDirectory, record: ServerRecord) -> bool:
    found = state_dir.read()
    return found is not None and found.runtime_id == record.runtime_id
