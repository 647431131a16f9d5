"""Internal: configure git inside the runtime as the user has it, except in the memories of agents.

An agent's memory is a git repository. The user's settings for all repositories (a hooks directory,
a template, signing, ignored files, attributes) would run or fail there, so git gets a global
configuration of ours, which includes the user's and takes these back below the memory's
directories. Decisions of git before it knows the repository (a template) only the preload
``git.cjs`` can change; it reads ``rules.json``. Git before 2.32 (2021) ignores the file; the
effects of the preload hold there too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from letta_adapters.backends.runtime import _compat

# Runs the hooks of the memory alone, also in its linked worktrees.
_HOOK = """#!/bin/sh
hook="$(git rev-parse --git-common-dir)/hooks/{name}"
[ -x "$hook" ] || exit 0
exec "$hook" "$@"
"""


@dataclass(frozen=True, slots=True)
class GitFiles:
    """The configuration files in ``folder``, which is the runtime's alone."""

    folder: Path

    @property
    def shared(self) -> Path:
        """The global configuration of everything the runtime starts."""
        return self.folder / "global.gitconfig"

    def write(
        self, memories: Sequence[Path], environ: Mapping[str, str], *, remote: bool | None
    ) -> None:
        """Write the files anew.

        Args:
            memories: The directories below which the memory repositories are.
            environ: The caller's environment, which tells where the user's configuration is.
            remote: ``None`` if memory is local, else whether it may be cloned and pushed.
        """
        hooks = self.folder / "hooks"
        hooks.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in _compat.HOOKS:
            _write_file(hooks / name, _HOOK.format(name=name), mode=0o700)
        settings = _of_memory(hooks)
        memory = "".join(_section(key, value) for key, value in settings)
        _write_file(self.folder / "memory.gitconfig", memory)
        lines = [_setting("include", path) for path in users_files(environ)]
        # A container or a volume may belong to another user than the one who runs in it.
        own = memory + "[safe]\n\tdirectory = *\n"
        _write_file(self.folder / "own.gitconfig", own if remote is None else "".join(lines) + own)
        for root in memories:
            # git compares the path as it is written and as it is resolved, so both forms are
            # listed.
            for form in dict.fromkeys([root, root.resolve()]):
                where = f"gitdir{'/i' if os.name == 'nt' else ''}:{_literal(form)}/"
                lines.append(_setting(f'includeIf "{where}"', self.folder / "memory.gitconfig"))
        _write_file(self.shared, "".join(lines))
        rules = {
            "memories": [str(root.resolve()) for root in memories],
            "local": remote is None,
            "network": remote is not False,
            # These are given on the command line too, as git before 2.32 does not read a global
            # file of ours.
            "settings": [f"{key}={value}" for key, value in settings],
        }
        _write_file(self.folder / "rules.json", json.dumps(rules))


def _of_memory(hooks: Path) -> list[tuple[str, str]]:
    """Return the settings of memory repositories, over those that the user has for all."""
    return [
        ("core.hooksPath", hooks.as_posix()),
        ("core.attributesFile", os.devnull),
        ("core.excludesFile", os.devnull),
        ("core.fsmonitor", "false"),
        ("core.autocrlf", "false"),
        ("commit.gpgsign", "false"),
        ("tag.gpgsign", "false"),
        ("log.showSignature", "false"),
    ]


def users_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the files git would read as the user's configuration (`git help config`, FILES)."""
    if "GIT_CONFIG_GLOBAL" in environ:
        return [Path(environ["GIT_CONFIG_GLOBAL"])] if environ["GIT_CONFIG_GLOBAL"] else []
    home = Path(environ.get("HOME") or Path.home())
    xdg = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [xdg / "git" / "config", home / ".gitconfig"]


def _setting(section: str, path: Path) -> str:
    return f"[{section}]\n\tpath = {_quote(path.as_posix())}\n"


def _section(key: str, value: str) -> str:
    section, _, name = key.partition(".")
    return f"[{section}]\n\t{name} = {_quote(value)}\n"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(path: Path) -> str:
    """Escape the characters of patterns in ``includeIf``, then those of a section's name."""
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", path.as_posix())
    return pattern.replace("\\", "\\\\").replace('"', '\\"')


def _write_file(file: Path, text: str, mode: int = 0o600) -> None:
    # The new file replaces the old one as a whole, so that a reader sees one of the two.
    temporary = file.with_name(f"{file.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
    temporary.replace(file)
