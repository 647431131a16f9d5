"""Git takes a memory into a bundle and out of one, and nothing of the user's has a part in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import InvalidInputError, inspect_agent_file
from letta_adapters.backends.runtime import repositories
from letta_adapters.backends.runtime.errors import RuntimeUnavailableError
from letta_adapters.backends.runtime.repositories import export_memory, find_tip, quarantine
from letta_adapters.client.bundle_file import MEMORY, SETTINGS, SETTINGS_FILE, write_settings
from letta_adapters.errors import CorruptStateError, DiskFullError, LettaTimeoutError
from tests.agent_files._bundles import FILE, FILES, Maker, entry

SETTINGS_OF: bytes = write_settings({"name": "librarian"})


def git(memory: Path, *args: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *args]
    done = subprocess.run(command, cwd=memory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """A repository as Letta Code makes it, with two commits."""
    folder = tmp_path / "a memory" / "memory"
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    git(folder, "symbolic-ref", "HEAD", "refs/heads/main")
    for text in ("old", "# Memory\n"):
        (folder / "MEMORY.md").write_text(text)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", text)
    return folder


def export(memory: Path, most: int = 1 << 20) -> bytes:
    return export_memory(memory, SETTINGS_OF, (MEMORY, SETTINGS, SETTINGS_FILE), most)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def test_the_last_commit_is_exported_and_nothing_is_changed(memory: Path) -> None:
    (memory / "MEMORY.md").write_text("in the middle of a turn")
    (memory / "draft.md").write_text("not committed")
    git(memory, "add", "draft.md")
    git(memory, "stash", "list")
    git(memory, "branch", "reflection")
    git(memory, "tag", "v1")
    (memory / ".git" / "index.lock").touch()  # somebody commits
    before = listing(memory)
    data = export(memory)
    assert listing(memory) == before
    shown = inspect_agent_file(data)
    assert [(f.path, f.content) for f in shown.memory] == [("MEMORY.md", "# Memory\n")]
    assert shown.commits == 2
    assert data == export(memory)


def test_packed_refs_and_a_detached_head(memory: Path) -> None:
    tip = find_tip(memory)
    git(memory, "gc", "-q")
    git(memory, "pack-refs", "--all", "--prune")
    assert find_tip(memory) == tip
    git(memory, "checkout", "-q", "--detach")
    assert find_tip(memory) == tip
    assert inspect_agent_file(export(memory)).commits == 2


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's configuration in which everything leaves a trace; returns where."""
    traces, home, template = (tmp_path / name for name in ("traces", "home", "template"))
    for folder in (traces, home, template / "hooks"):
        folder.mkdir(parents=True)
    hook = f"#!/bin/sh\ntouch '{traces}'/hook-$(basename \"$0\")\n"
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        (template / "hooks" / name).write_text(hook)
        (template / "hooks" / name).chmod(0o755)
    attributes = home / "attributes"
    attributes.write_text("* filter=trap diff=trap merge=trap\n")
    config = f"""
[init]
    templateDir = {template}
[core]
    hooksPath = {template / "hooks"}
    fsmonitor = touch {traces}/fsmonitor
    attributesFile = {attributes}
    alternateRefsCommand = touch {traces}/alternates
    pager = touch {traces}/pager
[filter "trap"]
    clean = touch {traces}/clean
    smudge = touch {traces}/smudge
    required = true
[diff "trap"]
    textconv = touch {traces}/textconv
[uploadpack]
    packObjectsHook = touch {traces}/pack
[gpg]
    program = touch {traces}/gpg
[commit]
    gpgSign = true
"""
    (home / ".gitconfig").write_text(config)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    for name, value in (
        ("GIT_DIR", str(tmp_path / "nowhere")),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "core.fsmonitor"),
        ("GIT_CONFIG_VALUE_0", f"touch {traces}/variable"),
        ("GIT_TRACE", str(traces / "trace")),
        ("GIT_EXTERNAL_DIFF", f"touch {traces}/diff"),
        ("GIT_SSH_COMMAND", f"touch {traces}/ssh"),
    ):
        monkeypatch.setenv(name, value)
    return traces


