"""A pytest plugin that records a test's conversation with a real Letta once, and replays it later.

It is installed with the package and does nothing until a test uses it::

    @pytest.mark.letta_cassette
    async def test_it(letta_cassette):
        client = letta_cassette.http_client()
        assert (await client.get("/v1/agents/")).status_code == 200

A test takes the fixture ``letta_cassette`` (see :class:`letta_adapters.testing.LettaCassette`),
with the marker of the same name for options; the marker alone is enough for ``player="vcr"``. The
file is ``cassettes/<folder>/<module>/<test>.yaml`` below the root directory (ini option
``letta_cassette_dir``; the folder is the module's, without ``tests/``), or
``cassettes/<name>.yaml``. Several tests may share a file: with ``shared=True`` and a name they all
play the same, and with ``scope="module"`` or ``"session"`` each plays its part of one conversation.

Two more fixtures need no recording: ``letta_fake``, a Letta in memory
(:class:`~letta_adapters.testing.fakes.FakeLetta`), and ``letta_local``, the real embedded runtime
with a scripted model behind it (:class:`~letta_adapters.testing.local.LocalLetta`); the runtime is
started once for all tests.

Replaying is strict, because a cassette that is silently not used tests nothing: a missing file, a
request it does not contain, an interaction nobody asked for, a file used by two tests, and an
attempt to reach another host all fail the test. A file that no test uses fails the session, when
the whole suite was collected or on request (``--letta-check-orphans``). Cassettes of
pytest-recording's and pytest-vcr's tests may lie beside ours.

``--letta-record``: ``once`` records tests that have no file yet, ``new_episodes`` also requests
that a file does not contain, ``rewrite`` (also called ``all``) records every selected test anew. A
test that fails or skips writes nothing, and the run's summary says so. Recording is refused where
``CI`` is set.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from letta_adapters.testing.recording.pytest_session import (
    MARK,
    SCOPED_FIXTURES,
    CassetteSession,
    find_scoped,
    read_spec,
)

# Everything else is imported when it is used: this module is loaded in every test run of an
# environment that has the package.
if TYPE_CHECKING:
    from letta_adapters.testing.fakes import FakeLetta
    from letta_adapters.testing.local import LocalLetta
    from letta_adapters.testing.recording.fixture import LettaCassette

MODES = ("none", "once", "new_episodes", "rewrite", "all")
# Keys of the messages between pytest-xdist's processes.
_WHOLE = "letta_whole_suite"
_ORPHANS = "letta_orphans"


_SESSION = pytest.StashKey[CassetteSession]()
_KIT = pytest.StashKey["LettaCassette"]()
_PASSED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ``--letta-*`` options and the ini option ``letta_cassette_dir``."""
    group = parser.getgroup("letta", "Letta cassettes")
    group.addoption(
        "--letta-record",
        choices=MODES,
        default="none",
        help="none: replay only (default); once: record what has no cassette yet; new_episodes: "
        "replay, and record what is missing at a cassette's end; rewrite (or all): record every "
        "selected test anew. Needs LETTA_BASE_URL (and LETTA_API_KEY), or LETTA_APP_SERVER_URL "
        "(and LETTA_APP_SERVER_TOKEN). A test that fails or skips writes nothing",
    )
    group.addoption(
        "--letta-record-force",
        action="store_true",
        help="record even where the environment variable CI is set, which is refused otherwise",
    )
    group.addoption(
        "--letta-check-orphans",
        action="store_true",
        help="fail for cassettes that no collected test uses, even if not the whole suite was "
        "collected (then it is done anyway)",
    )
    parser.addini(
        "letta_cassette_dir",
        "the folder of the Letta cassettes, below rootdir (default: cassettes)",
        default="cassettes",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse to record in CI or in parallel."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(name=None, shared=False, base_url_env='LETTA_BASE_URL', "
        "model_env='LETTA_RIG_MODEL', player='transport', timing=False, network=False, "
        "scope='function'): replay this test's traffic with Letta from a cassette (name: its file; "
        "shared: by several tests; base_url_env, model_env: where the server's and the scripted "
        "model's URL stand while recording; player: 'transport' or 'vcr'; timing: record delays; "
        "network: other hosts may be reached on replay; scope: one cassette for each 'function', "
        "'module' or 'session')",
    )
    session = config.stash[_SESSION] = CassetteSession(config)
    worker = getattr(config, "workerinput", None)
    session.whole = _is_whole_suite(config) if worker is None else worker.get(_WHOLE, False)
    if session.mode == "none":
        return
    if os.environ.get("CI") and not config.getoption("--letta-record-force"):
        raise pytest.UsageError("--letta-record is refused where CI is set (--letta-record-force)")
    # Two processes could write one shared file.
    if _is_parallel(config):
        raise pytest.UsageError("--letta-record does not work under pytest-xdist")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note which test uses which file, before any test is deselected."""
    session = config.stash[_SESSION]
    for item in items:
        session.note_user(item)
        if item.get_closest_marker("vcr"):
            session.note_other(item)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Look for files that no test uses."""
    state = session.config.stash[_SESSION]
    asked = session.config.getoption("--letta-check-orphans")
    # Without a single test that uses it, the folder belongs to somebody else.
    whole = bool(state.users) and state.whole
    if session.testsfailed == 0 and (asked or whole):
        state.find_orphans()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_ORPHANS] = [str(path) for path in state.orphans]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a pytest-xdist worker whether the whole suite was asked for; only its parent knows."""
    node.workerinput[_WHOLE] = node.config.stash[_SESSION].whole


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect the unused files from a pytest-xdist worker; only workers collect tests."""
    state = node.config.stash[_SESSION]
    found = map(Path, getattr(node, "workeroutput", {}).get(_ORPHANS, ()))
    state.orphans = sorted({*state.orphans, *found})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that plays a shared cassette reach nothing but this machine."""
    session = item.config.stash[_SESSION]
    session.item = item
    played = [
        wide
        for wide in find_scoped(item, session)
        if not wide.spec.network and not session.records(session.path(item, wide.spec))
    ]
    if not played:
        return (yield)
    from letta_adapters.testing.recording.fixture import block_network, make_refusal

    with block_network(lambda host: make_refusal(host, played[0].kit)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test itself passed."""
    report = yield
    if call.when == "call":
        item.stash[_PASSED] = report.passed
    item.config.stash[_SESSION].note_outcome(item, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Save or check the cassette after the last fixture, which may still talk to Letta."""
    result = yield
    session = item.config.stash[_SESSION]
    kit = item.stash.get(_KIT, None)
    if kit is not None:
        del item.stash[_KIT]
        # A test that failed has recorded, or played, only a part.
        if item.stash.get(_PASSED, False):
            session.finish(kit)
    session.finish_wide()
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session if there are files that no test uses."""
    # Any other exit status already says that something is wrong.
    if session.config.stash[_SESSION].orphans and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Report what was recorded and what was not, and name the unused files."""
    state = config.stash[_SESSION]
    if state.told:
        terminalreporter.section("letta recordings")
        for line in state.told:
            terminalreporter.line(line)
    if state.orphans:
        terminalreporter.section("cassettes that no test uses", red=True)
        for path in state.orphans:
            terminalreporter.line(str(path.relative_to(config.rootpath)))


@pytest.fixture
def letta_cassette(request: pytest.FixtureRequest) -> Iterator[LettaCassette]:
    """Give a test its recorded conversation with Letta: see :class:`LettaCassette`.

    With the marker ``letta_cassette(scope="module")`` (or ``"session"``) it is that of all tests in
    the scope.
    """
    spec = read_spec(request.node)
    if spec.scope != "function":
        yield request.getfixturevalue(SCOPED_FIXTURES[spec.scope])
        return
    kit = request.config.stash[_SESSION].open(request.node, spec)
    request.node.stash[_KIT] = kit
    with kit.guard():
        yield kit
    kit.leave()


@pytest.fixture(scope="module")
def letta_cassette_module(request: pytest.FixtureRequest) -> Iterator[LettaCassette]:
    """Give all tests of a module, and fixtures of that scope, one recorded conversation."""
    yield from _open_scoped(request, "module")


@pytest.fixture(scope="session")
def letta_cassette_session(request: pytest.FixtureRequest) -> Iterator[LettaCassette]:
    """Give all tests that use it, and fixtures of the session, one recorded conversation."""
    yield from _open_scoped(request, "session")


def _open_scoped(request: pytest.FixtureRequest, scope: str) -> Iterator[LettaCassette]:
    session = request.config.stash[_SESSION]
    kit = session.open_wide(scope)
    yield kit
    kit.leave()
    # It is saved or checked once all fixtures of this scope are gone.
    session.closing.append((kit.path, kit))


@pytest.fixture
def letta_fake() -> FakeLetta:
    """Give a test a Letta in memory; ``letta_fake.script(...)`` sets its answers."""
    from letta_adapters.testing.fakes import FakeLetta

    return FakeLetta()


@pytest.fixture(scope="session")
def letta_runtime() -> Iterator[LocalLetta]:
    """Start the real embedded runtime for the whole run; tests take ``letta_local``."""
    from letta_adapters.testing.local import LocalLetta

    with LocalLetta() as letta:
        yield letta


@pytest.fixture
def letta_local(letta_runtime: LocalLetta) -> LocalLetta:
    """Give a test the real embedded runtime with a scripted model, whose script is empty."""
    # Another test's script must not answer this test.
    letta_runtime.model.clear()
    return letta_runtime


@pytest.fixture(autouse=True)
def _letta_cassette_for_marked(request: pytest.FixtureRequest) -> None:
    # The marker alone is enough: vcrpy patches httpx, so such a test needs nothing from the
    # fixture.
    if request.node.get_closest_marker(MARK) is not None:
        request.getfixturevalue(MARK)


def _is_parallel(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput") or bool(config.getoption("numprocesses", None))


def _is_whole_suite(config: pytest.Config) -> bool:
    source = config.args_source
    whole = source is pytest.Config.ArgsSource.TESTPATHS or (
        source is pytest.Config.ArgsSource.INVOCATION_DIR
        and config.invocation_params.dir == config.rootpath
    )
    # With any of these options a test that was not collected may still use a file.
    narrowing = ("ignore", "ignore_glob", "deselect", "lf", "stepwise")
    return whole and not any(config.getoption(name, None) for name in narrowing)
