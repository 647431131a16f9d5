"""The conversation of a call is removed behind the answer: nobody waits for it, and it is done."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from letta_adapters import AsyncLettaClient, LettaClient, Rest
from letta_adapters.llama_index import LettaLLM
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import Wire, status

DELETED = r"/v1/conversations/conv-"
PROMPT = [ChatMessage("Hello")]


@pytest.fixture
def server() -> Iterator[Server]:
    """A Letta API."""
    with Server() as running:
        yield running


@pytest.fixture
def gate(server: Server) -> threading.Event:
    """Until it is set, no removal is answered."""
    opened = threading.Event()

    def play(wire: Wire) -> Any:
        assert opened.wait(20)
        return status(200, None)(wire)

    server.override("DELETE", DELETED, play, 99)
    return opened


def rest(server: Server) -> Rest:
    return Rest(base_url=server.url, api_key="")


def removed(server: Server) -> int:
    """The number of removals that arrived."""
    return server.count("DELETE", DELETED)


def test_a_sync_answer_does_not_wait_for_the_removal(server: Server, gate: threading.Event) -> None:
    with LettaClient(rest(server)) as client:
        llm = LettaLLM(agent_id=ev.AGENT, client=client)
        assert llm.chat(PROMPT).message.content
        assert not gate.is_set()
        threading.Timer(0.2, gate.set).start()
    # Closing the client has waited for it.
    assert gate.is_set()
    assert removed(server) == 1


async def test_an_async_answer_does_not_wait_for_the_removal(
    server: Server, gate: threading.Event
) -> None:
    async with AsyncLettaClient(rest(server)) as client:
        llm = LettaLLM(agent_id=ev.AGENT, client=client)
        assert (await llm.achat(PROMPT)).message.content
        assert not gate.is_set()
        threading.Timer(0.2, gate.set).start()
    assert gate.is_set()
    assert removed(server) == 1


@pytest.mark.parametrize("ends", ["read", "left"])
async def test_a_stream_does_not_wait_for_the_removal(
    server: Server, gate: threading.Event, ends: str
) -> None:
    async with AsyncLettaClient(rest(server)) as client:
        stream: Any = await LettaLLM(agent_id=ev.AGENT, client=client).astream_chat(PROMPT)
        async for _ in stream:
            if ends == "left":
                break
        await stream.aclose()
        assert not gate.is_set()
        gate.set()
    assert removed(server) == 1


@pytest.mark.parametrize("refusal", [404, 500])
def test_a_removal_that_fails_is_logged_and_not_raised(
    server: Server, caplog: pytest.LogCaptureFixture, refusal: int
) -> None:
    server.override("DELETE", DELETED, status(refusal, {"detail": "no"}), 99)
    with caplog.at_level(logging.WARNING, "letta_adapters"), LettaClient(rest(server)) as client:
        assert LettaLLM(agent_id=ev.AGENT, client=client).chat(PROMPT).message.content
    said = [record.getMessage() for record in caplog.records if "was not removed" in record.message]
    # What is gone already needs no word.
    assert len(said) == (0 if refusal == 404 else 1)
    assert all("conv-00000000-0000-4000-8000-" in text for text in said)


CHILD = """
import asyncio, sys
from llama_index.core.base.llms.types import ChatMessage
from letta_adapters.llama_index import LettaLLM

llm = LettaLLM(agent_id=sys.argv[2], base_url=sys.argv[1], api_key="")
def sync():
    print(llm.chat([ChatMessage("Hello")]).message.content)

async def once():
    print((await llm.achat([ChatMessage("Hello")])).message.content)

sync() if sys.argv[3] == "sync" else asyncio.run(once())
"""


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.slow
def test_a_process_that_ends_leaves_no_conversation_behind(server: Server, face: str) -> None:
    arrived: list[str] = []

    def play(wire: Wire) -> Any:
        # Slow enough that the process is at its end by then.
        threading.Event().wait(0.3)
        arrived.append(wire.request.path)
        return status(200, None)(wire)

    server.override("DELETE", DELETED, play, 99)
    command = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", CHILD]
    done = subprocess.run(
        [*command, server.url, ev.AGENT, face],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip()
    assert "destroyed" not in done.stderr
    assert "never" not in done.stderr
    assert arrived


async def test_a_client_that_closes_at_once_removes_what_was_asked(server: Server) -> None:
    server.override("DELETE", DELETED, status(200, None), 99)
    client = AsyncLettaClient(rest(server))
    answers = await asyncio.gather(
        *(LettaLLM(agent_id=ev.AGENT, client=client).achat(PROMPT) for _ in range(5))
    )
    await client.close()
    assert len(answers) == removed(server) == 5
