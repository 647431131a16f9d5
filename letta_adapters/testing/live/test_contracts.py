"""Run the five contracts live, against the server that ``LETTA_*`` names.

The command is ``pytest --pyargs letta_adapters.testing.live``; the package's docstring explains its
variables.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from letta_adapters import AsyncLettaClient, Local, Rest
from letta_adapters.testing.live import contracts
from letta_adapters.testing.live.faces import make_sync_client
from letta_adapters.testing.scripted_model import RemoteScript

pytestmark = pytest.mark.skipif(
    not (os.environ.get("LETTA_API_KEY") or os.environ.get("LETTA_BASE_URL")),
    reason="live tests need LETTA_API_KEY or LETTA_BASE_URL",
)

LIMIT = int(os.environ.get("LETTA_LIVE_TEST_TIMEOUT_MS", "180000")) / 1000
CONVERSATION = os.environ.get("LETTA_CONVERSATION_ID")


def script(*replies: Any) -> None:
    """Tell a scripted model (of ``tools.rig``) what to say; no other model can be told."""
    if url := os.environ.get("LETTA_RIG_MODEL"):
        RemoteScript(url).script(*replies)


EMBEDDED = pytest.param(
    "embedded",
    marks=pytest.mark.skipif(
        os.environ.get("LETTA_LIVE_EMBEDDED") != "1", reason="needs LETTA_LIVE_EMBEDDED=1"
    ),
)


@pytest_asyncio.fixture(params=["async", "sync", EMBEDDED])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Yield the async client, the sync one behind its signatures, or one through Letta Code."""
    recorder: Any = None
    # Letta Code talks to the server from a process of its own, which cannot be recorded here.
    if request.config.getoption("--letta-record") != "none" and request.param != "embedded":
        recorder = request.getfixturevalue("letta_cassette").http_client()
    made: Any
    if request.param == "embedded":
        made = AsyncLettaClient(Local(data_dir=tmp_path, api=Rest()))
    elif request.param == "async":
        made = AsyncLettaClient(http_client=recorder)
    else:
        made = make_sync_client(http_client=recorder)
    yield made
    await made.close()
    if recorder is not None:
        await recorder.aclose()


@pytest_asyncio.fixture
async def agent(client: Any) -> AsyncIterator[str]:
    """Yield the id of the agent to talk to."""
    if given := os.environ.get("LETTA_AGENT_ID"):
        yield given
        return
    # Without a given agent one is made, and deleted at the end: a live server is somebody's.
    model = os.environ.get("LETTA_MODEL")
    if model is None and os.environ.get("LETTA_RIG_MODEL"):
        # The handle that the rig's server gives to its scripted model.
        model = "openai-proxy/scripted"
    made = await client.create_agent(
        name="letta-adapters live test", **({"model": model} if model else {})
    )
    yield made
    await client.agents.delete(made)


async def in_time(contract: Awaitable[None]) -> None:
    """Run a contract within the limit."""
    await asyncio.wait_for(contract, LIMIT)


@pytest.mark.asyncio
class TestContracts:
    """Tests of the contracts, one for each."""

    async def test_session_init(self, client: Any, agent: str) -> None:
        """Run :func:`contracts.check_session_init`."""
        await in_time(contracts.check_session_init(client, agent, CONVERSATION))

    async def test_send_and_stream(self, client: Any, agent: str) -> None:
        """Run :func:`contracts.check_send_and_stream`."""
        await in_time(contracts.check_send_and_stream(client, agent, CONVERSATION, script))

    async def test_backfill_and_pages(self, client: Any, agent: str) -> None:
        """Run :func:`contracts.check_backfill_and_pages`."""
        await in_time(contracts.check_backfill_and_pages(client, agent, CONVERSATION, script))

    async def test_list_while_streaming(self, client: Any, agent: str) -> None:
        """Run :func:`contracts.check_list_while_streaming`."""
        await in_time(contracts.check_list_while_streaming(client, agent, CONVERSATION, script))

    async def test_tool_lifecycle(self, client: Any, agent: str) -> None:
        """Run :func:`contracts.check_tool_lifecycle`."""
        await in_time(contracts.check_tool_lifecycle(client, agent, CONVERSATION, script))
