"""The plugin, run by pytest within pytest: what is recorded, replayed, refused and reported."""

from __future__ import annotations

import json

import pytest

from letta_adapters.testing import Cassette
from letta_adapters.testing.recording.pytest_session import make_file_name
from tests.testing._loopback import Loopback
from tests.testing._runner import HELLO, Runner

pytest_plugins = ["pytester"]


def test_records_then_replays(run: Runner, server: Loopback) -> None:
    run.pytester.makepyfile(test_it=HELLO)
    run.record().assert_outcomes(passed=1)
    assert list(run.files) == ["it/test_hello.yaml"]
    assert "http://letta.test/hello" in run.files["it/test_hello.yaml"]
    seen = len(server.seen)
    run().assert_outcomes(passed=1)
    run.record().assert_outcomes(passed=1)
    assert len(server.seen) == seen


def test_a_missing_cassette_fails(run: Runner) -> None:
    run.pytester.makepyfile(HELLO)
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no cassette*--letta-record=once*"])


def test_a_failing_test_writes_nothing_and_rewrite_keeps_the_old_file(run: Runner) -> None:
    run.pytester.makepyfile(test_it=HELLO)
    run.record().assert_outcomes(passed=1)
    before = run.files
    # The server counts on, so the test fails now.
    run("--letta-record=rewrite").assert_outcomes(failed=1)
    assert run.files == before
    run.pytester.makepyfile(test_it=HELLO.replace('== {"n": 1}', '["n"] > 1'))
    run("--letta-record=all").assert_outcomes(passed=1)
    assert run.files != before


def test_a_failing_teardown_writes_nothing(run: Runner) -> None:
    run.pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def agent(letta_cassette):
            with letta_cassette.sync_http_client() as client:
                client.get("/hello")
                yield client
                assert client.get("/other").json() == {"n": 2}

        def test_it(agent):
            pass
        """
    )
    run.record().assert_outcomes(passed=1, errors=1)
    assert run.files == {}
    run.record().assert_outcomes(passed=1)
    assert [item.request.uri for item in Cassette.loads(*run.files.values())] == [
        "http://letta.test/hello",
        "http://letta.test/other",
    ]
    run().assert_outcomes(passed=1)


def test_a_test_that_asks_for_nothing_is_not_recorded(run: Runner) -> None:
    run.pytester.makepyfile("def test_it(letta_cassette): pass")
    result = run.record()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*nothing was recorded*"])
    assert run.files == {}


def test_what_is_not_played_fails_and_what_is_asked_in_excess_too(run: Runner) -> None:
    ask = """
        def test_it(letta_cassette):
            with letta_cassette.sync_http_client() as client:
                for path in {paths}:
                    try:
                        client.get(path)
                    except Exception:
                        pass
    """
    run.pytester.makepyfile(ask.format(paths=["/hello", "/other"]))
    run.record().assert_outcomes(passed=1)
    run.pytester.makepyfile(ask.format(paths=["/hello"]))
    result = run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*were not played*", "*#2 GET /other*"])
    run.pytester.makepyfile(ask.format(paths=["/hello", "/other", "/other"]))
    run().assert_outcomes(passed=1, errors=1)


def test_names_parameters_and_classes(run: Runner) -> None:
    run.pytester.makepyfile(
        test_it="""
        import pytest

        def ask(letta_cassette):
            with letta_cassette.sync_http_client() as client:
                client.get("/hello")

        @pytest.mark.parametrize("x", ["a/b", "a:b", "c"])
        def test_param(letta_cassette, x):
            ask(letta_cassette)

        class TestIn:
            def test_param(self, letta_cassette):
                ask(letta_cassette)

        @pytest.mark.letta_cassette("some/name")
        def test_named(letta_cassette):
            ask(letta_cassette)
        """
    )
    run.record().assert_outcomes(passed=5)
    names = sorted(run.files)
    assert names[0] == "it/TestIn.test_param.yaml"
    assert names[1].startswith("it/test_param[a_b]-")
    assert names[1] != names[2]
    assert names[3:] == ["it/test_param[c].yaml", "some/name.yaml"]
    run().assert_outcomes(passed=5)


TWICE = """
    import pytest

    def ask(letta_cassette):
        with letta_cassette.sync_http_client() as client:
            client.get("/hello")

    @pytest.mark.letta_cassette("one"{shared})
    def test_first(letta_cassette):
        ask(letta_cassette)

    @pytest.mark.letta_cassette("one"{shared})
    def test_second(letta_cassette):
        ask(letta_cassette)
