"""What a call is, and what becomes of it where nobody is asked: every kind of input, one by one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.permissions import Allow, Deny
from letta_adapters.permissions.policy import (
    Ground,
    Machine,
    Rules,
    answer_unasked,
    classify_call,
    is_open_ground,
    question,
)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """A project with files of all kinds, a memory, and private places around them."""
    cwd, memory, state = tmp_path / "project", tmp_path / "memory", tmp_path / "state"
    for place in (cwd / "src", cwd / ".git", cwd / ".letta", memory / ".git", state):
        place.mkdir(parents=True)
    (tmp_path / "outside.txt").write_text("x")
    for name in (
        "plain.txt", "src/secrets.py", ".env", ".env.local", "prod.env", "id_rsa", "a.pem",
        "passwords.txt", "credentials.json", ".git/config", ".letta/settings.json", ".npmrc",
    ):  # fmt: skip
        (cwd / name).write_text("x")
    for name in ("persona.md", "mod.js", ".git/config"):
        (memory / name).write_text("x")
    (cwd / "link.txt").symlink_to(tmp_path / "outside.txt")
    (cwd / "inner.txt").symlink_to(cwd / "plain.txt")
    (cwd / "hidden.txt").symlink_to(cwd / ".env")
    (cwd / "up").symlink_to(tmp_path)
    # Behind `deep`, the system and Node go up from different places.
    (cwd / "one" / "two").mkdir(parents=True)
    (cwd / "deep").symlink_to(cwd / "one" / "two")
    for name in ("project/outside.txt", "outside.txt"):
        (tmp_path / name).write_text("x")
    (cwd / "again").symlink_to("again")
    (cwd / "process").symlink_to("/proc/self/cwd")
    (cwd / "two-names.txt").write_text("x")
    os.link(cwd / "two-names.txt", tmp_path / "store.txt")
    os.mkfifo(cwd / "pipe")
    return Ground(cwd, memory, (state,), (tmp_path / "home",))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("plain.txt", "reads_cwd"),
        ("./src/../plain.txt", "reads_cwd"),
        ("../project/plain.txt", "reads_cwd"),
        ("inner.txt", "reads_cwd"),
        ("src/secrets.py", "reads_cwd"),
        ("link.txt", "reads"),
        ("hidden.txt", "reads"),
        ("up/outside.txt", "reads"),
        ("up/project/plain.txt", "reads_cwd"),
        ("deep/../../plain.txt", "reads"),
        ("deep/../../outside.txt", "reads"),
        ("src/../outside.txt", "reads_cwd"),
        ("again", "reads"),
        ("again/plain.txt", "reads"),
        ("two-names.txt", "reads_cwd"),
        ("file:///etc/passwd", "reads"),
        ("/etc/../etc/passwd", "reads"),
        ("x/" * 2000 + "plain.txt", "reads"),
        ("x" * 5000, "reads"),
        ("../outside.txt", "reads"),
        ("/etc/passwd", "reads"),
        (".env", "reads"),
        (".ENV", "reads"),
        (".env.local", "reads"),
        ("prod.env", "reads"),
        ("id_rsa", "reads"),
        ("a.pem", "reads"),
        ("passwords.txt", "reads"),
        ("credentials.json", "reads"),
        (".npmrc", "reads"),
        (".git/config", "reads"),
        (".letta/settings.json", "reads"),
        ("pipe", "reads"),
        ("missing.txt", "reads"),
        ("src", "reads"),
        ("~/x", "reads"),
        ("$HOME/x", "reads"),
        ("${HOME}/x", "reads"),
        (" plain.txt", "reads"),
        ("plain.txt\n", "reads"),
        ("plain\x00.txt", "reads"),
        ("plain\u200b.txt", "reads"),
        ("", "reads"),
        (None, "reads"),
        (["plain.txt"], "reads"),
        ({"a": 1}, "reads"),
        (7, "reads"),
    ],
)
def test_what_a_read_reads(ground: Ground, path: Any, kind: str) -> None:
    assert classify_call("Read", {"file_path": path}, ground) == kind


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="the system has no such files")
@pytest.mark.parametrize("path", ["/proc/self/cwd/plain.txt", "process/plain.txt"])
@pytest.mark.parametrize("tool", ["Read", "Write", "Grep", "LS"])
def test_what_is_another_file_for_another_process(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, path: str, tool: str
) -> None:
    """For the runtime it leads to the directory that holds the server's token."""
    assert ground.cwd is not None
    monkeypatch.chdir(ground.cwd)
    given = {"path": str(Path(path).parent)} if tool == "LS" else {"file_path": path}
    assert classify_call(tool, given, ground) == ("writes" if tool == "Write" else "reads")
    everywhere = Path("/proc", str(os.getpid()), "cwd", "plain.txt")
    assert classify_call(tool, {"file_path": str(everywhere)}, ground) in ("reads", "writes")


