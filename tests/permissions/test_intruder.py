"""Nothing runs that nobody allowed: tried on the real runtime, in every mode, by a model that lies.

``python -m tests.permissions.table`` prints what is expected here as the table of
``docs/permissions.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import Deny, LettaClient, Local, PermissionContext, ToolResultMessage
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ScriptedModel, ToolUse
from tests._wheel import require_wheel
from tests.permissions._intruder import CANARY, KEY, Attempt, Place
from tests.permissions.table import ALLOWS, documented, printed

pytestmark = pytest.mark.slow

MODES = ("standard", "acceptEdits", "strict", "unrestricted")
_DENIED = ("needs an approval", "User reason: no", "Not today.", "not allowed in this session")


class Trial:
    """A model that tries one thing a turn, and what came of it."""

    def __init__(self, client: LettaClient, model: ScriptedModel, place: Place, agent: str) -> None:
        self.client, self.model, self.place, self.agent = client, model, place, agent
        self.asked: list[tuple[str, PermissionContext]] = []

    def deny(self, name: str, _: Any, context: PermissionContext) -> Deny:
        """A callback that denies everything."""
        self.asked.append((name, context))
        return Deny("Not today.")

    def attempts(self, toolset: str) -> list[Attempt]:
        return [one for one in self.place.attempts() if one.toolset == toolset]

    def run(self, session: Any, attempt: Attempt) -> bool:
        """Whether the call ran."""
        return self.run_all(session, [attempt])[attempt.label]

    def run_all(self, session: Any, attempts: list[Attempt]) -> dict[str, bool]:
        """Which of the calls ran, by their labels; all of them in one turn."""
        self.place.settle()
        self.asked.clear()
        self.model.clear()
        ids = {f"try-{number}": attempt for number, attempt in enumerate(attempts)}
        uses = [ToolUse(one.tool, one.arguments, id=call) for call, one in ids.items()]
        self.model.script(Reply(tool_calls=uses, when="try them"), Reply("Done.", repeat=True))
        session.send("try them")
        results = [m for m in session.stream() if isinstance(m, ToolResultMessage)]
        told = {ids[m.tool_call_id].label: m.content for m in results}
        assert told.keys() == {one.label for one in attempts}
        return {
            label: not any(text in content for text in _DENIED) for label, content in told.items()
        }


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    require_wheel()
    root = tmp_path_factory.mktemp("intruder")
    home = root / "home"
    with ScriptedModel() as model:
        spec = Local(
            data_dir=home, openai_compatible={"base_url": model.base_url}, env={KEY: CANARY}
        )
        with LettaClient(spec) as client:
            agent = client.create_agent(
                model="lmstudio/scripted", system_prompt="You are a test.", persona="I am a test."
            )
            state = home / ".letta" / "lc-local-backend"
            place = Place(root / "w", state / "memfs" / agent / "memory", state / "letta-adapters")
            place.build()
            yield Trial(client, model, place, agent)


def count(
    record: Any, tried: list[Attempt], asked: int, forbidden: list[Attempt], ran: dict[str, bool]
) -> None:
    """For ``python -m tools.drills``."""
    record("tried", len(tried))
    record("asked", asked)
    record("ran unasked", sum(ran[attempt.label] for attempt in forbidden))


@pytest.mark.parametrize("toolset", ["default", "codex"])
@pytest.mark.parametrize("mode", MODES[:3])
def test_without_a_callback_only_the_default_answer_runs(
    trial: Trial, mode: Any, toolset: Any, record_property: Any
) -> None:
    options: Any = {"cwd": trial.place.cwd, "permission_mode": mode, "toolset": toolset}
    with trial.client.create_session(trial.agent, **options) as session:
        attempts = trial.attempts(toolset)
        ran = trial.run_all(session, attempts)
    count(record_property, attempts, 0, [a for a in attempts if a.kind not in ALLOWS[mode]], ran)
    assert ran == {one.label: one.kind in ALLOWS[mode] for one in attempts}
    writes = any(one.kind == "writes_cwd" and ran[one.label] for one in attempts)
    assert trial.place.left_behind() == ({"file"} if writes else set())


@pytest.mark.parametrize("mode", MODES)
def test_a_callback_that_denies_is_asked_about_everything(
    trial: Trial, mode: Any, record_property: Any
) -> None:
    options: Any = {"cwd": trial.place.cwd, "permission_mode": mode, "can_use_tool": trial.deny}
    with trial.client.create_session(trial.agent, toolset="default", **options) as session:
        attempts = trial.attempts("default")
        ran = trial.run_all(session, attempts)
    count(record_property, attempts, len(trial.asked), attempts, ran)
    assert not any(ran.values())
    assert trial.place.left_behind() == set()
    asked = {context.tool_call_id: (name, context) for name, context in trial.asked}
    assert len(trial.asked) == len(attempts)
    for number, attempt in enumerate(attempts):
        name, context = asked[f"try-{number}"]
        assert (name, context.kind) == (attempt.tool, attempt.kind), attempt.label
        expected = "Allow" if attempt.kind in ALLOWS[mode] else "Deny"
        assert type(context.default).__name__ == expected, attempt.label


def test_unrestricted_runs_what_it_is_told(trial: Trial) -> None:
    options: Any = {"cwd": trial.place.cwd, "permission_mode": "unrestricted"}
    command = {"command": f"echo it > '{trial.place.traces}/command'", "description": "a test"}
    attempt = Attempt("a command", "Bash", command, "executes")
    with trial.client.create_session(trial.agent, toolset="default", **options) as session:
        assert trial.run(session, attempt)
    assert trial.place.left_behind() == {"command"}  # and no hook of the directory


def test_named_tools_run_and_ruled_out_ones_never_do(trial: Trial) -> None:
    command = {"command": f"touch '{trial.place.traces}/command'", "description": "a test"}
    attempt = Attempt("a command", "Bash", command, "executes")
    read = Attempt("a file", "Read", {"file_path": str(trial.place.cwd / ".env")}, "reads")
    options: Any = {"cwd": trial.place.cwd, "allowed_tools": ["Bash"], "toolset": "default"}
    with trial.client.create_session(trial.agent, **options) as session:
        assert trial.run(session, attempt)
        assert trial.place.left_behind() == {"command"}
        assert not trial.run(session, read)
    options |= {"permission_mode": "unrestricted", "disallowed_tools": ["Bash"]}
    with trial.client.create_session(trial.agent, **options) as session:
        # It is not offered either; a model that calls it all the same is told so.
        trial.run(session, attempt)
    assert trial.place.left_behind() == set()


def test_the_answer_to_a_question_may_be_the_default(trial: Trial) -> None:
    def default(_: str, __: Any, context: PermissionContext) -> Any:
        return context.default

    options: Any = {"cwd": trial.place.cwd, "can_use_tool": default, "toolset": "default"}
    wanted = {a.label: a for a in trial.attempts("default")}
    labels = ["Memory", "Write of the memory", "Read of a plain file", "env"]
    with trial.client.create_session(trial.agent, **options) as session:
        ran = trial.run_all(session, [wanted[label] for label in labels])
    assert ran == dict(zip(labels, [True, True, True, False], strict=True))
    trial.place.left_behind()


@pytest.mark.parametrize(
    "options",
    [{}, {"permission_mode": "strict"}, {"toolset": "none"}, {"disallowed_tools": ["Bash"]}],
)
def test_nothing_reflects_that_was_not_asked_to(trial: Trial, options: dict[str, Any]) -> None:
    """By default Letta Code reflects after 25 turns, and the directory asks for one."""
    seen: list[ModelRequest] = []
    with trial.client.create_session(trial.agent, cwd=trial.place.cwd, **options) as session:
        trial.model.clear()
        trial.model.script(Reply("Hm.", repeat=True))
        for number in range(27):
            assert session.run_turn(f"turn {number}").success
        seen = trial.model.requests
    assert len(seen) >= 27
    assert not [r for r in seen if "reflection subagent" in str(r.messages[0].get("content"))]
    assert trial.place.left_behind() == set()


def test_what_the_directory_says_is_left_as_it_is(trial: Trial) -> None:
    trial.place.settle()
    folder = trial.place.cwd / ".letta"
    before = {path.name: path.read_text() for path in folder.iterdir()}
    options: Any = {"cwd": trial.place.cwd, "can_use_tool": trial.deny}
    with trial.client.create_session(trial.agent, **options) as session:
        session.run_turn("hello")
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_a_skill_that_is_a_link_to_a_secret_is_not_shown(trial: Trial) -> None:
    good = trial.place.cwd / ".skills" / "juggling"
    good.mkdir()
    text = "---\nname: juggling\ndescription: How to juggle.\n---\n# Juggling\n"
    (good / "SKILL.md").write_text(text)
    trial.model.clear()
    with trial.client.create_session(trial.agent, cwd=trial.place.cwd) as session:
        session.run_turn("hello")
    seen = str([request.messages for request in trial.model.requests])
    assert "How to juggle." in seen
    assert CANARY not in seen


def test_the_table_of_the_documentation_is_what_holds() -> None:
    assert documented() == printed()


@pytest.mark.parametrize(
    "where", ["the home", "above the home", "around the state", "inside the state"]
)
def test_some_directories_are_not_read_unasked(trial: Trial, where: str) -> None:
    home = trial.place.root.parent / "home"
    cwd = {
        "the home": home,
        "above the home": home.parent,
        "around the state": home / ".letta",
        "inside the state": trial.place.memory.parent,
    }[where]
    file = Path(cwd) / "plain-file.txt"
    file.write_text(CANARY)
    attempt = Attempt("a file", "Read", {"file_path": str(file)}, "reads")
    options: Any = {"cwd": cwd, "toolset": "default"}
    with trial.client.create_session(trial.agent, **options) as session:
        assert not trial.run(session, attempt)
