"""Run child processes that have a log file and are certain to be gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.rig.environments import RigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@dataclass
class Child:
    """A running program, the leader of a session (and process group) of its own.

    It has its own session because Ctrl-C in a terminal reaches the whole foreground group: the rig
    alone decides in which order its children stop.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: int = signal.SIGTERM

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str],
        stop_signal: int = signal.SIGTERM,
        drop_root: bool = False,
    ) -> Child:
        """Start ``command``; stdout and stderr go to the file ``log``.

        ``drop_root``: run as the user "nobody" if this process is root.
        """
        user = pwd.getpwnam("nobody") if drop_root and os.geteuid() == 0 else None
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user and user.pw_uid,
                group=user and user.pw_gid,
                extra_groups=[] if user else None,
            )
        return cls(name, process, log, stop_signal)

    def stop(self, patience: float = 8.0) -> None:
        """Ask it to stop, then kill its whole group; return when the child is reaped."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        # Also after a clean exit: what the child started may have outlived it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Poll ``ready`` until it is true.

        Raises:
            RigError: The child died, or the time ran out first.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise RigError(f"{self.name} was not ready after {seconds:g} s\n{self.tail()}")
            time.sleep(0.1)

    def check(self) -> None:
        """Check that the child is still running.

        Raises:
            RigError: It is not; the message contains the end of its log.
        """
        if self.process.poll() is not None:
            code = self.process.returncode
            raise RigError(f"{self.name} ended with exit code {code}\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """Return the end of the log, under a line that names the file."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join([f"--- {self.log}", *text.splitlines()[-lines:]])


def run_once(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str],
    drop_root: bool = False,
) -> None:
    """Run a program to its end.

    Raises:
        RigError: It failed; the message contains the end of its log.
    """
    child = Child.start(name, command, log=log, cwd=cwd, env=env, drop_root=drop_root)
    try:
        if child.process.wait() != 0:
            child.check()
    finally:
        child.stop()
