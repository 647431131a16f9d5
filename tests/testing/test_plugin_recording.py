"""Which file a test records into, who shares it, and what is said of what is not written."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.testing import (
    Cassette,
    CassetteFormatError,
    CassetteSaveError,
    Interaction,
    RecordedRequest,
    RecordedResponse,
    save_cassette,
)
from tests.testing._loopback import Loopback
from tests.testing._runner import HELLO, Runner

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

ASK = """
    def test_it(letta_cassette):
        with letta_cassette.sync_http_client() as client:
            assert client.get("{path}").json()["n"]
"""


def write(run: Runner, **texts: str) -> None:
    """Write modules; ``a__test_it`` is ``tests/a/test_it.py``."""
    for name, text in texts.items():
        path = run.pytester.path.joinpath("tests", *name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        run.pytester.makepyfile(**{"_": text}).replace(path)
        (path.parent / "__init__.py").touch()


def test_modules_of_one_name_have_their_own_recordings(run: Runner) -> None:
    write(run, a__test_it=ASK.format(path="/hello"), b__test_it=ASK.format(path="/other"))
    run.record("tests/a").assert_outcomes(passed=1)
    run.record("tests/b").assert_outcomes(passed=1)
    assert sorted(run.files) == ["a/it/test_it.yaml", "b/it/test_it.yaml"]
    run().assert_outcomes(passed=2)


def test_a_recording_stays_where_it_was_while_it_is_clear_whose_it_is(run: Runner) -> None:
    write(run, a__test_it=ASK.format(path="/hello"))
    run.record().assert_outcomes(passed=1)
    cassettes = run.pytester.path / "cassettes"
    (cassettes / "it").mkdir()
    (cassettes / "a/it/test_it.yaml").rename(cassettes / "it/test_it.yaml")
    run().assert_outcomes(passed=1)
    run("--letta-record=rewrite").assert_outcomes(passed=1)
    assert list(run.files) == ["it/test_it.yaml"]
    write(run, b__test_it=ASK.format(path="/hello"))
    result = run()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*it/test_it.yaml may be it, but several modules*move it there*"])


def test_new_episodes_plays_what_there_is_and_records_what_is_missing(
    run: Runner, server: Loopback
) -> None:
    ask = """
        def test_it(letta_cassette):
            with letta_cassette.sync_http_client() as client:
                said = [client.get(path).json()["n"] for path in {paths}]
            assert said == {said}
    """
    run.pytester.makepyfile(test_it=ask.format(paths=["/hello"], said=[1]))
    run("--letta-record=new_episodes").assert_outcomes(passed=1)
    run.pytester.makepyfile(test_it=ask.format(paths=["/hello", "/other"], said=[1, 1]))
    run().assert_outcomes(failed=1)
    seen = len(server.seen)
    run("--letta-record=new_episodes").assert_outcomes(passed=1)
    assert [path for _, path, _, _ in server.seen[seen:]] == ["/other"]
    run().assert_outcomes(passed=1)
    before = run.files
    result = run("--letta-record=new_episodes")
    result.stdout.fnmatch_lines(["all of it was recorded before: *test_it.yaml"])
    assert run.files == before
    run.pytester.makepyfile(test_it=ask.format(paths=["/other"], said=[1]))
    result = run("--letta-record=new_episodes")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*were not played*"])
    assert run.files == before


def test_new_episodes_by_vcrpy(run: Runner, server: Loopback) -> None:
    ask = """
        import pytest

        @pytest.mark.letta_cassette(player="vcr")
        def test_it(letta_cassette):
            with letta_cassette.sync_http_client() as client:
                assert [client.get(path).json()["n"] for path in {paths}]
    """
    run.pytester.makepyfile(test_it=ask.format(paths=["/hello"]))
    run("--letta-record=new_episodes").assert_outcomes(passed=1)
    run.pytester.makepyfile(test_it=ask.format(paths=["/hello", "/other"]))
    seen = len(server.seen)
    run("--letta-record=new_episodes").assert_outcomes(passed=1)
    assert [path for _, path, _, _ in server.seen[seen:]] == ["/other"]
    run().assert_outcomes(passed=1)


def test_new_episodes_asks_no_server_for_ids_of_the_recording(
    run: Runner, server: Loopback
) -> None:
    agent = {"id": "agent-e422b946-1244-4f9b-bc48-3b71b43e216f"}
    server.routes["/agent"] = lambda exchange: exchange.json(agent)
    ask = """
        def test_it(letta_cassette):
            with letta_cassette.sync_http_client() as client:
                agent = client.get("/agent").json()["id"]
                {more}
    """
    run.pytester.makepyfile(test_it=ask.format(more="pass"))
    run.record().assert_outcomes(passed=1)
    seen = len(server.seen)
    run.pytester.makepyfile(test_it=ask.format(more="client.get(f'/hello?id={agent}')"))
    result = run("--letta-record=new_episodes")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*is of the recording, the server does not know it*rewrite*"])
    assert len(server.seen) == seen


SHARED = """
    import pytest

    @pytest.fixture(scope="{scope}")
    def client(letta_cassette_{scope}):
        with letta_cassette_{scope}.sync_http_client() as client:
            client.get("/hello")
            yield client
            client.get("/script")

    def test_first(client):
        assert client.get("/other").json() == {{"n": 1}}

    def test_second(client):
        assert client.get("/other").json() == {{"n": 2}}
