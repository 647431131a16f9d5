"""Internal: take an agent's memory repository into a bundle, and fill one from a bundle.

The user's git configuration, hooks, templates, attributes and variables have no part in it, and
neither has the configuration of the repository that is read: only its objects are looked at, from a
repository of ours beside it, so nothing in it is locked or changed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from letta_adapters._utils.files import disk_error, explain_write_errors, is_full, read_regular
from letta_adapters.backends.runtime.find import check_git
from letta_adapters.backends.runtime.passed_variables import is_place
from letta_adapters.errors import (
    CorruptStateError,
    DiskFullError,
    InvalidInputError,
    LettaError,
    LettaTimeoutError,
    ServerError,
)

_SECONDS: Final = 120.0
_SHA: Final = re.compile(r"[0-9a-f]{40}")
_BRANCH: Final = "refs/heads/main"
_FULL: Final = ("no space left", "quota exceeded", "file too large", "disk full")
_CHUNK: Final = 1 << 20
_SMALL: Final = 64 << 10
# Over whatever a configuration says; the last two keep names out that other systems read as `.git`.
_SETTINGS: Final[Mapping[str, str]] = {
    "core.hooksPath": os.devnull,
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.autocrlf": "false",
    "core.symlinks": "false",
    "core.alternateRefsCommand": "",
    "fetch.fsckObjects": "true",
    "fetch.unpackLimit": "1",
    "fetch.recurseSubmodules": "false",
    "transfer.fsckObjects": "true",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "protocol.allow": "never",
    "protocol.file.allow": "always",
    "safe.directory": "*",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
}
# Of nobody, and of no time: the same settings make the same commit.
_NOBODY: Final[Mapping[str, str]] = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (
        ("NAME", "letta-adapters"),
        ("EMAIL", "letta-adapters@example.invalid"),
        ("DATE", "1700000000 +0000"),
    )
}


@dataclass(frozen=True, slots=True)
class _Git:
    """A repository, and a directory of ours that nobody else may look into.

    ``needs`` is the number of bytes that are to be written.
    """

    folder: Path
    home: Path
    needs: int = _SMALL

    def run(self, *args: str, data: bytes = b"", work_tree: Path | None = None) -> str:
        """Run git, and return what it printed.

        Raises:
            DiskFullError: It could not write for lack of space.
            LettaTimeoutError: It took too long.
            ServerError: It failed.
        """
        with explain_write_errors(self.home), tempfile.TemporaryFile(dir=self.home) as printed:
            with self._start(args, printed, work_tree) as child:
                assert child.stdin is not None
                with suppress(BrokenPipeError):  # it has failed, and says why
                    child.stdin.write(data)
                    child.stdin.close()
            printed.seek(0)
            return printed.read(_CHUNK).decode("utf-8", "replace").strip()

    def bundle(self, most: int, *refs: str) -> bytes:
        """Return a bundle of these refs.

        Raises:
            InvalidInputError: It is larger than ``most`` bytes.
        """
        args = ("bundle", "create", "-", *refs)
        with explain_write_errors(self.home), self._start(args, subprocess.PIPE) as child:
            assert child.stdout is not None
            made = child.stdout.read(most + 1)
            if len(made) > most:
                raise InvalidInputError(
                    f"The memory is larger than {most >> 20} MiB with its history.",
                    hint="Copy its repository yourself: client.agents.memory_path(agent_id).",
                )
        return made

    @contextmanager
    def _start(
        self, args: Sequence[str], stdout: int | IO[bytes], work_tree: Path | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start git, and wait for its end afterwards."""
        where = [f"--git-dir={self.folder}"]
        where += [] if work_tree is None else [f"--work-tree={work_tree}"]
        settings = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
        with (self.home / "said").open("wb") as said:
            child = subprocess.Popen(
                [str(shutil.which("git")), *where, *settings, *args],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=said,
                cwd=self.home if work_tree is None else work_tree,
                env=_build_environment(self.home),
                # A Ctrl-C is for this process, which then tidies up behind git.
                start_new_session=True,
            )
        killed: list[int] = []

        def kill() -> None:
            killed.append(child.pid)
            child.kill()

        late = threading.Timer(_SECONDS, kill)
        late.daemon = True
        late.start()
        try:
            with child:
                try:
                    yield child
                except BaseException:
                    child.kill()
                    raise
        finally:
            late.cancel()
        if killed:
            raise LettaTimeoutError(f"git {args[0]} took more than {_SECONDS:g} seconds.")
        if child.returncode:
            raise self._explain(args[0], child.returncode)

    def _explain(self, what: str, code: int) -> LettaError:
        said = (self.home / "said").read_bytes()[-2000:].decode("utf-8", "replace").strip()
        too_large = -int(getattr(signal, "SIGXFSZ", 0)) or None
        if code == too_large or any(word in said.lower() for word in _FULL):
            return DiskFullError(f"The disk that holds {self.folder} is full (git {what}).")
        for place in (self.folder, self.home):
            if place.is_dir() and is_full(place, self.needs):
                return DiskFullError(f"The disk that holds {place} is full (git {what}).")
        return ServerError(f"git {what} failed ({code}): {said or 'it said nothing'}")


