"""A pytest plugin: record a test's conversation with a real Letta once, replay it ever after.

Installed with the package; it does nothing until a test uses it. A test takes the fixture
``letta_cassette`` (see :class:`letta_adapters.testing._kit.LettaCassette`), with the marker of the
same name for options; the marker alone is enough for ``player="vcr"``. The file is
``cassettes/<module>/<test>.yaml`` below the root directory (ini option ``letta_cassette_dir``), or
``cassettes/<name>.yaml``.

Two more fixtures need no recording: ``letta_fake``, a Letta in memory
(:class:`~letta_adapters.testing.fakes.FakeLetta`), and ``letta_local``, the real embedded runtime
with a scripted model behind it (:class:`~letta_adapters.testing.local.LocalLetta`); the runtime is
started once for all tests.

Replaying is strict, because a cassette that is silently not used tests nothing: a missing file,
a request it does not hold, an interaction nobody asked for, a file used by two tests, and an
attempt to reach another host all fail the test. A file that no test uses fails the session, when
the whole suite was collected or on request (``--letta-check-orphans``). Cassettes of
pytest-recording's and pytest-vcr's tests may lie beside ours.

``--letta-record``: ``once`` records what has no file yet, ``rewrite`` (also called ``all``) records
every selected test anew. A failing test writes nothing. Refused where ``CI`` is set.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Everything else is imported when it is used: this module is loaded in every test run of an
# environment that has the package.
if TYPE_CHECKING:
    from letta_adapters.testing._kit import CassetteSpec, LettaCassette
    from letta_adapters.testing.fakes import FakeLetta
    from letta_adapters.testing.local import LocalLetta

MODES = ("none", "once", "rewrite", "all")
_MARK = "letta_cassette"
# What pytest-xdist's processes tell one another.
_MAX_NAME = 200
_WHOLE = "letta_whole_suite"
_ORPHANS = "letta_orphans"


class _Session:
    """What this pytest run knows about cassettes."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.mode: str = config.getoption("--letta-record")
        self.folder = config.rootpath / str(config.getini("letta_cassette_dir"))
        self.users: dict[Path, dict[str, bool]] = {}
        self.fresh: set[Path] = set()
        self.others: set[Path] = set()  # cassettes, and folders of them, of other plugins
        self.orphans: list[Path] = []
        worker = getattr(config, "workerinput", None)
        self.whole = _is_whole_suite(config) if worker is None else worker.get(_WHOLE, False)

    def open(self, item: pytest.Item) -> LettaCassette:
        from letta_adapters.testing._kit import KINDS

        spec = _spec(item)
        path = self.path(item, spec)
        self.note_user(item)
        others = [node for node, shared in self.users[path].items() if not shared]
        if len(self.users[path]) > 1 and others:
            used_by = ", ".join(self.users[path])
            pytest.fail(f"{path}: several tests without shared=True: {used_by}", pytrace=False)
        recording = self.records(path)
        if not recording and not path.is_file():
            how = "record it with --letta-record=once against a server"
            pytest.fail(f"no cassette {path}; {how}", pytrace=False)
        kit = KINDS[spec.player](path, spec, recording=recording)
        item.stash[_KIT] = kit
        return kit

    def records(self, path: Path) -> bool:
        if path in self.fresh or self.mode == "none":
            return False
        return self.mode != "once" or not path.is_file()

    def finish(self, kit: LettaCassette) -> None:
        kit.finish()
        if kit.recording:
            self.fresh.add(kit.path)

    def path(self, item: pytest.Item, spec: CassetteSpec) -> Path:
        if spec.name is not None:
            return self.folder / f"{spec.name}.yaml"
        module = item.path.stem.removeprefix("test_")
        # The class belongs to the name: two classes may have tests of one name.
        name = ".".join(item.nodeid.split("::")[1:]) or item.name
        return self.folder / module / f"{_file_name(name)}.yaml"

    def note_user(self, item: pytest.Item) -> None:
        spec = _spec(item)
        self.users.setdefault(self.path(item, spec), {})[item.nodeid] = spec.shared

    def note_other(self, item: pytest.Item) -> None:
        # Where pytest-recording and pytest-vcr put theirs.
        folder = item.path.parent / "cassettes"
        self.others |= {folder / item.path.stem, folder / f"{item.name}.yaml"}

    def find_orphans(self) -> None:
        ours = (
            path
            for path in self.folder.rglob("*.yaml")
            if path not in self.users and self.others.isdisjoint({path, *path.parents})
        )
        self.orphans = sorted(ours)


