"""Clients on a test's cassette."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters.chat import cache
from letta_adapters.testing import LettaCassette


@asynccontextmanager
async def open_clients(
    cassette: LettaCassette, make: Callable[..., Any] = AsyncLettaClient
) -> AsyncIterator[Callable[..., Any]]:
    """Yield what makes a client with given settings of ``Rest``; all are closed at the end."""
    made: list[Any] = []

    def new_client(**options: Any) -> Any:
        given = {"base_url": cassette.base_url, "api_key": cassette.api_key or "", **options}
        http_client = cassette.http_client()
        made.append((make(Rest(**given), http_client=http_client), http_client))
        return made[-1][0]

    yield new_client
    for client, http_client in made:
        await client.close()
        await http_client.aclose()


@asynccontextmanager
async def open_other_processes(
    cassette: LettaCassette,
) -> AsyncIterator[Callable[[], AsyncLettaClient]]:
    """Yield what makes a client that knows nothing of the ones before it."""
    async with open_clients(cassette) as make:

        def new_client() -> AsyncLettaClient:
            cache.recent._calls.clear()
            return make()

        yield new_client
