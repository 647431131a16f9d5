"""What travels with an agent, and what a session may say beside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import ConfigurationError, InvalidInputError
from letta_adapters.backends.agent_settings import (
    AgentSettings,
    MachineSettings,
    Restrictions,
    for_session,
    keep_own,
    of_options,
    with_tags,
    without_own,
)
from letta_adapters.backends.app_server.inherited import MachineFiles
from letta_adapters.options import AgentOptions, SessionOptions

AGENT = "agent-local-1"
ONLY = "letta-adapters:only:"


def given(**options: Any) -> AgentSettings:
    return of_options(AgentOptions(**options))


# -- what travels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "tags"),
    [
        ({"permission_mode": "strict"}, ["strict"]),
        ({"disallowed_tools": ["Write", "Bash"]}, ["no-tool:Bash", "no-tool:Write"]),
        ({"skill_sources": []}, ["skills:none"]),
        ({"skill_sources": ["agent", "bundled"]}, ["skills:agent,bundled"]),
        ({"system_info_reminder": False}, ["no-system-info"]),
        ({"permission_mode": "unrestricted"}, []),
        ({"permission_mode": "acceptEdits"}, []),
        ({"permission_mode": "standard"}, []),
        ({"allowed_tools": ["Bash"]}, []),
        ({"cwd": "/tmp"}, []),
        ({"system_info_reminder": True}, []),
        ({}, []),
    ],
)
def test_only_what_restricts_travels(options: dict[str, Any], tags: list[str]) -> None:
    restrictions = given(**options).restrictions
    assert with_tags(["mine"], restrictions) == ["mine", *(ONLY + tag for tag in tags)]


@pytest.mark.parametrize(
    "tags",
    [
        ["unrestricted"],
        ["acceptEdits"],
        ["allowed_tools:Bash"],
        ["cwd:/"],
        ["STRICT"],
        [""],
        ["no-tool:"],
        ["no-tool:Bash(rm *)"],
        ["no-tool:*"],
        ["of-a-later-version:x"],
    ],
)
def test_a_tag_that_is_not_understood_is_the_strictest(tags: list[str]) -> None:
    found = Restrictions.of_agent({"tags": [ONLY + tag for tag in tags]})
    assert found == Restrictions(strict=True)


@pytest.mark.parametrize(
    "agent",
    [
        {},
        {"tags": None, "metadata": None},
        {"tags": "letta-adapters:only:unrestricted", "metadata": "x"},
        {"tags": [1, None, {"a": 1}, "letta-adapters:default", "only:unrestricted"]},
        {"metadata": {"letta": {"only": ["unrestricted"]}}},
        {"metadata": {"letta_adapters": {"permission_mode": "unrestricted"}}},
    ],
)
def test_what_is_not_ours_says_nothing(agent: dict[str, Any]) -> None:
    assert Restrictions.of_agent(agent) == Restrictions()


@pytest.mark.parametrize("ours", [None, "strict", 1, ["unrestricted"], {"only": "x"}, {"only": 1}])
def test_torn_metadata_of_ours_is_the_strictest(ours: Any) -> None:
    assert Restrictions.of_agent({"metadata": {"letta_adapters": ours}}).strict


def test_no_combination_of_tags_loosens_what_one_of_them_restricts() -> None:
    tags = ["strict", "skills:none", "skills:bundled,global", "no-tool:Bash", "no-strict"]
    found = Restrictions.of_agent({"tags": [ONLY + tag for tag in tags]})
    assert found == Restrictions(True, frozenset({"Bash"}), ())
    both = {"tags": [f"{ONLY}skills:agent,project"], "metadata": {"letta_adapters": {"only": []}}}
    both["metadata"]["letta_adapters"]["only"] = ["skills:agent"]
    assert Restrictions.of_agent(both).skill_sources == ("agent",)


def test_the_users_tags_are_theirs() -> None:
    agent = {
        "tags": ["mine", f"{ONLY}strict", "letta-adapters:default"],
        "metadata": {"a": 1, "letta_adapters": {"only": ["strict"]}},
    }
    assert without_own(agent) == {"tags": ["mine", "letta-adapters:default"], "metadata": {"a": 1}}
    kept = keep_own({"tags": ["other"], "metadata": {"b": 2}}, agent)
    assert kept["tags"] == ["other", f"{ONLY}strict", "letta-adapters:default"]
    assert kept["metadata"] == {"b": 2, "letta_adapters": {"only": ["strict"]}}
    assert keep_own({"name": "x"}, agent) == {"name": "x"}


# -- sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "session", "counts"),
    [
        ({"permission_mode": "strict"}, {}, {"permission_mode": "strict"}),
        ({"permission_mode": "unrestricted"}, {}, {"permission_mode": "unrestricted"}),
        (
            {"permission_mode": "unrestricted"},
            {"permission_mode": "strict"},
            {"permission_mode": "strict"},
        ),
        (
            {"permission_mode": "unrestricted"},
            {"permission_mode": "standard"},
            {"permission_mode": "standard"},
        ),
        (
            {"disallowed_tools": ["Bash"]},
            {"disallowed_tools": ["Read"]},
            {"disallowed_tools": ("Bash", "Read")},
        ),
        ({"disallowed_tools": ["Bash"]}, {"disallowed_tools": []}, {"disallowed_tools": ("Bash",)}),
        (
            {"disallowed_tools": ["Bash"], "allowed_tools": ["Bash", "Read"]},
            {},
            {"allowed_tools": ("Read",), "disallowed_tools": ("Bash",)},
        ),
        ({"allowed_tools": ["Bash"]}, {"allowed_tools": []}, {"allowed_tools": ()}),
        ({"permission_mode": "strict"}, {"allowed_tools": ["Bash"]}, {"allowed_tools": ("Bash",)}),
        ({"skill_sources": ["agent", "global"]}, {}, {"skill_sources": ("agent", "global")}),
        (
            {"skill_sources": ["agent", "global"]},
            {"skill_sources": ["agent"]},
            {"skill_sources": ("agent",)},
        ),
        ({"skill_sources": []}, {}, {"skill_sources": ()}),
        ({"system_info_reminder": False}, {}, {"system_info_reminder": False}),
        (
            {"system_info_reminder": False},
            {"system_info_reminder": True},
            {"system_info_reminder": True},
        ),
        ({"cwd": "/a"}, {"cwd": "/b"}, {"cwd": Path("/b")}),
        ({"allowed_tools": ["Bash"], "cwd": "/a"}, {"stateless": True}, {"cwd": None}),
    ],
)
def test_a_session_counts_where_it_restricts(
    agent: dict[str, Any], session: dict[str, Any], counts: dict[str, Any]
) -> None:
    made = for_session(given(**agent), SessionOptions(**session))
    assert {name: getattr(made, name) for name in counts} == counts


@pytest.mark.parametrize(
    ("agent", "session", "named"),
    [
        ({"permission_mode": "strict"}, {"permission_mode": "unrestricted"}, "permission_mode"),
        ({"permission_mode": "strict"}, {"permission_mode": "acceptEdits"}, "permission_mode"),
        ({"permission_mode": "strict"}, {"permission_mode": "default"}, "permission_mode"),
        ({"disallowed_tools": ["Bash"]}, {"allowed_tools": ["Read", "Bash"]}, "allowed_tools"),
        ({"disallowed_tools": ["Bash"]}, {"offered_tools": ["Read", "Bash"]}, "offered_tools"),
        ({"skill_sources": []}, {"skill_sources": ["project"]}, "skill_sources"),
        ({"skill_sources": ["agent"]}, {"skill_sources": ["agent", "project"]}, "skill_sources"),
    ],
)
def test_a_session_that_loosens_what_its_agent_restricts_is_refused_by_name(
    agent: dict[str, Any], session: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"^{named}=") as caught:
        for_session(given(**agent), SessionOptions(**session))
    assert caught.value.accepted is False


def test_the_skills_of_this_machine_stay_inside_what_travels() -> None:
    settings = AgentSettings(
        Restrictions(skill_sources=("agent",)), MachineSettings(skill_sources=("agent", "project"))
    )
    assert settings.skill_sources == ("agent",)


def test_settings_are_changed_one_by_one() -> None:
    settings = given(permission_mode="strict", disallowed_tools=["Bash"], skill_sources=[])
    loosened = settings.changed({"permission_mode": "acceptEdits"})
    assert loosened.shown() == {
        "permission_mode": "acceptEdits",
        "disallowed_tools": ("Bash",),
        "skill_sources": (),
    }
    changes = dict.fromkeys(("permission_mode", "disallowed_tools", "skill_sources"))
    assert loosened.changed(changes) == AgentSettings()
    with pytest.raises(InvalidInputError, match="permission_mode"):
        settings.changed({"permission_mode": "yolo"})


# -- this machine's file --------------------------------------------------------------------------


def test_what_is_kept_here_is_for_this_user_alone(tmp_path: Path) -> None:
    files = MachineFiles(tmp_path / "ours")
    settings = MachineSettings(permission_mode="unrestricted", cwd=tmp_path)
    old = os.umask(0)
    try:
        files.save(AGENT, settings)
    finally:
        os.umask(old)
    (kept,) = (tmp_path / "ours" / "agents").glob("*.json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert files.load(AGENT) == settings
    assert files.load("agent-local-2") == MachineSettings()
    files.save(AGENT, MachineSettings())
    assert not kept.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"permission_mode": "unrestr',
        "[]",
        "null",
        '{"permission_mode": "strict"}',
        '{"permission_mode": "root"}',
        '{"allowed_tools": ["Bash(*)"]}',
        '{"allowed_tools": "Bash"}',
        '{"new": 1}',
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_a_torn_file_is_named(tmp_path: Path, text: str | bytes) -> None:
    files = MachineFiles(tmp_path)
    files.save(AGENT, MachineSettings(permission_mode="unrestricted"))
    path = tmp_path / "agents" / f"{AGENT}.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=str(path)):
        files.load(AGENT)
    assert files.load("agent-local-2") == MachineSettings()


def test_a_file_that_others_may_write_gives_nothing(tmp_path: Path) -> None:
    files = MachineFiles(tmp_path)
    files.save(AGENT, MachineSettings(permission_mode="unrestricted"))
    (tmp_path / "agents" / f"{AGENT}.json").chmod(0o666)
    with pytest.raises(ConfigurationError, match="other users"):
        files.load(AGENT)


@pytest.mark.parametrize(
    "id_", ["../../etc/passwd", "agent-../x", "agent-a/b", "agent-\0", "", "x"]
)
def test_an_agents_id_leads_nowhere_else(tmp_path: Path, id_: str) -> None:
    files = MachineFiles(tmp_path / "ours")
    assert files.load(id_) == MachineSettings()
    with pytest.raises(ConfigurationError):
        files.save(id_, MachineSettings(permission_mode="unrestricted"))
    files.forget(id_)
    assert not list(tmp_path.rglob("*.json"))


def test_a_directory_that_cannot_be_written_is_said_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        MachineFiles(tmp_path / "file" / "ours").check_writable()
