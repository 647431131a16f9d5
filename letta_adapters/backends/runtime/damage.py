"""Internal: find, name and move aside damaged state files of Letta Code.

Nothing is deleted. The state directory has a file for each agent and a folder for each
conversation; the ledger of accepted messages is in the runtime's home (``_compat.py``).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from letta_adapters.backends.runtime import _compat
from letta_adapters.errors import CorruptStateError

Kind = Literal["agent", "conversation", "messages", "ledger", "settings"]
_NAMES: Final = {
    "agent": "the agent",
    "conversation": "the conversation",
    "messages": "the messages of the conversation",
    "ledger": "the ledger of accepted messages",
    "settings": "what this machine was told of the agent",
}
# Node's words for a file that holds no JSON; they differ between its versions.
_NO_JSON: Final = re.compile(r"JSON input|in JSON|valid JSON|JSON at position|Expected .* JSON")


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that cannot be read; ``of`` is the id of the thing it keeps, where there is one."""

    path: Path
    kind: Kind
    of: str
    reason: str

    def __str__(self) -> str:
        what = f"{_NAMES[self.kind]} {self.of}".strip()
        return f"{self.path} ({what}): {self.reason}"


def find_damage(state: Path, ledgers: Iterable[Path] = ()) -> Iterator[Damage]:
    """Find the damaged files of the state directory ``state`` and of the ``ledgers``.

    Every file is read.
    """
    for path in ledgers:
        yield from _whole(path, "ledger", "")
    for path in sorted((state / _compat.AGENTS).glob("*.json")):
        yield from _whole(path, "agent", _compat.decode_name(path.stem))
    for folder in sorted((state / _compat.CONVERSATIONS).glob("*")):
        for path in sorted(folder.glob("*.json")):
            yield from _whole(path, "conversation", _compat.decode_name(folder.name))
        for path in folder.glob(_compat.MESSAGES):
            yield from _lines(path, _compat.decode_name(folder.name))


def corrupt(found: Iterable[Damage]) -> CorruptStateError:
    """Return the error that names these files."""
    damages = list(found)
    files = "; ".join(map(str, damages[:3])) + ("; ..." if len(damages) > 3 else "")
    return CorruptStateError(f"Letta Code cannot read {files}.", paths=[d.path for d in damages])


@dataclass(frozen=True, slots=True)
class StateFiles:
    """The state directory of a server on this machine, ``folder``."""

    folder: Path

    def explain(self, text: str) -> CorruptStateError | None:
        """Return the reason of a server's refusal if it is a damaged file, else ``None``."""
        if "not found" in text.lower():
            # The runtime leaves out a damaged file when it starts, or takes it for an empty one.
            found = [d for d in find_damage(self.folder) if d.of and d.of.split(":")[0] in text]
        elif _NO_JSON.search(text):
            found = list(find_damage(self.folder))
        else:
            found = []
        return corrupt(found) if found else None

    def find_memory(self, agent_id: str) -> Path:
        """Return the directory of an agent's memory repository, which need not exist."""
        return _compat.find_memory(self.folder, agent_id)

    def lacks(self, agent_id: str, conversation_id: str, message_id: str) -> bool:
        """Return whether a message that the server lists is not in the conversation's file.

        What was said before a turn was cut off is in the server's memory alone (letta 0.34.12).
        """
        try:
            kept = _compat.find_messages(self.folder, agent_id, conversation_id).read_bytes()
        except OSError:
            return False
        return json.dumps(message_id).encode() not in kept


def set_aside(damage: Damage, state: Path) -> Path:
    """Move a damaged file to ``letta-adapters/set-aside`` in the state directory.

    The lines of a conversation's messages that can be read stay where they are. This must not be
    done while a server runs.

    Returns:
        The new place of the file.
    """
    # A ledger lies in the home of the runtime, outside the state directory.
    base = state if damage.path.is_relative_to(state) else damage.path.parents[2]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    kept = state / "letta-adapters" / "set-aside" / stamp / damage.path.relative_to(base)
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Read before it is moved: its good lines are written back.
    raw = damage.path.read_bytes()
    damage.path.rename(kept)
    if damage.kind == "messages":
        good = [line for line in raw.splitlines(keepends=True) if _is_json(line)]
        damage.path.write_bytes(b"".join(good))
        # The new file must be no more readable than the old one was.
        damage.path.chmod(kept.stat().st_mode & 0o777)
    return kept


def _whole(path: Path, kind: Kind, of: str) -> Iterator[Damage]:
    # A file that is deleted meanwhile is not damaged, and neither is one that never was.
    with suppress(FileNotFoundError):
        try:
            value = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            yield Damage(path, kind, of, _reason(path, error))
            return
        if not isinstance(value, dict):
            yield Damage(path, kind, of, "it holds no JSON object")


def _lines(path: Path, of: str) -> Iterator[Damage]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        yield Damage(path, "messages", of, str(error.strerror))
        return
    for number, line in enumerate(lines, 1):
        if not _is_json(line):
            yield Damage(path, "messages", of, f"line {number} is torn")
            return


def _is_json(line: bytes) -> bool:
    if not line.strip():
        return True
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    with suppress(OSError):
        if path.stat().st_size == 0:
            return "it is empty"
    return "it is torn"
