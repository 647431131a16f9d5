"""Internal: implement ``letta-adapters agents | conversations | models``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from letta_adapters.cli.exits import OK
from letta_adapters.cli.render import make_console, progress, unmask
from letta_adapters.cli.target import make_backend
from letta_adapters.sync.client import LettaClient

# The fields that are shown of each thing; JSON has all of them.
_SHOWN: Final = {
    "agents": ("id", "name", "model"),
    "conversations": ("id", "summary", "last_message_at", "created_at"),
    "models": ("handle", "context_window_limit", "context_window"),
}


def run(args: argparse.Namespace) -> int:
    """List what there is, as a table, as lines with tabs where it is piped, or as JSON."""
    notes = make_console(stderr=True)
    with LettaClient(make_backend(args)) as client, progress(notes, "Connecting"):
        found = _fetch(client, args)
    if args.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        _show(found, _SHOWN[args.command])
    sys.stdout.flush()
    return OK


def _fetch(client: LettaClient, args: argparse.Namespace) -> list[dict[str, Any]]:
    if args.command == "agents":
        return client.agents.list(query=args.query, limit=args.limit)
    if args.command == "conversations":
        return client.conversations.list(args.agent, limit=args.limit)
    # Letta Code lists a model once for each way to reach it.
    models = {str(model.get("handle")): model for model in client.models.list()}
    return [models[handle] for handle in sorted(models)]


def _show(found: Sequence[dict[str, Any]], wanted: Sequence[str]) -> None:
    # A column that no row has anything in is left out.
    fields = [f for f in wanted if any(item.get(f) not in (None, "") for item in found)]
    rows = [[_cell(item.get(field)) for field in fields] for item in found]
    console = make_console()
    if not console.is_terminal:
        for row in rows:
            sys.stdout.write("\t".join(row) + "\n")
        return
    if not rows:
        console.print(Text("none", style="dim"))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for field in fields:
        # Ids are copied, so they are never cut.
        table.add_column(field.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _cell(value: Any) -> str:
    return " ".join(unmask("" if value is None else str(value)).split())