"""


@pytest.mark.parametrize(
    ("scope", "file"), [("module", "it/_module.yaml"), ("session", "_session.yaml")]
)
def test_a_fixture_of_a_wider_scope_records_one_cassette(
    run: Runner, server: Loopback, scope: str, file: str
) -> None:
    run.pytester.makepyfile(test_it=SHARED.format(scope=scope))
    run.record().assert_outcomes(passed=2)
    assert list(run.files) == [file]
    uris = [item.request.uri for item in Cassette.loads(run.files[file])]
    assert [uri.rpartition("/")[2] for uri in uris] == ["hello", "other", "other", "script"]
    seen = len(server.seen)
    run().assert_outcomes(passed=2)
    # One of them alone plays its part.
    run("-k", "first").assert_outcomes(passed=1, deselected=1)
    assert len(server.seen) == seen
    before = run.files
    # The server counts on.
    run.pytester.makepyfile(test_it=SHARED.format(scope=scope).replace('== {"n": 1}', "!= {}"))
    result = run("--letta-record=rewrite", "-k", "first")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["not recorded: *not all of its tests were run: *test_second*"])
    assert run.files == before


def test_a_cassette_of_a_module_is_not_saved_when_a_test_of_it_fails(run: Runner) -> None:
    run.pytester.makepyfile(test_it=SHARED.format(scope="module").replace('"n": 2', '"n": 3'))
    result = run.record()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["not recorded: *_module.yaml was not made, because *second failed"]
    )
    assert run.files == {}


def test_a_module_is_marked_as_a_whole(run: Runner, server: Loopback) -> None:
    run.pytester.makepyfile(
        test_it="""
        import socket
        import pytest

        pytestmark = pytest.mark.letta_cassette("whole", scope="module")

        def test_first(letta_cassette):
            with letta_cassette.sync_http_client() as client:
                assert client.get("/other").json() == {"n": 1}

        def test_second(letta_cassette):
            with letta_cassette.sync_http_client() as client:
                assert client.get("/other").json() == {"n": 2}
            if not letta_cassette.recording:
                with pytest.raises(AssertionError, match="tried to reach"):
                    socket.getaddrinfo("letta.example", 443)
        """
    )
    run.record().assert_outcomes(passed=2)
    assert list(run.files) == ["whole.yaml"]
    result = run()
    # What was refused fails the last one, however it was taken.
    result.assert_outcomes(passed=2, errors=1)


@pytest.mark.parametrize("there", [False, True])
def test_a_test_that_skips_keeps_its_recording_and_the_run_says_so(
    run: Runner, there: bool
) -> None:
    if there:
        run.pytester.makepyfile(test_it=HELLO)
        run.record().assert_outcomes(passed=1)
    before = run.files
    skips = HELLO + '            pytest.skip("no model today")\n'
    run.pytester.makepyfile(test_it=skips.replace('== {"n": 1}', "!= {}"))
    result = run("--letta-record=rewrite")
    result.assert_outcomes(skipped=1)
    what = "is as it was" if there else "was not made"
    result.stdout.fnmatch_lines(
        [f"not recorded: *test_hello.yaml {what}, because *was skipped (no model today)"]
    )
    assert run.files == before


def test_the_run_says_what_it_recorded_and_what_is_large(run: Runner, server: Loopback) -> None:
    server.routes["/hello"] = lambda exchange: exchange.json({"n": 1, "text": "word " * 30_000})
    run.pytester.makepyfile(test_it=HELLO.replace('== {"n": 1}', '["n"] == 1'))
    result = run.record()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["recorded: *test_hello.yaml (150.* kB)", "*large for a repository*"]
    )


def test_the_help_says_what_each_option_does(run: Runner) -> None:
    text = run("--help").stdout.str()
    for words in ("new_episodes", "LETTA_APP_SERVER_URL", "fails or skips", "letta_cassette_dir"):
        assert words in text
    marks = run("--markers").stdout.str()
    for option in ("shared", "base_url_env", "model_env", "player", "timing", "network", "scope"):
        assert f"{option}" in marks


OPEN = """
    import gc
    from letta_adapters import LettaClient, Rest

    def test_it(letta_cassette):
        rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
        with LettaClient(rest, http_client=letta_cassette.http_client()) as client:
            assert client.agents.list() == []
        http = letta_cassette.sync_http_client()
        assert http.get("/hello").json()
        del http, client, rest

    def test_after():
        gc.collect()
