"""Internal: keep one pytest run's knowledge of its cassettes, and what became of each.

This module is loaded in every test run of an environment that has the package, so it imports
little.
"""

from __future__ import annotations

import os
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from letta_adapters.testing.recording.fixture import CassetteSpec, LettaCassette, Scope

MARK = "letta_cassette"
# The fixtures for cassettes of several tests, by their scope.
SCOPED_FIXTURES: Mapping[Scope, str] = {
    "module": "letta_cassette_module",
    "session": "letta_cassette_session",
}
# File systems allow 255 bytes, which include `.yaml` and the prefix that a file has while it is
# written.
_MAX_NAME = 200
_LARGE = 100_000
# Folders that contain no tests, and very many files.
_NO_TESTS = {"node_modules", "__pycache__", "venv", "build", "dist", "site-packages"}


@dataclass
class _ScopedCassette:
    """A cassette of several tests, with those that have used it so far, and those that failed."""

    spec: CassetteSpec
    kit: LettaCassette | None = None
    ran: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)


class CassetteSession:
    """The cassettes of one test run."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.mode: str = config.getoption("--letta-record")
        self.folder = config.rootpath / str(config.getini("letta_cassette_dir"))
        self.users: dict[Path, dict[str, bool]] = {}
        self.wide: dict[Path, _ScopedCassette] = {}
        self.fresh: set[Path] = set()
        self.others: set[Path] = set()  # cassettes, and folders of them, of other plugins
        self.orphans: list[Path] = []
        self.told: list[str] = []
        self.closing: list[tuple[Path, LettaCassette]] = []
        self.whole = False
        self.item: pytest.Item | None = None  # the test that is being run
        self._paths: dict[tuple[str, str], Path] = {}

    # Files ---------------------------------------------------------------------------------------

    def path(self, item: pytest.Item, spec: CassetteSpec) -> Path:
        """Return the file of a test, or of the module or session that it belongs to."""
        if spec.name is not None:
            return self.folder / f"{spec.name}.yaml"
        if spec.scope == "session":
            return self.folder / "_session.yaml"
        key = item.nodeid, spec.scope
        if key not in self._paths:
            # The class is a part of the name, since two classes may have tests of one name.
            name = ".".join(item.nodeid.split("::")[1:]) or item.name
            module = spec.scope == "module"
            self._paths[key] = self._choose_path(
                item.path, "_module" if module else make_file_name(name)
            )
        return self._paths[key]

    def _choose_path(self, module: Path, name: str) -> Path:
        own = self.folder / self._place(module) / f"{name}.yaml"
        # Older versions left out the module's folder. Their recordings are still used, unless
        # modules of one name make it unclear which of them a file belongs to.
        old = self._old(own)
        if own == old or own.exists() or not old.exists() or self._namesakes[module.name] > 1:
            return own
        return old

    def _place(self, module: Path) -> Path:
        stem = module.stem.removeprefix("test_")
        try:
            parts = list(module.parent.relative_to(self.config.rootpath).parts)
        except ValueError:  # above the root directory
            parts = []
        roots = self.config.getini("testpaths")
        if parts and (parts[0] == "tests" or roots == [parts[0]]):
            del parts[0]
        return Path(*parts, stem)

    def _old(self, path: Path) -> Path:
        return self.folder / path.parent.name / path.name

    @cached_property
    def _namesakes(self) -> dict[str, int]:
        """Return how many modules there are of each name."""
        counts: dict[str, int] = {}
        roots = [self.config.rootpath / root for root in self.config.getini("testpaths")]
        for root in roots or [self.config.rootpath]:
            for _, folders, files in os.walk(root):
                folders[:] = [name for name in folders if name[0] != "." and name not in _NO_TESTS]
                for name in files:
                    if name.endswith(".py"):
                        counts[name] = counts.get(name, 0) + 1
        return counts

    def note_user(self, item: pytest.Item) -> None:
        """Note that ``item`` uses its file, and those of its module and session."""
        for spec in _read_specs(item):
            path = self.path(item, spec)
            shared = spec.shared or spec.scope != "function"
            self.users.setdefault(path, {})[item.nodeid] = shared
            if spec.scope != "function":
                self.wide.setdefault(path, _ScopedCassette(spec))

    def note_other(self, item: pytest.Item) -> None:
        """Note where the cassettes of pytest-recording and pytest-vcr are: they are not ours."""
        folder = item.path.parent / "cassettes"
        self.others |= {folder / item.path.stem, folder / f"{item.name}.yaml"}

    def find_orphans(self) -> None:
        """Look for files that no test uses."""
        ours = (
            path
            for path in self.folder.rglob("*.yaml")
            if path not in self.users and self.others.isdisjoint({path, *path.parents})
        )
        self.orphans = sorted(ours)

    # Recording and replaying ---------------------------------------------------------------------

    def open(self, item: pytest.Item, spec: CassetteSpec) -> LettaCassette:
        """Open the file of ``item`` for recording or replaying.

        The test fails at once if there is no file, or if several tests claim it.
        """
        from letta_adapters.testing.recording.fixture import KINDS

        path = self.path(item, spec)
        self.note_user(item)
        others = [node for node, shared in self.users[path].items() if not shared]
        if len(self.users[path]) > 1 and others:
            used_by = ", ".join(self.users[path])
            pytest.fail(f"{path}: several tests without shared=True: {used_by}", pytrace=False)
        recording = self.records(path)
        if not recording and not path.is_file():
            pytest.fail(self._missing(path), pytrace=False)
        # Told before the test runs: it may take minutes, and cost money.
        if recording and not _can_write(path):
            pytest.fail(f"the recording could not be written to {path}: no permission", False)
        extending = recording and self.mode == "new_episodes" and path.is_file()
        return KINDS[spec.player](path, spec, recording=recording, extending=extending)

    def open_wide(self, scope: str) -> LettaCassette:
        """Open the file of all tests of a module or session, for the first of them."""
        item = self.item
        assert item is not None, "a fixture is set up for a test"
        spec = next(spec for spec in _read_specs(item) if spec.scope == scope)
        kit = self.open(item, spec)
        self.wide[kit.path].kit = kit
        return kit

    def _missing(self, path: Path) -> str:
        old = self._old(path)
        hint = "record it with --letta-record=once against a server"
        if old != path and old.exists():
            module = f"test_{path.parent.name}.py"
            several = f"{old} may be it, but several modules are called {module}"
            hint = f"{several}: move it there, or {hint}"
        return f"no cassette {path}; {hint}"

    def records(self, path: Path) -> bool:
        """Return whether a test that opens the file now records, or extends, it."""
        # A file written in this run is replayed by the next test that shares it, not recorded
        # again.
        if path in self.fresh or self.mode == "none":
            return False
        return self.mode != "once" or not path.is_file()

    def finish(self, kit: LettaCassette) -> None:
        """Save what was recorded, or check that all was played."""
        before = _identify_file(kit.path)
        kit.finish()
        if kit.recording:
            self.fresh.add(kit.path)
            self._tell_saved(kit, before)

    def finish_wide(self) -> None:
        """Finish the cassettes whose fixtures, of a module or the session, have ended."""
        while self.closing:
            path, kit = self.closing.pop()
            state = self.wide[path]
            left = set(self.users[path]) - state.ran
            # One failed test, or one that did not run, leaves a gap in the conversation that all
            # share.
            if state.failed:
                self.tell_dropped(path, f"{state.failed[0]} failed")
            elif kit.recording and left:
                self.tell_dropped(path, f"not all of its tests were run: {min(left)}")
            else:
                if left:
                    kit.only_in_part()
                self.finish(kit)

    def note_outcome(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Remember the outcome of a test that shares a cassette, and say what was not recorded."""
        for spec in _read_specs(item):
            path = self.path(item, spec)
            if spec.scope != "function":
                state = self.wide[path]
                if report.failed:
                    state.failed.append(item.nodeid)
                if report.when == "call" or report.skipped:
                    state.ran.add(item.nodeid)
            elif self.records(path) and not report.passed and report.when != "teardown":
                self.tell_dropped(path, f"{item.nodeid} {_explain_outcome(report)}")

    # Messages at the end
    # ---------------------------------------------------------------------------

    def _tell_saved(self, kit: LettaCassette, before: object) -> None:
        after = _identify_file(kit.path)
        if after == before:
            self.told.append(f"all of it was recorded before: {self._short(kit.path)}")
            return
        size = kit.path.stat().st_size
        self.told.append(f"recorded: {self._short(kit.path)} ({size / 1000:.1f} kB)")
        if size > _LARGE:
            self.told.append(
                "  that is large for a repository, and for whoever reviews it: use a test for each "
                "scenario, shorter answers, or include_partial_messages=False"
            )

    def tell_dropped(self, path: Path, why: str) -> None:
        """Say at the end that ``path`` was not written."""
        what = "is as it was" if path.is_file() else "was not made"
        self.told.append(f"not recorded: {self._short(path)} {what}, because {why}")

    def _short(self, path: Path) -> str:
        root = self.config.rootpath
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def read_spec(item: pytest.Item) -> CassetteSpec:
    """Return the arguments of the nearest marker.

    Raises:
        pytest.UsageError: The arguments make no sense.
    """
    from letta_adapters.testing.recording.fixture import CassetteSpec

    mark = item.get_closest_marker(MARK)
    if mark is None:
        return CassetteSpec()
    try:
        return CassetteSpec(*mark.args, **mark.kwargs)
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from error