def test_all_arguments_that_name_a_file_count(ground: Ground) -> None:
    both = {"file_path": "plain.txt", "path": "/etc/passwd"}
    assert classify_call("Read", both, ground) == "reads"
    assert classify_call("Read", {}, ground) == "reads"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("new.txt", "writes_cwd"),
        ("src/new.py", "writes_cwd"),
        ("deep/er/new.py", "writes_cwd"),
        ("plain.txt", "writes_cwd"),
        ("inner.txt", "writes_cwd"),
        ("link.txt", "writes"),
        ("up/new.txt", "writes"),
        ("/tmp/elsewhere", "writes"),
        (".env", "writes"),
        (".letta/settings.json", "writes"),
        (".LETTA/settings.json", "writes"),
        (".letta/new.json", "writes"),
        (".git/hooks/pre-commit", "writes"),
        ("sub/.git/hooks/pre-commit", "writes"),
        (".vscode/tasks.json", "writes"),
        (".husky/pre-commit", "writes"),
        (".claude/settings.json", "writes"),
        ("sub/.Cursor/mcp.json", "writes"),
        (".pre-commit-config.yaml", "writes"),
        ("sub/.mcp.json", "writes"),
        ("pipe", "writes"),
        ("src", "writes"),
        ("deep/../../outside.txt", "writes"),
        # Such as a file that a package manager shares with other projects.
        ("two-names.txt", "writes"),
    ],
)
@pytest.mark.parametrize("tool", ["Write", "Edit", "write_file", "MultiEdit"])
def test_what_a_write_writes(ground: Ground, tool: str, path: str, kind: str) -> None:
    assert classify_call(tool, {"file_path": path}, ground) == kind


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["*** Add File: a.txt", "+x"], "writes_cwd"),
        (["*** Update File: plain.txt", "*** Move to: b.txt"], "writes_cwd"),
        (["*** Update File: plain.txt", "*** Move to: ../b.txt"], "writes"),
        (["*** Add File: a.txt", "+x", "*** Delete File: /etc/hosts"], "writes"),
        (["*** Rename File: a.txt"], "writes"),
        (["*** Add File: .git/hooks/x", "+x"], "writes"),
        (["*** Add File: a.txt", "+x", "\ufeff*** Add File: /tmp/x", "+x"], "writes"),
        (["*** Add File: a.txt", "+x", "\u00a0*** Add File: /tmp/x", "+x"], "writes"),
        (["*** Add File: a.txt\x0b/../../../tmp/x", "+x"], "writes"),
        (["*** Add File: a.txt\u2028/../../../tmp/x", "+x"], "writes"),
        (["*** Add File: a.txt\r/../../../tmp/x", "+x"], "writes"),
        (["*** Add File: a.txt\r", "+\ufeff*** not a header\r"], "writes_cwd"),
        # Letta Code keeps these characters as a part of the name.
        (["*** Update File:   plain.txt"], "writes"),
        (["*** Update File: plain.txt\x1f"], "writes"),
        (["*** Update File: plain.txt\x85"], "writes"),
        (["*** Update File: plain.txt", "*** Move to: b.txt "], "writes"),
        (["*** Add File:a.txt"], "writes"),
        ([], "writes"),
    ],
)
def test_what_a_patch_writes(ground: Ground, lines: list[str], kind: str) -> None:
    text = "\n".join(["*** Begin Patch", *lines, "*** End Patch"])
    assert classify_call("ApplyPatch", {"input": text}, ground) == kind


def test_what_touches_the_memory(ground: Ground) -> None:
    memory = ground.memory
    assert memory is not None
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("Memory", {"path": "persona.md"}, "own_memory"),
        ("Memory", {"path": "../outside.txt"}, "reads"),
        ("Memory", {"path": "/etc/passwd"}, "reads"),
        ("Memory", {"path": ".git/config"}, "reads"),
        ("Read", {"file_path": str(memory / "persona.md")}, "own_memory"),
        ("Read", {"file_path": str(memory / ".git" / "config")}, "reads"),
        ("Write", {"file_path": str(memory / "notes" / "new.md")}, "own_memory"),
        ("Write", {"file_path": str(memory / "mod.js")}, "writes"),
        ("Write", {"file_path": str(memory / ".git" / "hooks" / "x.md")}, "writes"),
        ("Read", {"file_path": str(memory.parent / "memory2" / "x.md")}, "reads"),
    ]
    for tool, given, kind in calls:
        assert classify_call(tool, given, ground) == kind, given


def test_a_skill_of_the_project_may_be_a_link(ground: Ground) -> None:
    assert classify_call("Skill", {"skill": "commit"}, ground) == "notes"
    assert classify_call("Skill", {"skill": "../x"}, ground) == "reads"
    cwd = ground.cwd
    assert cwd is not None
    for name in ("good", "bad"):
        (cwd / ".skills" / name).mkdir(parents=True)
    (cwd / ".skills" / "good" / "SKILL.md").write_text("x")
    (cwd / ".skills" / "bad" / "SKILL.md").symlink_to("/etc/passwd")
    assert classify_call("Skill", {"skill": "good"}, ground) == "reads_cwd"
    assert classify_call("Skill", {"skill": "bad"}, ground) == "reads"
    assert classify_call("Skill", {"skill": "somewhere-else"}, ground) == "reads"


