"""Objects instead of texts: whole and streamed, by JSON and by a tool, good at first or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.program import FunctionCallingProgram
from pydantic import BaseModel

from letta_adapters.llama_index import LettaLLM, LettaMemory
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.faults._turns import until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FENCED = 'Here it is:\n```json\n{"name": "Ada", "age": 36}\n```'


class Person(BaseModel):
    """A person."""

    name: str
    age: int


ADA = Person(name="Ada", age=36)


@pytest.fixture
def llm(letta_fake: FakeLetta) -> LettaLLM:
    client = letta_fake.client()
    return LettaLLM(agent_id=client.create_agent(name="a"), client=client)


def called(**arguments: Any) -> Reply:
    return Reply(tool_calls=[ToolUse("Person", arguments)])


def program(llm: LettaLLM) -> Any:
    return FunctionCallingProgram.from_defaults(Person, prompt_template_str="Who?", llm=llm)


async def _whole_by_json(llm: LettaLLM) -> Any:
    return llm.structured_predict(Person, PromptTemplate("Who?"))


async def _whole_by_json_async(llm: LettaLLM) -> Any:
    return await llm.astructured_predict(Person, PromptTemplate("Who?"))


async def _streamed_by_json(llm: LettaLLM) -> Any:
    return list(llm.stream_structured_predict(Person, PromptTemplate("Who?")))[-1]


async def _streamed_by_json_async(llm: LettaLLM) -> Any:
    stream = await llm.astream_structured_predict(Person, PromptTemplate("Who?"))
    return [made async for made in stream][-1]


async def _structured_llm(llm: LettaLLM) -> Any:
    return llm.as_structured_llm(Person).chat([ChatMessage("Who?")]).raw


async def _whole_by_tool(llm: LettaLLM) -> Any:
    return program(llm)()


async def _whole_by_tool_async(llm: LettaLLM) -> Any:
    return await program(llm).acall()


async def _streamed_by_tool(llm: LettaLLM) -> Any:
    return list(program(llm).stream_call())[-1]


async def _streamed_by_tool_async(llm: LettaLLM) -> Any:
    return [made async for made in await program(llm).astream_call()][-1]


_JSON = (
    _whole_by_json,
    _whole_by_json_async,
    _streamed_by_json,
    _streamed_by_json_async,
    _structured_llm,
)
_TOOL = (_whole_by_tool, _whole_by_tool_async, _streamed_by_tool, _streamed_by_tool_async)
by_json = pytest.mark.parametrize("ask", _JSON, ids=lambda ask: ask.__name__)
by_tool = pytest.mark.parametrize("ask", _TOOL, ids=lambda ask: ask.__name__)
Ask = Callable[[LettaLLM], Any]


@by_json
async def test_an_object_in_a_code_block(llm: LettaLLM, letta_fake: FakeLetta, ask: Ask) -> None:
    letta_fake.script(FENCED)
    assert await ask(llm) == ADA
    assert len(letta_fake.requests) == 1


@by_json
async def test_one_answer_that_is_no_object_is_mended(
    llm: LettaLLM, letta_fake: FakeLetta, ask: Ask
) -> None:
    letta_fake.script("She is thirty-six.", FENCED)
    assert await ask(llm) == ADA
    assert "That is no JSON" in letta_fake.said[-1]


@by_json
async def test_two_answers_that_are_no_object_are_an_error(
    llm: LettaLLM, letta_fake: FakeLetta, ask: Ask
) -> None:
    letta_fake.script("She is thirty-six.", "36, I said.")
    with pytest.raises(ValueError, match="object that was asked for"):
        await ask(llm)
    assert len(letta_fake.requests) == 2


ORCHESTRA = '{"name": "Trio", "players": [{"name": "Ada", "age": 36}, {"name": "Bob", "age": 4}]}'


class Group(BaseModel):
    """Several persons."""

    name: str
    players: list[Person]


async def _parts(llm: LettaLLM) -> list[Any]:
    return list(llm.stream_structured_predict(Group, PromptTemplate("Who?")))


async def _parts_async(llm: LettaLLM) -> list[Any]:
    stream = await llm.astream_structured_predict(Group, PromptTemplate("Who?"))
    return [made async for made in stream]


async def _parts_of_structured_llm(llm: LettaLLM) -> list[Any]:
    return [made.raw for made in llm.as_structured_llm(Group).stream_chat([ChatMessage("Who?")])]


in_parts = pytest.mark.parametrize("ask", (_parts, _parts_async, _parts_of_structured_llm))


@in_parts
async def test_an_object_is_shown_while_it_comes(
    llm: LettaLLM, letta_fake: FakeLetta, ask: Ask
) -> None:
    letta_fake.script(f"Here it is:\n```json\n{ORCHESTRA}\n```\nDone.")
    parts = await ask(llm)
    assert [len(part.players or []) for part in parts if part.name] == sorted(
        len(part.players or []) for part in parts if part.name
    )
    assert {len(part.players or []) for part in parts} == {0, 1, 2}
    assert parts[-1] == Group.model_validate_json(ORCHESTRA)
    assert isinstance(parts[-1], Group)


@in_parts
async def test_the_last_object_is_the_mended_one(
    llm: LettaLLM, letta_fake: FakeLetta, ask: Ask
) -> None:
    """LlamaIndex keeps the one with more fields, which is the bad one here."""
    bad = '{"name": "Trio", "players": [{"name": "A", "age": "old"}], "x": 1, "y": 2, "z": 3}'
    letta_fake.script(bad, '{"name": "Solo", "players": []}')
    parts = await ask(llm)
    assert parts[-1] == Group(name="Solo", players=[])
    assert len(letta_fake.requests) == 2


async def test_leaving_an_object_early_stops_the_agent(
    llm: LettaLLM, letta_fake: FakeLetta
) -> None:
    letta_fake.script(Reply(ORCHESTRA, token_delay=0.05))
    stream = llm.stream_structured_predict(Group, PromptTemplate("Who?"))
    assert next(part.name for part in stream if part.name)
    stream.close()
    letta_fake.script("Again.")
    assert llm.complete("again").text == "Again."
    # Conversations are removed in the background, so that nobody waits for it.
    await until(lambda: not letta_fake._conversations)


@by_tool
async def test_an_object_as_the_arguments_of_a_tool(
    llm: LettaLLM, letta_fake: FakeLetta, ask: Ask
) -> None:
    letta_fake.script(called(name="Ada", age=36))
    assert await ask(llm) == ADA
    # Conversations are removed in the background, so that nobody waits for it.
    await until(lambda: not letta_fake._conversations)


@by_tool
async def test_arguments_that_do_not_fit_are_mended_once(
    llm: LettaLLM, letta_fake: FakeLetta, ask: Ask
) -> None:
    letta_fake.script(called(name="Ada"), called(name="Ada", age=36))
    assert await ask(llm) == ADA
    letta_fake.script(called(name="Ada"), called(name="Ada"))
    with pytest.raises(ValueError, match=r"Person|object that was asked for"):
        await ask(llm)
    # Conversations are removed in the background, so that nobody waits for it.
    await until(lambda: not letta_fake._conversations)


async def test_a_tool_is_not_run_with_arguments_that_are_no_json(
    llm: LettaLLM, letta_fake: FakeLetta
) -> None:
    ran: list[str] = []

    def delete(path: str = "/") -> str:
        """Delete files."""
        ran.append(path)
        return "gone"

    broken = ToolUse("delete", '{"path": "/tmp/x', id="cut-1")
    letta_fake.script(Reply(tool_calls=[broken]), "I see.")
    agent = FunctionAgent(llm=llm, tools=[delete])
    assert str(await agent.run("go", memory=LettaMemory())) == "I see."
    assert ran == []
