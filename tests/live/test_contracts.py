"""The five contracts, live, against whatever ``LETTA_*`` points at.

Opt-in: ``pytest -m live`` *and* ``LETTA_API_KEY`` or ``LETTA_BASE_URL``. ``LETTA_AGENT_ID`` and
``LETTA_CONVERSATION_ID`` name what to talk to (else an agent is made, and deleted afterwards),
``LETTA_MODEL`` its model, ``LETTA_LIVE_TEST_TIMEOUT_MS`` limits each test. With
``LETTA_LIVE_EMBEDDED=1`` they run through Letta Code on this machine as well
(``Local(api=Rest())``); a server of one's own needs Redis for that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, Local, Rest
from letta_adapters.testing.scripted_model import RemoteScript
from tests import contracts
from tests.faces import sync_client

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not (os.environ.get("LETTA_API_KEY") or os.environ.get("LETTA_BASE_URL")),
        reason="live tests need LETTA_API_KEY or LETTA_BASE_URL",
    ),
]

LIMIT = int(os.environ.get("LETTA_LIVE_TEST_TIMEOUT_MS", "180000")) / 1000
CONVERSATION = os.environ.get("LETTA_CONVERSATION_ID")


def script(*replies: Any) -> None:
    """Only a scripted model (of ``tools.rig``) can be told what to say."""
    if url := os.environ.get("LETTA_RIG_MODEL"):
        RemoteScript(url).script(*replies)


EMBEDDED = pytest.param(
    "embedded",
    marks=pytest.mark.skipif(
        os.environ.get("LETTA_LIVE_EMBEDDED") != "1", reason="needs LETTA_LIVE_EMBEDDED=1"
    ),
)


@pytest.fixture(params=["async", "sync", EMBEDDED])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    made: Any
    if request.param == "embedded":
        made = AsyncLettaClient(Local(data_dir=tmp_path, api=Rest()))
    else:
        made = AsyncLettaClient() if request.param == "async" else sync_client()
    yield made
    await made.close()


@pytest.fixture
async def agent(client: Any) -> AsyncIterator[str]:
    if given := os.environ.get("LETTA_AGENT_ID"):
        yield given
        return
    model = os.environ.get("LETTA_MODEL")
    if model is None and os.environ.get("LETTA_RIG_MODEL"):
        model = "openai-proxy/scripted"
    made = await client.create_agent(
        name="letta-adapters live test", **({"model": model} if model else {})
    )
    yield made
    await client.agents.delete(made)


async def in_time(contract: Awaitable[None]) -> None:
    await asyncio.wait_for(contract, LIMIT)


@pytest.mark.timeout(LIMIT + 30)
class TestContracts:
    async def test_session_init(self, client: Any, agent: str) -> None:
        await in_time(contracts.session_init(client, agent, CONVERSATION))

    async def test_send_and_stream(self, client: Any, agent: str) -> None:
        await in_time(contracts.send_and_stream(client, agent, CONVERSATION, script))

    async def test_backfill_and_pages(self, client: Any, agent: str) -> None:
        await in_time(contracts.backfill_and_pages(client, agent, CONVERSATION, script))

    async def test_list_while_streaming(self, client: Any, agent: str) -> None:
        await in_time(contracts.list_while_streaming(client, agent, CONVERSATION, script))

    async def test_tool_lifecycle(self, client: Any, agent: str) -> None:
        await in_time(contracts.tool_lifecycle(client, agent, CONVERSATION, script))
