"""One server process: start it, read where it listens, keep reading its output, end it.

Blocking code and three daemon threads (stdout, stderr, exit); no event loop. The process has the
only other end of our ``stdin`` pipe: closing it, which the system does however this process ends,
is what makes the server stop in the right order (``shim.cjs``).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from letta_adapters.backends.runtime.children import end_marked
from letta_adapters.backends.runtime.environment import GRACE_SECONDS, Launch
from letta_adapters.backends.runtime.errors import RuntimeStartError

_TAIL_LINES = 40
_TAIL_CHARS = 4000
_READY = "WebSocket: "
_STOP_SECONDS = GRACE_SECONDS + 3.0


class ServerProcess:
    """A running (or ended) server. ``on_exit`` is called once, on a thread, when it has ended."""

    def __init__(self, launch: Launch, on_exit: Callable[[], None]) -> None:
        self._launch = launch
        self._on_exit = on_exit
        self._changed = threading.Condition()
        self._url: str | None = None
        self._exited = threading.Event()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._threads: list[threading.Thread] = []
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """``None`` while it runs."""
        return self._process.returncode

    def has_ended(self) -> bool:
        """Is it gone?"""
        return self._exited.is_set()

    def wait_ended(self, seconds: float) -> bool:
        """Wait at most so long until it is gone."""
        return self._exited.wait(seconds)

    def stderr_tail(self) -> str:
        """The last lines it wrote, for error messages."""
        return "".join(self._tail)[-_TAIL_CHARS:].strip()

    def wait_ready(self, timeout: float) -> str:
        """The WebSocket URL, once it listens. Raises :class:`RuntimeStartError`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._url is None and not self._exited.is_set():
                if not self._changed.wait(deadline - time.monotonic()):
                    break
            url = self._url
        if url is not None:
            return url
        ended = self._exited.is_set()
        self.stop()
        how = (
            f"ended with code {self.returncode} before it was ready"
            if ended
            else f"was not ready after {timeout:g} s"
        )
        raise RuntimeStartError(
            f"The embedded Letta runtime {how}.",
            stderr_tail=self.stderr_tail(),
            returncode=self.returncode,
        )

    def stop(self) -> None:
        """End it, in order where it still can: close its input, then terminate, then kill."""
        stdin = self._process.stdin
        if stdin is not None:
            with contextlib.suppress(OSError):
                stdin.close()
        ladder = ((_STOP_SECONDS, self._process.terminate), (2.0, self._process.kill))
        for seconds, harder in ladder:
            if self._exited.wait(seconds):
                break
            harder()
        self._exited.wait()
        end_marked(self._launch.runtime_id)
        self._join()

    def forget(self) -> None:
        """In a forked child: drop our copies of the pipes, so that the parent alone holds them."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    os.close(pipe.fileno())

    def _spawn(self) -> subprocess.Popen[bytes]:
        launch = self._launch
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        flags |= getattr(subprocess, "CREATE_NO_WINDOW", 0)
        try:
            process = subprocess.Popen(
                launch.argv,
                env=dict(launch.env),
                cwd=launch.cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Ctrl-C in a terminal goes to the whole group: it must not end the server first.
                start_new_session=sys.platform != "win32",
                creationflags=flags,
            )
        except OSError as error:
            raise RuntimeStartError(f"The embedded Letta runtime did not start: {error}") from error
        assert process.stdout is not None and process.stderr is not None
        out, err = process.stdout.fileno(), process.stderr.fileno()
        works: tuple[tuple[str, Callable[..., None], tuple[Any, ...]], ...] = (
            ("out", _drain, (out, self._on_stdout)),
            ("err", _drain, (err, self._tail.append)),
            ("exit", self._watch, ()),
        )
        for name, work, args in works:
            name = f"letta-runtime-{name}"
            thread = threading.Thread(target=work, args=args, name=name, daemon=True)
            self._threads.append(thread)
        self._process = process
        for thread in self._threads:
            thread.start()
        return process

    def _on_stdout(self, line: str) -> None:
        if line.startswith(_READY):
            with self._changed:
                self._url = line.removeprefix(_READY).strip()
                self._changed.notify_all()

    def _watch(self) -> None:
        self._process.wait()
        # What is still in the pipe belongs to the error; a child may hold the pipe open, though.
        self._threads[1].join(0.3)
        with self._changed:
            self._exited.set()
            self._changed.notify_all()
        self._on_exit()

    def _join(self) -> None:
        current = threading.current_thread()
        for thread in self._threads:
            if thread is not current:
                thread.join(1.0)
        if not any(thread.is_alive() for thread in self._threads[:2]):
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()


def _drain(fd: int, take: Callable[[str], None]) -> None:
    """Hand over every line until the pipe closes, so that the server never blocks on writing.

    Plain reads: a thread that waits in one holds no lock when the interpreter ends.
    """
    rest = b""
    with contextlib.suppress(OSError):
        while data := os.read(fd, 65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                take(line.decode("utf-8", "replace") + "\n")
            if len(rest) > 65536:  # a line without an end
                rest = rest[-_TAIL_CHARS:]
    if rest:
        take(rest.decode("utf-8", "replace"))
