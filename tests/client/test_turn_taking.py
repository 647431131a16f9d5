"""One turn at a time in a conversation, for all clients of a process and their event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters._utils.locks import take
from letta_adapters.backends.base import Conversation
from letta_adapters.client.client import get_slots
from letta_adapters.errors import ConversationBusyError
from letta_adapters.llama_index import LettaLLM
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply

HERE = Conversation("agent-1", "conv-1")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def test_clients_of_one_server_on_several_event_loops_take_turns(pool: ThreadPoolExecutor) -> None:
    inside, most, together = 0, 0, threading.Barrier(4)
    guard = threading.Lock()

    async def turn() -> None:
        nonlocal inside, most
        client = AsyncLettaClient(Rest(base_url="http://letta.example", api_key=""))
        together.wait()
        for _ in range(20):
            async with get_slots(client).reserve(HERE, asyncio.current_task()):
                with guard:
                    inside += 1
                    most = max(most, inside)
                await asyncio.sleep(0)
                with guard:
                    inside -= 1
        await client.close()

    for done in [pool.submit(asyncio.run, turn()) for _ in range(4)]:
        done.result(60)
    assert most == 1


async def test_clients_of_two_servers_do_not_wait_for_each_other() -> None:
    one = AsyncLettaClient(Rest(base_url="http://one.example", api_key=""))
    two = AsyncLettaClient(Rest(base_url="http://two.example", api_key=""))
    async with get_slots(one).reserve(HERE, None):
        entering = get_slots(two).reserve(HERE, None).__aenter__()
        async with await asyncio.wait_for(entering, 10):
            pass


def test_what_an_event_loop_held_that_was_closed_is_free() -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(take("name"))
    loop.close()

    async def again() -> None:
        leave = await asyncio.wait_for(take("name"), 10)
        leave()

    asyncio.run(again())


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    leave = await take("name")
    waiting = [asyncio.ensure_future(take("name")) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    leave()
    (await asyncio.wait_for(waiting[1], 10))()
    (await asyncio.wait_for(take("name"), 10))()
    assert waiting[0].cancelled()


async def test_a_thread_does_not_wait_for_itself() -> None:
    client = AsyncLettaClient(Rest(base_url="http://letta.example", api_key=""))
    other = AsyncLettaClient(Rest(base_url="http://letta.example", api_key=""))
    async with get_slots(client).reserve(HERE, threading.current_thread()):
        with pytest.raises(ConversationBusyError, match="this thread"):
            await get_slots(other).reserve(HERE, asyncio.current_task()).__aenter__()
    async with get_slots(other).reserve(HERE, asyncio.current_task()):
        pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_calls_of_a_named_conversation_from_many_threads_are_answered_in_a_row(
    letta_fake: FakeLetta, pool: ThreadPoolExecutor
) -> None:
    client = letta_fake.client()
    agent_id = client.create_agent(name="a")
    place = str(client.conversations.create(agent_id)["id"])
    letta_fake.script(Reply("Yes.", repeat=True, token_delay=0.01))
    llm = LettaLLM(agent_id=agent_id, conversation_id=place, client=client)
    asked = [f"question {n}" for n in range(8)]
    list(pool.map(lambda text: llm.complete(text), asked))
    items = letta_fake._messages[place]
    kinds = [item["message_type"] for item in items]
    assert kinds == ["user_message", "assistant_message"] * 8
    assert sorted(letta_fake.said) == asked
