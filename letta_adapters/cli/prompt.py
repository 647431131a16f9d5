"""Internal: implement ``letta-adapters prompt TEXT``: one question, one answer."""

from __future__ import annotations

import argparse
import json
import sys

from letta_adapters.cli import FAILED, OK, make_backend, open_session
from letta_adapters.cli.render import (
    Renderer,
    clean,
    end_leftovers,
    make_console,
    progress,
    show_error,
)
from letta_adapters.sync.client import LettaClient


def run(args: argparse.Namespace) -> int:
    """Ask. On a terminal show everything as it comes, else print the answer alone."""
    text = sys.stdin.read() if args.text == "-" else args.text
    # In a pipe, and as JSON, only the result counts.
    watched = sys.stdout.isatty() and not args.json
    notes = make_console(stderr=True)
    with LettaClient(make_backend(args)) as client:
        session = open_session(client, args, include_partial_messages=watched)
        try:
            with progress(notes, "Connecting"):
                session.initialize()
            # Tool calls that an earlier run left waiting block the conversation.
            if args.conversation:
                end_leftovers(session, notes)
            if watched:
                result = Renderer(make_console()).run_turn(session, text)
            else:
                with progress(notes, "Thinking"):
                    result = session.run_turn(text)
        finally:
            session.close()
    if args.json:
        sys.stdout.write(json.dumps(result.to_dict()) + "\n")
    elif result.success and not watched:
        sys.stdout.write(clean(result.result or "").removesuffix("\n") + "\n")
    # Before the error on stderr, so that both are in order when they go to one place.
    sys.stdout.flush()
    if not result.success:
        show_error(notes, result.to_error())
    return OK if result.success else FAILED
