"""Internal: read what a person types, by ``prompt_toolkit``: messages, answers and corrections."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, create_output
from prompt_toolkit.utils import is_dumb_terminal

from letta_adapters._utils.files import make_private_folder
from letta_adapters.cli.exits import Ended
from letta_adapters.cli.signals import taken
from letta_adapters.errors import InvalidInputError, LettaError

# Bytes of the file of typed lines; of a longer one the older half is forgotten.
_MOST: Final = 1_000_000
_LEAVES: Final = "(Ctrl-C again leaves; the line is kept)"


class Keyboard:
    """A person at a terminal.

    Args:
        history: The file that keeps the messages between two runs; answers are not kept.
        commands: Words that begin with ``/``, for completion by Tab.
    """

    def __init__(self, history: Path, commands: tuple[str, ...]) -> None:
        self._common: dict[str, Any] = {
            # None is standard output, whatever that terminal is able to do.
            "output": None if sys.stdout.isatty() else create_output(stdout=sys.stderr),
            "color_depth": ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            "enable_suspend": True,
        }
        # Escape codes come with every line that is edited.
        self._dumb = is_dumb_terminal()
        if self._dumb:
            return
        self._messages: PromptSession[str] = PromptSession(
            history=_open_history(history),
            key_bindings=_bind_keys(),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            **self._common,
        )

    def read_message(self) -> str:
        """Return the next message, which may have several lines.

        Raises:
            EOFError: Ctrl-D on an empty line.
            KeyboardInterrupt: Ctrl-C twice.
        """
        return input("> ") if self._dumb else _ask(self._messages, "> ")

    def read_answer(self, question: str, given: str = "") -> str:
        """Return the answer to a question; ``given`` is there to be changed.

        Raises:
            EOFError: Ctrl-D on an empty line.
            KeyboardInterrupt: Ctrl-C.
        """
        if self._dumb:
            return input(question) or given
        # It is no message, and must not be found among them.
        line: PromptSession[str] = PromptSession(history=InMemoryHistory(), **self._common)
        return _ask(line, question, default=given)

    def edit_text(self, text: str) -> str:
        """Return a text of several lines as the person has changed it.

        Raises:
            EOFError: Ctrl-D on an empty text.
            InvalidInputError: This terminal cannot edit.
            KeyboardInterrupt: Ctrl-C: it is to stay as it is.
        """
        if self._dumb:
            raise InvalidInputError(
                "A dumb terminal (TERM=dumb) cannot edit a text.", hint="Set TERM to what it is."
            )
        keys = KeyBindings()
        _bind_new_line(keys)
        session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(), key_bindings=keys, **self._common
        )
        return _ask(session, "| ", default=text)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Keep typed keys for the next line, unseen, while the agent's answer is being drawn."""
        if sys.platform == "win32":
            yield
            return
        import termios

        try:
            before = termios.tcgetattr(sys.stdin)
        except (termios.error, OSError):
            yield
            return
        silent = [*before]
        # Ctrl-C must not discard what was typed before it.
        silent[3] = (silent[3] & ~termios.ECHO) | termios.NOFLSH
        termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
        try:
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)

    def forget_typed(self) -> None:
        """Discard keys typed before a question was shown: they do not answer it."""
        if sys.platform != "win32":
            import termios

            with suppress(termios.error, OSError):
                termios.tcflush(sys.stdin, termios.TCIFLUSH)


def _ask(session: PromptSession[str], question: str, *, default: str = "") -> str:
    with _leaving_by_signals(lambda error: session.app.exit(exception=error)):
        return session.prompt(question, default=default)


@contextmanager
def _leaving_by_signals(leave: Callable[[BaseException], None]) -> Iterator[None]:
    """Leave the line editor as it should be left when a signal ends this process.

    An exception out of a signal handler would pass it by, and the terminal would stay raw.
    """

    def end(number: int, _: object) -> None:
        with suppress(Exception):  # it has just been left
            leave(Ended(number))

    # Only a signal that the command line has taken: of another one nobody would be told.
    with taken(end, unless=lambda handler: not callable(handler)):
        yield


def _bind_keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    @keys.add("<sigint>")
    def stop(event: KeyPressEvent) -> None:
        if event.is_repeat:
            event.app.exit(exception=KeyboardInterrupt())
        else:
            # Printed above the line, which stays as it is.
            run_in_terminal(lambda: print_formatted_text(_LEAVES))

    _bind_new_line(keys)
    return keys


def _bind_new_line(keys: KeyBindings) -> None:
    @keys.add("escape", "enter")
    def open_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")


def _open_history(file: Path) -> History:
    """Return the messages of earlier runs; without a place for them, those of this run alone."""
    try:
        make_private_folder(file.parent)
        # Mode 0600 from the first moment; a link would lead elsewhere.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(file, flags, 0o600))
        _shorten(file)
    except (LettaError, OSError):
        return InMemoryHistory()
    return _Kept(str(file))


def _shorten(file: Path) -> None:
    if file.stat().st_size > _MOST:
        kept = file.read_bytes()[-_MOST // 2 :]
        # An entry begins with a line of its time.
        file.write_bytes(kept[max(kept.find(b"\n# "), 0) :])


class _Kept(FileHistory):
    """A file of typed lines that a full disk does not turn into a crash."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)
