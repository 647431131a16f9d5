"""The plugin with an App Server's WebSocket: recorded from a real one, then replayed wrongly."""

from __future__ import annotations

import pytest

# Loaded before any inner run, see tests/conftest.py.
from letta_adapters.backends.app_server import backend
from letta_adapters.testing.recording import websocket
from tests.backends.app_server._server import TOKEN, AppServer
from tests.testing._loopback import Loopback
from tests.testing._runner import Runner

pytest_plugins = ["pytester"]
_KEPT = (backend, websocket)

TEST = """
    import pytest
    from letta_adapters import AsyncLettaClient

    async def ask(letta_cassette, times=2):
        with letta_cassette.websocket():
            async with AsyncLettaClient(letta_cassette.app_server) as client:
                for _ in range(times):
                    await client.models.list()
"""
ONE = """
    async def test_it(letta_cassette):
        await ask(letta_cassette)
"""
SHARED = """
    @pytest.mark.parametrize("n", [1, 2])
    @pytest.mark.letta_cassette("models", shared={shared})
    async def test_it(letta_cassette, n):
        await ask(letta_cassette)
"""


@pytest.fixture
def socket_run(run: Runner, app_server: AppServer) -> Runner:
    run.patch.setenv("LETTA_APP_SERVER_URL", app_server.url)
    run.patch.setenv("LETTA_APP_SERVER_TOKEN", TOKEN)
    run.pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    return run


def write(run: Runner, test: str) -> None:
    run.pytester.makepyfile(test_it=TEST + test)


def test_records_then_replays_without_a_server(socket_run: Runner, server: Loopback) -> None:
    write(socket_run, ONE)
    socket_run.record().assert_outcomes(passed=1)
    (text,) = socket_run.files.values()
    assert TOKEN not in text
    assert text.count("method: WEBSOCKET") == 1
    for name in ("LETTA_APP_SERVER_URL", "LETTA_APP_SERVER_TOKEN", "LETTA_BASE_URL"):
        socket_run.patch.delenv(name)
    socket_run("--block-network").assert_outcomes(passed=1)
    socket_run.apart("-n2", "--block-network").assert_outcomes(passed=1)
    assert server.seen == []


def test_a_missing_recording_fails(socket_run: Runner) -> None:
    write(socket_run, ONE)
    result = socket_run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no cassette*--letta-record=once*"])


@pytest.mark.parametrize(
    ("change", "failed", "said"),
    [
        ("ask(letta_cassette, 1)", 0, "*1 recorded frames were not sent*list_models*"),
        ("ask(letta_cassette, 0)", 0, "*recorded connections were not opened*"),
        ("ask(letta_cassette, 3)", 1, "*nothing more was sent, but now*list_models*"),
        ("__import__('asyncio').sleep(0)", 0, "*the recorded WebSocket was not used*"),
    ],
)
def test_a_partly_played_recording_fails(
    socket_run: Runner, change: str, failed: int, said: str
) -> None:
    write(socket_run, ONE)
    socket_run.record().assert_outcomes(passed=1)
    write(socket_run, ONE.replace("ask(letta_cassette)", change))
    result = socket_run()
    result.assert_outcomes(failed=failed, passed=1 - failed, errors=1 - failed)
    result.stdout.fnmatch_lines([said])


def test_an_orphaned_recording_fails(socket_run: Runner) -> None:
    write(socket_run, ONE)
    socket_run.record().assert_outcomes(passed=1)
    write(socket_run, ONE.replace("test_it", "test_that"))
    socket_run.record().assert_outcomes(passed=1)
    result = socket_run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*no test uses*", "cassettes*test_it.yaml"])


def test_sharing_a_recording_must_be_said(socket_run: Runner) -> None:
    write(socket_run, SHARED.format(shared=False))
    result = socket_run.record()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*several tests without shared=True*"])
    write(socket_run, SHARED.format(shared=True))
    socket_run.record().assert_outcomes(passed=2)
    assert list(socket_run.files) == ["models.yaml"]
    socket_run().assert_outcomes(passed=2)


def test_a_failing_test_writes_nothing(socket_run: Runner) -> None:
    write(socket_run, ONE + "        assert False\n")
    socket_run.record().assert_outcomes(failed=1)
    assert socket_run.files == {}


def test_nothing_is_recorded_where_ci_is_set(socket_run: Runner) -> None:
    write(socket_run, ONE)
    socket_run.patch.setenv("CI", "true")
    assert socket_run.record().ret == pytest.ExitCode.USAGE_ERROR
    assert socket_run.files == {}
