"""The ``letta-adapters`` command; docs/command-line.md has all of it.

This package contains what all commands share; each command is a module of its own, imported when
it runs.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from letta_adapters.cli.exits import FAILED, INTERRUPTED, Ended, exit_code
from letta_adapters.cli.parser import parse
from letta_adapters.cli.signals import ENDING, taken

if TYPE_CHECKING:
    import argparse

    from letta_adapters.errors import LettaError


_NEEDED: Final = ("rich", "markdown_it", "prompt_toolkit", "shtab")
_INSTALL: Final = 'The command line is an extra: pip install "letta-adapters[cli]"'


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Raises:
        SystemExit: Wrong usage, with the code 2, as argparse does.
    """
    _lenient_output()
    args = parse(None if argv is None else list(argv))
    missing = [name for name in _NEEDED if find_spec(name) is None]
    # Recordings are looked at with what the extra [testing] has.
    if missing and args.module != "cassette":
        sys.stderr.write(f"error: {missing[0]} is missing.\n{_INSTALL}\n")
        return FAILED
    from letta_adapters.errors import LettaError

    try:
        with _ending_by_signals():
            # Imported only now: commands take time to load, and may need missing packages.
            code: int = import_module(f"letta_adapters.cli.{args.module}").run(args)
            return code
    except Ended as ended:
        return ended.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has left. Without this, Python would complain once more when it
        # flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (LettaError, OSError) as error:
        return _refuse(args, error)


def _refuse(args: argparse.Namespace, error: LettaError | OSError) -> int:
    """Tell of an error; whoever reads JSON is told in JSON, too."""
    if find_spec("rich") is None:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    from letta_adapters.cli.render import make_console, show_error

    # A terminal that was closed takes no error.
    with suppress(OSError):
        if args.output_format != "text":
            sys.stdout.write(json.dumps(_refusal(args, error)) + "\n")
            sys.stdout.flush()
        show_error(make_console(stderr=True), error)
    return exit_code(error)


def _refusal(args: argparse.Namespace, error: LettaError | OSError) -> dict[str, Any]:
    """Return the error as the result of a turn that never began."""
    from letta_adapters.errors import LettaError
    from letta_adapters.messages import ResultMessage, Usage

    known = error if isinstance(error, LettaError) else LettaError(str(error), code="os_error")
    return ResultMessage(
        False,
        None,
        None,
        Usage(),
        0,
        agent_id=getattr(args, "agent", None),
        conversation_id=getattr(args, "conversation", None),
        error_code=known.code,
        error_detail=known.message,
        input_stored=known.accepted,
    ).to_dict()


@contextmanager
def _ending_by_signals() -> Iterator[None]:
    """Stop what runs when this process is asked to end, so that nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        # Python lets no other thread set handlers.
        yield
        return

    def end(number: int, _: object) -> None:
        # Once is enough: what is being stopped must not be disturbed.
        for one in ENDING:
            signal.signal(one, signal.SIG_IGN)
        raise Ended(number)

    # A parent that ignores a signal (nohup) wants it ignored here as well.
    with taken(end, unless=lambda handler: handler == signal.SIG_IGN):
        yield


def _lenient_output() -> None:
    """Replace characters that the terminal or the pipe cannot take, instead of crashing."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
