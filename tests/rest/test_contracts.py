"""The five contracts, from recordings of a real server."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.testing import LettaCassette
from letta_adapters.testing.live import contracts


@pytest.mark.letta_cassette("contract_session_init", shared=True)
async def test_session_init(client: Any, agent: str) -> None:
    await contracts.session_init(client, agent, None)


@pytest.mark.letta_cassette("contract_send_and_stream", shared=True)
async def test_send_and_stream(client: Any, agent: str, letta_cassette: LettaCassette) -> None:
    await contracts.send_and_stream(client, agent, None, letta_cassette.script)


@pytest.mark.letta_cassette("contract_backfill_and_pages", shared=True)
async def test_backfill_and_pages(client: Any, agent: str, letta_cassette: LettaCassette) -> None:
    await contracts.backfill_and_pages(client, agent, None, letta_cassette.script)


@pytest.mark.letta_cassette("contract_list_while_streaming", shared=True)
async def test_list_while_streaming(client: Any, agent: str, letta_cassette: LettaCassette) -> None:
    await contracts.list_while_streaming(client, agent, None, letta_cassette.script)


@pytest.mark.letta_cassette("contract_tool_lifecycle", shared=True)
async def test_tool_lifecycle(client: Any, agent: str, letta_cassette: LettaCassette) -> None:
    await contracts.tool_lifecycle(client, agent, None, letta_cassette.script)
