"""Tutorials of LlamaIndex with only the model's line changed: the same comes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.tutorials.llama_index import agents, basics, engines, workflows
from tests.tutorials.llama_index.conftest import Letta, Played
from tests.tutorials.llama_index.stage import (
    Stage,
    Tutorial,
    missing,
    perform,
    script,
    with_agent,
    with_llm,
)

# LlamaIndex' own code does what pydantic and its workflows want to give up.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
    pytest.mark.filterwarnings("ignore:Skipping serialization of known unserializable key"),
    pytest.mark.usefixtures("thread_s_event_loop"),
]

Make = Callable[[Any, Callable[[str], str]], Stage]
Control = Callable[[Tutorial], Played]

TUTORIALS = [
    made
    for module in (basics, agents, engines, workflows)
    for made in vars(module).values()
    if isinstance(made, Tutorial)
]


def cases(*, recorded: bool = False) -> list[Any]:
    made = []
    for tutorial in TUTORIALS:
        if recorded and not tutorial.recorded:
            continue
        marks = [pytest.mark.letta_cassette] if recorded else []
        made.append(pytest.param(tutorial, with_llm, id=f"{tutorial.name}-llm", marks=marks))
        if tutorial.about_agents:
            made.append(
                pytest.param(tutorial, with_agent, id=f"{tutorial.name}-agent", marks=marks)
            )
    return made


def play(tutorial: Tutorial, letta: Letta, make: Make) -> dict[str, Any]:
    letta.script(*script(tutorial.lines, by_function=False))
    return perform(tutorial, make(letta.client, letta.new_agent))


@pytest.mark.parametrize(("tutorial", "make"), cases())
def test_on_letta_code(
    tutorial: Tutorial, make: Make, letta_code: Letta, control_of: Control
) -> None:
    control = control_of(tutorial)
    assert play(tutorial, letta_code, make) == control.seen
    assert letta_code.requests is not None
    theirs, ours = control.requests, letta_code.requests()
    assert len(ours) == len(theirs) == len(tutorial.lines)
    if not tutorial.parallel:
        assert missing(theirs, ours, tutorial.objects) == []


@pytest.mark.parametrize(("tutorial", "make"), cases(recorded=True))
def test_on_the_letta_api(
    tutorial: Tutorial, make: Make, letta_api: Letta, control_of: Control
) -> None:
    assert play(tutorial, letta_api, make) == control_of(tutorial).seen


@pytest.mark.parametrize(("tutorial", "make"), cases())
def test_in_memory(
    tutorial: Tutorial, make: Make, letta_in_memory: Letta, control_of: Control
) -> None:
    assert play(tutorial, letta_in_memory, make) == control_of(tutorial).seen
