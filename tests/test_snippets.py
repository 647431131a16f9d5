"""Every block of code in the documentation runs, and its commands exist."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from letta_adapters import LettaClient
from letta_adapters.cli.parser import parse
from letta_adapters.testing import FakeLetta, ScriptedModel
from letta_adapters.testing.compliant_model import comply
from tests._wheel import require_wheel
from tests.backends.app_server._server import TOKEN, AppServer
from tests.snippets.blocks import Block, find_blocks, list_extras, read_mark, shown_files
from tests.snippets.docstrings import GIVEN, MARKS
from tests.snippets.scenes import HELP, World, serve
from tools.pages.links import ROOT

BLOCKS: Final = find_blocks()
PYTHON: Final = [block for block in BLOCKS if block.language == "python"]
RUN: Final = [b for b in PYTHON if b.scene in ("api", "embedded")]
TESTS: Final = [b for b in PYTHON if b.scene == "pytest"]
WITH_SERVERS: Final = [b for b in PYTHON if b.scene == "servers"]
NOT_RUN: Final = [b for b in PYTHON if b.scene == "not-run"]
SHELL: Final = [block for block in BLOCKS if block.language in ("sh", "bash", "console")]
PYTEST_INI: Final = """\
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""
# Programs that commands of the documentation use and this package does not bring.
TOOLS: Final = (
    "cat",
    "cd",
    "git",
    "celery",
    "uvicorn",
    "langgraph",
    "pre-commit",
    "export",
    "letta",
)
# Blocks that cannot run: each says why, and this is how many there may be.
MAY_NOT_RUN: Final = 0


@pytest.fixture(scope="module")
def fake() -> Iterator[tuple[FakeLetta, str]]:
    letta = FakeLetta()
    with serve(letta) as url:
        yield letta, url


@pytest.fixture
def api(fake: tuple[FakeLetta, str], monkeypatch: pytest.MonkeyPatch) -> World:
    """The environment names the fake, as it names the Letta API for a user."""
    letta, url = fake
    letta.script()
    monkeypatch.setenv("LETTA_BASE_URL", url)
    with LettaClient() as client:
        return make_world(letta, client)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Path]]:
    """Letta Code in a home of its own; it stays as long as this client is open."""
    require_wheel()
    home = tmp_path_factory.mktemp("home")
    with ScriptedModel(respond=comply) as model, ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            point_at(patch, model, home)
            client = stack.enter_context(LettaClient("local"))
            world = make_world(model, client)
        yield world, home


@pytest.fixture
def embedded(runtime: tuple[World, Path], monkeypatch: pytest.MonkeyPatch) -> World:
    """The environment names no Letta and one model, the scripted one, as it names a user's."""
    world, home = runtime
    point_at(monkeypatch, world.plays, home)
    return world


def point_at(patch: pytest.MonkeyPatch, model: ScriptedModel, home: Path) -> None:
    patch.setenv("HOME", str(home))
    patch.setenv("LMSTUDIO_BASE_URL", model.base_url)


def make_world(plays: FakeLetta | ScriptedModel, client: LettaClient) -> World:
    agent_id = client.create_agent(persona="I am a librarian.")
    with client.create_session(agent_id) as session:
        session.run_turn("Hello!")
        assert session.conversation_id
        return World(plays, agent_id, session.conversation_id)


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.filterwarnings("ignore:is_running called")
@pytest.mark.parametrize(
    "block",
    # Those of Letta Code start it.
    [pytest.param(b, marks=[pytest.mark.slow] if b.scene == "embedded" else []) for b in RUN],
    ids=str,
)
def test_a_block_runs(
    block: Block,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    thread_s_event_loop: None,
) -> None:
    for module in block.settings.get("needs", "").split():
        pytest.importorskip(module, reason=f"{module} is not installed")
    world = request.getfixturevalue(block.scene)
    monkeypatch.chdir(tmp_path)
    try:
        world.run(block)
    except Exception as error:
        raises = block.settings.get("raises")
        if type(error).__name__ != raises:
            pytest.fail(f"{block.name}: {error!r}\n\n{block.code}\n{HELP}")
    else:
        assert "raises" not in block.settings
    assert block.settings.get("prints", "") in capsys.readouterr().out


# What stands in a block for a server of the reader's own, and the test's server in its place.
SERVERS_OF_OTHERS: Final = {
    "http://127.0.0.1:1234/v1": "{model}",
    "qwen3-8b": "scripted",
    "ws://agents.internal:4500": "{app_server}",
    'auth_token="..."': f'auth_token="{TOKEN}"',
}


