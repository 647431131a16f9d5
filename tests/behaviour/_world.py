"""A real Letta of either kind, as the tests of this folder see it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from letta_adapters import AsyncLettaClient, Remote, Rest
from letta_adapters.backends.capabilities import (
    LETTA_CODE,
    LETTA_CODE_ON_API,
    OPTION_SUPPORT,
    REST,
    Capabilities,
)
from letta_adapters.client.client import get_slots
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.live.faces import make_sync_client
from letta_adapters.testing.scripted_model import RemoteScript, Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import MODEL as APP_SERVER_MODEL
from tests.backends.app_server._server import THINKING, TOKEN, AppServer
from tests.backends.rest._server_tool import attach
from tests.behaviour._cut import Wire


@dataclass(frozen=True)
class ServerTool:
    """A call of a tool that the server runs, what it returns, and another input for it.

    ``options``: of a session that does not want to be asked about it.
    """

    use: ToolUse
    returns: str
    edited: Mapping[str, Any]
    edited_returns: str
    options: Mapping[str, Any] = field(default_factory=dict)


_BARE = {"system_prompt": "You are a test agent.", "persona": "I am a test agent."}
# Without its delays a replayed stream is over before anybody can leave it.
REPLAY_SPEED = 0.2

FACES: dict[str, Callable[..., Any]] = {"async": AsyncLettaClient, "sync": make_sync_client}


class World:
    """A server with a scripted model, and clients of it that all look async."""

    backend: str
    capabilities: Capabilities
    model: str
    thinking: str  # a model that takes an effort, where the server thinks
    limit: float  # a turn's time limit, in seconds, that ``slow(9)`` exceeds

    def __init__(self, face: str) -> None:
        self._face = FACES[face]
        self._made: list[Callable[[], Any]] = []
        self._wire: Wire | None = None

    def script(self, *replies: Any) -> None:
        """What the model says next."""
        raise NotImplementedError

    def client(self, *, key: str | None = None) -> Any:
        """A new client, closed after the test; ``key``: another key than the right one."""
        raise NotImplementedError

    def wired(self) -> Any:
        """A client whose connections :meth:`cut` can break."""
        raise NotImplementedError

    async def agent(self, client: Any, name: str, **options: Any) -> str:
        """A bare agent: a short system prompt and one block of memory."""
        raise NotImplementedError

    def tools_sent(self) -> set[str]:
        """The tools that the model was offered last, where it can be told which."""
        raise NotImplementedError

    def effort_sent(self, effort: str) -> bool:
        """Was the model asked with this effort last? Where nobody can tell, yes."""
        return True

    async def server_tool(self, client: Any, agent: str, *, asks: bool) -> ServerTool:
        """Give the agent a tool that the server runs, and asks about before or not."""
        raise NotImplementedError

    async def allow_parallel_calls(self, client: Any, agent: str) -> None:
        """Let the agent's model make several calls at once."""

    def slow(self, words: int) -> Reply:
        """An answer slow enough to be interrupted."""
        raise NotImplementedError

    def supports(self, option: str) -> bool:
        """Does this kind of Letta have the option?"""
        return self.backend in OPTION_SUPPORT.get(option, (self.backend,))

    def otid(self, name: str) -> str:
        """An ``otid`` that a recording holds too."""
        return f"00000000-{name}"

    def hide(self, secret: str) -> None:
        """A secret that must not be in a recording."""

    def cut(self) -> None:
        """Lose every connection of the :meth:`wired` clients."""
        if self._wire is not None:
            self._wire.cut()

    def _wire_to(self, url: str) -> str:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._wire = Wire((parts.hostname, parts.port)).__enter__()
        return parts._replace(netloc=self._wire.address).geturl()

    async def close(self) -> None:
        """Close what was made."""
        for made in self._made:
            await made()
        if self._wire is not None:
            self._wire.__exit__(None, None, None)


