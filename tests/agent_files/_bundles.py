"""Git bundles, good and evil, made by the real git."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from letta_adapters.client.bundle_file import MEMORY, SETTINGS

FILE, PROGRAM, LINK, MODULE, FOLDER = "100644", "100755", "120000", "160000", "40000"
PERSONA: Final = b"---\nname: persona\ndescription: Who I am\n---\nI keep books."
FILES: Final[Mapping[str, bytes]] = {"MEMORY.md": b"# Memory\n", "persona.md": PERSONA}
SETTLED: Final[dict[str, Any]] = {
    "name": "librarian",
    "description": "It keeps books.",
    "model": "lmstudio/scripted",
    "system": "You keep books.",
    "tags": ["books"],
    "restrictions": [],
}
_ENV: Final = {
    **{f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    **{f"GIT_{who}_DATE": "1700000000 +0000" for who in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}
Item = tuple[str, bytes, str]  # mode, name, id


class Maker:
    """A repository in which anything can be made, whatever git thinks of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "--bare", ".")

    def git(self, *args: str, data: bytes = b"") -> bytes:
        run = ["git", "-c", "core.protectNTFS=false", "-c", "core.protectHFS=false", *args]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **_ENV}
        done = subprocess.run(run, cwd=self.folder, env=env, input=data, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def object(self, kind: str, data: bytes) -> str:
        made = self.git("hash-object", "-w", "--literally", "-t", kind, "--stdin", data=data)
        return made.decode()

    def tree(self, *items: Item) -> str:
        """A folder with these entries, in the order in which git wants them."""

        def key(item: Item) -> bytes:
            return item[1] + (b"/" if item[0] == FOLDER else b"")

        entries = sorted(items, key=key)
        raw = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(sha) for mode, name, sha in entries
        )
        return self.object("tree", raw)

    def files(self, files: Mapping[str, bytes], *more: Item) -> str:
        """A folder with these files, in one level, and more entries."""
        plain = [(FILE, name.encode(), self.object("blob", data)) for name, data in files.items()]
        return self.tree(*plain, *more)

    def commit(self, tree: str, *parents: str) -> str:
        given = [part for parent in parents for part in ("-p", parent)]
        return self.git("commit-tree", "-m", "made", *given, tree).decode()

    def settings(self, **fields: Any) -> str:
        """A commit with the settings of an agent."""
        document = {"format": "letta-adapters agent", "version": 1, "agent": SETTLED | fields}
        return self.settings_of(json.dumps(document).encode())

    def settings_of(self, data: bytes) -> str:
        return self.commit(self.files({"agent.json": data}))

    def bundle(self, memory: str, settings: str | None = None, **refs: str) -> bytes:
        """A bundle of a commit of memory, of settings, and of more refs by their names."""
        named = {MEMORY: memory, SETTINGS: settings or self.settings(), **refs}
        for name, sha in named.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{sha}\n")  # git would not point a branch at whatever it is
        file = self.folder / "made.bundle"
        self.git("bundle", "create", "-q", str(file), *named)
        return file.read_bytes()

    def agent(self, *more: Item, files: Mapping[str, bytes] = FILES, **fields: Any) -> bytes:
        """A bundle of an agent whose memory has these files and more entries."""
        memory = self.commit(self.files(files, *more))
        return self.bundle(memory, self.settings(**fields))


def entry(maker: Maker, mode: str, name: bytes, data: bytes = b"x") -> Item:
    """An entry of a kind: a file, a program, a link, a submodule, or a folder with a file."""
    if mode == MODULE:
        return mode, name, "1" * 40
    if mode == FOLDER:
        return mode, name, maker.tree((FILE, b"file.md", maker.object("blob", data)))
    return mode, name, maker.object("blob", data)


def nest(maker: Maker, names: Sequence[bytes], mode: str) -> Item:
    """An entry at the end of a path."""
    *folders, last = names
    item = entry(maker, mode, last)
    for name in reversed(folders):
        item = FOLDER, name, maker.tree(item)
    return item
