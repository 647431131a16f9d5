"""The same API as :mod:`letta_adapters.client.client`, for synchronous code.

Each object here drives its asynchronous counterpart on one background event loop and has no logic
of its own. What only forwards is made by :func:`~letta_adapters.sync.bridge.blocking`; the methods
of a turn are written out, because turns belong to the calling thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar, overload

from letta_adapters.backends.base import Target
from letta_adapters.backends.config import BackendSpec
from letta_adapters.client.client import (
    AsyncLettaClient,
    check_given,
    make_session,
    new_target,
    resume_target,
)
from letta_adapters.client.resources import AsyncAgents, AsyncConversations, AsyncModels
from letta_adapters.client.session import AsyncSession
from letta_adapters.engine.deltas import TextReader
from letta_adapters.errors import InvalidInputError, LettaError
from letta_adapters.messages import (
    Message,
    RecoveryResult,
    ResultMessage,
)
from letta_adapters.sync.bridge import Bridged, blocking, get_bridge
from letta_adapters.sync.resources import Blocks, Memory, Passages, Runs, Tools

T = TypeVar("T")

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Unpack

    from letta_adapters.backends.connector import Connector
    from letta_adapters.client.message_stream import MessageStream
    from letta_adapters.client.structured import StructuredResult
    from letta_adapters.options import AgentKwargs, SessionKwargs
    from letta_adapters.permissions import Allow, Deny


class LettaClient(Bridged[AsyncLettaClient]):
    """A client for Letta agents, for synchronous code: scripts, threads, notebooks, forked workers.

    It does the same as :class:`~letta_adapters.AsyncLettaClient`, whose docstrings apply.
    Close it, or use it with ``with``::

        with LettaClient("local") as client:
            agent_id = client.create_agent(persona="I am a librarian.")
            print(client.prompt("Hello!", agent_id).result)
    """

    def __init__(
        self,
        backend: BackendSpec | None = None,
        *,
        http_client: httpx.AsyncClient | None = None,
        connector: Connector | None = None,
    ) -> None:
        def make(old: AsyncLettaClient | None) -> AsyncLettaClient:
            # An injected client's connections belong to the parent's loop, and cannot be made anew
            # here.
            if old is not None and http_client is not None:
                raise InvalidInputError(
                    "An injected http_client cannot be used after fork().",
                    hint="Make the LettaClient in the child process.",
                )
            made = AsyncLettaClient(backend, http_client=http_client, connector=connector)
            get_bridge().clients.add(made)
            return made

        super().__init__(make)
        self.agents = Agents(lambda _: self._core.agents)
        self.conversations = Conversations(lambda _: self._core.conversations)
        self.models = Models(lambda _: self._core.models)
        self.blocks = Blocks(lambda _: self._core.blocks)
        self.tools = Tools(lambda _: self._core.tools)
        self.runs = Runs(lambda _: self._core.runs)

    @overload
    def prompt(
        self,
        message: Any,
        agent_id: str | None = None,
        *,
        output_schema: None = None,
        output_repairs: None = None,
        **options: Unpack[SessionKwargs],
    ) -> ResultMessage: ...
    @overload
    def prompt(
        self,
        message: Any,
        agent_id: str | None = None,
        *,
        output_schema: type[T],
        output_repairs: int | None = None,
        **options: Unpack[SessionKwargs],
    ) -> StructuredResult[T]: ...
    @overload
    def prompt(
        self,
        message: Any,
        agent_id: str | None = None,
        *,
        output_schema: Mapping[str, Any],
        output_repairs: int | None = None,
        **options: Unpack[SessionKwargs],
    ) -> StructuredResult[Any]: ...
    def prompt(
        self,
        message: Any,
        agent_id: str | None = None,
        *,
        output_schema: Any = None,
        output_repairs: int | None = None,
        **options: Unpack[SessionKwargs],
    ) -> ResultMessage:
        """Ask once, in a fresh conversation, and return the turn's result.

        Without ``agent_id`` the default agent is asked.
        """
        with self.create_session(agent_id, **options) as session:
            return session.run_turn(
                message, output_schema=output_schema, output_repairs=output_repairs
            )

    create_agent = blocking(AsyncLettaClient.create_agent)

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

    list_messages = blocking(AsyncLettaClient.list_messages)
    runtime_status = blocking(AsyncLettaClient.runtime_status)
    connect_provider = blocking(AsyncLettaClient.connect_provider)
    request = blocking(AsyncLettaClient.request)

    @property
    def backend_name(self) -> str:
        """The kind of backend: ``"rest"``, ``"local"`` or ``"remote"``."""
        return self._core.backend_name

    @property
    def closed(self) -> bool:
        """True once the client was closed, which is final."""
        return self._core.closed

    close = blocking(AsyncLettaClient.close)

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
        """The agent's id; ``None`` until it is known: see :class:`~letta_adapters.AsyncSession`."""
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

    initialize = blocking(AsyncSession.initialize)

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

    def text_stream(self) -> Generator[str, None, None]:
        """Return the answer's text alone, of the turn that :meth:`stream` would return."""
        return _read_text(self.stream())

    @overload
    def run_turn(
        self, message: Any, *, otid: str | None = None, timeout: float | None = None
    ) -> ResultMessage: ...
    @overload
    def run_turn(
        self,
        message: Any,
        *,
        otid: str | None = None,
        timeout: float | None = None,
        output_schema: type[T],
        output_repairs: int | None = None,
    ) -> StructuredResult[T]: ...
    @overload
    def run_turn(
        self,
        message: Any,
        *,
        otid: str | None = None,
        timeout: float | None = None,
        output_schema: Mapping[str, Any],
        output_repairs: int | None = None,
    ) -> StructuredResult[Any]: ...
    def run_turn(
        self,
        message: Any,
        *,
        otid: str | None = None,
        timeout: float | None = None,
        output_schema: Any = None,
        output_repairs: int | None = None,
    ) -> ResultMessage:
        """Send a message and return the turn's result; ask about a call left open before."""
        thread = threading.current_thread()
        running = self._core._run_shaped(
            message, otid, timeout, thread, output_schema, output_repairs
        )
        return self._run(running)

    abort = blocking(AsyncSession.abort)
    list_messages = blocking(AsyncSession.list_messages)
    bootstrap_state = blocking(AsyncSession.bootstrap_state)

    # -- calls that wait -------------------------------------------------------------------------

    pending_approvals = blocking(AsyncSession.pending_approvals)

    def respond(self, decisions: Mapping[str, Allow | Deny | bool]) -> None:
        """Answer all calls that wait, and go on with their turn; then read :meth:`stream`."""
        self._run(self._core._respond(decisions, threading.current_thread()))

    @overload
    def respond_turn(
        self,
        decisions: Mapping[str, Allow | Deny | bool],
        *,
        output_schema: None = None,
        output_repairs: None = None,
    ) -> ResultMessage: ...
    @overload
    def respond_turn(
        self,
        decisions: Mapping[str, Allow | Deny | bool],
        *,
        output_schema: type[T],
        output_repairs: int | None = None,
    ) -> StructuredResult[T]: ...
    @overload
    def respond_turn(
        self,
        decisions: Mapping[str, Allow | Deny | bool],
        *,
        output_schema: Mapping[str, Any],
        output_repairs: int | None = None,
    ) -> StructuredResult[Any]: ...
    def respond_turn(
        self,
        decisions: Mapping[str, Allow | Deny | bool],
        *,
        output_schema: Any = None,
        output_repairs: int | None = None,
    ) -> ResultMessage:
        """Answer all calls that wait as :meth:`respond` does, and return the turn's result."""
        thread = threading.current_thread()
        return self._run(self._core._respond_turn(decisions, thread, output_schema, output_repairs))

    detach = blocking(AsyncSession.detach)

    def recover_pending_approvals(self) -> RecoveryResult:
        """End the tool calls that an abandoned turn left waiting; no model is called for it."""
        return self._run(self._core._recover(threading.current_thread()))

    # -- model, toolset and queue ----------------------------------------------------------------

    update_model = blocking(AsyncSession.update_model)
    update_toolset = blocking(AsyncSession.update_toolset)
    change_device_state = blocking(AsyncSession.change_device_state)
    device_status = blocking(AsyncSession.device_status)
    queued = blocking(AsyncSession.queued)
    remove_queued = blocking(AsyncSession.remove_queued)
    resume_queue = blocking(AsyncSession.resume_queue)

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
            self._run(self._core._reach())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- agents, conversations and models --------------------------------------------------------------


