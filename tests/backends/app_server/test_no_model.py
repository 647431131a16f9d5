"""A runtime without any provider of models says so, and what to do on whose machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, ConfigurationError
from letta_adapters.testing.scripted_model import ScriptedModel
from tests._wheel import require_wheel
from tests.backends.app_server._server import AppServer

Connect = Callable[..., AsyncLettaClient]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """A server whose model server lists nothing."""
    require_wheel()
    with ScriptedModel(models=()) as nothing:
        server = AppServer(Path(tmp_path_factory.mktemp("bare")), nothing.base_url).start()
        yield server
        server.stop()


@pytest.mark.parametrize("options", [{}, {"model": "openai/gpt-5"}])
async def test_on_this_machine(connect: Connect, bare: AppServer, options: Any) -> None:
    async with connect(bare) as client:
        for use in (client.create_agent, lambda **o: client.prompt("hi", **o)):
            with pytest.raises(ConfigurationError) as caught:
                await use(**options)
            text = str(caught.value)
            assert "this machine" in text
            for way in ("openai_compatible", "connect_provider", "ANTHROPIC_API_KEY", "demo"):
                assert way in text
            assert options.get("model", "") in text


async def test_on_another_machine(connect: Connect, bare: AppServer) -> None:
    async with connect(bare, name="remote") as client:
        with pytest.raises(ConfigurationError) as caught:
            await client.create_agent()
    assert "this machine" not in str(caught.value)
    assert "where it runs" in str(caught.value)
