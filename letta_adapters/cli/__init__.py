"""The ``letta-adapters`` command: ``demo``, ``prompt``, ``chat``, ``doctor``, ``cassette``.

The exit code is 0 if it worked, 1 if it did not (with one message on stderr), 2 for wrong usage,
and 130 for Ctrl-C. This package contains what all commands share; each command is a module of its
own, imported when it runs.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letta_adapters._version import __version__

if TYPE_CHECKING:
    from letta_adapters.backends.config import Local, Remote, Rest
    from letta_adapters.sync.client import LettaClient, Session

OK, FAILED, INTERRUPTED = 0, 1, 130
# Seconds that the embedded runtime waits for the next command: starting it takes longer than a
# short answer.
_KEEP_RUNNING = 20.0

_WHERE = """\
Without options the environment decides: LETTA_BASE_URL or LETTA_API_KEY means the Letta API,
LETTA_APP_SERVER_URL an App Server, neither the runtime on this machine.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Raises:
        SystemExit: Wrong usage, with the code 2, as argparse does.
    """
    _lenient_output()
    parser = build_parser()
    args = parser.parse_args(argv)
    _check_usage(parser, args)
    from letta_adapters.errors import LettaError

    try:
        # Imported only now: other commands take time to load, and may need missing packages.
        code: int = import_module(f"letta_adapters.cli.{args.command}").run(args)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has left. Without this, Python would complain once more when it
        # flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (LettaError, OSError) as error:
        from letta_adapters.cli.render import make_console, show_error

        show_error(make_console(stderr=True), error)
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="letta-adapters", description="Letta agents from the command line."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = _command(
        commands,
        "demo",
        "two streamed turns with a persistent agent, on this machine",
        "Starts the embedded runtime. The model is one whose key is in the environment, else a "
        "scripted stand-in on loopback. The second run finds the agent of the first.",
    )
    demo.add_argument("--model", help="the model to use, such as openai/gpt-5-mini")
    demo.add_argument("--scripted", action="store_true", help="use the stand-in despite a key")
    demo.add_argument("--data-dir", type=Path, help="where the agent and its state live")

    prompt = _command(
        commands,
        "prompt",
        "ask once",
        "Piped, only the answer is printed. Nobody is asked: what needs an approval is denied.",
    )
    prompt.add_argument("text", metavar="TEXT", help="the message; - reads it from stdin")
    prompt.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_session(prompt)
    _add_connection(prompt)

    chat = _command(
        commands,
        "chat",
        "talk with an agent",
        "Shows the answer as it comes, and asks before tools that need an approval. Ctrl-C stops "
        "an answer; /exit, Ctrl-D, or Ctrl-C at the prompt leave.",
    )
    _add_session(chat)
    _add_connection(chat)

    doctor = _command(
        commands,
        "doctor",
        "what is installed, configured and reachable, and what to do about what is not",
        "Exits with 1 if no agent can be talked to. Starts the embedded runtime if that is used.",
    )
    doctor.add_argument(
        "--set-aside",
        action="store_true",
        help="move torn files of the local state into its folder letta-adapters/set-aside "
        "(nothing is deleted; readable messages stay)",
    )
    _add_connection(doctor)
    _add_cassette(commands)
    return parser


def _add_cassette(commands: Any) -> None:
    about = "look at recordings of Letta, clean them, compare them"
    cassette = commands.add_parser("cassette", help=about, description=f"L{about[1:]}.")
    actions = cassette.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, help: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}."
        )
        return made

    scan = action("scan", "report what should not be in a recording; exits with 1 for findings")
    clean = action("clean", "remove everything private or volatile, in place")
    for one in (scan, clean):
        one.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders")
        one.add_argument(
            "--secret", action="append", default=[], metavar="TEXT", help="this one as well"
        )
    diff = action("diff", "compare two recordings, cleaned; exits with 1 if they differ")
    diff.add_argument("old", type=Path)
    diff.add_argument("new", type=Path)


def _command(commands: Any, name: str, help: str, more: str) -> argparse.ArgumentParser:
    title = help[0].upper() + help[1:] + "."
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=f"{title} {more}", epilog=None if name == "demo" else _WHERE
    )
    return made


def _add_session(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("whom to talk to")
    group.add_argument(
        "--agent", metavar="ID", help="the agent, in a fresh conversation (default: your own one)"
    )
    group.add_argument(
        "--conversation",
        metavar="ID",
        help="go on with this conversation ('default' with --agent: the agent's own one)",
    )
    group.add_argument("--model", help="the conversation's model, such as openai/gpt-5-mini")
    group = parser.add_argument_group(
        "what it may do unasked (Letta Code; see docs/permissions.md)"
    )
    group.add_argument(
        "--permission-mode",
        choices=("standard", "acceptEdits", "strict", "unrestricted"),
        help="standard: its memory, and reads in this directory; acceptEdits: writes there too",
    )
    group.add_argument(
        "--tools",
        metavar="NAMES",
        type=_names,
        help="tools of the agent's that run whatever they are told to do, such as Bash,Write",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where agents live")
    group.add_argument(
        "--backend",
        choices=("local", "cloud", "remote"),
        help="the runtime on this machine, the Letta API, or an App Server",
    )
    group.add_argument(
        "--base-url", metavar="URL", help="of the Letta API (http) or of an App Server (ws)"
    )
    group.add_argument("--data-dir", type=Path, help="the local runtime's own home")
    group.add_argument(
        "--keep-running",
        type=float,
        metavar="SECONDS",
        help=f"how long the local runtime waits for the next command (default: {_KEEP_RUNNING:g})",
    )


def _check_usage(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    # Not every command has every option.
    backend, url = getattr(args, "backend", None), getattr(args, "base_url", None)
    home = getattr(args, "data_dir", None)
    if url and (backend == "local" or home):
        parser.error("--base-url is not for the runtime on this machine")
    if home and backend not in (None, "local"):
        parser.error(f"--data-dir is not for --backend {backend}")
    elsewhere = url or backend not in (None, "local")
    if getattr(args, "keep_running", None) is not None and elsewhere:
        parser.error("--keep-running is for the runtime on this machine")
    if args.command == "demo" and args.model and args.scripted:
        parser.error("--model and --scripted exclude each other")


def _lenient_output() -> None:
    """Replace characters that the terminal or the pipe cannot take, instead of crashing."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