class RestWorld(World):
    """The Letta API: recordings of a real server, which ``python -m tools.rig record`` makes."""

    backend = "rest"
    capabilities = REST
    model = thinking = "openai-proxy/scripted"

    def __init__(self, face: str, cassette: LettaCassette) -> None:
        super().__init__(face)
        self.cassette = cassette
        self.limit = 3.0 * (1.0 if cassette.recording else REPLAY_SPEED)

    def script(self, *replies: Any) -> None:
        self.cassette.script(*replies)

    def hide(self, secret: str) -> None:
        self.cassette.secrets.append(secret)

    def client(self, *, key: str | None = None) -> Any:
        return self._client(self.cassette.base_url, key)

    def wired(self) -> Any:
        url = self.cassette.base_url
        # What happened when the wire was cut is in the recording.
        return self._client(self._wire_to(url) if self.cassette.recording else url, None)

    def _client(self, url: str, key: str | None) -> Any:
        api_key: Any = (self.cassette.api_key or "") if key is None else key
        http_client = self.cassette.http_client()
        made = self._face(
            Rest(base_url=url, api_key=api_key, settle_timeout=5.0), http_client=http_client
        )
        self._made += [made.close, http_client.aclose]
        return made

    async def agent(self, client: Any, name: str, **options: Any) -> str:
        # One block: the server lists several in any order, which would show in the recordings.
        given = _BARE | {"model": self.model, "base_tools": False}
        made: str = await client.create_agent(name=name, **given | options)
        return made

    async def allow_parallel_calls(self, client: Any, agent: str) -> None:
        settings = {"provider_type": "openai", "parallel_tool_calls": True}
        await client.agents.update(agent, model_settings=settings)

    async def server_tool(self, client: Any, agent: str, *, asks: bool) -> ServerTool:
        await attach(client, agent, asks=asks)
        use = ToolUse("multiply", {"a": 6, "b": 7})
        return ServerTool(use, "42", {"a": 1, "b": 1}, "1")

    def slow(self, words: int) -> Reply:
        """An answer that can be interrupted: the server looks for cancels twice a second."""
        return Reply(text=["word "] * words, token_delay=0.8)


class AppServerWorld(World):
    """Letta Code: the real App Server of the ``letta`` wheel."""

    backend = "remote"
    capabilities = LETTA_CODE
    model = APP_SERVER_MODEL
    thinking = THINKING
    limit = 0.5
    settle = 5.0  # seconds to find out what became of a turn

    def __init__(self, face: str, server: AppServer, model: ScriptedModel | RemoteScript) -> None:
        super().__init__(face)
        self._server = server
        self._model = model

    def script(self, *replies: Any) -> None:
        self._model.script(*replies)

    def client(self, *, key: str | None = None) -> Any:
        return self._client(self._server.url, key)

    def wired(self) -> Any:
        return self._client(self._wire_to(self._server.url), None)

    def _client(self, url: str, key: str | None) -> Any:
        token: Any = TOKEN if key is None else key
        made = self._face(Remote(url=url, auth_token=token, settle_timeout=self.settle))
        core = getattr(made, "_core", made)
        # As in a process of its own: those of one process take turns.
        get_slots(core).place = id(core)
        self._made.append(made.close)
        return made

    async def agent(self, client: Any, name: str, **options: Any) -> str:
        given = _BARE | {"model": self.model}
        made: str = await client.create_agent(name=name, **given | options)
        return made

    def tools_sent(self) -> set[str]:
        return {tool["function"]["name"] for tool in self._asked().get("tools") or ()}

    def effort_sent(self, effort: str) -> bool:
        return bool(self._asked().get("reasoning") == {"effort": effort})

    def _asked(self) -> dict[str, Any]:
        assert isinstance(self._model, ScriptedModel)
        return self._model.requests[-1].body

    async def server_tool(self, client: Any, agent: str, *, asks: bool) -> ServerTool:
        # Every command is asked about, unless the session allows the tool.
        use, edited = (_bash(f"echo {word}") for word in ("42", "edited"))
        options = {} if asks else {"allowed_tools": [use.name]}
        return ServerTool(use, "42\n", edited.arguments, "edited\n", options)

    def slow(self, words: int) -> Reply:
        return Reply(text=["word "] * words, token_delay=0.1)


class OnApiWorld(AppServerWorld):
    """Letta Code over agents that live on a Letta API."""

    capabilities = LETTA_CODE_ON_API
    model = thinking = RestWorld.model
    limit = 3.0
    settle = 15.0

    slow = RestWorld.slow

    def supports(self, option: str) -> bool:
        # Tools of an agent on the Letta API cannot be left out.
        return option not in ("offered_tools", "stateless") and super().supports(option)

    def effort_sent(self, effort: str) -> bool:
        return True

    def otid(self, name: str) -> str:
        # With Redis it may be used once, whatever the agent and the conversation.
        return f"{super().otid(name)}-{uuid.uuid4()}"

    async def server_tool(self, client: Any, agent: str, *, asks: bool) -> ServerTool:
        # Models of OpenAI's get another set of tools.
        use, edited = (
            ToolUse("exec_command", {"cmd": f"echo {word}", "description": "a test"})
            for word in ("42", "edited")
        )
        options = {} if asks else {"allowed_tools": [use.name]}
        return ServerTool(use, "42\n", edited.arguments, "edited\n", options)


def _bash(command: str) -> ToolUse:
    return ToolUse("Bash", {"command": command, "description": "a test"})
