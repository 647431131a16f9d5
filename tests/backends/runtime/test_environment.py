"""What of the caller's environment reaches the runtime, its git and its shells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from letta_adapters import LettaClient, Local
from letta_adapters.backends.runtime.errors import RuntimeOccupiedError
from letta_adapters.testing import scripted_model
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.backends.runtime._spies import spied
from tests.backends.runtime.conftest import ROOT

__all__ = ["spied"]

MODEL = "lmstudio/scripted"
# `git rev-parse --local-env-vars` and more of the kind; where they point to does not exist.
GIT_STEERING = """
    GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_OBJECT_DIRECTORY GIT_PREFIX GIT_CONFIG
    GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_NAMESPACE GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE
    GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL GIT_CONFIG_PARAMETERS GIT_ASKPASS GIT_SSH_COMMAND
    GIT_EXTERNAL_DIFF GIT_TEMPLATE_DIR
"""
OTHER_STEERING = """
    NODE_OPTIONS NODE_PATH LD_PRELOAD LD_LIBRARY_PATH BASH_ENV ENV npm_config_prefix PYTHONPATH
    LETTA_DEBUG LETTA_MEMORY_DIR LETTA_API_KEY LETTA_MEMFS_BASE_URL LETTA_CODE_AGENT_ROLE AGENT_ID
    MEMORY_DIR MY_DATABASE_PASSWORD GITHUB_TOKEN SSH_AUTH_SOCK
