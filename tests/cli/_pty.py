"""A chat in a process of its own, at a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from types import TracebackType

# The terminal becomes the one whose Ctrl-C reaches this process.
_START = """\
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from letta_adapters.cli import main
sys.exit(main(["chat", *sys.argv[1:]]))
"""


class Chat:
    """What the terminal has shown so far is ``seen``."""

    def __init__(self, *argv: str) -> None:
        self.seen = ""
        self._read_to = 0
        self._terminal, there = pty.openpty()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *argv],
                stdin=there,
                stdout=there,
                stderr=there,
                start_new_session=True,
            )
        finally:
            os.close(there)

    def __enter__(self) -> Chat:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(30)
        os.close(self._terminal)

    def shows(self, text: str, seconds: float = 20) -> None:
        """Wait until ``text`` appears, after what was waited for before."""
        deadline = time.monotonic() + seconds
        while text not in self.seen[self._read_to :]:
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.seen}"
            assert self._more(), f"it ended before {text!r} came:\n{self.seen}"
        self._read_to = self.seen.index(text, self._read_to) + len(text)

    def types(self, line: str, *, after: str) -> None:
        """A line, once ``after`` is shown."""
        self.press(f"{line}\n", after=after)

    def press(self, keys: str, *, after: str) -> None:
        """Keys, once ``after`` is shown."""
        self.shows(after)
        os.write(self._terminal, keys.encode())

    def ends(self) -> int:
        """Wait for its end; the exit code."""
        while self._more():
            pass
        return self._process.wait(30)

    def _more(self) -> bool:
        if not select.select([self._terminal], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux's way to say that nobody has the other end open
            data = b""
        self.seen += data.decode(errors="replace")
        return bool(data)