_SESSION = pytest.StashKey[_Session]()
_KIT = pytest.StashKey["LettaCassette"]()
_PASSED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ``--letta-*`` options and the ini option ``letta_cassette_dir``."""
    group = parser.getgroup("letta", "Letta cassettes")
    group.addoption("--letta-record", choices=MODES, default="none", help="record cassettes")
    group.addoption("--letta-record-force", action="store_true", help="record even where CI is set")
    group.addoption(
        "--letta-check-orphans", action="store_true", help="fail for cassettes that no test uses"
    )
    parser.addini("letta_cassette_dir", "the cassettes' folder below rootdir", default="cassettes")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; refuse to record in CI or in parallel."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(name=None, *, shared=False, base_url_env, model_env, player, timing, network): "
        "replay this test's HTTP traffic from a cassette",
    )
    session = config.stash[_SESSION] = _Session(config)
    if session.mode == "none":
        return
    if os.environ.get("CI") and not config.getoption("--letta-record-force"):
        raise pytest.UsageError("--letta-record is refused where CI is set (--letta-record-force)")
    if _is_parallel(config):
        raise pytest.UsageError("--letta-record does not work under pytest-xdist")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note who uses which file, before anything is deselected."""
    session = config.stash[_SESSION]
    for item in items:
        if _MARK in getattr(item, "fixturenames", ()) or item.get_closest_marker(_MARK):
            session.note_user(item)
        if item.get_closest_marker("vcr"):
            session.note_other(item)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Look for files that no test uses."""
    state = session.config.stash[_SESSION]
    asked = session.config.getoption("--letta-check-orphans")
    # Without a single user the folder is somebody else's.
    whole = bool(state.users) and state.whole
    if session.testsfailed == 0 and (asked or whole):
        state.find_orphans()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_ORPHANS] = [str(path) for path in state.orphans]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: only the process that starts the others knows what was asked for."""
    node.workerinput[_WHOLE] = node.config.stash[_SESSION].whole


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """pytest-xdist: only the others collect, each of them everything."""
    state = node.config.stash[_SESSION]
    found = map(Path, getattr(node, "workeroutput", {}).get(_ORPHANS, ()))
    state.orphans = sorted({*state.orphans, *found})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test itself passed."""
    report = yield
    if call.when == "call":
        item.stash[_PASSED] = report.passed
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """After the last fixture (which may still have talked to Letta): save, or check."""
    result = yield
    kit = item.stash.get(_KIT, None)
    if kit is not None:
        del item.stash[_KIT]
        if item.stash.get(_PASSED, False):
            item.config.stash[_SESSION].finish(kit)
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for orphans."""
    if session.config.stash[_SESSION].orphans and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the orphans."""
    state = config.stash[_SESSION]
    if state.orphans:
        terminalreporter.section("cassettes that no test uses", red=True)
        for path in state.orphans:
            terminalreporter.line(str(path.relative_to(config.rootpath)))


@pytest.fixture
def letta_cassette(request: pytest.FixtureRequest) -> Iterator[LettaCassette]:
    """This test's recorded conversation with Letta: see :class:`LettaCassette`."""
    kit = request.config.stash[_SESSION].open(request.node)
    with kit.guard():
        yield kit
    kit.leave()


@pytest.fixture
def letta_fake() -> FakeLetta:
    """A Letta in memory; tell it what to say with ``letta_fake.script(...)``."""
    from letta_adapters.testing.fakes import FakeLetta

    return FakeLetta()


@pytest.fixture(scope="session")
def letta_runtime() -> Iterator[LocalLetta]:
    """The real embedded runtime, for the whole run; tests take ``letta_local``."""
    from letta_adapters.testing.local import LocalLetta

    with LocalLetta() as letta:
        yield letta


@pytest.fixture
def letta_local(letta_runtime: LocalLetta) -> LocalLetta:
    """The real embedded runtime with a scripted model, which starts with nothing to say."""
    letta_runtime.model.clear()
    return letta_runtime


@pytest.fixture(autouse=True)
def _letta_cassette_for_marked(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker(_MARK) is not None:
        request.getfixturevalue(_MARK)


def _spec(item: pytest.Item) -> CassetteSpec:
    from letta_adapters.testing._kit import CassetteSpec

    mark = item.get_closest_marker(_MARK)
    if mark is None:
        return CassetteSpec()
    try:
        return CassetteSpec(*mark.args, **mark.kwargs)
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from error


def _file_name(name: str) -> str:
    plain = re.sub(r"[^\w.\[\]=,+-]", "_", _without_secrets(name))
    if len(plain.encode()) > _MAX_NAME:
        # File systems allow 255 bytes, with `.yaml` and what stands before it while it is written.
        plain = plain.encode()[:_MAX_NAME].decode("utf-8", "ignore")
    # Parameters `a/b` and `a:b` must not end in one file.
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode()):08x}"


def _without_secrets(name: str) -> str:
    """A test's name; what its parameters say belongs into no file's name if it is private."""
    if "[" not in name:
        return name
    from letta_adapters.testing._finder import without_private_forms

    test, bracket, parameters = name.partition("[")
    return test + bracket + without_private_forms(parameters)


def _is_parallel(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput") or bool(config.getoption("numprocesses", None))


def _is_whole_suite(config: pytest.Config) -> bool:
    source = config.args_source
    whole = source is pytest.Config.ArgsSource.TESTPATHS or (
        source is pytest.Config.ArgsSource.INVOCATION_DIR
        and config.invocation_params.dir == config.rootpath
    )
    narrowing = ("ignore", "ignore_glob", "deselect", "lf", "stepwise")
    return whole and not any(config.getoption(name, None) for name in narrowing)
