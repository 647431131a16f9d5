"""The runtime's directories, made for this user alone before it makes them for everybody.

The runtime creates its directories and files as the umask says (usually 0755 and 0644), transcripts
included. The umask stays the user's, since the agent's shell writes the user's own files with it;
so the directories are made first, closed to others. A directory that exists already is the user's
and is not changed.

Internal: not part of the public API.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from letta_adapters.backends.runtime.environment import Places

# The folders of Letta Code 0.34 in its two directories; each is closed by itself where those are
# open already.
_IN_LETTA: tuple[str, ...] = (
    *("agents", "artifacts", "cache", "listener-state", "listener-terminal-state", "logs"),
    *("state", "transcripts", "worktrees"),
)
_IN_STATE: tuple[str, ...] = ("agents", "conversations", "memfs", "providers", "secrets")


def make_private(folder: Path) -> None:
    """Make ``folder`` and every directory above it that is missing, with mode 0700.

    Raises:
        OSError: It cannot be made.
    """
    if folder.is_dir():
        return
    make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def prepare(places: Places) -> None:
    """Make the directories of a runtime that is about to start.

    Raises:
        OSError: One cannot be made.
    """
    letta = places.home / ".letta"
    make_private(letta)
    make_private(places.meet)
    inside: dict[Path, tuple[str, ...]] = {letta: _IN_LETTA}
    if not places.on_api:
        make_private(places.state)
        inside[places.state] = _IN_STATE
    for folder, names in inside.items():
        # Below a closed directory nobody can look, whatever the modes inside.
        if _is_open(folder):
            for name in names:
                make_private(folder / name)


def open_to_others(places: Places) -> list[Path]:
    """Return those of the runtime's directories that other users of this machine can look into.

    There are none where the system has no such modes (Windows), or below a directory that is
    closed.
    """
    if os.name == "nt":
        return []
    letta = places.home / ".letta"
    found = [folder for folder in (letta, places.state) if _is_open(folder)]
    return [folder for folder in found if all(_is_open(p) for p in _above(folder, places.home))]


def _is_open(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:  # it is not there yet
        return False


def _above(folder: Path, top: Path) -> list[Path]:
    """Return the directories from ``top``, itself included, down to above ``folder``."""
    if not folder.is_relative_to(top):
        return []
    return [parent for parent in folder.parents if parent.is_relative_to(top)]
