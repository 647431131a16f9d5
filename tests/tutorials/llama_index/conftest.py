"""The model behind the control, and the Lettas behind what is compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters.sync.bridge import get_bridge
from letta_adapters.testing import FakeLetta, LettaCassette
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ScriptedModel
from tests.backends.rest.conftest import MODEL
from tests.tutorials.llama_index.stage import Tutorial, control


@dataclass
class Letta:
    """A Letta with a model behind it.

    Attributes:
        client: Its client.
        new_agent: Makes an agent of a name.
        script: Tells the model what to say.
        requests: Returns what the model was asked, where that can be seen.
    """

    client: LettaClient
    new_agent: Callable[[str], str]
    script: Callable[..., None]
    requests: Callable[[], list[ModelRequest]] | None = None


@dataclass(frozen=True)
class Played:
    """What came of a tutorial, and what the model was asked in it."""

    seen: dict[str, Any]
    requests: list[ModelRequest]


@pytest.fixture(scope="session")
def control_model() -> Iterator[ScriptedModel]:
    """The model behind LlamaIndex' own LLM."""
    with ScriptedModel(respond=_nothing_left) as model:
        yield model


@pytest.fixture(scope="session")
def control_of(control_model: ScriptedModel) -> Callable[[Tutorial], Played]:
    """Plays a tutorial with LlamaIndex' own LLM, once."""
    played: dict[str, Played] = {}

    def play(tutorial: Tutorial) -> Played:
        if tutorial.name not in played:
            seen = control(tutorial, control_model)
            played[tutorial.name] = Played(seen, control_model.requests)
        return played[tutorial.name]

    return play


def _nothing_left(request: ModelRequest) -> Reply:
    raise AssertionError(f"the tutorial asks more than it has lines: {request.last_user_text}")


def _about(name: str, **more: Any) -> dict[str, Any]:
    # Letta's own prompt would make every recording longer.
    return {"name": name, "persona": "I am a test.", "system_prompt": "You are a test.", **more}


@pytest.fixture
def letta_code(embedded: LettaClient, embedded_model: ScriptedModel) -> Letta:
    """The real Letta Code on this machine."""
    embedded_model.clear()

    def new_agent(name: str) -> str:
        return embedded.create_agent(**_about(name, model="lmstudio/scripted"))

    return Letta(embedded, new_agent, embedded_model.script, lambda: embedded_model.requests)


@pytest.fixture
def letta_in_memory(letta_fake: FakeLetta) -> Iterator[Letta]:
    """The Letta API, in memory."""
    client = letta_fake.client()
    yield Letta(client, lambda name: client.create_agent(name=name), letta_fake.script)
    client.close()


@pytest.fixture
def letta_api(letta_cassette: LettaCassette) -> Iterator[Letta]:
    """The Letta API, recorded from a real server."""
    rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
    http = letta_cassette.http_client()
    client = LettaClient(rest, http_client=http)

    def new_agent(name: str) -> str:
        return client.create_agent(**_about(name, model=MODEL, base_tools=False))

    yield Letta(client, new_agent, letta_cassette.script)
    client.close()
    get_bridge().call(http.aclose())
