"""The same API as :mod:`letta_adapters.client.client`, for synchronous code.

Each object here drives its asynchronous counterpart on one background event loop and has no logic
of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letta_adapters.backends.base import Order, Target
from letta_adapters.backends.config import BackendSpec, RuntimeStatus
from letta_adapters.client.client import AsyncLettaClient, make_session, new_target, resume_target
from letta_adapters.client.resources import AsyncAgents, AsyncConversations, AsyncModels
from letta_adapters.client.session import PAGE_SIZE, AsyncSession
from letta_adapters.errors import InvalidInputError, LettaError
from letta_adapters.messages import (
    BootstrapState,
    InitMessage,
    Message,
    MessagePage,
    RecoveryResult,
    ResultMessage,
)
from letta_adapters.sync.bridge import Bridged, get_bridge

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Unpack

    from letta_adapters.client.turn import MessageStream
    from letta_adapters.options import AgentKwargs, PermissionMode, SessionKwargs, Toolset


class LettaClient(Bridged[AsyncLettaClient]):
    """A client for Letta agents, for synchronous code: scripts, threads, notebooks, forked workers.

    It does the same as :class:`~letta_adapters.AsyncLettaClient`, whose docstrings apply.
    Close it, or use it with ``with``::

        with LettaClient("local") as client:
            agent_id = client.create_agent(model="anthropic/claude-sonnet-4-5")
            print(client.prompt("Hello!", agent_id).result)
    """

    def __init__(
        self, backend: BackendSpec | None = None, *, http_client: httpx.AsyncClient | None = None
    ) -> None:
        def make(old: AsyncLettaClient | None) -> AsyncLettaClient:
            # An injected client's connections belong to the parent's loop, and cannot be made anew
            # here.
            if old is not None and http_client is not None:
                raise InvalidInputError(
                    "An injected http_client cannot be used after fork().",
                    hint="Make the LettaClient in the child process.",
                )
            made = AsyncLettaClient(backend, http_client=http_client)
            get_bridge().clients.add(made)
            return made

        super().__init__(make)
        self.agents = Agents(lambda _: self._core.agents)
        self.conversations = Conversations(lambda _: self._core.conversations)
        self.models = Models(lambda _: self._core.models)

    def prompt(
        self, message: Any, agent_id: str | None = None, **options: Unpack[SessionKwargs]
    ) -> ResultMessage:
        """Ask once, in a fresh conversation, and return the turn's result.

        Without ``agent_id`` the default agent is asked.
        """
        with self.create_session(agent_id, **options) as session:
            return session.run_turn(message)

    def create_agent(self, **options: Unpack[AgentKwargs]) -> str:
        """Create an agent (:class:`~letta_adapters.options.AgentOptions`) and return its id."""
        return self._run(self._core.create_agent(**options))

    def create_session(
        self, agent_id: str | None = None, **options: Unpack[SessionKwargs]
    ) -> Session:
        """Make a session in a fresh conversation; this does no I/O."""
        return Session(self, new_target(agent_id), options)

    def resume_session(
        self,
        id: str | None = None,
        *,
        agent_id: str | None = None,
        conversation_id: str | None = None,
        **options: Unpack[SessionKwargs],
    ) -> Session:
        """Make a session that continues a conversation; this does no I/O.

        It needs an agent id (for its default conversation), a conversation id, or both.
        """
        return Session(self, resume_target(id, agent_id, conversation_id), options)

    def list_messages(
        self,
        agent_id: str | None = None,
        conversation_id: str | None = None,
        before: str | None = None,
        after: str | None = None,
        order: Order = "desc",
        limit: int = PAGE_SIZE,
    ) -> MessagePage:
        """Return a page of stored messages, newest first; no session is needed."""
        return self._run(
            self._core.list_messages(agent_id, conversation_id, before, after, order, limit)
        )

    def runtime_status(self) -> RuntimeStatus:
        """Return the state of the embedded runtime: its memory, and the processes that use it."""
        return self._run(self._core.runtime_status())

    def connect_provider(
        self,
        provider: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        **fields: str,
    ) -> list[str]:
        """Connect a model provider, for all agents of this state directory."""
        core = self._core
        return self._run(
            core.connect_provider(provider, api_key=api_key, base_url=base_url, **fields)
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make any call of the Letta API and return the decoded JSON."""
        return self._run(self._core.request(method, path, params=params, body=body))

    @property
    def backend_name(self) -> str:
        """The kind of backend: ``"rest"``, ``"local"`` or ``"remote"``."""
        return self._core.backend_name

    @property
    def closed(self) -> bool:
        """True once the client was closed, which is final."""
        return self._core.closed

    def close(self) -> None:
        """Stop the turns that are running and close for good. It can be called more than once."""
        self._run(self._core.close())

    def __enter__(self) -> LettaClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session(Bridged[AsyncSession]):
    """A conversation with a Letta agent, for synchronous code.

    It does the same as :class:`~letta_adapters.AsyncSession`, whose docstrings apply::

        with resume_session("agent-...") as session:
            session.send("What do you remember about me?")
            for message in session.stream():
                print(message)
    """

    def __init__(
        self,
        client: LettaClient,
        target: Target,
        options: Mapping[str, Any],
        *,
        owns_client: bool = False,
    ) -> None:
        def make(old: AsyncSession | None) -> AsyncSession:
            where = target
            # In the child of a fork a conversation that was open already goes on; a new one would
            # forget it.
            if old is not None and old.conversation_id is not None:
                where = Target(old.agent_id, old.conversation_id)
            # Callbacks must stay off the loop that all sessions of the process share.
            return make_session(client._core, where, options, off_loop=True)

        self._client = client
        self._owns_client = owns_client
        super().__init__(make)

    @property
    def agent_id(self) -> str | None:
        """The agent's id; ``None`` until the session is open."""
        return self._core.agent_id

    @property
    def conversation_id(self) -> str | None:
        """``conv-...``, or ``"default"`` for the agent's own one; ``None`` until open."""
        return self._core.conversation_id

    @property
    def session_id(self) -> str | None:
        """The id of this session object; ``None`` until the session is open."""
        return self._core.session_id

    @property
    def closed(self) -> bool:
        """True once the session was closed, which is final."""
        return self._core.closed

    @property
    def unsent(self) -> tuple[Mapping[str, Any], ...]:
        """The messages that waited in line and will never be sent."""
        return self._core.unsent

    @property
    def mcp_problems(self) -> Mapping[str, LettaError]:
        """The servers of ``mcp_servers`` that are not connected, each with the reason."""
        return self._core.mcp_problems

    def initialize(self) -> InitMessage:
        """Open the session now, if it is not open, and return the first message of its stream."""
        return self._run(self._core.initialize())

    def send(self, message: Any, *, otid: str | None = None) -> None:
        """Send a message and return once the server has accepted it; then read :meth:`stream`.

        Behind an earlier message that is not answered to its end it waits in line, and ``send``
        returns at once.
        """
        # Turns belong to the calling thread: the task on the loop is another one for every call.
        self._run(self._core._send(message, otid, threading.current_thread()))

    def stream(self) -> Generator[Message, None, None]:
        """Return the messages of the turn that :meth:`send` started, up to its ``ResultMessage``.

        Closing the generator stops the agent; leaving the loop drops the generator and so closes
        it.
        """
        return get_bridge().iterate(self._run(self._begin_stream(threading.current_thread())))

    # A coroutine although it awaits nothing: the session may be touched on its own loop only.
    async def _begin_stream(self, owner: object) -> MessageStream:
        self._core._check_usable()
        return self._core._stream(owner)

    def run_turn(self, message: Any, *, otid: str | None = None) -> ResultMessage:
        """Send a message and return the turn's result; clear an abandoned approval first."""
        return self._run(self._core._run_turn(message, otid, threading.current_thread()))

    def abort(self) -> None:
        """Stop the agent's current turn; it is no error if none runs."""
        self._run(self._core.abort())

    def list_messages(
        self,
        before: str | None = None,
        after: str | None = None,
        order: Order = "desc",
        limit: int = PAGE_SIZE,
    ) -> MessagePage:
        """Return a page of stored messages, newest first, also while a stream is running."""
        return self._run(self._core.list_messages(before, after, order, limit))

    def bootstrap_state(self, limit: int = PAGE_SIZE) -> BootstrapState:
        """Return ids, model, tools, the newest messages and the calls that wait for an answer."""
        return self._run(self._core.bootstrap_state(limit))

    def recover_pending_approvals(self) -> RecoveryResult:
        """Deny the tool calls that an abandoned turn left waiting; no model is called for it."""
        return self._run(self._core._recover(threading.current_thread()))

    # -- model, toolset and queue ----------------------------------------------------------------

    def update_model(self, model: str) -> None:
        """Use another model in this conversation from the next turn on (not in others)."""
        self._run(self._core.update_model(model))

    def update_toolset(self, toolset: Toolset) -> None:
        """Use another set of Letta Code's own tools from the next turn on; ``"none"`` for none."""
        self._run(self._core.update_toolset(toolset))

    def change_device_state(
        self,
        *,
        permission_mode: PermissionMode | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        """Change the permission mode or the working directory at once, also in a running turn."""
        self._run(self._core.change_device_state(permission_mode=permission_mode, cwd=cwd))

    def device_status(self) -> dict[str, Any]:
        """Return the server's own description of this conversation's state."""
        return self._run(self._core.device_status())

    def queued(self) -> tuple[Mapping[str, Any], ...]:
        """Return the messages that wait behind a running turn."""
        return self._run(self._core.queued())

    def remove_queued(self, item_id: str) -> bool:
        """Take a message out of the queue; return ``False`` if it is not in it (any more)."""
        return self._run(self._core.remove_queued(item_id))

    def resume_queue(self) -> int:
        """Let the messages go on that an abort has put on hold, and return their number."""
        return self._run(self._core.resume_queue())

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the turn that is running and close for good. It can be called more than once."""
        try:
            self._run(self._core.close())
        finally:
            if self._owns_client:
                self._client.close()

    def __enter__(self) -> Session:
        try:
            self.initialize()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- agents, conversations and models --------------------------------------------------------------


class Agents(Bridged[AsyncAgents]):
    """The agents of the backend; see :class:`~letta_adapters.client.resources.AsyncAgents`."""

    def create(self, **options: Unpack[AgentKwargs]) -> str:
        """Create an agent and return its id, as ``client.create_agent`` does."""
        return self._run(self._core.create(**options))

    def list(
        self,
        *,
        tags: Sequence[str] = (),
        query: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return agents with all ``tags`` whose name matches ``query``; page by ``after``."""
        return self._run(self._core.list(tags=tags, query=query, limit=limit, after=after))

    def retrieve(self, agent_id: str) -> dict[str, Any]:
        """Return one agent; raise NotFoundError if there is none."""
        return self._run(self._core.retrieve(agent_id))

    def update(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Change fields of the API's agent object, and the settings that its sessions inherit.

        Fields are ``name``, ``model``, ``tags``, ...; for settings see :meth:`settings` (``None``
        takes one back).
        """
        return self._run(self._core.update(agent_id, **fields))

    def settings(self, agent_id: str) -> dict[str, Any]:
        """Return the settings that the agent's sessions inherit by default (Letta Code)."""
        return self._run(self._core.settings(agent_id))

    def delete(self, agent_id: str) -> None:
        """Delete an agent, its conversations and memory; raise NotFoundError if not found."""
        self._run(self._core.delete(agent_id))

    def secrets(self, agent_id: str) -> tuple[str, ...]:
        """Return the names of the agent's secrets."""
        return self._run(self._core.secrets(agent_id))

    def set_secrets(self, agent_id: str, secrets: Mapping[str, str | None]) -> None:
        """Set secrets; ``None`` removes one."""
        self._run(self._core.set_secrets(agent_id, secrets))

    def memory_files(self, agent_id: str) -> Sequence[dict[str, Any]]:
        """Return the files of the agent's memory."""
        return self._run(self._core.memory_files(agent_id))

    def memory_history(self, agent_id: str, path: str | None = None) -> Sequence[dict[str, Any]]:
        """Return the commits of the agent's memory repository (of one file), newest first."""
        return self._run(self._core.memory_history(agent_id, path))

    def memory_path(self, agent_id: str) -> Path:
        """Return the directory of the agent's memory repository (``Local`` only)."""
        return self._run(self._core.memory_path(agent_id))


class Conversations(Bridged[AsyncConversations]):
    """The conversations of agents: :class:`~letta_adapters.client.resources.AsyncConversations`."""

    def create(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Create a conversation (``summary``, ``model``, ``model_settings``, ...) and return it."""
        return self._run(self._core.create(agent_id, **fields))

    def list(
        self, agent_id: str, *, limit: int = 50, after: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the agent's conversations, newest first, without its default one."""
        return self._run(self._core.list(agent_id, limit=limit, after=after))

    def retrieve(self, conversation_id: str) -> dict[str, Any]:
        """Return one conversation; raise NotFoundError if there is none."""
        return self._run(self._core.retrieve(conversation_id))

    def update(self, conversation_id: str, **fields: Any) -> dict[str, Any]:
        """Change ``summary``, ``model``, ``model_settings``; the API ignores ``None``."""
        return self._run(self._core.update(conversation_id, **fields))

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation; raise NotFoundError if there is none."""
        self._run(self._core.delete(conversation_id))

    def fork(self, conversation_id: str, *, agent_id: str | None = None) -> dict[str, Any]:
        """Make a new conversation with the same history (``agent_id`` for ``"default"``)."""
        return self._run(self._core.fork(conversation_id, agent_id=agent_id))


class Models(Bridged[AsyncModels]):
    """The models that the backend offers."""

    def list(self) -> list[dict[str, Any]]:
        """Return the chat models; ``handle`` is the value for ``model=``."""
        return self._run(self._core.list())


# -- module functions -----------------------------------------------------------------------------


def prompt(
    message: Any,
    agent_id: str | None = None,
    *,
    client: LettaClient | None = None,
    backend: BackendSpec | None = None,
    **options: Unpack[SessionKwargs],
) -> ResultMessage:
    """Ask once, in a fresh conversation, and return the turn's result.

    ::

        print(prompt("What is the capital of France?").result)

    Args:
        message: Text, an image, or a sequence of both.
        agent_id: The agent to ask. ``None`` means the default agent.
        client: Use this client; else one is made from ``backend`` and closed again.
        backend: ``Rest(...)``, ``"cloud"``, ...; ``None`` asks the environment.
        **options: See :class:`~letta_adapters.options.SessionOptions`.

    Raises:
        LettaError: The message was refused. A turn that failed later is returned with
            ``success=False``.
    """
    with create_session(agent_id, client=client, backend=backend, **options) as session:
        return session.run_turn(message)


def create_agent(
    *,
    client: LettaClient | None = None,
    backend: BackendSpec | None = None,
    **options: Unpack[AgentKwargs],
) -> str:
    """Create an agent and return its id.

    ::

        agent_id = create_agent(model="anthropic/claude-sonnet-4-5", persona="I am a librarian.")

    Args:
        client: Use this client; else one is made from ``backend`` and closed again.
        backend: ``Rest(...)``, ``"cloud"``, ...; ``None`` asks the environment.
        **options: See :class:`~letta_adapters.options.AgentOptions`.
    """
    if client is not None:
        return _given(client, backend).create_agent(**options)
    with LettaClient(backend) as own:
        return own.create_agent(**options)


def create_session(
    agent_id: str | None = None,
    *,
    client: LettaClient | None = None,
    backend: BackendSpec | None = None,
    **options: Unpack[SessionKwargs],
) -> Session:
    """Make a session in a fresh conversation; it opens on ``with`` or on first use.

    ::

        with create_session() as session:
            print(session.run_turn("Hello!").result)

    Args:
        agent_id: The agent to talk to. ``None`` means the default agent.
        client: Use this client; else one is made from ``backend`` and closed with the session.
        backend: ``Rest(...)``, ``"cloud"``, ...; ``None`` asks the environment.
        **options: See :class:`~letta_adapters.options.SessionOptions`.
    """
    return _session(new_target(agent_id), client, backend, options)


def resume_session(
    id: str | None = None,
    *,
    agent_id: str | None = None,
    conversation_id: str | None = None,
    client: LettaClient | None = None,
    backend: BackendSpec | None = None,
    **options: Unpack[SessionKwargs],
) -> Session:
    """Make a session that continues a conversation; it opens on ``with`` or on first use.

    ::

        with resume_session("conv-...") as session:
            print(session.run_turn("Where were we?").result)

    Args:
        id: An agent id, which means its default conversation, or a conversation id.
        agent_id: The agent's id, where ``id`` is not given.
        conversation_id: The conversation's id. With both ids there is no look-up.
        client: Use this client; else one is made from ``backend`` and closed with the session.
        backend: ``Rest(...)``, ``"cloud"``, ...; ``None`` asks the environment.
        **options: See :class:`~letta_adapters.options.SessionOptions`.
    """
    return _session(resume_target(id, agent_id, conversation_id), client, backend, options)


def _session(
    target: Target,
    client: LettaClient | None,
    backend: BackendSpec | None,
    options: Mapping[str, Any],
) -> Session:
    if client is not None:
        return Session(_given(client, backend), target, options)
    return Session(LettaClient(backend), target, options, owns_client=True)


def _given(client: LettaClient, backend: BackendSpec | None) -> LettaClient:
    if backend is not None:
        raise InvalidInputError("Give either client or backend, not both.")
    return client
