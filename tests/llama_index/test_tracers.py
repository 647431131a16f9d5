"""The spans of our turns below those of OpenInference's tracer for LlamaIndex."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage

from letta_adapters import LettaClient
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests._spans import Tree, one_tree

oi = pytest.importorskip(
    "openinference.instrumentation.llama_index", reason="OpenInference is not installed"
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SAID = [ChatMessage(role="user", content="a")]


@pytest.fixture
def tree() -> Iterator[Tree]:
    with one_tree(oi.LlamaIndexInstrumentor) as tree:
        yield tree


@pytest.fixture
def client(letta_fake: FakeLetta) -> Iterator[LettaClient]:
    with letta_fake.client() as client:
        yield client


async def read(stream: Any) -> list[Any]:
    return [item async for item in await stream]


FACES: dict[str, Callable[[LettaLLM], Any]] = {
    "complete": lambda llm: llm.complete("a"),
    "acomplete": lambda llm: asyncio.run(llm.acomplete("a")),
    "stream_complete": lambda llm: list(llm.stream_complete("a")),
    "astream_complete": lambda llm: asyncio.run(read(llm.astream_complete("a"))),
    "chat": lambda llm: llm.chat(SAID),
    "achat": lambda llm: asyncio.run(llm.achat(SAID)),
    "stream_chat": lambda llm: list(llm.stream_chat(SAID)),
    "astream_chat": lambda llm: asyncio.run(read(llm.astream_chat(SAID))),
}


@pytest.mark.parametrize("name", FACES)
def test_the_turn_of_a_call_is_part_of_it(tree: Tree, client: LettaClient, name: str) -> None:
    FACES[name](LettaLLM(client=client))
    assert tree.paths() == [f"LettaLLM.{name} > invoke_agent > chat"]
    # Whoever adds the tokens up finds them once.
    assert "gen_ai.usage.input_tokens" not in tree.attributes("invoke_agent")[0]


def test_an_agents_run_is_one_tree(tree: Tree, letta_fake: FakeLetta, client: LettaClient) -> None:
    def note(text: str) -> str:
        """Write a line."""
        return "noted"

    letta_fake.script(Reply(tool_calls=[ToolUse("note", {"text": "x"}, id="n")]), "Done.")

    async def run() -> None:
        await LettaAgent(client=client, tools=[note]).run("a")

    asyncio.run(run())
    paths = tree.paths()
    assert {path.split(" > ")[0] for path in paths} == {"LettaAgent.run"}
    turns = [path for path in paths if "invoke_agent" in path]
    step = "LettaAgent.run > BaseWorkflowAgent.run_agent_step > LettaLLM.astream_chat"
    assert turns == [f"{step} > invoke_agent > chat"] * 2
    assert sum("FunctionTool.acall" in path for path in paths) == 1


async def test_a_tool_that_the_agent_runs_is_shown_once(
    tree: Tree, embedded: LettaClient, embedded_agent: str, embedded_model: Any
) -> None:
    plan = ToolUse("TaskCreate", {"subject": "A", "description": "B"}, id="t1")
    embedded_model.clear()
    embedded_model.script(Reply(tool_calls=[plan]), "Done.")
    await LettaAgent(client=embedded, agent_id=embedded_agent).run("go")
    paths = tree.paths()
    assert sum(path.endswith("TaskCreate.acall") for path in paths) == 1
    assert not any("execute_tool" in path for path in paths)
