"""Internal: one server per state directory, started when first needed, shared by all who need it.

::

    handle = await acquire(Local(data_dir=Path("state")))
    ...  # connect to handle.url with "Authorization: Bearer <handle.token>"
    await handle.release()  # the last one of the last process stops the server

The user of a handle aborts its turns and closes its connections *before* it releases the handle.
Nothing is left behind when it cannot: at exit this process's leases are given back, in a forked
child they are forgotten, and with a process that is killed its leases go (see ``lease.py``).
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from letta_adapters.backends.config import Local
from letta_adapters.backends.runtime.environment import Places, find_places
from letta_adapters.backends.runtime.errors import RuntimeCrashedError
from letta_adapters.backends.runtime.joining import RecyclingError, check_shareable, open_server
from letta_adapters.backends.runtime.ledger import UnfinishedInput
from letta_adapters.backends.runtime.process import forget_starts
from letta_adapters.backends.runtime.server import Server
from letta_adapters.backends.runtime.state_directory import reset_after_fork

# Seconds a new turn waits for those that run while the server is to be exchanged.
RECYCLING_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 0.1


def _nothing() -> None:
    """Do nothing."""


class RuntimeHandle:
    """A share in a running server; usable from any thread and event loop."""

    def __init__(self, slot: _Slot, server: Server) -> None:
        self._slot = slot
        self._server = server
        self._released = False
        self._forget_listener: Callable[[], None] = _nothing

    def __repr__(self) -> str:
        return f"RuntimeHandle({self.url!r}, version={self.version!r}, owned={self.owned})"

    @property
    def url(self) -> str:
        """The server's address, ``ws://127.0.0.1:PORT/ws``."""
        return self._server.record.url

    @property
    def token(self) -> str:
        """The capability token (a secret)."""
        return self._server.record.token

    @property
    def version(self) -> str:
        """Letta Code's version, such as ``"0.34.12"``."""
        return self._server.record.version

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.record.pid

    @property
    def owned(self) -> bool:
        """True if this process has started it, which makes no difference for those who use it."""
        return self._server.owned

    @property
    def leftovers(self) -> tuple[UnfinishedInput, ...]:
        """Inputs of an earlier, crashed server: neutralised, or about to be run again."""
        return self._server.leftovers

    async def alive(self) -> bool:
        """Return whether the server still serves."""
        return await asyncio.to_thread(self._server.healthy)

    async def status(self) -> Mapping[str, Any]:
        """Return the server's own account of its memory and its users."""
        return await asyncio.to_thread(self._server.status)

    def on_retire(self, listener: Callable[[], None]) -> None:
        """Call ``listener``, on any thread, when the server is to be exchanged for a new one.

        The server takes nobody new then; the next :func:`acquire` waits until all have released it.
        """
        if not self._released:
            self._forget_listener()
            self._forget_listener = self._server.on_retire(listener)

    def stderr_tail(self) -> str:
        """Return the server's last output."""
        return self._server.stderr_tail()

    def failure(self) -> RuntimeCrashedError:
        """Return the error to raise when a connection was lost and :meth:`alive` is False."""
        return self._server.failure()

    async def release(self) -> None:
        """Give the share back; the last one stops the server (see ``keep_running``).

        It can be called more than once.
        """
        if not self._released:
            self._released = True
            self._forget_listener()
            await _finish(asyncio.to_thread(_give_back, self._slot, self._server))


class _Slot:
    """The server of one state directory, behind one lock."""

    def __init__(self, key: Path, places: Places) -> None:
        self.key = key
        self._places = places
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._keep = 0.0
        # The number of handles, and of calls that want one; guarded by _slots_lock.
        self.wanted = 0

    def acquire(self, config: Local, *, insist: bool) -> Server:
        with self._lock:
            # Under the lock, so that of several threads one starts the server and the others share
            # it.
            server = self._server
            if server is None or not server.healthy():
                self._server = None
                server = self._server = open_server(config, self._places, insist=insist)
            elif server.retiring and not insist:
                raise RecyclingError
            else:
                check_shareable(server, config)
            server.users += 1
            self._keep = config.keep_running
            return server

    def release(self, server: Server) -> None:
        with self._lock:
            server.users -= 1
            if server.users <= 0:
                server.leave(self._keep)
                # A new one may be in its place, after this one has crashed.
                if self._server is server:
                    self._server = None

    def stop(self) -> None:
        """Leave the server at exit, whatever its users do."""
        with self._lock:
            server, self._server = self._server, None
            if server is not None:
                server.leave(self._keep)

    def forget(self) -> None:
        """Forget the server in a forked child, whose copy of the lock may be held for ever."""
        if self._server is not None:
            self._server.forget()


# The state directories with a server, or a call that wants one.
_slots: dict[Path, _Slot] = {}
_slots_lock = threading.Lock()


def _want(places: Places) -> _Slot:
    # Two spellings of one directory mean one server.
    key = places.meet.resolve()
    with _slots_lock:
        slot = _slots.get(key)
        if slot is None:
            slot = _slots[key] = _Slot(key, places)
        slot.wanted += 1
        return slot


def _unwant(slot: _Slot) -> None:
    with _slots_lock:
        slot.wanted -= 1
        if slot.wanted <= 0 and _slots.get(slot.key) is slot:
            del _slots[slot.key]


def _give_back(slot: _Slot, server: Server) -> None:
    try:
        slot.release(server)
    finally:
        _unwant(slot)


async def acquire(config: Local, *, insist: bool = False) -> RuntimeHandle:
    """Return a share in the server of ``config``'s state directory, which is joined or started.

    A server that is being recycled is waited for, 60 s at most; then it is joined after all.

    Args:
        config: The settings that it must have.
        insist: Do not wait, because its present users wait for the caller.

    Raises:
        LettaError: One of :mod:`letta_adapters.backends.runtime.errors`.
    """
    until = time.monotonic() + RECYCLING_SECONDS
    while True:
        claim = _Claim()
        try:
            # After the wait, to join it in spite of the recycling is better than never to start.
            waited = insist or time.monotonic() > until
            return await asyncio.to_thread(claim.make, config, insist=waited)
        except RecyclingError:
            await asyncio.sleep(_AGAIN_SECONDS)
        except asyncio.CancelledError:
            claim.abandon()
            raise


class _Claim:
    """One call of :func:`acquire`, whose thread goes on when its caller is cancelled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._share: tuple[_Slot, Server] | None = None
        self._abandoned = False

    def make(self, config: Local, *, insist: bool) -> RuntimeHandle:
        slot = _want(find_places(config))
        try:
            server = slot.acquire(config, insist=insist)
        except BaseException:
            _unwant(slot)
            raise
        # The caller may be cancelled at this moment: exactly one of the two gives the share back.
        with self._lock:
            self._share = (slot, server)
            abandoned = self._abandoned
        # Nobody waits for the handle any more, so its share goes back at once.
        if abandoned:
            _give_back(slot, server)
        return RuntimeHandle(slot, server)

    def abandon(self) -> None:
        """Give back the share that the thread got, or will get."""
        with self._lock:
            self._abandoned = True
            share = self._share
        if share is not None:
            # Beside the event loop, as giving it back may wait for the server's end.
            threading.Thread(target=_give_back, args=share, daemon=True).start()


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` to its end even if the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _at_exit() -> None:
    for slot in list(_slots.values()):
        slot.stop()


def _after_fork() -> None:
    global _slots_lock
    reset_after_fork()
    forget_starts()
    for slot in _slots.values():
        slot.forget()
    _slots.clear()
    # The parent's may have been held at that moment, and nobody here would free it.
    _slots_lock = threading.Lock()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