def export_memory(memory: Path, settings: bytes, refs: tuple[str, str, str], most: int) -> bytes:
    """Return a bundle of the last commit of a memory with its history, and of settings.

    What is not committed is not in it. Nothing of the repository but its objects is read by git.

    Args:
        memory: The directory of the repository.
        settings: The content of the file of settings.
        refs: The names of the memory's branch, of the settings' ref and of their file.
        most: The greatest size of a bundle, in bytes.

    Raises:
        CorruptStateError: It is no repository as Letta Code makes them.
        DiskFullError: There is no space for temporary files.
        InvalidInputError: It is larger than ``most`` bytes.
    """
    branch, kept, name = refs
    tip = find_tip(memory)
    with _make_repository() as git:
        # Its objects are used where they are.
        link = git.folder / "objects" / "info" / "alternates"
        with explain_write_errors(link):
            link.write_text(f"{(memory / '.git' / 'objects').absolute()}\n", "utf-8")
        blob = git.run("hash-object", "-w", "--stdin", data=settings)
        tree = git.run("mktree", data=f"100644 blob {blob}\t{name}\n".encode())
        commit = git.run("commit-tree", "-m", "Settings of the agent", tree)
        try:
            git.run("update-ref", branch, tip)
            git.run("update-ref", kept, commit)
            return git.bundle(most, branch, kept)
        except ServerError as error:
            raise CorruptStateError(
                f"The memory repository {memory} cannot be read: {error.message}",
                paths=[memory],
                hint="`git fsck` in it says what is missing.",
            ) from error


def find_tip(memory: Path) -> str:
    """Return the id of the last commit of a memory.

    It is read from the files, as git would read the repository's configuration as well.

    Raises:
        CorruptStateError: It is no repository as Letta Code makes them, or has no commit.
    """
    folder = memory / ".git"
    # What lies elsewhere may be anybody's.
    foreign = folder / "objects" / "info" / "alternates"
    odd = any(path.is_symlink() for path in (memory, folder, folder / "objects"))
    # The name of a directory stands in a line of a file of ours.
    if odd or foreign.exists() or "\n" in str(memory):
        raise _no_repository(memory, "it is kept elsewhere, or uses another repository")
    try:
        found = _read_line(folder / "HEAD")
        name = found.removeprefix("ref: ")
        if name != found:
            found = _read_ref(folder, name)
    except (OSError, ValueError) as error:
        raise _no_repository(memory, str(error)) from error
    if not _SHA.fullmatch(found):
        raise _no_repository(memory, "it has no commit of a kind that is known")
    return found


def _read_ref(folder: Path, name: str) -> str:
    if not re.fullmatch(r"refs/heads/[A-Za-z0-9][A-Za-z0-9_/-]*", name):
        raise ValueError(f"its HEAD is {name[:100]!r}")
    # A ref that has just been packed is in the other file.
    for _ in range(2):
        if (folder / name).exists():
            return _read_line(folder / name)
        packed = folder / "packed-refs"
        lines = _read_text(packed).splitlines() if packed.exists() else []
        for sha, _, ref in (line.partition(" ") for line in lines):
            if ref == name:
                return sha
    raise ValueError(f"it has no {name}")


