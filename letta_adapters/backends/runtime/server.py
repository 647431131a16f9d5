"""The server of one state directory as this process sees it: its own, or another process's.

Everything here blocks; ``manager.py`` calls it on worker threads.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from typing import Any

from letta_adapters.backends.runtime.children import end_marked
from letta_adapters.backends.runtime.environment import (
    Places,
    RuntimeConfig,
    build_launch,
    runtime_environment,
)
from letta_adapters.backends.runtime.errors import (
    RuntimeCrashedError,
    RuntimeOccupiedError,
    RuntimeStartError,
)
from letta_adapters.backends.runtime.find import check_git, check_version, find_installation
from letta_adapters.backends.runtime.leftovers import Leftover, clear_leftovers
from letta_adapters.backends.runtime.process import ServerProcess
from letta_adapters.backends.runtime.rendezvous import Meeting, ServerRecord, probe

_NOTICE_SECONDS = 1.0

log = logging.getLogger("letta_adapters.runtime")


class Server:
    """A server this process uses; ``users`` counts its handles."""

    owned = False
    leftovers: tuple[Leftover, ...] = ()

    def __init__(
        self, meeting: Meeting, record: ServerRecord, leftovers: tuple[Leftover, ...] = ()
    ) -> None:
        self._meeting = meeting
        self.record = record
        self.leftovers = leftovers
        self.users = 0

    def healthy(self) -> bool:
        """Does it still serve? Without its owner it is about to end."""
        return self._meeting.owned_elsewhere() and self._answers()

    def _answers(self) -> bool:
        return probe(self.record.url, self.record.token) is not None

    def stderr_tail(self) -> str:
        """Its last output, which only its owner has."""
        return ""

    def failure(self) -> RuntimeCrashedError:
        """The error for a connection that was lost because the server is gone."""
        return RuntimeCrashedError(
            "The embedded Letta runtime, which another process "
            f"(pid {self.record.owner_pid}) had started, is gone."
        )

    def stop(self) -> None:
        """Nothing: its owner stops it."""

    def forget(self) -> None:
        """Called in a forked child."""


class OwnedServer(Server):
    """The server this process has started."""

    owned = True

    def __init__(self, config: RuntimeConfig, places: Places, meeting: Meeting) -> None:
        self._places = places
        self._meeting = meeting
        self._stopping = False
        self._up = False
        self._retiring = threading.Lock()
        self._retired = threading.Event()
        self._process: ServerProcess | None = None
        self._runtime_id = secrets.token_hex(8)
        self._started_at = 0
        try:
            super().__init__(meeting, *self._start(config))
            meeting.publish(self.record)
        except BaseException:
            self.stop()
            raise
        self._up = True
        if self._has_ended():
            self._retire()  # it ended just now, when that was still the starter's business

    def healthy(self) -> bool:
        """Does it still run? If not, it has been cleaned up when this returns."""
        # A lost connection is noticed before the process is known to be dead. One that runs and
        # does not answer is busy.
        ended = self._has_ended() or not self._answers()
        if self._process is None or not (ended and self._process.wait_ended(_NOTICE_SECONDS)):
            return True
        self._retired.wait(10.0)
        return False

    def stderr_tail(self) -> str:
        """The last lines it wrote."""
        return self._process.stderr_tail() if self._process else ""

    def failure(self) -> RuntimeCrashedError:
        """The error for a connection that was lost because the server is gone."""
        code = self._process.returncode if self._process else None
        return RuntimeCrashedError(
            f"The embedded Letta runtime ended unexpectedly (code {code}).",
            stderr_tail=self.stderr_tail(),
            returncode=code,
        )

    def stop(self) -> None:
        """End it in order; returns when no process of it is left."""
        self._stopping = True
        if self._process is not None:
            self._process.stop()
        self._retire()

    def forget(self) -> None:
        """In a forked child: the server, its lock and its pipes are the parent's alone."""
        if self._process is not None:
            self._process.forget()
        self._meeting.disown()

    def _has_ended(self) -> bool:
        return self._process is None or self._process.has_ended()

    def _start(self, config: RuntimeConfig) -> tuple[ServerRecord, tuple[Leftover, ...]]:
        dead = self._meeting.bury()
        leftovers = clear_leftovers(self._places, since=dead.started_at if dead else None)
        _report(leftovers)
        token = secrets.token_urlsafe(32)
        self._places.git.write(self._places.memories, os.environ, remote=config.remote_memory)
        launch = build_launch(
            config, self._places, find_installation(), token=token, runtime_id=self._runtime_id
        )
        self._started_at = int(time.time() * 1000)
        self._process = ServerProcess(launch, self._on_exit)
        url = self._process.wait_ready(config.start_timeout)
        info = self._check(probe(url, token), config)
        record = ServerRecord(
            url=url,
            token=token,
            pid=self._process.pid,
            owner_pid=os.getpid(),
            started_at=self._started_at,
            version=info["letta_code_version"],
            protocol=info["protocol_version"],
            runtime_id=self._runtime_id,
            fingerprint=config.fingerprint(token),
        )
        return record, tuple(leftovers)

    def _check(self, info: dict[str, Any] | None, config: RuntimeConfig) -> dict[str, Any]:
        if info is None:
            raise RuntimeStartError(
                "The embedded Letta runtime listens but does not answer.",
                stderr_tail=self.stderr_tail(),
            )
        version, protocol = info.get("letta_code_version"), info.get("protocol_version")
        check_version(str(version or "0"), protocol if isinstance(protocol, int) else -1)
        wanted = "local" if config.api is None else "api"
        if info.get("backend") != wanted:
            raise RuntimeStartError(
                f"The embedded Letta runtime came up with the {info.get('backend')!r} backend "
                f"instead of {wanted!r}."
            )
        return info

    def _on_exit(self) -> None:
        """On the watching thread: clean up after a crash, so that anybody may start it again."""
        # A crash while starting is the starter's to report, and to clean up.
        if self._up and not self._stopping:
            log.warning("%s", self.failure().message)
            self._retire()

    def _retire(self) -> None:
        """Once: afterwards the state directory may be another process's."""
        with self._retiring:
            if self._retired.is_set():
                return
            end_marked(self._runtime_id)
            if self._process is not None:
                left = clear_leftovers(self._places, since=self._started_at)
                self.leftovers += tuple(item for item in left if item.neutralised)
            self._meeting.withdraw(self._runtime_id)
            self._meeting.disown()
            self._retired.set()


