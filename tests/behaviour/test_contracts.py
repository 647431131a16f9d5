"""The five contracts."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.testing.live import contracts
from tests.behaviour._world import World


@pytest.mark.behaviour("contract_session_init")
async def test_session_init(client: Any, agent: str, world: World) -> None:
    await contracts.check_session_init(client, agent, None)


@pytest.mark.behaviour("contract_send_and_stream")
async def test_send_and_stream(client: Any, agent: str, world: World) -> None:
    await contracts.check_send_and_stream(client, agent, None, world.script)


@pytest.mark.behaviour("contract_backfill_and_pages")
async def test_backfill_and_pages(client: Any, agent: str, world: World) -> None:
    await contracts.check_backfill_and_pages(client, agent, None, world.script)


@pytest.mark.behaviour("contract_list_while_streaming")
async def test_list_while_streaming(client: Any, agent: str, world: World) -> None:
    await contracts.check_list_while_streaming(client, agent, None, world.script)


@pytest.mark.behaviour("contract_tool_lifecycle")
async def test_tool_lifecycle(client: Any, agent: str, world: World) -> None:
    await contracts.check_tool_lifecycle(client, agent, None, world.script)
