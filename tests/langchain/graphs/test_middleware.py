"""Middleware that asks the agent's own model: never in the user's conversation."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    LLMToolEmulator,
    LLMToolSelectorMiddleware,
    ModelFallbackMiddleware,
    SummarizationMiddleware,
    internal_call_transformer,
    wrap_model_call,
)
from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver

from letta_adapters.testing.scripted_model import Reply
from tests.langchain.graphs.conftest import World, calls


def ask(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


def last(state: Any) -> str:
    return str(state["messages"][-1].text)


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def subtract(a: int, b: int) -> int:
    """Subtract."""
    return a - b


@pytest.mark.parametrize("keep", [1, 2])
def test_summaries_are_made_elsewhere_and_not_said_again(
    world: World, saver: InMemorySaver, keep: int
) -> None:
    model = world.model()
    middleware = SummarizationMiddleware(model, trigger=("messages", 3), keep=("messages", keep))
    agent = create_agent(model, [], middleware=[middleware], checkpointer=saver)
    world.script("First.", "Summary one.", "Second.", "Summary two.", "Third.")
    for turn, answer in (("one", "First."), ("two", "Second."), ("three", "Third.")):
        state = agent.invoke(ask(turn), world.config())
        assert last(state) == answer
        assert "forked" not in state["messages"][-1].response_metadata
    held = world.holds()
    assert held.pop("T/model") == ["one", "two", "three"]
    assert len(held) == 2  # a conversation for each summary
    for texts in held.values():
        assert len(texts) == 1
        assert texts[0] not in ("one", "two", "three")


def test_tools_are_chosen_elsewhere(world: World, saver: InMemorySaver) -> None:
    model = world.model()
    middleware = LLMToolSelectorMiddleware(model=model, max_tools=1)
    agent = create_agent(model, [add, subtract], middleware=[middleware], checkpointer=saver)
    choice = calls("ToolSelectionResponse", tools=["add"])
    for turn in ("one", "two"):
        world.script(choice, calls("add", a=1, b=2), choice, f"3, {turn}.")
        assert last(agent.invoke(ask(turn), world.config())) == f"3, {turn}."
    held = world.holds()
    assert held.pop("T/model") == ["one", "two"]
    assert len(held) == 4
    assert all("<instructions>" in texts[-1] for texts in held.values())


def test_tools_are_emulated_elsewhere(world: World, saver: InMemorySaver) -> None:
    model = world.model()
    middleware = LLMToolEmulator(model=model)
    agent = create_agent(model, [add], middleware=[middleware], checkpointer=saver)
    world.script(calls("add", a=1, b=2), "It is 3.", "Three.")
    assert last(agent.invoke(ask("one"), world.config())) == "Three."
    held = world.holds()
    assert held.pop("T/model") == ["one"]
    assert len(held) == 1
    assert "It is 3." in world.results(world.id_of("T/model"))[0]


def test_a_fallback_goes_on_in_the_same_place(fake_world: World) -> None:
    world = fake_world
    broken = world.model(model_name="fake/broken", timeout=5, max_retries=0)
    agent = create_agent(
        broken,
        [],
        middleware=[ModelFallbackMiddleware(world.model())],
        checkpointer=InMemorySaver(),
    )
    from letta_adapters.testing.scripted_model import ModelError

    world.script(Reply(error=ModelError(500)), "First.")
    assert last(agent.invoke(ask("one"), world.config())) == "First."
    assert "T/model" in world.holds()


@pytest.mark.parametrize("tagged", [False, True])
def test_a_guard_of_one_s_own(world: World, saver: InMemorySaver, tagged: bool) -> None:
    """A question before the agent's: by order alone the node's, unless it says it is internal."""
    model = world.model()
    metadata = internal_call_transformer.internal_call_metadata() if tagged else {}

    @wrap_model_call
    def guard(request: Any, handler: Any) -> Any:
        asked: list[Any] = [SystemMessage("Is it safe?"), *request.messages]
        config: Any = {"metadata": metadata}
        assert model.invoke(asked if tagged else f"Is it safe: {asked[-1].text}", config)
        return handler(request)

    agent = create_agent(model, [], middleware=[guard], checkpointer=saver)
    world.script("Safe.", "First.", "Safe.", "Second.")
    agent.invoke(ask("one"), world.config())
    state = agent.invoke(ask("two"), world.config())
    assert last(state) == "Second."
    assert "forked" not in state["messages"][-1].response_metadata
    held = world.holds()
    if tagged:
        assert held["T/model"] == ["one", "two"]
        assert len(held) == 3
    else:
        guarded = ["Is it safe: one", "Is it safe: two"]
        assert held == {"T/model": guarded, "?": ["one", "two"]}
