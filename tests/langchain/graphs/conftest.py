"""Real graphs around an agent, and what its server holds afterwards."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from letta_adapters import LettaClient
from letta_adapters.chat import cache
from letta_adapters.langchain import ChatLetta
from letta_adapters.messages import content_text
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.rest.conftest import MODEL
from tests.live._rig import rig_script, rig_server

# docs/langchain.md, "Inside a LangGraph graph": there a call sees nothing of its place.
asynchronous_nodes = pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="LangGraph gives asynchronous nodes their configuration from Python 3.11 on",
)


class World:
    """One agent of a Letta, whose model says what was scripted, in order."""

    def __init__(
        self,
        client: LettaClient,
        agent_id: str,
        script: Callable[..., None],
        thread: str | None = None,
    ) -> None:
        self.client = client
        self.agent_id = agent_id
        self.script = script
        self.thread = thread or f"t{uuid.uuid4().hex[:8]}"
        self._before = set(self._summaries())

    def model(self, **fields: Any) -> ChatLetta:
        return ChatLetta(**{"agent_id": self.agent_id, "client": self.client, **fields})

    def config(self) -> Any:
        return {"configurable": {"thread_id": self.thread}}

    def _summaries(self) -> dict[str, str]:
        listed = self.client.conversations.list(agent_id=self.agent_id, limit=100)
        return {str(c["id"]): str(c.get("summary") or "") for c in listed if not c.get("archived")}

    def holds(self) -> dict[str, list[str]]:
        """The users' messages of each conversation that was made meanwhile.

        By its name, where it has one: ``"T/node"`` for ``thread:<this thread>/node``; the others
        are ``"?"``, ``"??"``, ..., by what they begin with.
        """
        made = {i: s for i, s in self._summaries().items() if i not in self._before}
        said = {i: self.said(i) for i in made}
        found: dict[str, list[str]] = {}
        unnamed = []
        for id_, summary in made.items():
            if summary.startswith("thread:"):
                name = summary.removeprefix("thread:").replace(self.thread, "T")
                assert name not in found, f"two conversations are called {name}"
                found[name] = said[id_]
            else:
                unnamed.append(said[id_])
        for n, texts in enumerate(sorted(unnamed), 1):
            found["?" * n] = texts
        return found

    def _stored(self, conversation_id: str, kind: str) -> list[Any]:
        page = self.client.list_messages(self.agent_id, conversation_id, order="asc", limit=100)
        return [message for message in page.raw if message["message_type"] == kind]

    def said(self, conversation_id: str) -> list[str]:
        stored = self._stored(conversation_id, "user_message")
        texts = [content_text(message["content"]) for message in stored]
        return [text for text in texts if not text.startswith("{")]

    def told(self, conversation_id: str) -> list[str]:
        """System messages that were told."""
        stored = self._stored(conversation_id, "system_message")
        return [content_text(message["content"]) for message in stored]

    def results(self, conversation_id: str) -> list[str]:
        """What tools gave, as the server holds it."""
        stored = self._stored(conversation_id, "tool_return_message")
        return [str(message["tool_return"]) for message in stored]

    def id_of(self, name: str) -> str:
        """The conversation that :meth:`holds` calls so."""
        wanted = "thread:" + name.replace("T", self.thread, 1)
        return next(i for i, summary in self._summaries().items() if summary == wanted)

    def as_another_process(self) -> None:
        """Forget what this process knows of calls."""
        cache.recent._calls.clear()
        cache.recent._seen.clear()
        cache.known_answers._markers.clear()
        cache.tasks._first.clear()
        known = cache.get_cache(self.client._core)
        known.threads.clear()
        known.told.clear()


# An agent of the Letta API without tools and memory of Letta's own.
BARE: Final[dict[str, Any]] = {
    "model": MODEL,
    "persona": "I am a test.",
    "system_prompt": "You are a test.",
    "base_tools": False,
}


def calls(name: str, id: str | None = None, **arguments: Any) -> Reply:
    """A reply that calls a tool."""
    return Reply(tool_calls=[ToolUse(name, arguments, id=id or f"call-{uuid.uuid4().hex[:8]}")])


_EMBEDDED = pytest.param("embedded", marks=pytest.mark.slow)
_LIVE = pytest.param("live", marks=pytest.mark.live)


@pytest.fixture(params=["fake", _EMBEDDED, _LIVE])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """An agent in memory, one of the real embedded runtime, and one of the rig's Letta API."""
    if request.param == "live":
        with LettaClient(rig_server()) as client:
            agent_id = client.create_agent(name="graphs", **BARE)
            yield World(client, agent_id, rig_script())
            client.agents.delete(agent_id)
        return
    if request.param == "fake":
        letta = FakeLetta()
        with letta.client() as client:
            yield World(client, client.create_agent(), letta.script)
        return
    model: ScriptedModel = request.getfixturevalue("embedded_model")
    model.clear()
    client = request.getfixturevalue("embedded")
    yield World(client, request.getfixturevalue("embedded_agent"), model.script)


@pytest.fixture
def fake_world() -> Iterator[World]:
    """An agent in memory, where only our own part is of interest."""
    letta = FakeLetta()
    with letta.client() as client:
        yield World(client, client.create_agent(), letta.script)


@pytest.fixture
def saver() -> InMemorySaver:
    return InMemorySaver()


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Where a SQLite checkpointer keeps its checkpoints."""
    return str(tmp_path / "checkpoints.sqlite")