# -- what commands share --------------------------------------------------------------------------


def make_backend(args: argparse.Namespace) -> Rest | Local | Remote:
    """Return the backend that the options and the environment mean.

    Raises:
        InvalidInputError: An option is wrong, or does not fit that backend.
    """
    from letta_adapters.backends.config import Local, Remote, Rest
    from letta_adapters.client.client import resolve_backend
    from letta_adapters.errors import InvalidInputError
    from letta_adapters.options_base import build

    url: str | None = args.base_url
    if url and not _is_address(url):
        raise InvalidInputError(f"{url!r} is not a URL.")
    name: str | None = args.backend
    # The address tells an App Server, which speaks WebSocket, from the Letta API.
    if name is None and url:
        name = "remote" if url.startswith(("ws://", "wss://")) else "cloud"
    if name is None and args.data_dir:
        name = "local"
    keep = _KEEP_RUNNING if args.keep_running is None else args.keep_running
    if name == "local":
        return build(Local, data_dir=args.data_dir, keep_running=keep)
    if name == "remote":
        return build(Remote, url=url)
    if name == "cloud":
        return build(Rest, base_url=url)
    # No option names a backend, so the environment decides, as it does for a client in Python.
    meant = resolve_backend(None)
    if isinstance(meant, Local):
        return build(Local, keep_running=keep)
    if args.keep_running is not None:
        raise InvalidInputError("--keep-running is for the runtime on this machine.")
    return meant


def _is_address(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def open_session(client: LettaClient, args: argparse.Namespace, **options: Any) -> Session:
    """Return the session that ``--agent``, ``--conversation`` and so on mean; no I/O happens."""
    given = {
        "model": args.model,
        "permission_mode": args.permission_mode,
        "allowed_tools": args.tools,
    }
    # What was not given must not count as set: it would hide the agent's own setting.
    options |= {name: value for name, value in given.items() if value}
    if args.conversation:
        return client.resume_session(
            agent_id=args.agent, conversation_id=args.conversation, **options
        )
    return client.create_session(args.agent, **options)