@pytest.mark.slow
@pytest.mark.parametrize("block", WITH_SERVERS, ids=str)
def test_a_block_with_a_server_of_the_reader_s_own_runs(
    block: Block,
    shared_model: ScriptedModel,
    app_server: AppServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared_model.clear()
    code = block.code
    for written, ours in SERVERS_OF_OTHERS.items():
        here = ours.format(model=shared_model.base_url, app_server=app_server.url)
        code = code.replace(written, here)
    assert code != block.code
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LETTA_MODEL", "lmstudio/scripted")
    exec(compile(code, block.name, "exec"), {})


@pytest.mark.slow
@pytest.mark.timeout(300)  # two runs of pytest, each of which starts what it needs
def test_blocks_that_are_tests_pass(
    fake: tuple[FakeLetta, str],
    shared_model: ScriptedModel,
    app_server: AppServer,
    tmp_path: Path,
) -> None:
    """Recorded first where they record, as the page says, then replayed without a server."""
    recorded, seen = [], set[str]()
    for number, block in enumerate(TESTS):
        given = GIVEN.get(block.name.rpartition(":")[0], "")
        code = "\n\n".join([given, *(b.code for b in block.before), block.code])
        # A suite that stands on a page and in a docstring runs once.
        if (same := ast.dump(ast.parse(code))) in seen:
            continue
        seen.add(same)
        file = tmp_path / f"test_{number}.py"
        file.write_text(f"# {block.name}\n{code}", encoding="utf-8")
        recorded += [file.name] if "letta_cassette" in code else []
    (tmp_path / "pytest.ini").write_text(PYTEST_INI)
    env = {k: v for k, v in os.environ.items() if not k.startswith("LETTA_") and k != "CI"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5"]
    servers = {
        "LETTA_BASE_URL": fake[1],
        "LETTA_RIG_MODEL": shared_model.base_url,
        "LETTA_APP_SERVER_URL": app_server.url,
        "LETTA_APP_SERVER_TOKEN": TOKEN,
    }
    for more, options in ((servers, ["--letta-record=once", *recorded]), ({}, [])):
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, env=env | more, capture_output=True, text=True,
            timeout=150, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout)
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= len(TESTS)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_commands_of_a_block_exist(block: Block) -> None:
    faults = [fault for line in join_lines(block.code) if (fault := find_fault(line))]
    assert faults == [], block.name


def join_lines(code: str) -> list[str]:
    text = re.sub(r"\\\n\s*", " ", code)
    lines = [line.removeprefix("$ ").partition("  #")[0] for line in text.splitlines()]
    # Where a command's output goes is the shell's business.
    lines = [re.sub(r"\s[<>]+\s*\S+", "", line) for line in lines]
    return [part.strip() for line in lines for part in re.split(r"&&|\|", line) if part.strip()]


def find_fault(line: str) -> str:
    """Return what is wrong with a command: a program, option, extra or module is missing."""
    words = [w for w in shlex.split(line, comments=True) if not re.match(r"^[A-Z_]+=", w)]
    if not words:
        return ""
    program, arguments = words[0].rpartition("/")[2], words[1:]
    if program.startswith("python") and arguments[:1] == ["-m"]:
        program, arguments = arguments[1], arguments[2:]
        if importlib.util.find_spec(program.partition(".")[0]) is None:
            return f"{line}: no module {program}"
    elif program.startswith("python") and arguments:
        return "" if (ROOT / arguments[0]).exists() else f"{line}: no such file"
    if program == "pip":
        return find_unknown_extra(line)
    if program == "letta-adapters":
        return find_usage_fault(arguments)
    if program == ".ci/run":
        return "" if (ROOT / program).exists() else f"{line}: no such file"
    known = {*TOOLS, "pytest", "venv", "build", "zensical", "letta_adapters"}
    if program.partition(".")[0] in {"tools", "benchmarks", "tests"} or program in known:
        return ""
    if program.startswith("letta_adapters."):
        return "" if importlib.util.find_spec(program) else f"{line}: no module {program}"
    return (
        f"{line}: tests/test_snippets.py does not know {program!r}: add it to TOOLS if it is right"
    )


def find_usage_fault(arguments: list[str]) -> str:
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
            parse(arguments)
    except SystemExit as stop:
        return f"letta-adapters {shlex.join(arguments)}: {said.getvalue()}" if stop.code else ""
    return ""


def find_unknown_extra(text: str) -> str:
    named = {
        extra.strip()
        for group in re.findall(r"(?:letta-adapters|\.)\[([\w, -]+)\]", text)
        for extra in group.split(",")
    }
    unknown = named - list_extras()
    return f"no extra {', '.join(sorted(unknown))}: {text.strip()}" if unknown else ""


def test_every_extra_that_the_documentation_installs_exists() -> None:
    lines = [line for file in shown_files() for line in file.read_text("utf-8").splitlines()]
    assert [
        fault for line in lines if "pip install" in line and (fault := find_unknown_extra(line))
    ] == []


def test_only_what_cannot_run_is_left_out() -> None:
    run = len(RUN) + len(TESTS) + len(WITH_SERVERS)
    print(f"snippets: {run} of {len(PYTHON)} run, {len(SHELL)} blocks of commands checked")
    for block in NOT_RUN:
        print(f"not run: {block.name}: {block.settings['reason']}")
    assert len(NOT_RUN) == MAY_NOT_RUN
    assert run + len(NOT_RUN) == len(PYTHON)


def test_every_fence_says_what_it_holds() -> None:
    assert [block.name for block in BLOCKS if not block.language] == [], (
        "write ```python, ```sh or ```text"
    )


@pytest.mark.parametrize("mark", ["nowhere", 'api prits="x"', "embedded now", "not-run"])
def test_a_wrong_mark_is_told(mark: str) -> None:
    with pytest.raises(ValueError, match=r"^README.md:3: "):
        read_mark(mark, "README.md:3")


def test_a_block_that_lacks_a_name_is_told_what_to_write(api: World) -> None:
    with pytest.raises(AssertionError, match=r"docs/a.md:1: nothing makes graph. Write the import"):
        api.run(Block("docs/a.md:1", "python", "graph.invoke({})"))


@pytest.mark.parametrize(
    "line",
    ["letta-adapters propmt x", "letta-adapters chat --no", 'pip install "letta-adapters[lokal]"',
     "python -m no_such_module", "python examples/none.py", "curlll x"],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    assert find_fault(line)


def test_docstrings_that_are_marked_exist() -> None:
    assert set(MARKS) <= {block.name.rpartition(":")[0] for block in BLOCKS}