"""


def test_one_file_for_two_tests_must_be_said(run: Runner) -> None:
    run.pytester.makepyfile(TWICE.format(shared=""))
    result = run.record()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*several tests without shared=True*"])


def test_shared_files_are_recorded_by_the_first(run: Runner, server: Loopback) -> None:
    run.pytester.makepyfile(TWICE.format(shared=", shared=True"))
    for mode in ("once", "rewrite"):
        seen = len(server.seen)
        run(f"--letta-record={mode}").assert_outcomes(passed=2)
        assert len(server.seen) == seen + 1
    run().assert_outcomes(passed=2)


@pytest.mark.parametrize("arguments", ["shared=True", "'x', player='tape'", "nonsense=1"])
def test_bad_markers_are_refused(run: Runner, arguments: str) -> None:
    run.pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.letta_cassette({arguments})
        def test_it():
            pass
        """
    )
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it*"])


def test_never_records_in_ci_or_in_parallel(run: Runner) -> None:
    run.pytester.makepyfile(test_it=HELLO)
    run.patch.setenv("CI", "true")
    result = run.record()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*refused where CI is set*"])
    run.record("--letta-record-force").assert_outcomes(passed=1)
    run().assert_outcomes(passed=1)
    run.patch.delenv("CI")
    run.pytester.makeconftest(
        "def pytest_addoption(parser): parser.addoption('--n', dest='numprocesses', type=int)"
    )
    result = run.record("--n=2")
    result.stderr.fnmatch_lines(["*does not work under pytest-xdist*"])


def test_recording_needs_a_server(run: Runner) -> None:
    run.pytester.makepyfile(HELLO)
    run.patch.delenv("LETTA_BASE_URL")
    result = run.record()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*needs the environment variable LETTA_BASE_URL*"])


def test_orphans_fail_a_whole_run(run: Runner) -> None:
    run.pytester.makepyfile(test_it=HELLO)
    run.record().assert_outcomes(passed=1)
    folder = run.pytester.path / "cassettes"
    (folder / "old.yaml").write_text(run.files["it/test_hello.yaml"])
    result = run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*no test uses*", "cassettes*old.yaml"])
    # Not all was collected, so nobody knows.
    assert run("test_it.py").ret == 0
    assert run("--ignore=x").ret == 0
    # Deselected tests use their files nevertheless.
    assert run("-k", "nothing").ret == pytest.ExitCode.TESTS_FAILED
    assert run("test_it.py", "--letta-check-orphans").ret == pytest.ExitCode.TESTS_FAILED
    (folder / "old.yaml").unlink()
    assert run("--letta-check-orphans").ret == 0
    assert run("-k", "nothing").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_what_the_fixture_offers(run: Runner) -> None:
    run.patch.setenv("LETTA_API_KEY", "real-Key-1234567")
    run.pytester.makepyfile(
        """
        import asyncio
        import httpx
        import pytest
        from letta_adapters.testing import CassetteTransport, RecordingTransport

        @pytest.mark.letta_cassette(timing=True)
        def test_it(letta_cassette):
            kit = letta_cassette
            kit.replay_options(chunking=1, require_all_played=True)
            assert kit.path.name == "test_it.yaml"
            kind = RecordingTransport if kit.recording else CassetteTransport
            assert isinstance(kit.transport, kind)
            assert kit.base_url.startswith("http://127" if kit.recording else "http://letta.test")
            assert kit.api_key == ("real-Key-1234567" if kit.recording else "test-key")
            kit.script("Hello")

            async def ask():
                headers = {"authorization": f"Bearer {kit.api_key}"}
                async with kit.http_client(headers=headers) as first:
                    assert (await first.get("/hello")).json()
                async with kit.http_client() as second:
                    async with second.stream("GET", "/stream") as response:
                        return [chunk async for chunk in response.aiter_raw()]

            chunks = asyncio.run(ask())
            assert b"".join(chunks) == b"data: 1\\n\\ndata: [DONE]\\n\\n"
            assert len(chunks) == (2 if kit.recording else 23)
            if not kit.recording:
                with pytest.raises(RuntimeError, match="first use"):
                    kit.replay_options(chunking=2)
        """
    )
    run.record().assert_outcomes(passed=1)
    assert [path for _, path, _, _ in run.server.seen] == ["/script", "/hello", "/stream"]
    assert json.loads(run.server.seen[0][3])
    assert "x_timing" in run.files["what_the_fixture_offers/test_it.yaml"]
    run().assert_outcomes(passed=1)


