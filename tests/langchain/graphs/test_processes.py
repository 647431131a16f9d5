"""Threads that go on in another process: a real one each time, over the real embedded runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from letta_adapters.backends.app_server.recovery import ConversationStatus
from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.langchain.graphs.conftest import World, calls

pytestmark = pytest.mark.slow

_SECONDS = 240.0
_ROOT = Path(__file__).parents[3]


class Processes:
    """Starts them, all with one agent, one thread and one file of checkpoints."""

    def __init__(self, letta: LocalLetta, world: World, database: str) -> None:
        self.world = world
        self._about = {
            "model": letta.model.base_url,
            "data_dir": str(letta.spec.data_dir),
            "agent": world.agent_id,
            "thread": world.thread,
            "database": database,
        }

    def start(self, what: str, text: str, **given: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.langchain.graphs._process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({**self._about, "what": what, "text": text, **given}))
        process.stdin.close()
        return process

    def run(self, what: str, text: str, **given: Any) -> dict[str, Any]:
        """What one printed; ``code`` is how it ended."""
        return finish(self.start(what, text, **given))


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    try:
        code = process.wait(_SECONDS)
        printed = process.stdout.read()
    finally:
        process.kill()
        process.stdout.close()
    return {**json.loads(printed or "{}"), "code": code}


@pytest.fixture
def processes(request: pytest.FixtureRequest, database: str) -> Iterator[Processes]:
    letta: LocalLetta = request.getfixturevalue("_embedded_letta")
    letta.model.clear()
    world = World(letta.client, letta.agent(), letta.model.script)
    yield Processes(letta, world, database)


def test_a_node_s_conversation_goes_on(processes: Processes) -> None:
    world = processes.world
    for text, answer in (("one", "First."), ("two", "Second.")):
        world.script(answer)
        assert processes.run("chat", text)["text"] == answer
    assert world.holds() == {"T/chat": ["one", "two"]}


def test_a_team_s_conversations_go_on(processes: Processes) -> None:
    world = processes.world
    for n in (1, 2):
        world.script(calls("transfer_to_math"), f"Math says {n}.", f"Done {n}.")
        assert processes.run("team", f"Ask-{n}")["text"] == f"Done {n}."
    held = [" | ".join(texts) for texts in world.holds().values()]
    assert len(held) == 2  # the supervisor's, and the worker's
    for said in held:
        assert [said.count(text) for text in ("Ask-1", "Ask-2")] == [1, 1]


def test_a_node_whose_process_died_says_nothing_twice(processes: Processes) -> None:
    world = processes.world
    world.script("First.", "Never.")
    assert processes.run("chat", "one", dies=True)["code"] == 9
    resumed = processes.run("chat", "")
    assert (resumed["text"], resumed["replayed"]) == ("First.", True)
    assert world.holds() == {"T/chat": ["one"]}


@pytest.mark.parametrize(
    ("delay", "looks"),
    [(0, []), (2, [0, 0]), (2, [0, 3.5])],
    ids=["at work", "stored, and not active yet", "active as it is read"],
)
def test_a_call_that_another_process_is_making_is_waited_for(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, delay: float, looks: list[float]
) -> None:
    """Both are asked the same, as when a request is sent to two workers of a server.

    Letta Code stores a message before it says that the message's turn is active, and the answer as
    it grows. ``looks``: what it is asked before it says so takes these seconds to be heard.
    """
    world = processes.world
    words = [f"word{n} " for n in range(12)]
    world.script("Hello.", Reply(text=words, delay=delay, token_delay=0.5), "Never.")
    model = world.model()
    model.invoke([HumanMessage("hello", id="h-0")], world.config())
    other = processes.start("call", "Count.", id="h-1")
    try:
        conversation = world.id_of("T")
        while "Count." not in world.said(conversation):
            assert other.poll() is None
            time.sleep(0.1)
        world.as_another_process()
        left, says = iter(looks), ConversationStatus.says

        def says_late(self: ConversationStatus, id_: str) -> bool:
            if (seconds := next(left, None)) is None:
                return says(self, id_)
            time.sleep(seconds)
            return False

        monkeypatch.setattr(ConversationStatus, "says", says_late)
        again = model.invoke([HumanMessage("Count.", id="h-1")], world.config())
    finally:
        theirs = finish(other)
    assert again.text.split() == theirs["text"].split() == [f"word{n}" for n in range(12)]
    assert again.response_metadata["replayed"]
    assert world.said(conversation) == ["hello", "Count."]


def test_a_call_whose_process_died_in_mid_answer_is_gone_on_with(processes: Processes) -> None:
    """What the dead process had heard by then is not taken for the answer."""
    world = processes.world
    words = [f"word{n} " for n in range(12)]
    # Only the process that dies listens to the conversation: else the turn goes on without it.
    world.script(Reply(text=words, token_delay=0.5), "Here is the whole of it.")
    other = processes.start("call", "Count.", id="h-1")
    while "T" not in world.holds() or "Count." not in world.holds()["T"]:
        assert other.poll() is None
        time.sleep(0.2)
    time.sleep(1.5)  # a part of the answer is there
    other.kill()
    finish_dead(other)
    world.as_another_process()
    again = world.model().invoke([HumanMessage("Count.", id="h-1")], world.config())
    assert again.text.endswith("Here is the whole of it.")
    assert world.said(world.id_of("T")).count("Count.") == 1


def test_what_was_said_before_a_tool_is_not_taken_for_the_answer(processes: Processes) -> None:
    """The process dies between the tool's result and the answer to it."""
    world = processes.world
    plan = {"subject": "Count", "description": "Count the birds."}
    call = ToolUse("TaskCreate", plan, id="task-1")
    world.script(Reply("I note it.", tool_calls=[call]), Reply("Lost.", delay=5), "All is noted.")
    other = processes.start("call", "Count.", id="h-1")
    while "T" not in world.holds() or not world.results(world.id_of("T")):
        assert other.poll() is None
        time.sleep(0.2)
    other.kill()
    finish_dead(other)
    world.as_another_process()
    again = world.model().invoke([HumanMessage("Count.", id="h-1")], world.config())
    assert again.text.endswith("All is noted.")


def finish_dead(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.wait(_SECONDS)
    process.stdout.close()