"""


def git(*args: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", *args], cwd=cwd, env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def memory_of(home: Path, agent: str) -> Path:
    return home / ".letta" / "lc-local-backend" / "memfs" / agent / "memory"


@pytest.fixture
def local(home, model):
    return Local(data_dir=home, openai_compatible={"base_url": model.base_url})


@pytest.fixture
def shell(model, tmp_path):
    """Runs a command in the agent's shell, in a directory of its own; returns what it wrote."""

    def run(client: LettaClient, agent: str, command: str, cwd: Path = tmp_path) -> str:
        out = tmp_path / "out.txt"
        call = ToolUse("Bash", {"command": f"({command}) > '{out}' 2>&1", "description": "x"})
        model.script(Reply(tool_calls=[call]), "done")
        session = client.create_session(agent, cwd=cwd, can_use_tool=lambda *_: True)
        with session:
            assert session.run_turn("go").success
        return out.read_text("utf-8")

    return run


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A linked worktree in which Alice has staged a file."""
    for name in list(os.environ):
        if name.startswith("GIT_") and name != "GIT_SSL_CAINFO":
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    main, tree = tmp_path / "repository", tmp_path / "worktree"
    main.mkdir()
    git("init", "-q", "-b", "trunk", cwd=main)
    git("config", "user.name", "Alice", cwd=main)
    git("config", "user.email", "alice@example.com", cwd=main)
    git("commit", "-q", "--allow-empty", "-m", "first", cwd=main)
    git("worktree", "add", "-q", "-b", "feature", str(tree), cwd=main)
    (tree / "c.txt").write_text("c")
    git("add", "c.txt", cwd=tree)
    return main, tree


def test_a_hook_in_a_worktree_leaves_the_users_repository_alone(repository, home, model):
    main, tree = repository
    hook = main / ".git" / "hooks" / "pre-commit"
    hook.write_text(
        f"#!/bin/sh\ncd '{ROOT}' && exec '{sys.executable}' -m tests.backends.runtime._asks "
        f"'{home}' '{model.base_url}' >&2\n"
    )
    hook.chmod(0o755)
    before = (main / ".git" / "config").read_text()
    done = subprocess.run(
        ["git", "commit", "-qm", "second"], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert git("log", "--format=%an <%ae> %s", cwd=tree).splitlines() == [
        "Alice <alice@example.com> second",
        "Alice <alice@example.com> first",
    ]
    assert git("symbolic-ref", "HEAD", cwd=tree) == "refs/heads/feature"
    assert git("branch", "--format=%(refname:short)", cwd=main).split() == ["feature", "trunk"]
    assert git("show", "--name-only", "--format=", cwd=tree) == "c.txt"
    assert git("status", "--porcelain", cwd=tree) == ""
    assert (main / ".git" / "config").read_text() == before


async def test_only_listed_variables_reach_the_runtime(start, monkeypatch):
    for name in (GIT_STEERING + OTHER_STEERING).split():
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    got = psutil.Process((await start()).pid).environ()
    assert not got.keys() & set((GIT_STEERING + OTHER_STEERING).split())
    assert (got["HTTPS_PROXY"], got["LC_ALL"]) == ("http://127.0.0.1:9", "C.UTF-8")


async def test_named_variables_reach_the_runtime(start, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Alice")
    handle = await start(
        inherit_env=("SSH_AUTH_SOCK", "GIT_AUTHOR_NAME", "NOT_SET"), env={"LETTA_DEBUG": "0"}
    )
    got = psutil.Process(handle.pid).environ()
    assert got["SSH_AUTH_SOCK"] == "/run/agent"
    assert (got["GIT_AUTHOR_NAME"], got["LETTA_DEBUG"]) == ("Alice", "0")
    assert "NOT_SET" not in got


@pytest.fixture
def hostile_configuration(request, tmp_path, monkeypatch):
    """A user's git configuration, all of which would show in the memory; the file it runs into.

    It stands where the parameter says: in the file that a variable names, or in one of the two
    usual places.
    """
    where = getattr(request, "param", "variable")
    seen, hooks, template = tmp_path / "seen", tmp_path / "hooks", tmp_path / "template"
    for folder in (hooks, template / "hooks"):
        folder.mkdir(parents=True)
        for name in ("pre-commit", "post-commit", "commit-msg", "post-checkout"):
            (folder / name).write_text(f"#!/bin/sh\npwd >> '{seen}'\n")
            (folder / name).chmod(0o755)
    (template / "config").write_text("[letta]\n\tfrom = template\n")
    (tmp_path / "ignored").write_text("*.md\n")
    users_home = tmp_path / "users-home"
    places = {
        "variable": tmp_path / "gitconfig",
        "home": users_home / ".gitconfig",
        "xdg": users_home / "xdg" / "git" / "config",
    }
    configuration = places[where]
    configuration.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("HOME", str(users_home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(users_home / "xdg"))
    if where == "variable":
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    else:
        monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    configuration.write_text(
        f"[core]\n\thooksPath = {hooks}\n\texcludesFile = {tmp_path / 'ignored'}\n"
        f"[init]\n\ttemplateDir = {template}\n[commit]\n\tgpgsign = true\n"
        f"[gpg]\n\tprogram = /bin/false\n[user]\n\tname = Alice\n\temail = alice@example.com\n"
    )
    return seen


@pytest.mark.parametrize("hostile_configuration", ["variable", "home", "xdg"], indirect=True)
def test_the_users_git_configuration_does_not_reach_the_memory(
    hostile_configuration, local, home, shell
):
    with LettaClient(local) as client:
        agent = client.create_agent(name="a", persona="I am P.", model=MODEL)
        memory = memory_of(home, agent)
        # Also where the agent's shell commits to it.
        edit = (
            f"cd '{memory}' && printf -- '---\\nname: x\\ndescription: y\\n---\\nz\\n' > x.md"
            " && git add x.md && git commit -qm more && git log --format=%an"
        )
        shown = shell(client, agent, edit)
    assert "Alice" not in shown
    assert not hostile_configuration.exists()
    clean = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    assert "x.md" in git("ls-files", cwd=memory, env=clean)
    assert "template" not in (memory / ".git" / "config").read_text()
    assert not (memory / ".git" / "hooks" / "commit-msg").exists()


def test_the_memorys_own_hooks_go_on_checking_it(hostile_configuration, local, home, shell):
    with LettaClient(local) as client:
        agent = client.create_agent(name="a", persona="I am P.", model=MODEL)
        bad = (
            f"cd '{memory_of(home, agent)}' && echo no front matter > bad.md && git add bad.md"
            " && git commit -m bad; git ls-tree --name-only HEAD"
        )
        assert "bad.md" not in shell(client, agent, bad).splitlines()


def test_the_agents_git_keeps_the_users_configuration_where_it_works(
    hostile_configuration, local, shell, tmp_path
):
    project = tmp_path / "project"
    project.mkdir()
    with LettaClient(local) as client:
        agent = client.create_agent(name="a", persona="I am P.", model=MODEL)
        shown = shell(
            client,
            agent,
            "git init -q . && git config user.name && git config letta.from"
            " && git -c commit.gpgsign=false commit -q --allow-empty -m x",
            cwd=project,
        )
    assert shown.split() == ["Alice", "template"]
    assert str(project) in hostile_configuration.read_text()


async def test_another_key_does_not_spend_that_of_a_running_server(start, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the first key")
    await start()
    monkeypatch.setenv("OPENAI_API_KEY", "the second key")
    with pytest.raises(RuntimeOccupiedError, match="OPENAI_API_KEY") as caught:
        await start()
    assert "key" not in str(caught.value).replace("OPENAI_API_KEY", "")
    monkeypatch.setenv("OPENAI_API_KEY", "the first key")
    monkeypatch.setenv("PATH", os.environ["PATH"] + os.pathsep + "/more")
    monkeypatch.setenv("UNRELATED", "1")
    await start()


async def test_no_value_of_the_environment_is_written_down(start, home, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a key that is long")
    await start(env={"MY_TOKEN": "a token that is long"})
    for file in home.rglob("*"):
        if file.is_file():
            assert b"that is long" not in file.read_bytes(), file


@pytest.fixture
def keys(monkeypatch):
    """Two provider keys in the caller's environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "openai-" + "key-1234")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "anthropic-" + "key-1234")


