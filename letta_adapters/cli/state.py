"""Internal: what the command line keeps between two runs: typed lines, and the last conversations.

Both are files that only this user can read, in the folder that the platform has for such things,
or in ``--data-dir`` if that is given.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from letta_adapters._utils.files import write_private
from letta_adapters.backends.config import CLOUD_URL, Local, Remote, Rest
from letta_adapters.backends.runtime._compat import STATE_DIR
from letta_adapters.errors import InvalidInputError, LettaError

if TYPE_CHECKING:
    import argparse

_LASTS: Final = "conversations.json"
_KEPT: Final = 200  # conversations; the oldest are forgotten


def user_folder(kind: str) -> Path:
    """Return the folder of this platform for a user's ``data`` or ``state``."""
    home = Path.home()
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = home / "Library" / "Application Support"
    else:
        given = Path(os.environ.get(f"XDG_{kind.upper()}_HOME") or "")
        usual = {"data": "share", "state": "state"}[kind]
        root = given if given.is_absolute() else home / ".local" / usual
    return root / "letta-adapters"


def state_folder(args: argparse.Namespace) -> Path:
    """Return the folder for the files of this module; it need not exist."""
    if args.data_dir:
        home: Path = args.data_dir.expanduser().absolute()
        return home / ".letta-adapters"
    return user_folder("state")


def find_last(args: argparse.Namespace, spec: Rest | Local | Remote) -> None:
    """Make ``--continue`` name the last conversation of this place (with this ``--agent``).

    Raises:
        InvalidInputError: There is none.
    """
    for entry in reversed(_read(state_folder(args) / _LASTS)):
        fits = entry["place"] == _place(spec) and args.agent in (None, entry["agent"])
        if fits:
            args.agent, args.conversation = entry["agent"], entry["conversation"]
            return
    raise InvalidInputError(
        "There is no conversation yet to go on with.",
        hint="Leave --continue out to begin one, or name one with --conversation.",
    )


def keep_last(
    args: argparse.Namespace,
    spec: Rest | Local | Remote,
    agent_id: str | None,
    conversation_id: str | None,
) -> None:
    """Remember the conversation for ``--continue``."""
    if agent_id is None or conversation_id is None:
        return
    new = {"place": _place(spec), "agent": agent_id, "conversation": conversation_id}
    file = state_folder(args) / _LASTS
    # It moves to the end, where --continue looks first.
    entries = [entry for entry in _read(file) if entry != new]
    # A full or read-only disk is no reason to fail: the conversation itself is kept elsewhere.
    with suppress(LettaError):
        write_private(file, json.dumps([*entries, new][-_KEPT:]))


def _place(spec: Rest | Local | Remote) -> str:
    """Return a name for where the agents live; ids of one place mean nothing in another."""
    if isinstance(spec, Rest):
        return f"rest {spec.base_url or os.environ.get('LETTA_BASE_URL') or CLOUD_URL}"
    if isinstance(spec, Remote):
        return f"remote {spec.url or os.environ.get('LETTA_APP_SERVER_URL')}"
    return f"local {os.environ.get(STATE_DIR) or ''}"


def _read(file: Path) -> list[dict[str, Any]]:
    """Return the entries; a file that cannot be read has none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    keys = {"place", "agent", "conversation"}
    entries = found if isinstance(found, list) else []
    return [e for e in entries if isinstance(e, dict) and set(e) == keys]