"""


@pytest.mark.parametrize("player", ["transport", "vcr"])
def test_a_client_that_is_left_open_warns_of_nothing(
    run: Runner, server: Loopback, player: str
) -> None:
    for path in ("/v1/agents/", "/v1/agents"):
        server.routes[path] = lambda exchange: exchange.json([])
    mark = f'import pytest\n\n    @pytest.mark.letta_cassette(player="{player}")\n    def test_it'
    run.pytester.makepyfile(test_it=OPEN.replace("def test_it", mark))
    run.apart("--letta-record=once", "-W", "error", "-p", "no:xdist").assert_outcomes(passed=2)


# What may go wrong with a file ----------------------------------------------------------------


def cassette() -> Cassette:
    typed = (("content-type", "application/json"),)
    answer = RecordedResponse(200, "OK", typed, b'{"n": 1}')
    return Cassette([Interaction(RecordedRequest("GET", "http://letta.test/hello", typed), answer)])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_file_that_cannot_be_written_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "x.yaml"
    save_cassette(cassette(), path)
    before = path.read_bytes()
    opened = Path.open

    def full(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        file = opened(self, mode, *rest, **options)
        if mode == "x":
            file.write("version")
            monkeypatch.setattr(type(self), "replace", failing)
        return file

    def failing(self: Path, target: Path) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CassetteSaveError, match="as it was"):
        save_cassette(cassette(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_asked(
    run: Runner, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.pytester.makepyfile(test_it=HELLO)
    monkeypatch.setattr("os.access", lambda *_: False)
    result = run.record()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*could not be written to*"])
    assert server.seen == []


def test_a_name_in_any_script_records_and_replays(run: Runner) -> None:
    run.pytester.makepyfile(test_ünïcode=HELLO.replace("test_hello", "test_привет_你好"))
    run.record().assert_outcomes(passed=1)
    assert list(run.files) == ["ünïcode/test_привет_你好.yaml"]
    run().assert_outcomes(passed=1)


def test_an_interrupted_run_writes_nothing(run: Runner) -> None:
    run.pytester.makepyfile(test_it=HELLO)
    run.record().assert_outcomes(passed=1)
    before = run.files
    gone = HELLO.replace('== {"n": 1}', "!= {}; raise KeyboardInterrupt")
    run.pytester.makepyfile(test_it=gone)
    result = run.apart("--letta-record=rewrite", "-p", "no:xdist")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert run.files == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("body:", "boddy:"),
        lambda text: text.replace("{code: 200", "{code: fine"),
        lambda text: text.replace('string: |-\n        {"n": 1}', "string: 5"),
        lambda text: text.replace("version: 1", "version: 9"),
        lambda text: "",
        lambda text: "- request: [\n",
    ],
    ids=["torn", "key", "status", "number", "version", "empty", "yaml"],
)
@pytest.mark.parametrize("player", ["transport", "vcr"])
def test_a_file_that_was_edited_badly_is_named(run: Runner, player: str, damage: Any) -> None:
    mark = f'@pytest.mark.letta_cassette(player="{player}")\n    def test_hello'
    run.pytester.makepyfile(test_it=HELLO.replace("def test_hello", mark))
    run.record().assert_outcomes(passed=1)
    path = run.pytester.path / "cassettes/it/test_hello.yaml"
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    result = run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*CassetteFormatError: *test_hello.yaml*"])
    with pytest.raises(CassetteFormatError, match=r"test_hello\.yaml"):
        Cassette.load(path)
