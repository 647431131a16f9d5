"""Internal: implement ``letta-adapters prompt TEXT``: one question, one answer."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from letta_adapters.cli.exits import OK, exit_code
from letta_adapters.cli.render import (
    Renderer,
    clean,
    end_leftovers,
    make_console,
    progress,
    show_error,
)
from letta_adapters.cli.state import find_last, keep_last
from letta_adapters.cli.target import load_image, make_backend, open_session
from letta_adapters.errors import InvalidInputError
from letta_adapters.messages import Message, ResultMessage
from letta_adapters.sync.client import LettaClient, Session

# Seconds without any input after which a pipe that stays open is spoken of.
_SILENT: Final = 3.0


def run(args: argparse.Namespace) -> int:
    """Ask. On a terminal show everything as it comes, else print the answer alone."""
    errors = make_console(stderr=True)
    notes = Console(quiet=True) if args.quiet else errors
    content = _content(args, notes)
    watched = sys.stdout.isatty() and args.output_format == "text"
    spec = make_backend(args)
    if args.goes_on:
        find_last(args, spec)
    with LettaClient(spec) as client:
        partial = watched or args.include_partial_messages
        session = open_session(client, args, include_partial_messages=partial)
        try:
            with progress(notes, "Connecting"):
                init = session.initialize()
            where = f"{init.agent_id} / {init.conversation_id}"
            notes.print(Text(clean(where), style="dim"))
            # Before the question: a turn that fails can be gone on with as well.
            keep_last(args, spec, init.agent_id, init.conversation_id)
            # Tool calls that an earlier run left waiting block the conversation.
            if args.conversation:
                end_leftovers(session, notes)
            result = _ask(session, content, args.output_format, watched, notes)
        finally:
            session.close()
    if result.success and args.output_format == "text" and not watched:
        sys.stdout.write(clean(result.result or "").removesuffix("\n") + "\n")
    # Before the error on stderr, so that both are in order when they go to one place.
    sys.stdout.flush()
    if result.success:
        return OK
    error = result.to_error()
    show_error(errors, error)
    return exit_code(error)


def _ask(session: Session, content: Any, form: str, watched: bool, notes: Console) -> ResultMessage:
    if form == "stream-json":
        return _stream(session, content)
    if watched:
        return Renderer(make_console()).run_turn(session, content)
    with progress(notes, "Thinking"):
        result = session.run_turn(content)
    if form == "json":
        _print(result)
    return result


def _stream(session: Session, content: Any) -> ResultMessage:
    session.send(content)
    for message in session.stream():
        _print(message)
        if isinstance(message, ResultMessage):
            return message
    raise AssertionError("a turn always ends with a result")


def _print(message: Message) -> None:
    # ASCII alone: nothing in it can steer a terminal.
    sys.stdout.write(json.dumps(message.to_dict()) + "\n")
    sys.stdout.flush()


# -- the message ----------------------------------------------------------------------------------


def _content(args: argparse.Namespace, notes: Console) -> Any:
    """Return the message: the text, what is piped in, and the pictures."""
    piped = _read_pipe(notes)
    told = "" if args.text == "-" else (args.text or "").rstrip("\n")
    text = "\n\n".join(part for part in (told, piped) if part.strip())
    if not text and not args.image:
        args.parser.error("there is no message: give a TEXT, or pipe one in")
    images = [load_image(given) for given in args.image]
    return [*([text] if text else []), *images] if images else text


def _read_pipe(notes: Console) -> str:
    """Return what is piped in; a terminal is no pipe.

    Raises:
        InvalidInputError: It is no text.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    # A pipe that nobody closes is read to its end all the same: what is left out would not be
    # missed. But whoever waits is told why.
    told = threading.Timer(
        _SILENT, notes.print, ["Reading what is piped in; < /dev/null if that is nothing."]
    )
    told.daemon = True
    told.start()
    try:
        text = sys.stdin.read()
    finally:
        told.cancel()
    if "\0" in text:
        raise InvalidInputError("What is piped in is no text.", hint="Show pictures with --image.")
    return text.removesuffix("\n")
