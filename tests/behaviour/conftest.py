"""Every test here runs over both kinds of Letta and with both faces of the client.

``@pytest.mark.behaviour("name")`` names the cassette of its Letta API runs; with ``thinking=True``
Letta Code has models that think, at :attr:`World.thinking`. Where the two kinds
differ, a test asks the capability table (``docs/options.md``), and nothing else.

Letta Code over agents that live on a Letta API (``Local(api=...)``) is a third kind. It needs a
server with Redis, so it runs on demand::

    python -m tools.rig run --redis -- python -m pytest tests/behaviour --letta-code-on-api
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters.testing.scripted_model import RemoteScript, ScriptedModel
from tests.backends.app_server._server import AppServer
from tests.behaviour._world import (
    FACES,
    REPLAY_SPEED,
    AppServerWorld,
    OnApiWorld,
    RestWorld,
    World,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("behaviour")
    if mark is None:
        return
    more = {name: value for name, value in mark.kwargs.items() if name != "thinking"}
    recorded = pytest.mark.letta_cassette(*mark.args, shared=True, **more)
    kinds: dict[str, Any] = {"rest": (recorded,), "app_server": (pytest.mark.slow,)}
    if metafunc.config.getoption("--letta-code-on-api"):
        kinds = {"on_api": ()}
    cases = [
        pytest.param((kind, face), marks=marks, id=f"{kind}-{face}")
        for kind, marks in kinds.items()
        for face in FACES
    ]
    metafunc.parametrize("world", cases, indirect=True)


@pytest.fixture(scope="session")
def app_server_on_api() -> Iterator[tuple[AppServer, RemoteScript]]:
    """Letta Code over the rig's Letta API, and the script of the model behind that."""
    api, model = os.environ["LETTA_BASE_URL"], os.environ["LETTA_RIG_MODEL"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        server = AppServer(Path(home), "", api=api).start()
        yield server, RemoteScript(model)
        server.stop()


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A real Letta with a scripted model, and one of the client's faces."""
    kind, face = request.param
    made: World
    if kind == "rest":
        cassette = request.getfixturevalue("letta_cassette")
        if request.node.get_closest_marker("letta_cassette").kwargs.get("timing"):
            cassette.replay_options(timing=REPLAY_SPEED)
        made = RestWorld(face, cassette)
    elif kind == "app_server":
        model: ScriptedModel = request.getfixturevalue("shared_model")
        model.clear()
        # A test of Letta Code alone may do without the mark.
        mark = request.node.get_closest_marker("behaviour")
        thinks = mark is not None and mark.kwargs.get("thinking")
        server = request.getfixturevalue("thinking_server" if thinks else "app_server")
        made = AppServerWorld(face, server, model)
    else:
        server, script = request.getfixturevalue("app_server_on_api")
        script.clear()
        made = OnApiWorld(face, server, script)
    yield made
    await made.close()


@pytest.fixture
def client(world: World) -> Any:
    """One client."""
    return world.client()


@pytest.fixture
async def agent(world: World, client: Any, request: pytest.FixtureRequest) -> str:
    """A bare agent, named after the test."""
    return await world.agent(client, f"test {request.node.originalname}")