def test_secrets_and_not_all_played(run: Runner) -> None:
    run.pytester.makepyfile(
        test_it="""
        def test_it(letta_cassette):
            letta_cassette.secrets.append("plain words")
            letta_cassette.replay_options(require_all_played=False)
            with letta_cassette.sync_http_client() as client:
                client.post("/hello", json={"text": "some plain words"})
                if letta_cassette.recording:
                    client.get("/other")
        """
    )
    run.record().assert_outcomes(passed=1)
    assert "some REDACTED" in run.files["it/test_it.yaml"]
    run().assert_outcomes(passed=1)


VCR = """
    import httpx
    import pytest

    @pytest.mark.letta_cassette(player="vcr")
    def test_it(letta_cassette):
        with httpx.Client(base_url=letta_cassette.base_url) as client:
            for path in {paths}:
                assert client.get(path).json()["n"]
        with letta_cassette.sync_http_client() as client:
            assert client.get("/other").json()["n"]
        letta_cassette.leave_alone = True
        with pytest.raises(RuntimeError, match="no transport"):
            letta_cassette.transport

    @pytest.mark.letta_cassette(player="vcr")
    def test_marked_only():
        httpx.get("http://{host}/hello")
"""


def test_vcrpy_as_player(run: Runner, server: Loopback) -> None:
    host = server.url.removeprefix("http://")
    run.pytester.makepyfile(test_it=VCR.format(paths=["/hello"], host=host))
    run.record().assert_outcomes(passed=2)
    assert sorted(run.files) == ["it/test_it.yaml", "it/test_marked_only.yaml"]
    assert host not in "".join(run.files.values())
    seen = len(server.seen)
    run().assert_outcomes(passed=2)
    assert len(server.seen) == seen
    run("--letta-record=rewrite").assert_outcomes(passed=2)
    assert len(server.seen) == 2 * seen
    run.pytester.makepyfile(test_it=VCR.format(paths=[], host=host))
    result = run()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*1 recorded interactions were not played*"])


def test_a_failing_vcr_test_writes_nothing_and_unpatches(run: Runner) -> None:
    run.pytester.makepyfile(
        """
        import httpx
        import pytest

        @pytest.mark.letta_cassette(player="vcr")
        def test_it(letta_cassette):
            httpx.get(letta_cassette.base_url + "/hello")
            assert False

        def test_unpatched():
            assert "vcr" not in repr(httpx.HTTPTransport.handle_request.__code__)
        """
    )
    run.record().assert_outcomes(passed=1, failed=1)
    assert run.files == {}


