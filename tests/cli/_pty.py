"""A command in a process of its own, at a pseudo-terminal whose screen can be read."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType

import pyte

# The terminal becomes the one whose Ctrl-C reaches this process.
_START = """\
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from letta_adapters.cli import main
sys.exit(main(sys.argv[1:]))
"""
_ROWS = 120  # so many that nothing scrolls away


class _Screen(pyte.Screen):
    """A screen that answers where its cursor is."""

    def __init__(self, columns: int, terminal: int) -> None:
        super().__init__(columns, _ROWS)
        self._terminal = terminal

    def write_process_input(self, data: str) -> None:
        os.write(self._terminal, data.encode())


class Chat:
    """A chat at a terminal; ``raw`` is all that was written to it."""

    def __init__(self, *argv: str, columns: int = 80, command: str = "chat") -> None:
        self.raw = ""
        self._terminal, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
        self._screen = _Screen(columns, self._terminal)
        self._stream = pyte.ByteStream(self._screen)
        self.modes = termios.tcgetattr(self._terminal)[:4]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, command, *argv],
                stdin=there,
                stdout=there,
                stderr=there,
                start_new_session=True,
                # The size of the terminal counts, and no other.
                env={k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")},
            )
            self._held = os.dup(there)  # its modes can be read after the end
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
        self.process.kill()
        self.process.wait(30)
        os.close(self._terminal)
        os.close(self._held)

    @property
    def lines(self) -> list[str]:
        """What is on the screen, down to the last line with anything on it."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    def shows(self, text: str, *, times: int = 1) -> None:
        """Wait until ``text`` is on the screen."""
        self._wait(lambda: "\n".join(self.lines).count(text) >= times, repr(text))

    def is_asking(self, *, at: str = ">") -> None:
        """Wait until the last line is where the user is to type."""
        self._wait(lambda: self.lines[-1] == at and "\x1b[?2004h" in self._tail, f"a line {at!r}")

    def press(self, keys: str) -> None:
        self._tail = ""
        os.write(self._terminal, keys.encode())

    def says(self, line: str) -> None:
        """Type a line at the prompt."""
        self.is_asking()
        self.press(f"{line}\r")

    def ends(self, number: int | None = None) -> int:
        """Wait for its end, after a signal if one is named; the exit code."""
        if number is not None:
            os.kill(self.process.pid, number)
        self._wait(lambda: self.process.poll() is not None, "the end")
        return self.process.wait()

    def modes_now(self) -> list[object]:
        return list(termios.tcgetattr(self._held)[:4])

    _tail = ""

    def _wait(self, met: object, what: str) -> None:
        assert callable(met)
        deadline = time.monotonic() + 20
        while not met():
            assert time.monotonic() < deadline, f"{what} never came:\n" + "\n".join(self.lines)
            if select.select([self._terminal], [], [], 0.02)[0]:
                data = os.read(self._terminal, 65536)
                self.raw += data.decode(errors="replace")
                self._tail += data.decode(errors="replace")
                self._stream.feed(data)


CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"
PASTE, PASTED = "\x1b[200~", "\x1b[201~"
TERMINATE = signal.SIGTERM