@pytest.mark.parametrize(
    ("tool", "kind"),
    [
        ("Bash", "executes"),
        ("exec_command", "executes"),
        ("shell", "executes"),
        ("write_stdin", "executes"),
        ("Monitor", "executes"),
        ("TaskStop", "executes"),
        ("EnterWorktree", "executes"),
        ("SetWorkingDirectory", "executes"),
        ("ReadLSP", "executes"),
        ("mcp__files__read", "executes"),
        ("A tool of tomorrow", "executes"),
        ("", "executes"),
        ("bash", "executes"),
        ("read", "executes"),
        ("WebFetch", "network"),
        ("Agent", "unrestricted_child"),
        ("Task", "unrestricted_child"),
        ("Workflow", "unrestricted_child"),
        ("TaskList", "notes"),
        ("Grep", "reads"),
        ("Glob", "reads"),
        ("read_artifact_file", "reads"),
    ],
)
def test_what_other_tools_do(ground: Ground, tool: str, kind: str) -> None:
    given = {"command": "ls", "cmd": "ls", "pattern": "x", "url": "https://example.org"}
    assert classify_call(tool, given, ground) == kind


def test_a_directory_is_listed_and_a_file_searched(ground: Ground) -> None:
    assert classify_call("LS", {"path": "src"}, ground) == "reads_cwd"
    assert classify_call("LS", {}, ground) == "reads_cwd"
    assert classify_call("LS", {"path": ".git"}, ground) == "reads"
    assert classify_call("LS", {"path": "up"}, ground) == "reads"
    assert classify_call("Grep", {"pattern": "x", "path": "plain.txt"}, ground) == "reads_cwd"
    assert classify_call("Grep", {"pattern": "x", "path": "src"}, ground) == "reads"


@pytest.mark.parametrize(
    "given",
    [
        {"pattern": "--pre=./run.sh"},
        {"pattern": "-f/etc/passwd"},
        {"pattern": "-f", "output_mode": "content"},
        {"pattern": ["--pre=./run.sh"]},
        {"pattern": "x", "glob": "--pre=./run.sh"},
        {"pattern": "x", "type": "--type-add=x:*"},
    ],
)
@pytest.mark.parametrize("tool", ["Grep", "Glob", "GrepFiles"])
def test_a_search_whose_pattern_is_an_option(
    ground: Ground, tool: str, given: dict[str, Any]
) -> None:
    assert classify_call(tool, {**given, "path": "plain.txt"}, ground) == "executes"
    options = {"pattern": "x", "path": "plain.txt", "-A": 2, "-i": True, "head_limit": 5}
    assert classify_call("Grep", options, ground) == "reads_cwd"


def test_where_nothing_is_read_unasked(tmp_path: Path) -> None:
    home, state = tmp_path / "home", tmp_path / "home" / "state"
    project = home / "project"
    project.mkdir(parents=True)
    state.mkdir()
    (tmp_path / "link").symlink_to(home)

    def opened(cwd: Path | None) -> bool:
        return is_open_ground(Ground(cwd, None, (state,), (home,)))

    assert opened(project)
    for cwd in (None, home, tmp_path, Path("/"), state, state / "inner", tmp_path / "link"):
        assert not opened(cwd), cwd


def test_another_machine_cannot_be_looked_at() -> None:
    here = Ground()
    assert classify_call("Read", {"file_path": "/project/plain.txt"}, here) == "reads"
    assert classify_call("Write", {"file_path": "plain.txt"}, here) == "writes"
    assert classify_call("Memory", {"path": "persona.md"}, here) == "own_memory"
    assert classify_call("Memory", {"path": "../x"}, here) == "reads"


def test_an_agent_of_an_odd_name_has_no_memory_here() -> None:
    machine = Machine("/state/memfs/{agent}/memory")
    assert machine.ground("agent-1", "/project").memory == Path("/state/memfs/agent-1/memory")
    for name in ("", "..", "a/b", "../../etc"):
        assert machine.ground(name, "/project").memory is None


def test_what_a_session_says_of_a_tool() -> None:
    allow, deny = Allow, Deny
    named = Rules("strict", frozenset({"Bash", "Task"}))
    assert type(answer_unasked("Bash", "executes", named)) is allow
    assert type(answer_unasked("Agent", "unrestricted_child", named)) is allow
    assert type(answer_unasked("Read", "reads_cwd", named)) is deny
    ruled_out = Rules("unrestricted", frozenset({"Agent"}), frozenset({"Task", "ApplyPatch"}))
    for name in ("Agent", "Task", "apply_patch"):
        assert answer_unasked(name, "notes", ruled_out) == Deny(
            "This tool is not allowed in this session, so it was not run."
        )
    assert type(answer_unasked("Bash", "executes", ruled_out)) is allow
    assert type(answer_unasked("Bash", "executes", Rules("unheard of"))) is deny


def test_a_question_that_says_nothing_is_denied_by_default() -> None:
    assert type(question(False, {})["default"]) is Deny
    assert question(True, {"kind": "executes"})["default"] == Allow()
    plain = {"kind": "reads", "default": {"behavior": "deny", "message": "why"}}
    assert question(False, plain)["default"] == Deny("why")