def open_server(config: RuntimeConfig, places: Places) -> Server:
    """Join the server of this state directory, or start it.

    Raises the errors of :mod:`letta_adapters.backends.runtime.errors`.
    """
    find_installation()
    check_git(runtime_environment(config))
    meeting = Meeting(places.meet)
    deadline = time.monotonic() + config.start_timeout
    record: ServerRecord | None = None
    while True:
        if meeting.try_own():
            return OwnedServer(config, places, meeting)
        record = meeting.read()
        info = probe(record.url, record.token) if record else None
        if record and info:
            _check_shareable(record, config)
            return Server(meeting, record)
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    owner = record.owner_pid if record else None
    raise RuntimeOccupiedError(
        f"Another process ({f'pid {owner}' if owner else 'unknown'}) holds this state directory, "
        "but no server of it answers.",
        owner_pid=owner,
        hint=f"End it{f' (kill {owner})' if owner else ''}, or use another Local(data_dir=...).",
    )


def _check_shareable(record: ServerRecord, config: RuntimeConfig) -> None:
    check_version(record.version, record.protocol)
    if names := config.differences(record.fingerprint, record.token):
        raise RuntimeOccupiedError(
            f"The server of this state directory runs with other settings ({', '.join(names)}), "
            f"started by pid {record.owner_pid}.",
            owner_pid=record.owner_pid,
            hint="Use the same settings in all processes, or another Local(data_dir=...).",
        )


def check_shareable(server: Server, config: RuntimeConfig) -> None:
    """Raise :class:`RuntimeOccupiedError` if ``server`` was started with other settings."""
    _check_shareable(server.record, config)


def _report(leftovers: list[Leftover]) -> None:
    for item in leftovers:
        fate = "will not be run again" if item.neutralised else "is about to be run again by Letta"
        log.warning(
            "Message %s of conversation %s was not finished when its server ended; it %s.",
            item.client_message_id,
            item.conversation_id,
            fate,
        )
