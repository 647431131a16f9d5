"""Internal: join the server of a state directory, or start one; all of this blocks."""

from __future__ import annotations

import os
import secrets
import signal
import time
from dataclasses import dataclass
from typing import Any, Final

from letta_adapters._version import __version__
from letta_adapters.backends.config import Local
from letta_adapters.backends.runtime.environment import (
    Places,
    build_launch,
    find_differences,
    make_fingerprint,
    may_sync_memory,
    prepare,
    runtime_environment,
)
from letta_adapters.backends.runtime.errors import (
    RuntimeOccupiedError,
    RuntimeStartError,
    RuntimeVersionError,
)
from letta_adapters.backends.runtime.find import (
    Installation,
    check_git,
    check_version,
    find_installation,
)
from letta_adapters.backends.runtime.lease import Lease, ask, take_lease
from letta_adapters.backends.runtime.ledger import UnfinishedInput, clear_leftovers, report
from letta_adapters.backends.runtime.process import ServerProcess, end_marked, read_tail
from letta_adapters.backends.runtime.server import (
    POLL_SECONDS,
    WIND_DOWN_SECONDS,
    Server,
    clear_up,
    signal_server,
    wait_gone,
)
from letta_adapters.backends.runtime.state_directory import ServerRecord, StateDirectory, probe
from letta_adapters.errors import LettaError

_ELSEWHERE: Final = "or another Local(data_dir=...)"


class RecyclingError(Exception):
    """The server takes nobody new and ends when those who use it have left; try again then."""


def open_server(config: Local, places: Places, *, insist: bool = False) -> Server:
    """Join the server of this state directory, or start it.

    Args:
        config: The settings that it must have.
        places: Its directories.
        insist: Join a server even if it is being recycled.

    Raises:
        RecyclingError: It is being recycled, and so cannot be joined now.
        LettaError: One of :mod:`letta_adapters.backends.runtime.errors`.
    """
    found = find_installation()
    check_git(runtime_environment(config))
    state_dir = StateDirectory(places.meet)
    search = _Search(config, places, state_dir, found, insist)
    deadline = time.monotonic() + config.start_timeout
    # Others may do the same at this moment: one of them starts the server, the others join it.
    while True:
        server = search.join()
        if server is None and state_dir.try_own():
            try:
                server = search.join_or_start()
            finally:
                state_dir.release()
        if server is not None:
            return server
        if time.monotonic() > deadline:
            raise _silent(state_dir.read())
        time.sleep(POLL_SECONDS)


