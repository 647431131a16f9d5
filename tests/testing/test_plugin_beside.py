"""The plugin beside others: pytest-recording, -xdist, -asyncio, anyio, langchain-tests."""

from __future__ import annotations

import pytest

from tests.testing._loopback import Loopback
from tests.testing._runner import HELLO, Runner

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

ASK = """
        async with letta_cassette.http_client() as client:
            assert (await client.get("/hello")).json()["n"]
"""
THEIRS = """
    import httpx
    import pytest

    @pytest.mark.vcr
    def test_theirs():
        assert httpx.get("{url}/other").json()["n"]

    {more}
    def test_ours(letta_cassette):
        with letta_cassette.sync_http_client() as client:
            assert client.get("/hello").json()["n"]
"""


@pytest.mark.parametrize("both", [False, True])
def test_pytest_recording(run: Runner, server: Loopback, both: bool) -> None:
    """In one module, and even in one test; neither plays or misses what is the other's."""
    more = "@pytest.mark.vcr" if both else ""
    run.pytester.makepyfile(test_it=THEIRS.format(url=server.url, more=more))
    run("--record-mode=once", "--letta-record=once").assert_outcomes(passed=2)
    assert {"it/test_ours.yaml", "test_it/test_theirs.yaml"} <= set(run.files)
    seen = len(server.seen)
    result = run("--block-network")
    result.assert_outcomes(passed=2)
    assert result.ret == 0  # their cassettes are no orphans of ours
    assert len(server.seen) == seen
    (run.pytester.path / "cassettes" / "it" / "test_gone.yaml").write_text("version: 1\n")
    assert run("--block-network").ret == pytest.ExitCode.TESTS_FAILED


def test_langchain_tests(run: Runner, server: Loopback) -> None:
    """Its base fixtures configure vcrpy for a whole project."""
    run.pytester.makeconftest(
        """
        import pytest
        from langchain_tests.conftest import base_vcr_config

        @pytest.fixture(scope="session")
        def vcr_config():
            return {**base_vcr_config(), "decode_compressed_response": True}
        """
    )
    run.pytester.makepyfile(test_it=THEIRS.format(url=server.url, more=""))
    run("--record-mode=once", "--letta-record=once").assert_outcomes(passed=2)
    seen = len(server.seen)
    assert run("--record-mode=none").ret == 0
    assert len(server.seen) == seen


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio(run: Runner, mode: str) -> None:
    mark = "@pytest.mark.asyncio\n    " if mode == "strict" else ""
    run.pytester.makepyfile(
        f"""
    import pytest

    {mark}async def test_it(letta_cassette):{ASK}
        """
    )
    run.record(f"--asyncio-mode={mode}").assert_outcomes(passed=1)
    run(f"--asyncio-mode={mode}").assert_outcomes(passed=1)


def test_anyio(run: Runner) -> None:
    run.pytester.makepyfile(
        f"""
    import pytest

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.fixture
    async def warmed(letta_cassette):{ASK}
        return letta_cassette

    @pytest.mark.anyio
    async def test_it(warmed, letta_cassette):
        assert warmed is letta_cassette{ASK}
        """
    )
    run.record("-p", "no:asyncio").assert_outcomes(passed=1)
    run("-p", "no:asyncio").assert_outcomes(passed=1)


def test_pytest_xdist(run: Runner, server: Loopback) -> None:
    run.pytester.makepyfile(test_one=HELLO, test_two=HELLO.replace('== {"n": 1}', '["n"]'))
    run.record().assert_outcomes(passed=2)
    seen = len(server.seen)
    result = run.apart("-n2")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert len(server.seen) == seen

    refused = run.apart("-n2", "--letta-record=rewrite")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*does not work under pytest-xdist*"])

    (run.pytester.path / "cassettes" / "old.yaml").write_text("version: 1\n")
    whole = run.apart("-n2")
    assert whole.ret == pytest.ExitCode.TESTS_FAILED
    whole.assert_outcomes(passed=2)
    whole.stdout.fnmatch_lines(["*no test uses*", "cassettes*old.yaml"])
    assert run.apart("-n2", "test_one.py").ret == 0
    asked = run.apart("-n2", "test_one.py", "--letta-check-orphans")
    asked.stdout.fnmatch_lines(["cassettes*old.yaml"])
    assert asked.ret == pytest.ExitCode.TESTS_FAILED


def test_pytest_xdist_reports_failures_of_replays(run: Runner) -> None:
    run.pytester.makepyfile(test_one=HELLO, test_two="def test_it(letta_cassette): pass")
    result = run.apart("-n2")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*no cassette*--letta-record=once*"])