def _read_specs(item: pytest.Item) -> Iterator[CassetteSpec]:
    """Yield the cassettes that a test uses: its own, its module's, the session's."""
    fixtures = getattr(item, "fixturenames", ())
    marked = item.get_closest_marker(MARK) is not None
    wide = [scope for scope, name in SCOPED_FIXTURES.items() if name in fixtures]
    if not (marked or wide or MARK in fixtures):
        return
    from letta_adapters.testing.recording.fixture import CassetteSpec

    spec = read_spec(item)
    if marked or MARK in fixtures:
        yield spec
    for scope in wide:
        if scope != spec.scope:
            yield CassetteSpec(scope=scope)


def find_scoped(item: pytest.Item, session: CassetteSession) -> list[_ScopedCassette]:
    """Return the shared cassettes that a test plays."""
    paths = [(spec, session.path(item, spec)) for spec in _read_specs(item)]
    return [session.wide[path] for spec, path in paths if spec.scope != "function"]


def make_file_name(name: str) -> str:
    """Return a test's name as a file name: short, portable, and without private texts in it."""
    name = unicodedata.normalize("NFC", name)
    plain = re.sub(r"[^\w.\[\]=,+-]", "_", _remove_secrets(name))
    if len(plain.encode()) > _MAX_NAME:
        plain = plain.encode()[:_MAX_NAME].decode("utf-8", "ignore")
    # Names that differ only in what was replaced, such as `a/b` and `a:b`, must not share a file.
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode()):08x}"


def _remove_secrets(name: str) -> str:
    """Return a test's name without private texts: its parameters may contain any."""
    if "[" not in name:
        return name
    from letta_adapters.testing.sanitizer.finder import remove_private_forms

    test, bracket, parameters = name.partition("[")
    return test + bracket + remove_private_forms(parameters)


def _can_write(path: Path) -> bool:
    folder = next(parent for parent in path.parents if parent.exists())
    return os.access(folder, os.W_OK)


def _identify_file(path: Path) -> Any:
    # Saving moves a new file into place, so another inode means another recording.
    return path.stat().st_ino if path.is_file() else None


def _explain_outcome(report: pytest.TestReport) -> str:
    if not report.skipped:
        return "failed"
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    return f"was skipped ({said.removeprefix('Skipped: ')})" if said else "was skipped"
