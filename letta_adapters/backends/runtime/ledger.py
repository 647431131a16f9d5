"""Internal: inputs a dead server had accepted and not finished, which its next start would run.

The runtime notes every accepted input in ``~/.letta/state/<hash of the API URL>/
input-dispositions-v2.json`` (measured with 0.34.12); an entry with ``queuedInput`` is run at the
next ``runtime_start`` of its conversation. Here such entries are marked as completed, which keeps
the message in the history and its id known as used. The file may be shared with servers that are
not ours (same home): their entries are only reported. ``shim.cjs`` has the same rules.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from letta_adapters.backends.runtime import _compat
from letta_adapters.backends.runtime.environment import Places
from letta_adapters.backends.runtime.process import is_alive

_LOCK_SECONDS = 3.0

log = logging.getLogger("letta_adapters.runtime")


@dataclass(frozen=True, slots=True)
class UnfinishedInput:
    """One input that was not finished; if ``neutralised``, it will not be run again."""

    client_message_id: str
    agent_id: str | None
    conversation_id: str
    accepted_at: int
    neutralised: bool


def clear_leftovers(places: Places, *, since: int | None) -> list[UnfinishedInput]:
    """Neutralise the inputs our last server left; only while no server of ours runs there.

    In an isolated home everything is ours.

    Args:
        places: The directories of the server.
        since: When that server was started (milliseconds since the epoch), ``None`` if it is not
            known to have crashed.
    """
    found: list[UnfinishedInput] = []
    for ledger in places.ledgers:
        # Without the lock at first: usually there is nothing to do, and the runtime may hold it.
        if _open_entries(_read(ledger)):
            with _hold_lock(ledger) as locked:
                found += _clear(ledger, places, since, write=locked)
    return found


def report(leftovers: list[UnfinishedInput]) -> None:
    """Log the inputs that were found."""
    for item in leftovers:
        fate = "will not be run again" if item.neutralised else "is about to be run again by Letta"
        log.warning(
            "Message %s of conversation %s was not finished when its server ended; it %s.",
            item.client_message_id,
            item.conversation_id,
            fate,
        )


def _clear(
    ledger: Path, places: Places, since: int | None, *, write: bool
) -> list[UnfinishedInput]:
    store = _read(ledger)
    found: list[UnfinishedInput] = []
    changed = False
    for key, entry in _open_entries(store).items():
        ours = write and _is_ours(entry, places, since)
        found.append(_describe(key, entry, neutralised=ours))
        if ours:
            del entry[_compat.QUEUED]
            entry |= _compat.COMPLETED
            changed = True
    if changed:
        _replace(ledger, store)
    return found


# The ledger of a shared home holds inputs of servers that still run: only an entry of our own dead
# server may be touched.
def _is_ours(entry: dict[str, Any], places: Places, since: int | None) -> bool:
    if places.isolated:
        return True
    if since is None or entry.get(_compat.ACCEPTED_AT, 0) < since:
        return False
    # It came from another program of Letta Code's, and not over an App Server.
    if not _compat.find_connection(entry).startswith(_compat.CONNECTIONS):
        return False
    # Servers of several state directories may share a home: the agent must be one of this one's.
    agent, _ = _compat.find_scope(entry)
    if not agent or places.on_api:
        return True
    return _compat.find_agent_file(places.state, agent).exists()


def _describe(key: str, entry: dict[str, Any], *, neutralised: bool) -> UnfinishedInput:
    agent, conversation = _compat.find_scope(entry)
    try:
        # The key is a list as JSON, with the message's id in the third place.
        message_id = str(json.loads(key)[2])
    except (ValueError, IndexError, TypeError):
        message_id = key
    return UnfinishedInput(
        client_message_id=message_id,
        agent_id=agent,
        conversation_id=conversation,
        accepted_at=int(entry.get(_compat.ACCEPTED_AT) or 0),
        neutralised=neutralised,
    )


def _open_entries(store: dict[str, Any]) -> dict[str, dict[str, Any]]:
    entries = store.get(_compat.ENTRIES)
    if not isinstance(entries, dict):
        return {}
    return {
        key: entry
        for key, entry in entries.items()
        if isinstance(entry, dict) and isinstance(entry.get(_compat.QUEUED), dict)
    }


def _read(ledger: Path) -> dict[str, Any]:
    try:
        store = json.loads(ledger.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return store if isinstance(store, dict) else {}


def _replace(ledger: Path, store: dict[str, Any]) -> None:
    temporary = ledger.with_name(f"{ledger.name}.{os.getpid()}.{uuid.uuid4()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(store, file, separators=(",", ":"))
        file.flush()
        # On the disk before the rename, so that a crash leaves the old file or the new one.
        os.fsync(file.fileno())
    temporary.replace(ledger)


@contextmanager
def _hold_lock(ledger: Path) -> Iterator[bool]:
    """Hold the runtime's own lock: a directory with one owner file, put in place by a rename.

    Yields:
        False if somebody else keeps it; a dead holder's lock is broken.
    """
    lock = ledger.with_name(f"{ledger.name}{_compat.LOCK}")
    token = str(uuid.uuid4())
    candidate = lock.with_name(f"{lock.name}.{_compat.CANDIDATE}-{os.getpid()}-{token}")
    candidate.mkdir(mode=0o700)
    owner = _compat.describe_owner(token, os.getpid())
    (candidate / f"{os.getpid()}-{token}.json").write_text(json.dumps(owner), "utf-8")
    deadline = time.monotonic() + _LOCK_SECONDS
    held = False
    while not held and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            # This fails while somebody has the lock: a directory with a file in it is not replaced.
            candidate.rename(lock)
            held = True
        if not held and not _break_dead(lock):
            time.sleep(0.02)
    try:
        yield held
    finally:
        shutil.rmtree(lock if held else candidate, ignore_errors=True)


def _break_dead(lock: Path) -> bool:
    """Remove the lock of a process that is gone (a server killed in the middle of a write)."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for file in lock.iterdir():
            owner = json.loads(file.read_text("utf-8"))
            if not is_alive(int(owner["pid"])):
                shutil.rmtree(lock, ignore_errors=True)
                return True
    return False