def test_a_shell_of_the_agent_has_no_key_of_a_provider(keys, local, shell):
    with LettaClient(local) as client:
        handles = {str(model["handle"]) for model in client.models.list()}
        agent = client.create_agent(name="a", persona="I am P.", model=MODEL)
        shown = shell(
            client, agent, "env; cat /proc/$PPID/environ /proc/$PPID/cmdline | tr '\\0' ' '"
        )
    # The runtime has them: they bring the models of their providers.
    assert {handle.partition("/")[0] for handle in handles} >= {"openai", "anthropic", "lmstudio"}
    assert "LETTA_ADAPTERS_RUNTIME_ID" in shown
    assert "key-1234" not in shown
    assert "_API_KEY" not in shown


def test_a_key_that_is_named_is_in_the_agents_shell(keys, local, shell):
    named = local.model_copy(update={"inherit_env": ("OPENAI_API_KEY",)})
    with LettaClient(named) as client:
        agent = client.create_agent(name="a", persona="I am P.", model=MODEL)
        shown = shell(client, agent, "env")
    assert "OPENAI_API_KEY=openai-key-1234" in shown
    assert "ANTHROPIC_API_KEY" not in shown


def test_no_path_that_the_model_asks_for_holds_a_key(keys, local, model):
    call = ToolUse("Read", {"file_path": "/nowhere/$OPENAI_API_KEY/${ANTHROPIC_API_KEY}/$PATH"})
    model.script(Reply(tool_calls=[call]), "done")
    with LettaClient(local) as client:
        agent = client.create_agent(name="a", persona="I am P.", model=MODEL)
        with client.create_session(agent, can_use_tool=lambda *_: True) as session:
            session.run_turn("go")
    told = "".join(str(request.body) for request in model.requests)
    assert "/nowhere/" in told
    assert "key-1234" not in told


def eventually_written(file: Path, seconds: float = 60.0) -> None:
    """Return when ``file`` is there: a sub-agent is a process more, and may work on its own."""
    deadline = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.05)


@pytest.fixture
def authorizations(monkeypatch):
    """With which key the model was asked, once per request."""
    seen: list[str] = []
    plain = scripted_model._Handler.do_POST

    def noted(handler):
        seen.append(handler.headers.get("Authorization", ""))
        plain(handler)

    monkeypatch.setattr(scripted_model._Handler, "do_POST", noted)
    return seen


def test_a_sub_agent_has_the_key_and_its_shell_has_not(local, model, authorizations, tmp_path):
    spec = local.model_copy(
        update={"openai_compatible": {"base_url": model.base_url, "api_key": "model-" + "key-1234"}}
    )
    ask = {"subagent_type": "general-purpose", "prompt": "CHILD", "description": "x"}
    out = tmp_path / "env.txt"
    # Written whole: a file that is there is not read before its end is.
    command = f"env > '{out}.part' && mv '{out}.part' '{out}'"
    look = ToolUse("Bash", {"command": command, "description": "x"})
    model.script(
        Reply(tool_calls=[ToolUse("Agent", ask)], when="go"),
        Reply(tool_calls=[look], when="CHILD"),
    )
    with LettaClient(spec) as client:
        agent = client.create_agent(name="a", persona="I am P.", model=MODEL)
        with client.create_session(agent, can_use_tool=lambda *_: True) as session:
            assert session.run_turn("go").success
            eventually_written(out)
    assert set(authorizations) == {"Bearer model-key-1234"}
    assert "LETTA_CODE_AGENT_ROLE=subagent" in out.read_text()
    assert "key-1234" not in out.read_text()


def test_a_turn_reaches_no_host_that_was_not_named(keys, local, spied):
    watched = local.model_copy(update={"env": spied.env})
    with LettaClient(watched) as client:
        client.models.list()
        agent = client.create_agent(name="a", persona="I am P.", model=MODEL)
        assert client.prompt("hi", agent).success
    # On this machine it looks for model servers at their usual ports.
    hosts = {host.rpartition(":")[0] or host for host in spied.hosts}
    assert hosts - {"127.0.0.1", "localhost", "::1"} == set()
    assert local.openai_compatible["base_url"].split("/")[2] in spied.hosts, "the spy works"
    assert not [call for call in spied.git if "://" in call]


def test_a_shell_does_not_get_the_key_of_letta_cloud_from_the_settings(local, home, shell):
    """Letta Code keeps what `letta` logged in with in its settings."""
    settings = home / ".letta" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"env": {"LETTA_API_KEY": "cloud-" + "key-1234"}}))
    with LettaClient(local) as client:
        agent = client.create_agent(name="a", persona="I am P.", model=MODEL)
        assert "key-1234" not in shell(client, agent, "env")