class Agents(Bridged[AsyncAgents]):
    """The agents of the backend; see :class:`~letta_adapters.client.resources.AsyncAgents`."""

    def __init__(self, make: Callable[[AsyncAgents | None], AsyncAgents]) -> None:
        super().__init__(make)
        self.memory = Memory(lambda _: self._core.memory)
        self.passages = Passages(lambda _: self._core.passages)

    create = blocking(AsyncAgents.create)
    list = blocking(AsyncAgents.list)
    retrieve = blocking(AsyncAgents.retrieve)
    update = blocking(AsyncAgents.update)
    settings = blocking(AsyncAgents.settings)
    delete = blocking(AsyncAgents.delete)
    export_file = blocking(AsyncAgents.export_file)
    import_file = blocking(AsyncAgents.import_file)
    secrets = blocking(AsyncAgents.secrets)
    set_secrets = blocking(AsyncAgents.set_secrets)
    memory_files = blocking(AsyncAgents.memory_files)
    memory_history = blocking(AsyncAgents.memory_history)
    memory_path = blocking(AsyncAgents.memory_path)


class Conversations(Bridged[AsyncConversations]):
    """The conversations of agents: :class:`~letta_adapters.client.resources.AsyncConversations`."""

    create = blocking(AsyncConversations.create)
    list = blocking(AsyncConversations.list)
    retrieve = blocking(AsyncConversations.retrieve)
    update = blocking(AsyncConversations.update)
    delete = blocking(AsyncConversations.delete)
    fork = blocking(AsyncConversations.fork)
    recompile = blocking(AsyncConversations.recompile)


