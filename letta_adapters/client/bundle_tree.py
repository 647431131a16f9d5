"""Internal: look at the files of a bundle, now and in its history, for what no import writes.

A name is safe only if every system takes it for the same file: Linux, and the file systems of
macOS and Windows, which know other spellings of ``.git``. What a name must not be is asked of all
commits, as an agent may go back to an old one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from letta_adapters.backends.runtime._compat import MEMORY_LIMITS
from letta_adapters.client.bundle_pack import Bundle, refuse
from letta_adapters.errors import InvalidInputError

MAX_FILES: Final = 10_000
MAX_BYTES: Final = 64 << 20
_MAX_DEPTH: Final = 32
_MAX_NAME: Final = 255
_MAX_REASONS: Final = 100
_FOLDER: Final = "40000"
_PLAIN: Final = "100644"
_EXECUTABLE: Final = "100755"
_REFUSED_MODES: Final = {"120000": "a symbolic link", "160000": "another repository (a submodule)"}
_ENTRY: Final = re.compile(rb"([0-7]{5,6}) ([^\0]{1,4096})\0(.{20})", re.DOTALL)
_SHORT: Final = re.compile(r"~\d")
_BAD: Final = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029/\\:*?"<>|]')
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a folder, of mode ``"100644"``, ``"100755"``, ``"40000"``, or another."""

    name: str
    mode: str
    sha: str


@dataclass(frozen=True, slots=True)
class _Size:
    """How much a folder holds, with all that is in it."""

    files: int = 0
    bytes: int = 0
    depth: int = 0


class Trees:
    """The folders of a bundle; ``refused`` has the reasons for which it cannot be imported."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.seen: set[str] = set()
        self._sizes: dict[str, _Size] = {}
        self._reasons: dict[str, None] = {}

    @property
    def refused(self) -> tuple[str, ...]:
        """The reasons, each once."""
        return tuple(self._reasons)

    def check(self, root: str) -> None:
        """Look at the folder of a commit, and note what is wrong with it.

        Raises:
            InvalidInputError: It is damaged, or holds more than the bounds.
        """
        if root not in self._sizes:
            self._measure(root, 0)

    def walk(self, root: str) -> Iterator[tuple[str, Entry]]:
        """Yield the path and the entry of every file; of a folder that was checked only."""
        for entry in self.read(root):
            if entry.mode != _FOLDER:
                yield entry.name, entry
                continue
            for path, inner in self.walk(entry.sha):
                yield f"{entry.name}/{path}", inner

    def read(self, sha: str) -> list[Entry]:
        """Return the entries of a folder."""
        data, at = self._bundle.find(sha, "tree"), 0
        made = []
        while at < len(data):
            found = _ENTRY.match(data, at)
            if found is None:
                raise refuse("it has a folder that is damaged")
            name = found[2].decode("utf-8", "surrogateescape")
            made.append(Entry(name, found[1].decode(), found[3].hex()))
            at = found.end()
        return made

    def _measure(self, sha: str, above: int) -> _Size:
        """Count a folder once, however often it stands in others: a few can unfold to billions."""
        self.seen.add(sha)
        files = size = depth = 0
        entries = self.read(sha)
        for entry in entries:
            if entry.mode != _FOLDER:
                files += 1
                size += self._measure_file(entry)
                continue
            if above >= _MAX_DEPTH:
                raise _too_deep()
            inner = self._sizes.get(entry.sha) or self._measure(entry.sha, above + 1)
            # An empty folder counts as a file, or any number of them would be within the bounds.
            files, size = files + max(inner.files, 1), size + inner.bytes
            depth = max(depth, inner.depth + 1)
        if files > MAX_FILES or size > MAX_BYTES:
            raise refuse(f"it has more than {MAX_FILES} files, or {MAX_BYTES >> 20} MiB of them")
        # What was counted already may stand deeper this time.
        if depth > _MAX_DEPTH:
            raise _too_deep()
        self._check_alike(entries)
        for entry in entries:
            self._check_entry(entry)
        self._sizes[sha] = made = _Size(files, size, depth)
        return made

    def _measure_file(self, entry: Entry) -> int:
        if entry.mode == "160000":  # a commit elsewhere
            return 0
        self.seen.add(entry.sha)
        return len(self._bundle.find(entry.sha, "blob"))

    def _check_alike(self, entries: list[Entry]) -> None:
        names: dict[str, str] = {}
        for entry in entries:
            # So macOS and Windows compare names.
            same = unicodedata.normalize("NFC", entry.name).casefold()
            if same in names:
                self._refuse(entry, f"is the same name as {names[same]!r} on other systems")
            names[same] = entry.name

    def _check_entry(self, entry: Entry) -> None:
        if entry.mode in _REFUSED_MODES:
            self._refuse(entry, f"is {_REFUSED_MODES[entry.mode]}")
        elif entry.mode not in (_FOLDER, _PLAIN, _EXECUTABLE):
            self._refuse(entry, f"is of the unknown kind {entry.mode}")
        why = _explain_name(entry.name)
        # Letta Code's own file of limits has the one name that may begin with a dot.
        if why and not (entry.name == MEMORY_LIMITS and entry.mode == _PLAIN):
            self._refuse(entry, why)

    def _refuse(self, entry: Entry, why: str) -> None:
        if len(self._reasons) < _MAX_REASONS:
            self._reasons[f"{entry.name[:100]!r} {why}"] = None


def _too_deep() -> InvalidInputError:
    return refuse(f"its folders are nested more than {_MAX_DEPTH} deep")


def _explain_name(name: str) -> str:
    """Return why a file or folder must not have this name; nothing if it may."""
    if len(name.encode("utf-8", "surrogateescape")) > _MAX_NAME:
        return "is too long a name"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is no text"
    if _BAD.search(name):
        return "holds a character that is none of a name on every system"
    # macOS leaves these characters out when it looks for a file, so that they hide a dot.
    shown = "".join(c for c in name if unicodedata.category(c) != "Cf")
    if shown.startswith(".") or not shown:
        return "begins with a dot"
    if name.rstrip(". ") != name or name.lstrip() != name:
        return "ends in a dot, or begins or ends in a space, which Windows leaves out"
    if _SHORT.search(name):
        return "may be the short name of another file on Windows"
    if _DEVICE.fullmatch(name.casefold()):
        return "is the name of a device on Windows"
    return ""