@pytest.mark.skipif(sys.platform == "win32", reason="the traps are shell scripts")
def test_nothing_of_the_users_is_run(memory: Path, tmp_path: Path, traps: Path) -> None:
    # The repository that is read may say anything as well; nothing of it is asked.
    users = (tmp_path / "home" / ".gitconfig").read_text()
    (memory / ".git" / "config").write_text(users + '[include]\n path = "/nowhere"\n[broken\n')
    data = export(memory)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(fresh)}
    for args in (
        ["init", "-q", "--template=", "."],
        ["symbolic-ref", "HEAD", MEMORY],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", *args], cwd=fresh, env=env, check=True)
    with quarantine(data, MEMORY) as held:
        held.fill(fresh)
    assert (fresh / "MEMORY.md").read_text() == "# Memory\n"
    assert list(traps.iterdir()) == []


def test_only_the_memory_itself_is_filled(memory: Path, tmp_path: Path) -> None:
    maker = Maker(tmp_path / "made")
    folder = "40000", b"notes", maker.files({"x.md": b"x"})
    first = maker.commit(maker.files({"MEMORY.md": b"1"}))
    data = maker.bundle(maker.commit(maker.files(FILES, folder), first))
    beside = listing(tmp_path)
    (memory / "old.md").write_text("x")
    git(memory, "add", "-A")
    git(memory, "commit", "-qm", "old")
    with quarantine(data, MEMORY) as held:
        held.fill(memory)
    files = sorted(str(p.relative_to(memory)) for p in memory.rglob("*") if ".git" not in p.parts)
    assert files == ["MEMORY.md", "notes", "notes/x.md", "persona.md"]
    assert git(memory, "status", "--porcelain") == ""
    assert git(memory, "for-each-ref", "--format=%(refname)") == MEMORY
    assert git(memory, "log", "--format=%s") == "made\nmade"
    git(memory, "fsck", "--strict")
    outside = {path for path in listing(tmp_path) if not path.startswith(str(memory))}
    assert outside == {path for path in beside if not path.startswith(str(memory))}


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda m: (m / ".git" / "HEAD").write_text("ref: ../../x"), "its HEAD is"),
        (lambda m: (m / ".git" / "HEAD").write_text("ref: refs/heads/../../x"), "its HEAD is"),
        (lambda m: (m / ".git" / "HEAD").write_text("ref: refs/heads/none"), "it has no refs"),
        (lambda m: (m / ".git" / "HEAD").write_text("f" * 64), "no commit of a kind"),
        (lambda m: (m / ".git" / "HEAD").unlink(), "cannot be read"),
        (lambda m: (m / ".git" / "HEAD").write_bytes(b"\xff"), "utf-8"),
        (lambda m: (m / ".git" / "HEAD").write_text("f" * 40), "git update-ref failed"),
        (lambda m: move_elsewhere(m / ".git" / "objects"), "kept elsewhere"),
        (lambda m: move_elsewhere(m / ".git"), "kept elsewhere"),
        (lambda m: (m / ".git/objects/info/alternates").write_text("/x"), "another repository"),
    ],
)
def test_a_repository_that_is_none(memory: Path, damage: Any, why: str) -> None:
    damage(memory)
    with pytest.raises(CorruptStateError, match=why):
        export(memory)


def move_elsewhere(path: Path) -> None:
    there = path.parents[2] / "elsewhere"
    path.rename(there)
    path.symlink_to(there)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(memory: Path) -> None:
    (memory / ".git" / "HEAD").unlink()
    os.mkfifo(memory / ".git" / "HEAD")
    with pytest.raises(CorruptStateError, match="no regular file"):
        export(memory)


def test_a_memory_that_is_too_large(memory: Path) -> None:
    (memory / "large.md").write_bytes(os.urandom(200_000))
    git(memory, "add", "-A")
    git(memory, "commit", "-qm", "large")
    with pytest.raises(InvalidInputError, match="larger than"):
        export(memory, 100_000)


def test_git_checks_what_was_read_without_it(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "made")
    blob = maker.object("blob", b"x")
    raw = b"".join(f"100644 {name}\0".encode() + bytes.fromhex(blob) for name in "ba")
    odd = maker.object("tree", raw)  # not in order
    data = maker.bundle(maker.commit(odd))
    assert inspect_agent_file(data).refused == ()
    with pytest.raises(InvalidInputError, match="git does not take this bundle"):
        with quarantine(data, MEMORY):
            raise AssertionError
    with pytest.raises(InvalidInputError, match="git does not take this bundle"):
        with quarantine(maker.agent()[:-30], MEMORY):
            raise AssertionError


def test_what_git_cannot_do(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        with pytest.raises(RuntimeUnavailableError, match="git"):
            export(memory)
    monkeypatch.setattr(repositories, "_SECONDS", 0.0)
    with pytest.raises(LettaTimeoutError, match="took more than"):
        export(memory)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of a process")
def test_a_full_disk(memory: Path, tmp_path: Path) -> None:
    import resource

    maker = Maker(tmp_path / "made")
    data = maker.agent(entry(maker, FILE, b"large.md", os.urandom(300_000)))
    before = find_tip(memory)
    with quarantine(data, MEMORY) as held:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        # The signal would end this process; git dies of it, or says what it means.
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(DiskFullError, match="full"):
                held.fill(memory)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, old)
    assert find_tip(memory) == before