@dataclass(slots=True)
class _Search:
    """One call of :func:`open_server`."""

    config: Local
    places: Places
    state_dir: StateDirectory
    installed: Installation
    insist: bool

    def join(self) -> Server | None:
        """Return the server that runs, if it grants a lease.

        A server that nobody uses must fit exactly, or it is ended.
        """
        record = self.state_dir.read()
        if record is None or (not self._fits(record) and self._retire(record)):
            return None
        # Counted as a user before the lease is asked for, so that nobody takes the server for
        # unused.
        if not self.state_dir.enter():
            return None
        lease = None
        try:
            lease = self._lease(record)
        finally:
            if lease is None:
                self.state_dir.exit()
        return None if lease is None else Server(self.places, self.state_dir, record, lease)

    def _lease(self, record: ServerRecord) -> Lease | None:
        answer = take_lease(record.where, keep=self.config.keep_running, insist=self.insist)
        if answer is None or isinstance(answer, Lease):
            return answer
        if answer.get("recycling") is True:
            raise RecyclingError
        return None

    def _fits(self, record: ServerRecord) -> bool:
        # A server of another version of either is only shared if somebody uses it.
        same = (record.adapters, record.version) == (__version__, self.installed.version)
        return same and _refusal(record, self.config, []) is None

    def _retire(self, record: ServerRecord) -> bool:
        """End a server that does not fit, unless somebody uses it.

        Returns:
            ``False`` if it can be shared until then.

        Raises:
            LettaError: It is in use and cannot be shared.
        """
        answer = ask(record.where, "retire") if record.door else None
        if answer is None or answer.get("retired") is True:
            return True  # it is ending, or dead, or busy: the next look will tell
        pids = answer.get("pids")
        users = [pid for pid in pids if isinstance(pid, int)] if isinstance(pids, list) else []
        refusal = _refusal(record, self.config, users)
        if refusal is not None:
            raise refusal
        return False

    def join_or_start(self) -> Server | None:
        """Join or start a server as the owner of the state_dir.

        Returns:
            ``None`` if somebody uses a server that does not answer.
        """
        patience = time.monotonic() + WIND_DOWN_SECONDS
        record = self.state_dir.read()
        while record is not None and record.still_there():
            server = self.join()
            if server is not None:
                return server
            if time.monotonic() > patience:
                if not self.state_dir.alone():
                    return None
                # It hangs, and there is nobody whom it serves.
                end_marked(record.runtime_id)
                signal_server(record, getattr(signal, "SIGKILL", signal.SIGTERM))
                if not wait_gone(record):
                    return None
            time.sleep(POLL_SECONDS)
            record = self.state_dir.read()
        cleared: tuple[UnfinishedInput, ...] = ()
        if record is not None:
            cleared = clear_up(self.places, self.state_dir, record)
        left = clear_leftovers(self.places, since=None)
        report(left)
        return self._start(cleared + tuple(left))

    def _lay_out(self) -> None:
        remote = may_sync_memory(self.config)
        try:
            prepare(self.places)
            self.places.git.write(self.places.memories, os.environ, remote=remote)
        except OSError as error:
            raise RuntimeOccupiedError(
                f"The state directory cannot be used: {error}",
                hint=f"Make it writable, {_ELSEWHERE}.",
            ) from error

    def _start(self, leftovers: tuple[UnfinishedInput, ...]) -> Server:
        token, runtime_id = secrets.token_urlsafe(32), secrets.token_hex(8)
        self._lay_out()
        launch = build_launch(
            self.config, self.places, self.installed, token=token, runtime_id=runtime_id
        )
        # Taken before the start, so that inputs which the server accepts at once count as its own.
        started_at = int(time.time() * 1000)
        # Counted as a user before the server runs, so that nobody takes it for one that hangs
        # unused.
        if not self.state_dir.enter():
            raise RuntimeOccupiedError(
                "The state directory is being cleared up by another process."
            )
        process = ServerProcess(launch, self.state_dir.log)
        try:
            where = process.wait_ready(self.config.start_timeout)
            info = self._check(probe(where.url, token))
            record = ServerRecord(
                pid=process.pid,
                runtime_id=runtime_id,
                token=token,
                url=where.url,
                door=where.door,
                started_at=started_at,
                version=info["letta_code_version"],
                protocol=info["protocol_version"],
                fingerprint=make_fingerprint(self.config, token),
            )
            lease = take_lease(record.where, keep=self.config.keep_running)
            if not isinstance(lease, Lease):
                raise RuntimeStartError(
                    "The embedded Letta runtime listens and grants no lease.",
                    stderr_tail=read_tail(self.state_dir.log),
                )
            self.state_dir.publish(record)
        except BaseException:
            # A half-started server must leave nothing behind: no process, no lock, no input to run
            # again.
            process.stop()
            self.state_dir.exit()
            clear_leftovers(self.places, since=started_at)
            raise
        process.let_go()
        return Server(
            self.places, self.state_dir, record, lease, process=process, leftovers=leftovers
        )

    def _check(self, info: dict[str, Any] | None) -> dict[str, Any]:
        if info is None:
            raise RuntimeStartError(
                "The embedded Letta runtime listens but does not answer.",
                stderr_tail=read_tail(self.state_dir.log),
            )
        version, protocol = info.get("letta_code_version"), info.get("protocol_version")
        check_version(str(version or "0"), protocol if isinstance(protocol, int) else -1)
        wanted = "local" if self.config.api is None else "api"
        if info.get("backend") != wanted:
            raise RuntimeStartError(
                f"The embedded Letta runtime came up with the {info.get('backend')!r} backend "
                f"instead of {wanted!r}."
            )
        return info


def check_shareable(server: Server, config: Local) -> None:
    """Raise the error of :func:`open_server` if ``server`` cannot serve that configuration."""
    refusal = _refusal(server.record, config, [os.getpid()])
    if refusal is not None:
        raise refusal


def _refusal(record: ServerRecord, config: Local, users: list[int]) -> LettaError | None:
    """Return the reason why a server that is in use cannot be shared; ``None`` if it can."""
    by = f"in use by process {', '.join(map(str, users))}" if users else "in use"
    if not record.understood:
        return _of_another_version(record)
    try:
        check_version(record.version, record.protocol)
    except RuntimeVersionError as error:
        return error
    names = find_differences(config, record.fingerprint, record.token)
    if not names:
        return None
    return RuntimeOccupiedError(
        f"The server of this state directory runs with other settings ({', '.join(names)}) and is "
        f"{by}.",
        owner_pid=users[0] if users else None,
        hint=f"Use the same settings in all processes, {_ELSEWHERE}.",
    )


def _of_another_version(record: ServerRecord) -> LettaError:
    return RuntimeVersionError(
        "Another version of letta-adapters runs the server of this state directory (pid "
        f"{record.pid}), which is in use.",
        hint=f"End what uses it, use one version of letta-adapters, {_ELSEWHERE}.",
    )


def _silent(record: ServerRecord | None) -> LettaError:
    """Return the error for a server that could not be joined, started or replaced in time."""
    if record is None:
        return RuntimeOccupiedError(
            "Another process holds this state directory, but no server of it answers.",
            hint=f"End that process, {_ELSEWHERE}.",
        )
    if not record.understood and record.still_there():
        return _of_another_version(record)
    return RuntimeOccupiedError(
        f"The server of this state directory (pid {record.pid}) is in use and does not answer.",
        owner_pid=record.pid,
        hint=f"End it (kill {record.pid}), {_ELSEWHERE}.",
    )