def _read_line(path: Path) -> str:
    return _read_text(path).strip()


def _read_text(path: Path) -> str:
    return read_regular(path, _CHUNK).decode("utf-8")


def _no_repository(memory: Path, why: str) -> CorruptStateError:
    return CorruptStateError(
        f"{memory} is no memory repository that can be exported: {why}.",
        paths=[memory],
        hint="Look at it with git; nothing was changed.",
    )


class Quarantine:
    """A bundle that git has taken apart and checked, in a repository of its own."""

    def __init__(self, git: _Git, tip: str) -> None:
        self._git = git
        self._tip = tip

    def fill(self, memory: Path) -> None:
        """Put the commits into a memory that was just made, and its files beside them.

        Raises:
            CorruptStateError: The directory is no repository as Letta Code makes them.
            DiskFullError: There is no space.
        """
        before = find_tip(memory)
        git = _Git(memory / ".git", self._git.home, self._git.needs)
        options = ("--no-tags", "--no-recurse-submodules", "--quiet")
        git.run("fetch", *options, str(self._git.folder.absolute()), _BRANCH)
        # It names a directory that will be gone; git before 2.29 knows no option for it.
        (memory / ".git" / "FETCH_HEAD").unlink(missing_ok=True)
        # Only files that the newest commit has are written, and those of the first one go.
        git.run("read-tree", "--reset", "-u", self._tip, work_tree=memory)
        git.run("update-ref", "-m", "import", _BRANCH, self._tip, before)
        if find_tip(memory) != self._tip or git.run("status", "--porcelain", work_tree=memory):
            raise ServerError(f"The memory {memory} is another one than that of the bundle.")


@contextmanager
def quarantine(bundle: bytes, branch: str) -> Iterator[Quarantine]:
    """Let git check a bundle and take it apart, where nothing else is.

    Args:
        bundle: The bundle.
        branch: The one ref that is taken.

    Raises:
        DiskFullError: There is no space for it.
        InvalidInputError: git finds something wrong with it.
    """
    with _make_repository(max(len(bundle), _SMALL)) as git:
        file = git.home / "import.bundle"
        with explain_write_errors(file):
            file.write_bytes(bundle)
        try:
            git.run("bundle", "verify", str(file))
            git.run("fetch", "--no-tags", "--quiet", str(file), f"{branch}:{_BRANCH}")
            git.run("fsck", "--strict", "--no-dangling", "--no-progress")
            tip = git.run("rev-parse", "--verify", f"{_BRANCH}^{{commit}}")
        except ServerError as error:
            raise InvalidInputError(f"git does not take this bundle: {error.message}") from error
        yield Quarantine(git, tip)


@contextmanager
def _make_repository(needs: int = _SMALL) -> Iterator[_Git]:
    check_git(os.environ)
    try:
        made = tempfile.TemporaryDirectory(prefix="letta-adapters-", ignore_cleanup_errors=True)
    except OSError as error:
        raise disk_error(error, Path(tempfile.gettempdir())) from error
    with made as name:
        home = Path(name)
        git = _Git(home / "repository.git", home, needs)
        git.run("init", "--bare", "--quiet", "--template=")
        with explain_write_errors(home):
            (git.folder / "objects" / "info").mkdir(exist_ok=True)
        yield git


def _build_environment(home: Path) -> dict[str, str]:
    """Return the variables of git: where programs are, and nothing that steers it."""
    kept = {name: value for name, value in os.environ.items() if is_place(name)}
    own = str(home)
    return {
        **{name: value for name, value in kept.items() if not name.startswith("XDG_")},
        **_NOBODY,
        "HOME": own,
        "XDG_CONFIG_HOME": own,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TEMPLATE_DIR": "",
        "GIT_TERMINAL_PROMPT": "0",
    }
