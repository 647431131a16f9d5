"""Lets the examples run without a key or a server: they then talk to a recording."""

from __future__ import annotations

import os
from pathlib import Path

from letta_adapters import LettaClient, Rest

CASSETTES = Path(__file__).resolve().parent.parent / "cassettes"


def connect(cassette: str) -> LettaClient:
    """A client for the Letta that the environment names; without one, for the recording.

    Args:
        cassette: Name of the recording of a real server, such as ``"quickstart"``.
    """
    if os.environ.get("LETTA_API_KEY") or os.environ.get("LETTA_BASE_URL"):
        return LettaClient()

    import httpx

    from letta_adapters.testing import CassetteTransport

    print("No LETTA_API_KEY and no LETTA_BASE_URL: replaying a recording of a real server.")
    print("Set one of them to talk to your own agent.\n")
    os.environ["LETTA_MODEL"] = "openai-proxy/scripted"  # the model of the recorded server
    transport = CassetteTransport(CASSETTES / f"{cassette}.yaml", timing="recorded")
    return LettaClient(
        Rest(base_url="http://letta.test", api_key=""),
        http_client=httpx.AsyncClient(transport=transport),
    )
