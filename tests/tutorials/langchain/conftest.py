"""A tutorial's two performances, and what of them is compared."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from letta_adapters import LettaClient, Rest
from letta_adapters.langchain import ChatLetta
from letta_adapters.sync.bridge import get_bridge
from letta_adapters.testing.fakes import FakeLetta
from tests.backends.rest.conftest import MODEL
from tests.tutorials.control import Line, Stage

Tutorial = Callable[[Any], Any]
Perform = Callable[[Tutorial, Sequence[Line]], Any]


def recorded(kind: str = "recorded") -> Any:
    """Return the parameter for a performance over a recording of the Letta API."""
    return pytest.param(kind, marks=pytest.mark.letta_cassette)


def performed_by(*kinds: Any) -> Any:
    """Return the mark for a test that is performed by other kinds of Letta than the usual two."""
    return pytest.mark.parametrize("performed", kinds, indirect=True)


REAL = pytest.param("real", marks=pytest.mark.slow)
WITH_RECORDING = performed_by("fake", REAL, recorded())
# Of an agent that may call several tools at once, which agents of the Letta API are told to.
WITH_PARALLEL_CALLS = performed_by("fake", REAL, recorded("recorded-parallel"))


class Performed:
    """Runs a tutorial with the control, and with a new agent of one kind of Letta."""

    def __init__(self, kind: str, stage: Stage, control_url: str, letta: Perform) -> None:
        self.kind = kind
        self._stage = stage
        self._control_url = control_url
        self._letta = letta

    def both(
        self, tutorial: Tutorial, script: Sequence[Line], control: Sequence[Line] | None = None
    ) -> tuple[Any, Any]:
        """Return what the control gives, and what ChatLetta gives.

        ``control``: the control's script, where it is asked something else.
        """
        self._stage.set(script if control is None else control)
        wanted = plain(tutorial(_control(self._control_url)))
        self._stage.end()
        return wanted, plain(self._letta(tutorial, script))

    def same(self, tutorial: Tutorial, script: Sequence[Line]) -> Any:
        """Return what both give."""
        control, letta = self.both(tutorial, script)
        assert letta == control
        return control


def _control(url: str) -> ChatOpenAI:
    """The other model. It keeps no connection, which an event loop that ends would leave open."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return ChatOpenAI(
        base_url=url,
        api_key="x",
        model="scripted",
        max_retries=0,
        http_async_client=httpx.AsyncClient(limits=limits),
    )


@pytest.fixture(params=["fake", REAL])
def performed(
    request: pytest.FixtureRequest, stage: Stage, control_url: str
) -> Iterator[Performed]:
    """A tutorial's stage: a Letta in memory, the real runtime, a recording of the Letta API."""
    yield from _KINDS.get(request.param, _recorded)(request, stage, control_url)


def _fake(request: pytest.FixtureRequest, stage: Stage, url: str) -> Iterator[Performed]:
    fake = FakeLetta()
    with fake.client() as client:
        agent_id = client.create_agent()

        def perform(tutorial: Tutorial, script: Sequence[Line]) -> Any:
            fake.script(*(line.static() for line in script))
            given = tutorial(ChatLetta(agent_id=agent_id, client=client))
            assert not fake._replies
            return given

        yield Performed(request.param, stage, url, perform)


def _real(request: pytest.FixtureRequest, stage: Stage, url: str) -> Iterator[Performed]:
    letta = request.getfixturevalue("tutorials_letta")

    def perform(tutorial: Tutorial, script: Sequence[Line]) -> Any:
        agent_id = letta.agent(f"tutorial-{uuid.uuid4().hex[:8]}")
        stage.set(script)
        given = tutorial(ChatLetta(agent_id=agent_id, client=letta.client))
        stage.end()
        return given

    yield Performed(request.param, stage, url, perform)


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
        if "parallel" in request.param:
            settings = {"provider_type": "openai", "parallel_tool_calls": True}
            client.agents.update(agent_id, model_settings=settings)

        def perform(tutorial: Tutorial, script: Sequence[Line]) -> Any:
            cassette.script(*(line.static() for line in script))
            return tutorial(ChatLetta(agent_id=agent_id, client=client))

        yield Performed(request.param, stage, url, perform)
    get_bridge().call(http_client.aclose())


_KINDS = {"fake": _fake, "real": _real}


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
