"""Every test here runs over both kinds of Letta and with both faces of the client.

``@pytest.mark.behaviour("name")`` names the cassette of its Letta API runs. Where the two kinds
differ, a test asks the capability table (``docs/options.md``), and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from letta_adapters.testing.scripted_model import ScriptedModel
from tests.behaviour._world import FACES, REPLAY_SPEED, AppServerWorld, RestWorld, World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("behaviour")
    if mark is None:
        return
    recorded = pytest.mark.letta_cassette(*mark.args, shared=True, **mark.kwargs)
    kinds: dict[str, Any] = {"rest": (recorded,), "app_server": ()}
    cases = [
        pytest.param((kind, face), marks=marks, id=f"{kind}-{face}")
        for kind, marks in kinds.items()
        for face in FACES
    ]
    metafunc.parametrize("world", cases, indirect=True)


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
    else:
        model: ScriptedModel = request.getfixturevalue("shared_model")
        model.clear()
        made = AppServerWorld(face, request.getfixturevalue("app_server"), model)
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
