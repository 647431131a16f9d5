"""A tutorial's two performances, and what of them is compared."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from letta_adapters import LettaClient, Rest
from letta_adapters._bridge import get_bridge
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.fakes import FakeLetta
from tests.rest.conftest import MODEL
from tests.tutorials.control import Line, Stage

Tutorial = Callable[[Any], Any]
WITH_RECORDING = pytest.mark.parametrize(
    "performed",
    ["fake", "real", pytest.param("recorded", marks=pytest.mark.letta_cassette)],
    indirect=True,
)


class Performed:
    """Runs a tutorial with the control, and with a new agent of one kind of Letta."""

    def __init__(self, stage: Stage, control_url: str, letta: Callable[[Any], Any]) -> None:
        self._stage = stage
        self._control_url = control_url
        self._letta = letta

    def both(self, tutorial: Tutorial, script: Sequence[Line]) -> tuple[Any, Any]:
        """Return what the control gives, and what ChatLetta gives."""
        self._stage.set(script)
        control = ChatOpenAI(
            base_url=self._control_url, api_key="x", model="scripted", max_retries=0
        )
        wanted = plain(tutorial(control))
        self._stage.end()
        return wanted, plain(self._letta(script)(tutorial))

    def same(self, tutorial: Tutorial, script: Sequence[Line]) -> Any:
        """Return what both give."""
        control, letta = self.both(tutorial, script)
        assert letta == control
        return control


@pytest.fixture(params=["fake", "real"])
def performed(
    request: pytest.FixtureRequest, stage: Stage, control_url: str
) -> Iterator[Performed]:
    """A tutorial's stage: a Letta in memory, the real runtime, a recording of the Letta API."""
    yield from _KINDS[request.param](request, stage, control_url)


def _fake(request: pytest.FixtureRequest, stage: Stage, url: str) -> Iterator[Performed]:
    fake = FakeLetta()
    with fake.client() as client:
        agent_id = client.create_agent()

        def perform(script: Sequence[Line]) -> Callable[[Tutorial], Any]:
            fake.script(*(line.static() for line in script))
            return lambda tutorial: tutorial(ChatLetta(agent_id=agent_id, client=client))

        yield Performed(stage, url, perform)
    assert not fake._replies


def _real(request: pytest.FixtureRequest, stage: Stage, url: str) -> Iterator[Performed]:
    letta = request.getfixturevalue("tutorials_letta")

    def perform(script: Sequence[Line]) -> Callable[[Tutorial], Any]:
        stage.set(script)
        agent_id = letta.agent(f"tutorial-{uuid.uuid4().hex[:8]}")
        return lambda tutorial: tutorial(ChatLetta(agent_id=agent_id, client=letta.client))

    yield Performed(stage, url, perform)
    stage.end()


def _recorded(request: pytest.FixtureRequest, stage: Stage, url: str) -> Iterator[Performed]:
    cassette = request.getfixturevalue("letta_cassette")
    rest = Rest(base_url=cassette.base_url, api_key=cassette.api_key or "")
    http_client = cassette.http_client()
    with LettaClient(rest, http_client=http_client) as client:
        agent_id = client.create_agent(
            name="tutorial",
            model=MODEL,
            persona="I am a test.",
            system_prompt="You are a test.",
            base_tools=False,
        )

        def perform(script: Sequence[Line]) -> Callable[[Tutorial], Any]:
            cassette.script(*(line.static() for line in script))
            return lambda tutorial: tutorial(ChatLetta(agent_id=agent_id, client=client))

        yield Performed(stage, url, perform)
    get_bridge().call(http_client.aclose())


_KINDS = {"fake": _fake, "real": _real, "recorded": _recorded}


def plain(value: Any) -> Any:
    """Return a result as data, without what differs by nature: ids, usage, metadata."""
    if isinstance(value, BaseMessage):
        return _message(value)
    if isinstance(value, BaseModel):
        return {type(value).__name__: plain(dict(value))}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _message(message: BaseMessage) -> dict[str, Any]:
    kind = message.type.removesuffix("MessageChunk").lower()
    said: dict[str, Any] = {kind: str(message.text)}
    if isinstance(message, AIMessage) and message.tool_calls:
        said["calls"] = [(call["name"], call["args"]) for call in message.tool_calls]
    if isinstance(message, ToolMessage) and message.status != "success":
        said["status"] = message.status
    if message.name:
        said["name"] = message.name
    return said
