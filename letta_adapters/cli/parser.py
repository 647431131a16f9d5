"""Internal: the grammar of the command line; docs/command-line.md is tested against it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from letta_adapters._version import __version__

# Seconds that the embedded runtime waits for the next command: starting it takes longer than a
# short answer.
KEEP_RUNNING: Final = 20.0
_MOST: Final = 1000  # rows of a list
FORMATS: Final = ("text", "json", "stream-json")
SHELLS: Final = ("bash", "zsh", "fish", "tcsh", "powershell")  # as shtab names them

_WHERE: Final = """\
Without options the environment decides: LETTA_BASE_URL or LETTA_API_KEY means the Letta API,
LETTA_APP_SERVER_URL an App Server, neither the runtime on this machine.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are told with the usage of the command they were made in."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation that is clear today may mean two options tomorrow.
        super().__init__(**{"allow_abbrev": False, **options})
        self.set_defaults(parser=self)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return what was asked for, in the command's own words.

    Raises:
        SystemExit: Wrong usage, with the code 2 and the usage of the command on stderr.
    """
    args, unknown = build_parser().parse_known_args(argv)
    command: argparse.ArgumentParser = args.parser
    if unknown:
        command.error(f"unrecognized arguments: {' '.join(unknown)}")
    _check_usage(command.error, args)
    return args


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(prog="letta-adapters", description="Letta agents from the command line.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_prompt(commands)
    _add_chat(commands)
    _add_lists(commands)
    _add_doctor(commands)
    _add_cassette(commands)
    _add_completion(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = _command(
        commands,
        "demo",
        "two streamed turns with a persistent agent, on this machine",
        "Starts the embedded runtime. The model is one whose key is in the environment, else a "
        "scripted stand-in on loopback. The second run finds the agent of the first.",
    )
    demo.add_argument(
        "--model", type=_text, metavar="HANDLE", help="the model to use, such as openai/gpt-5-mini"
    )
    demo.add_argument("--scripted", action="store_true", help="use the stand-in despite a key")
    demo.add_argument(
        "--data-dir", type=as_path, metavar="DIR", help="where the agent and its state live"
    )


def _add_prompt(commands: Any) -> None:
    prompt = _command(
        commands,
        "prompt",
        "ask once",
        "What is piped in is part of the message, after TEXT. Piped, only the answer is printed; "
        "ids and notes go to stderr. Nobody is asked: what needs an approval is denied.",
    )
    prompt.add_argument(
        "text", metavar="TEXT", nargs="?", help="the message; - or nothing: what is piped in"
    )
    group = prompt.add_argument_group("what is printed")
    group.add_argument(
        "--output-format",
        choices=FORMATS,
        help="text: the answer; json: the result; stream-json: every message, one a line",
    )
    group.add_argument("--json", action="store_true", help="the same as --output-format json")
    group.add_argument(
        "--include-partial-messages",
        action="store_true",
        help="with stream-json: also the fragments of messages, as they come",
    )
    group.add_argument("--quiet", "-q", action="store_true", help="no ids and notes on stderr")
    _add_session(prompt)
    _add_connection(prompt)


def _add_chat(commands: Any) -> None:
    chat = _command(
        commands,
        "chat",
        "talk with an agent",
        "Shows the answer as it comes, and asks before tools that need an approval. Ctrl-C stops "
        "an answer; /exit or Ctrl-D leave.",
    )
    _add_session(chat)
    _add_connection(chat)


def _add_lists(commands: Any) -> None:
    agents = _command(commands, "agents", "the agents that are there", "", module="lists")
    agents.add_argument("query", type=_text, metavar="NAME", nargs="?", help="a part of the name")
    talks = _command(
        commands, "conversations", "an agent's conversations, newest first", "", module="lists"
    )
    talks.add_argument("agent", type=_text, metavar="AGENT", help="the agent's id")
    models = _command(commands, "models", "the models that can be used", "", module="lists")
    for one in (agents, talks):
        one.add_argument(
            "--limit", type=_count, metavar="N", default=50, help="at most so many (default: 50)"
        )
    for one in (agents, talks, models):
        one.add_argument("--json", action="store_true", help="print all fields, as JSON")
        _add_connection(one)


def _add_completion(commands: Any) -> None:
    about = "print the script that makes a shell complete this command"
    completion = commands.add_parser(
        "completion", help=about, description=f"P{about[1:]}; see docs/command-line.md."
    )
    completion.set_defaults(module="completion")
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def _add_doctor(commands: Any) -> None:
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


def _add_cassette(commands: Any) -> None:
    about = "look at recordings of Letta, clean them, compare them"
    cassette = commands.add_parser("cassette", help=about, description=f"L{about[1:]}.")
    cassette.set_defaults(module="cassette")
    actions = cassette.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, help: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}."
        )
        return made

    scan = action("scan", "report what should not be in a recording; exits with 1 for findings")
    clean = action("clean", "remove everything private or volatile, in place")
    for one in (scan, clean):
        one.add_argument("paths", nargs="+", type=as_path, metavar="PATH", help="files or folders")
        one.add_argument(
            "--secret",
            action="append",
            type=_text,
            default=[],
            metavar="TEXT",
            help="this one as well",
        )
    diff = action("diff", "compare two recordings, cleaned; exits with 1 if they differ")
    diff.add_argument("old", type=as_path, metavar="OLD", help="a recording")
    diff.add_argument("new", type=as_path, metavar="NEW", help="another one")


def _command(
    commands: Any, name: str, help: str, more: str, *, module: str = ""
) -> argparse.ArgumentParser:
    title = help[0].upper() + help[1:] + "."
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=f"{title} {more}".strip(),
        epilog=None if name == "demo" else _WHERE,
    )
    made.set_defaults(module=module or name)
    return made


def _add_session(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("whom to talk to")
    group.add_argument(
        "--agent",
        type=_text,
        metavar="ID",
        help="the agent, in a fresh conversation (default: your own one)",
    )
    group.add_argument(
        "--conversation",
        type=_text,
        metavar="ID",
        help="go on with this conversation ('default' with --agent: the agent's own one)",
    )
    group.add_argument(
        "--continue",
        "-c",
        action="store_true",
        dest="goes_on",
        help="go on with the last conversation (of --agent, if that is given)",
    )
    group.add_argument(
        "--model",
        type=_text,
        metavar="HANDLE",
        help="the conversation's model, such as openai/gpt-5-mini",
    )
    group.add_argument(
        "--reasoning-effort",
        choices=("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        help="how hard the model thinks in this conversation",
    )
    group.add_argument(
        "--image",
        type=_text,
        action="append",
        default=[],
        metavar="FILE_OR_URL",
        help="show this picture with the (first) message; several times for several",
    )
    group.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="how long a turn may take"
    )
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


def _add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where agents live")
    group.add_argument(
        "--backend",
        choices=("local", "cloud", "remote"),
        help="the runtime on this machine, the Letta API, or an App Server",
    )
    group.add_argument(
        "--base-url",
        type=_text,
        metavar="URL",
        help="of the Letta API (http) or of an App Server (ws)",
    )
    group.add_argument(
        "--data-dir", type=as_path, metavar="DIR", help="the local runtime's own home"
    )
    group.add_argument(
        "--keep-running",
        type=float,
        metavar="SECONDS",
        help=f"how long the local runtime waits for the next command (default: {KEEP_RUNNING:g})",
    )


# -- values ---------------------------------------------------------------------------------------


def _text(value: str) -> str:
    # A variable of a script that is not set must not mean "the default one".
    if not value.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return value


def as_path(value: str) -> Path:
    """Return the path that an option names; completion knows it for one by this function."""
    return Path(_text(value))


def _names(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("it names nothing")
    return names


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{value!r} is no time in seconds")
    return seconds


def _count(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= _MOST:
        raise argparse.ArgumentTypeError(f"{value!r} is no number from 1 to {_MOST}")
    return int(value)


def _check_usage(error: Callable[[str], NoReturn], args: argparse.Namespace) -> None:
    """Refuse options that exclude each other; not every command has every option."""
    given = vars(args)
    backend, url, home = given.get("backend"), given.get("base_url"), given.get("data_dir")
    if url and (backend == "local" or home):
        error("--base-url is not for the runtime on this machine")
    if home and backend not in (None, "local"):
        error(f"--data-dir is not for --backend {backend}")
    elsewhere = url or backend not in (None, "local")
    if given.get("keep_running") is not None and elsewhere:
        error("--keep-running is for the runtime on this machine")
    if given.get("goes_on") and args.conversation:
        error("--continue and --conversation exclude each other")
    if args.command == "demo" and args.model and args.scripted:
        error("--model and --scripted exclude each other")
    _check_format(error, args)


def _check_format(error: Callable[[str], NoReturn], args: argparse.Namespace) -> None:
    """Make one option of those that choose the format of the output."""
    if not hasattr(args, "output_format"):
        # Commands that list have two formats only.
        args.output_format = "json" if getattr(args, "json", False) else "text"
        return
    if args.json and args.output_format not in (None, "json"):
        error("--json and --output-format exclude each other")
    args.output_format = "json" if args.json else args.output_format or "text"
    if args.include_partial_messages and args.output_format != "stream-json":
        error("--include-partial-messages needs --output-format stream-json")
