"""Teams of agents: each keeps its own conversation, and hears the others as what they are."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph_supervisor import create_supervisor
from langgraph_swarm import create_handoff_tool, create_swarm

from letta_adapters.langchain import LettaRunnable
from tests.langchain.graphs.conftest import World, calls


def ask(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


def last(state: Any) -> str:
    return str(state["messages"][-1].text)


def run_turns(world: World, database: str, build: Any, turns: Any) -> list[str]:
    """Every turn in a process of its own, as far as this one can forget."""
    answers = []
    for text, script in turns:
        world.as_another_process()
        connection = sqlite3.connect(database, check_same_thread=False)
        try:
            world.script(*script)
            app = build(SqliteSaver(connection))
            answers.append(last(app.invoke(ask(text), world.config())))
        finally:
            connection.close()
    return answers


def flat(held: dict[str, list[str]]) -> list[str]:
    return [" | ".join(texts) for texts in held.values()]


# langgraph-supervisor still uses what LangGraph 1 deprecates.
@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
@pytest.mark.parametrize("workers", ["agents", "runnables"])
def test_a_supervisor_and_its_workers(world: World, database: str, workers: str) -> None:
    def worker(name: str) -> Any:
        if workers == "runnables":
            return LettaRunnable(model=world.model(), name=name)
        return create_agent(world.model(), [], name=name)

    def build(saver: Any) -> Any:
        team = [worker("math"), worker("text")]
        supervisor = create_supervisor(team, model=world.model(), prompt="You lead.")
        return supervisor.compile(checkpointer=saver)

    turns = [
        ("Ask-1", [calls("transfer_to_math"), "Math says 1.", "Done 1."]),
        ("Ask-2", [calls("transfer_to_math"), "Math says 2.", "Done 2."]),
        ("Ask-3", [calls("transfer_to_text"), "Text says 3.", "Done 3."]),
    ]
    assert run_turns(world, database, build, turns) == ["Done 1.", "Done 2.", "Done 3."]
    held = world.holds()
    assert len(held) == 3  # the supervisor's, and one for each worker
    for texts in held.values():
        said = " | ".join(texts)
        # The supervisor and the second worker hear all of the three; math the first two.
        assert [said.count(turn) for turn in ("Ask-1", "Ask-2")] == [1, 1]
    assert sorted(said.count("Ask-3") for said in flat(held)) == [0, 1, 1]
    assert any("Math says 1." in said for said in flat(held))  # the others are told


def test_a_swarm_with_handoffs(world: World, database: str) -> None:
    def build(saver: Any) -> Any:
        alice = create_agent(world.model(), [create_handoff_tool(agent_name="bob")], name="alice")
        bob = create_agent(world.model(), [create_handoff_tool(agent_name="alice")], name="bob")
        swarm = create_swarm([alice, bob], default_active_agent="alice")
        return swarm.compile(checkpointer=saver)

    turns = [
        ("one", [calls("transfer_to_bob"), "Bob here."]),
        ("two", ["Bob again."]),
        ("three", [calls("transfer_to_alice"), "Alice here."]),
    ]
    assert run_turns(world, database, build, turns) == ["Bob here.", "Bob again.", "Alice here."]
    held = world.holds()
    assert len(held) == 2
    for said in flat(held):
        assert [said.count(turn) for turn in ("one", "two", "three")] == [1, 1, 1]


def test_a_worker_in_a_tool_of_its_supervisor(world: World, database: str) -> None:
    """The tool-calling supervisor of LangChain's documentation."""

    def build(saver: Any) -> Any:
        helping = create_agent(world.model(), [], name="helper")

        def helper(request: str) -> str:
            """Ask the helper."""
            return last(helping.invoke(ask(request)))

        return create_agent(world.model(), [helper], checkpointer=saver)

    turns = [
        ("one", [calls("helper", request="for one"), "Helped 1.", "Done 1."]),
        ("two", [calls("helper", request="for two"), "Helped 2.", "Done 2."]),
    ]
    assert run_turns(world, database, build, turns) == ["Done 1.", "Done 2."]
    assert world.holds() == {"T/model": ["one", "two"], "?": ["for one"], "??": ["for two"]}
    results = world.results(world.id_of("T/model"))
    assert ["Helped 1." in results[0], "Helped 2." in results[1]] == [True, True]


def test_deepagents_with_a_sub_agent(world: World, database: str) -> None:
    # Not a dependency of the suite below Python 3.11, which it needs.
    deepagents = pytest.importorskip("deepagents", reason="deepagents needs Python 3.11")

    def build(saver: Any) -> Any:
        writer = {"name": "writer", "description": "Writes.", "system_prompt": "You write."}
        return deepagents.create_deep_agent(
            model=world.model(), subagents=[writer], checkpointer=saver
        )

    def task(description: str) -> Any:
        return calls("task", description=description, subagent_type="writer")

    turns = [
        ("Essay-1?", [task("Outline-1."), "Written 1.", "Done 1."]),
        ("Essay-2?", [task("Outline-2."), "Written 2.", "Done 2."]),
    ]
    assert run_turns(world, database, build, turns) == ["Done 1.", "Done 2."]
    held = {name: " | ".join(texts) for name, texts in world.holds().items()}
    own = held.pop("T/model")
    assert [own.count(text) for text in ("Essay-1?", "Essay-2?", "Outline-")] == [1, 1, 0]
    assert len(held) == 2
    asked = sorted(text[-10:] for text in held.values())
    assert asked == ["Outline-1.", "Outline-2."]
    results = world.results(world.id_of("T/model"))
    assert ["Written 1." in results[0], "Written 2." in results[1]] == [True, True]
