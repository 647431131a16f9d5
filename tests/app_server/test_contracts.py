"""The five contracts, against the real App Server."""

from __future__ import annotations

from letta_adapters import AsyncLettaClient
from letta_adapters.testing.live import contracts
from letta_adapters.testing.scripted_model import ScriptedModel


async def test_session_init(client: AsyncLettaClient, agent: str) -> None:
    await contracts.session_init(client, agent, None)


async def test_send_and_stream(client: AsyncLettaClient, agent: str, model: ScriptedModel) -> None:
    await contracts.send_and_stream(client, agent, None, model.script)


async def test_backfill_and_pages(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    await contracts.backfill_and_pages(client, agent, None, model.script)


async def test_list_while_streaming(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    await contracts.list_while_streaming(client, agent, None, model.script)


async def test_tool_lifecycle(client: AsyncLettaClient, agent: str, model: ScriptedModel) -> None:
    await contracts.tool_lifecycle(client, agent, None, model.script)
