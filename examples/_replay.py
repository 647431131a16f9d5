"""Let the examples run without a key or a server: they then talk to a recording."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from letta_adapters import LettaClient, Rest

CASSETTES = Path(__file__).resolve().parent.parent / "cassettes"
PACE = 0.03  # seconds between two events: about the speed of a real model


class Paced(httpx.AsyncBaseTransport):
    """A transport that plays a recording at a readable speed."""

    def __init__(self, recording: Any) -> None:
        self.recording = recording

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = await self.recording.handle_async_request(request)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=PacedStream(response.stream)
        )


class PacedStream(httpx.AsyncByteStream):
    """The events of one response, one at a time."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self.chunks:
            await asyncio.sleep(PACE)
            yield chunk


def connect(cassette: str) -> LettaClient:
    """Return a client for the Letta that the environment names; without one, for the recording.

    Args:
        cassette: Name of the recording of a real server, such as ``"quickstart"``.
    """
    if os.environ.get("LETTA_API_KEY") or os.environ.get("LETTA_BASE_URL"):
        return LettaClient()

    from letta_adapters.testing import CassetteTransport

    print("No LETTA_API_KEY and no LETTA_BASE_URL: replaying a recording of a real server.")
    print("Set one of them to talk to your own agent.\n")
    os.environ["LETTA_MODEL"] = "openai-proxy/scripted"  # the model of the recorded server
    recording = CassetteTransport(CASSETTES / f"{cassette}.yaml", chunking="event")
    return LettaClient(
        Rest(base_url="http://letta.test", api_key=""),
        http_client=httpx.AsyncClient(transport=Paced(recording)),
    )
