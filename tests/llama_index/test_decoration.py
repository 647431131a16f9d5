"""What LlamaIndex puts around a message for one call is no change of the history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.memory import Memory, StaticMemoryBlock
from llama_index.core.workflow import Context
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from letta_adapters.llama_index import LettaAgent, LettaMemory
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.llama_index.agents import run

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
    pytest.mark.filterwarnings("ignore:Skipping serialization"),  # a Memory cannot be stored
]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """A database that is closed again, which LlamaIndex' own is not."""
    made = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/memory.db")
    yield made
    await made.dispose()


def told_by_a_block(method: str, engine: AsyncEngine) -> Memory:
    fact = StaticMemoryBlock(name="facts", static_content=[TextBlock(text="Ada likes tea.")])
    return Memory.from_defaults(
        memory_blocks=[fact], insert_method=method, token_limit=4000, async_engine=engine
    )


async def three_turns(agent: Any, memory: Any, *, one_context: bool) -> None:
    ctx = Context(agent) if one_context else None
    for text in ("one", "two", "three"):
        await run(agent, text, ctx, memory=memory)


contexts = pytest.mark.parametrize("one_context", [True, False], ids=["one context", "no context"])


def made(fake: FakeLetta, **fields: Any) -> LettaAgent:
    client = fake.client()
    return LettaAgent(agent_id=client.create_agent(name="a"), client=client, **fields)


@contexts
@pytest.mark.parametrize("method", ["user", "system"])
async def test_a_memory_that_tells_with_the_users_message_starts_no_conversation_anew(
    letta_fake: FakeLetta, engine: AsyncEngine, method: str, one_context: bool
) -> None:
    await three_turns(made(letta_fake), told_by_a_block(method, engine), one_context=one_context)
    assert len(letta_fake._conversations) == 1
    assert [text.count("Ada likes tea.") for text in letta_fake.said] == (
        [1, 1, 1] if method == "user" else [0, 0, 0]
    )


@contexts
async def test_a_state_told_with_the_users_message_starts_no_conversation_anew(
    letta_fake: FakeLetta, engine: AsyncEngine, one_context: bool
) -> None:
    agent = made(letta_fake, initial_state={"mood": "calm"})
    memory = Memory.from_defaults(token_limit=4000, async_engine=engine)
    await three_turns(agent, memory, one_context=one_context)
    assert len(letta_fake._conversations) == 1
    assert ["calm" in text for text in letta_fake.said] == [True, True, True]


async def test_a_message_that_was_edited_starts_a_conversation_anew(letta_fake: FakeLetta) -> None:
    agent = made(letta_fake, initial_state={"mood": "calm"})
    ctx = Context(agent)
    memory = LettaMemory()
    await run(agent, "I am Ada.", ctx, memory=memory)
    edited = [ChatMessage("I am Bob."), *memory.messages[1:]]
    await run(agent, "Who am I?", ctx, memory=LettaMemory(messages=edited))
    assert len(letta_fake._conversations) == 2
    assert "Ada" not in letta_fake.said[-1]


async def test_a_message_that_was_cut_short_starts_a_conversation_anew(
    letta_fake: FakeLetta,
) -> None:
    """A decorated message holds the one that is kept, not the other way round."""
    agent = made(letta_fake)
    ctx = Context(agent)
    memory = LettaMemory()
    await run(agent, "I am Ada, and not Bob.", ctx, memory=memory)
    edited = [ChatMessage("I am Ada"), *memory.messages[1:]]
    await run(agent, "Who am I?", ctx, memory=LettaMemory(messages=edited))
    assert len(letta_fake._conversations) == 2
