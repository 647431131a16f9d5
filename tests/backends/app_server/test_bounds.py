"""What a client remembers of an App Server's conversations: a number of them, not all."""

from __future__ import annotations

import asyncio
from typing import Any

from letta_adapters import AsyncLettaClient
from letta_adapters._utils.bounded import Bounded
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse

AT_MOST = 3


def caches(client: AsyncLettaClient) -> dict[str, Bounded[Any, Any]]:
    """All caches of the client's backend, and of what it consists of."""
    backend: Any = client.backend
    parts = [backend, *(part for part in vars(backend).values() if hasattr(part, "__dict__"))]
    found = {
        f"{type(part).__name__}.{name}": value
        for part in parts
        for name, value in vars(part).items()
        if isinstance(value, Bounded)
    }
    assert {"AppServerBackend._prepared", "AppServerBackend._live"} <= set(found)
    return found


async def test_conversations_come_and_go_and_the_memory_of_them_stays_small(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    for cache in caches(client).values():
        cache.bound = AT_MOST
    model.script(Reply("ok", repeat=True))
    first = client.create_session(agent, permission_mode="unrestricted")
    assert (await first.run_turn("first")).success
    for number in range(3 * AT_MOST):
        assert (await client.prompt(f"hello {number}", agent)).success
    sizes = {name: len(cache) for name, cache in caches(client).items()}
    assert max(sizes.values()) == AT_MOST, sizes
    # A session whose conversation was forgotten goes on with what it was opened with.
    model.clear()
    command = ToolUse("Bash", {"command": "echo it ran", "description": "x"})
    model.script(Reply(tool_calls=[command]), "Done.")
    assert (await first.run_turn("go on")).success
    assert "it ran" in str(model.requests[-1].messages)
    await first.close()


async def test_a_conversation_with_a_turn_is_not_forgotten(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    for cache in caches(client).values():
        cache.bound = 1
    gate = asyncio.Event()

    async def wait() -> str:
        """Waits."""
        await gate.wait()
        return "waited"

    model.script(Reply(tool_calls=[ToolUse("wait", {})], when="wait"), Reply("ok", repeat=True))
    async with client.create_session(agent, tools=[wait]) as session:
        turn = asyncio.create_task(session.run_turn("wait"))
        while not model.requests:
            await asyncio.sleep(0.02)
        for number in range(3):
            assert (await client.prompt(f"hello {number}", agent)).success
        gate.set()
        assert (await turn).success