REACHES = """
    import asyncio
    import contextlib
    import socket
    import pytest

    {mark}
    def test_it(letta_cassette):
        with letta_cassette.sync_http_client() as client:
            client.get("/hello")
        if not letta_cassette.recording:
            {reach}

    def test_without_it():
        for patched in (socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex):
            assert "letta" not in str(getattr(patched, "__module__", ""))
"""


@pytest.mark.parametrize(
    ("reach", "host"),
    [
        ("socket.create_connection(('192.0.2.1', 80), 1)", "192.0.2.1"),
        ("socket.getaddrinfo('letta.example', 443)", "letta.example"),
        ("asyncio.run(asyncio.wait_for(asyncio.open_connection('192.0.2.1', 80), 1))", "192.0.2.1"),
        ("with socket.socket() as s: s.connect_ex(('192.0.2.1', 80))", "192.0.2.1"),
    ],
)
def test_nothing_but_this_machine_is_reached(run: Runner, reach: str, host: str) -> None:
    run.pytester.makepyfile(test_it=REACHES.format(mark="", reach=reach))
    run.record().assert_outcomes(passed=2)
    result = run()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines([f"*a recording is being played*{host}*"])


def test_an_attempt_to_reach_another_host_cannot_be_swallowed(run: Runner) -> None:
    reach = "with contextlib.suppress(AssertionError): socket.getaddrinfo('letta.example', 443)"
    run.pytester.makepyfile(test_it=REACHES.format(mark="", reach=reach))
    run.record().assert_outcomes(passed=2)
    result = run()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*tried to reach 'letta.example'*"])


def test_the_network_can_be_allowed_and_loopback_always_is(run: Runner, server: Loopback) -> None:
    port = server.url.rpartition(":")[2]
    mark = "@pytest.mark.letta_cassette(network=True)"
    reach = f"socket.create_connection(('localhost', {port}), 1).close()"
    for marked in ("", mark):
        run.pytester.makepyfile(test_it=REACHES.format(mark=marked, reach=reach))
        run.record().assert_outcomes(passed=2)
        run().assert_outcomes(passed=2)
    refused = "with pytest.raises(OSError): socket.create_connection(('192.0.2.1', 80), 0.1)"
    run.pytester.makepyfile(test_it=REACHES.format(mark=mark, reach=refused))
    run().assert_outcomes(passed=2)


def test_a_tracer_s_thread_fails_no_test(run: Runner) -> None:
    reach = (
        "import threading; t = threading.Thread(target=socket.getaddrinfo, args=('x.example', 1))"
    )
    reach += "; threading.excepthook = lambda *_: None; t.start(); t.join()"
    run.pytester.makepyfile(test_it=REACHES.format(mark="", reach=reach))
    run.record().assert_outcomes(passed=2)
    run("-p", "no:threadexception").assert_outcomes(passed=2)


def test_a_client_on_a_loop_of_its_own_is_refused(run: Runner) -> None:
    run.pytester.makepyfile(
        test_it="""
        import pytest
        from letta_adapters import LettaClient, Rest

        def test_it(letta_cassette):
            with letta_cassette.sync_http_client() as client:
                client.get("/hello")
            if not letta_cassette.recording:
                with LettaClient(Rest(base_url="http://letta.example", api_key="")) as other:
                    with pytest.raises(Exception):
                        other.agents.retrieve("agent-1")
        """
    )
    run.record().assert_outcomes(passed=1)
    result = run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*tried to reach 'letta.example'*"])


def test_a_key_in_a_parameter_is_not_the_files_name() -> None:
    key = "sk-proj-" + "q7ZpX2vT9sLk3WmN8rBdQ4"
    name = make_file_name(f"test_it[{key}]")
    assert key not in name
    assert name != make_file_name(f"test_it[{key}x]")


def test_a_long_name_fits_a_file_system() -> None:
    names = {make_file_name(f"test_it[{'ä' * 300}{end}]") for end in "ab"}
    assert len(names) == 2
    assert all(len(f"{name}.yaml".encode()) < 255 for name in names)