class Models(Bridged[AsyncModels]):
    """The models that the backend offers."""

    list = blocking(AsyncModels.list)


# -- module functions -----------------------------------------------------------------------------


@overload
def prompt(
    message: Any,
    agent_id: str | None = None,
    *,
    client: LettaClient | None = None,
    backend: BackendSpec | None = None,
    output_schema: None = None,
    output_repairs: None = None,
    **options: Unpack[SessionKwargs],
) -> ResultMessage: ...
@overload
def prompt(
    message: Any,
    agent_id: str | None = None,
    *,
    client: LettaClient | None = None,
    backend: BackendSpec | None = None,
    output_schema: type[T],
    output_repairs: int | None = None,
    **options: Unpack[SessionKwargs],
) -> StructuredResult[T]: ...
@overload
def prompt(
    message: Any,
    agent_id: str | None = None,
    *,
    client: LettaClient | None = None,
    backend: BackendSpec | None = None,
    output_schema: Mapping[str, Any],
    output_repairs: int | None = None,
    **options: Unpack[SessionKwargs],
) -> StructuredResult[Any]: ...
def prompt(
    message: Any,
    agent_id: str | None = None,
    *,
    client: LettaClient | None = None,
    backend: BackendSpec | None = None,
    output_schema: Any = None,
    output_repairs: int | None = None,
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
        output_schema: The data that the answer is to be; ``result.output`` is the object.
        output_repairs: How often an answer that does not fit goes back to the agent.
        **options: See :class:`~letta_adapters.options.SessionOptions`.

    Raises:
        LettaError: The message was refused. A turn that failed later is returned with
            ``success=False``.
    """
    with create_session(agent_id, client=client, backend=backend, **options) as session:
        return session.run_turn(message, output_schema=output_schema, output_repairs=output_repairs)


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
        return check_given(client, backend).create_agent(**options)
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
        return Session(check_given(client, backend), target, options)
    return Session(LettaClient(backend), target, options, owns_client=True)


def _read_text(messages: Generator[Message, None, None]) -> Generator[str, None, None]:
    reader = TextReader()
    with closing(messages):
        for message in messages:
            if text := reader.read(message):
                yield text
