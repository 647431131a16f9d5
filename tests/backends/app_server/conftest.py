"""Tests against the real App Server of the ``letta`` wheel, with a scripted model behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import letta_adapters.client.client
from letta_adapters import AsyncLettaClient
from letta_adapters.backends.app_server.backend import AppServerBackend
from letta_adapters.backends.app_server.connection import Endpoint
from letta_adapters.backends.app_server.server import Setup, Timeouts
from letta_adapters.backends.app_server.switches import Reflecting
from letta_adapters.backends.config import RuntimeStatus
from letta_adapters.client.client import get_slots
from letta_adapters.testing.scripted_model import ScriptedModel
from tests._wheel import needs_wheel
from tests.backends.app_server._server import MODEL, TOKEN, AppServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the wheel there is nothing to test against."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(needs_wheel)


@pytest.fixture
def model(shared_model: ScriptedModel) -> ScriptedModel:
    """The model behind the server, with nothing scripted and nothing recorded yet."""
    shared_model.clear()
    return shared_model


@pytest.fixture
def server(app_server: AppServer) -> AppServer:
    """The one server for all tests that do not stop it."""
    return app_server


@dataclass
class Running:
    """The host of a server that runs already, maybe on another port than a moment ago."""

    server: AppServer
    token: str
    status: Callable[[], Awaitable[RuntimeStatus]] | None = None

    async def endpoint(self) -> Endpoint:
        return Endpoint(self.server.url, self.token)

    def on_retire(self, listener: Callable[[], None]) -> None:
        """Nobody exchanges it."""

    async def release(self) -> None:
        """It goes on, for the next test."""


@pytest.fixture
def connect(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AsyncLettaClient]:
    """Makes clients of a server: ``connect(server, name="local")``."""
    ours = tmp_path_factory.mktemp("ours")

    def make(server: AppServer, *, name: str = "local", token: str = TOKEN, **options: Any) -> Any:
        host = Running(server, token, options.pop("status", None))
        timeouts = Timeouts(settle=options.pop("settle_timeout", Timeouts().settle))
        options.setdefault("own_directory", ours)
        reflecting = None
        if name == "local":
            options.setdefault("machine", server.machine)
            reflecting = Reflecting(server.home / "reflection")
        setup = Setup(name, timeouts, **options)
        backend = AppServerBackend(setup, host, reflecting=reflecting)
        with monkeypatch.context() as patch:
            patch.setattr(letta_adapters.client.client, "_make_backend", lambda *_: backend)
            made = AsyncLettaClient()
        # Each as in a process of its own: otherwise they would take turns here.
        get_slots(made).place = id(made)
        return made

    return make


@pytest.fixture
async def client(
    connect: Callable[..., AsyncLettaClient], server: AppServer, model: ScriptedModel
) -> AsyncIterator[AsyncLettaClient]:
    async with connect(server) as made:
        yield made


@pytest.fixture
async def agent(client: AsyncLettaClient) -> str:
    """A bare agent: a short system prompt and one block of memory."""
    return await client.create_agent(
        name="test", model=MODEL, system_prompt="You are a test agent.", persona="I am a test."
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in."""
    return tmp_path
