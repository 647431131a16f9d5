"""The client for agents and conversations on one backend, for asyncio code."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

from letta_adapters._utils.checks import CONVERSATION, checked_method
from letta_adapters._utils.locks import NeverFreeError, take
from letta_adapters._utils.loops import running_loop
from letta_adapters.backends.base import DEFAULT, Backend, Conversation, Order, Target
from letta_adapters.backends.changes import Change, change_of
from letta_adapters.backends.config import BackendSpec, Local, Remote, Rest, RuntimeStatus
from letta_adapters.client.handles import Handles
from letta_adapters.client.outbox import unread_error, withdraw
from letta_adapters.client.resources import AsyncAgents, AsyncConversations, AsyncModels
from letta_adapters.client.session import PAGE_SIZE, AsyncSession, check_page
from letta_adapters.client.turn import serves
from letta_adapters.client.works import Works
from letta_adapters.errors import (
    ConversationBusyError,
    InvalidInputError,
    SessionClosedError,
    WaitsForItselfError,
    WrongEventLoopError,
)
from letta_adapters.messages import MessagePage, ResultMessage
from letta_adapters.options import AgentKwargs, AgentOptions, SessionKwargs, SessionOptions

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Unpack

    from letta_adapters.backends.connector import Connector
    from letta_adapters.client.turn import Turn
    from letta_adapters.tools.mcp.host import McpHost


def resolve_backend(backend: BackendSpec | None) -> Rest | Local | Remote:
    """Return the backend configuration meant by an object, a name, or the environment.

    ``None`` means the Letta API if ``LETTA_BASE_URL`` or ``LETTA_API_KEY`` is set, an App Server
    if ``LETTA_APP_SERVER_URL`` is set, and the runtime on this machine otherwise.

    Raises:
        InvalidInputError: ``backend`` is neither a configuration nor one of the known names.
    """
    if isinstance(backend, Rest | Local | Remote):
        return backend
    if backend is None:
        if os.environ.get("LETTA_BASE_URL") or os.environ.get("LETTA_API_KEY"):
            return Rest()
        return Remote() if os.environ.get("LETTA_APP_SERVER_URL") else Local()
    named: dict[str, type[Rest | Local | Remote]] = {
        "cloud": Rest,
        "local": Local,
        "remote": Remote,
    }
    if not isinstance(backend, str) or backend not in named:
        raise InvalidInputError(
            f"backend must be Rest(...), Local(...), Remote(...), 'cloud', 'local' or 'remote', "
            f"not {backend!r}."
        )
    return named[backend]()


def _make_backend(
    spec: Rest | Local | Remote, http_client: Any, connector: Connector | None
) -> Backend:
    if isinstance(spec, Rest):
        if connector is not None:
            raise InvalidInputError(
                "connector opens WebSockets, for Local and Remote; Rest speaks HTTP.",
                hint="Pass http_client=.",
            )
        # Backends are imported only when one of theirs is made: the Letta API needs httpx, Letta
        # Code needs websockets, and nobody should pay for the one that is not used.
        from letta_adapters.backends.rest.backend import RestBackend

        return RestBackend(spec, http_client)
    if http_client is not None:
        raise InvalidInputError(
            f"http_client is for the Letta API; {type(spec).__name__} does not speak HTTP.",
            hint="Pass connector=.",
        )
    from letta_adapters.backends import letta_code

    if isinstance(spec, Remote):
        return letta_code.remote_backend(spec, connector)
    return letta_code.local_backend(spec, connector)


def _place_of(spec: Rest | Local | Remote) -> Hashable:
    """Return a key that is equal for two clients whose conversations are the same ones."""
    where = {Rest: "base_url", Local: "data_dir", Remote: "url"}[type(spec)]
    return type(spec).__name__, str(getattr(spec, where) or "")


class AsyncLettaClient:
    """A client for Letta agents, for asyncio code.

    It belongs to the event loop on which it is first used. Close it, or use it with ``async
    with``::

        async with AsyncLettaClient("local") as client:
            agent_id = await client.create_agent(model="anthropic/claude-sonnet-4-5")
            result = await client.prompt("Hello!", agent_id)
            print(result.result)

    Args:
        backend: ``Rest(...)``, ``Local(...)``, ``Remote(...)``, or ``"cloud"``, ``"local"``,
            ``"remote"``; ``None`` asks the environment.
        http_client: An ``httpx.AsyncClient`` to use for the Letta API (it is not closed).
        connector: An async callable that opens the WebSocket to Letta Code (``Local``, ``Remote``)
            in place of ``websockets.connect``: see :class:`~letta_adapters.Connector`.

    Raises:
        ConfigurationError: An App Server is meant and none is named.
        AuthenticationError: Letta Cloud is meant and there is no key.
        InvalidInputError: The backend does not use an ``http_client``, or a ``connector``.
    """

    def __init__(
        self,
        backend: BackendSpec | None = None,
        *,
        http_client: httpx.AsyncClient | None = None,
        connector: Connector | None = None,
    ) -> None:
        self.spec = resolve_backend(backend)
        self.backend: Backend = _make_backend(self.spec, http_client, connector)
        self.agents = AsyncAgents(self)
        self.conversations = AsyncConversations(self)
        self.models = AsyncModels(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        # The running turn of each conversation: a conversation has one at a time.
        self.turns: dict[Conversation, Turn] = {}
        # The turns that wait for their conversation to become free, in the order they were sent.
        self.queue: list[Turn] = []
        # Clients of one server share its conversations, so they take turns in them. A client with
        # an HTTP client of its own may talk to anything, and so shares with nobody; one with a
        # connector shares with those that have the same.
        where = (_place_of(self.spec), id(connector))
        self._place: Hashable = where if http_client is None else id(self)
        self._finishing: set[asyncio.Future[Any]] = set()
        # The openings and sends of sessions that have not ended yet.
        self.works = Works(self.finish)
        # The MCP servers of sessions that are not closed.
        self.mcp_hosts: set[McpHost] = set()
        self._closed = False
        # Functions to call when an agent or a conversation changes, because they cache parts of it.
        self._watchers: list[Callable[[Change], None]] = []
        self.handles = Handles()

    # -- the face ---------------------------------------------------------------------------

    async def prompt(
        self, message: Any, agent_id: str | None = None, **options: Unpack[SessionKwargs]
    ) -> ResultMessage:
        """Ask once, in a fresh conversation, and return the turn's result.

        Args:
            message: Text, an image, or a sequence of text and image parts.
            agent_id: The agent to ask. ``None`` means the default agent.
            **options: See :class:`~letta_adapters.options.SessionOptions`.

        Raises:
            LettaError: The message was refused. A turn that failed later is returned with
                ``success=False``.
        """
        async with self.create_session(agent_id, **options) as session:
            return await session.run_turn(message)

    async def create_agent(self, **options: Unpack[AgentKwargs]) -> str:
        """Create an agent and return its id.

        Args:
            **options: See :class:`~letta_adapters.options.AgentOptions`.

        Raises:
            InvalidInputError: An option is wrong. This is found before any I/O.
            UnsupportedOptionError: This backend does not have one of the options.
        """
        checked = AgentOptions(**dict[str, Any](**options))
        self.check_usable()
        agent_id = await self.backend.create_agent(checked)
        if checked.model:
            self.handles.note(agent_id, checked.model)
        return agent_id

    def create_session(
        self, agent_id: str | None = None, **options: Unpack[SessionKwargs]
    ) -> AsyncSession:
        """Make a session in a fresh conversation; this does no I/O.

        Args:
            agent_id: The agent to talk to. ``None`` means the default agent.
            **options: See :class:`~letta_adapters.options.SessionOptions`.
        """
        return make_session(self, new_target(agent_id), options)

    def resume_session(
        self,
        id: str | None = None,
        *,
        agent_id: str | None = None,
        conversation_id: str | None = None,
        **options: Unpack[SessionKwargs],
    ) -> AsyncSession:
        """Make a session that continues a conversation; this does no I/O.

        Args:
            id: An agent id, which means its default conversation, or a conversation id.
            agent_id: The agent's id, where ``id`` is not given.
            conversation_id: The conversation's id. With both ids there is no look-up.
            **options: See :class:`~letta_adapters.options.SessionOptions`.
        """
        return make_session(self, resume_target(id, agent_id, conversation_id), options)

    async def list_messages(
        self,
        agent_id: str | None = None,
        conversation_id: str | None = None,
        before: str | None = None,
        after: str | None = None,
        order: Order = "desc",
        limit: int = PAGE_SIZE,
    ) -> MessagePage:
        """Return a page of stored messages, newest first; no session is needed.

        Args:
            agent_id: An agent id alone means the agent's default conversation.
            conversation_id: A conversation id is enough by itself.
            before: Return messages older than the one with this id (``page.next_before``).
            after: Return messages newer than the one with this id (``page.next_after``).
            order: ``"desc"`` (newest first) or ``"asc"``.
            limit: The number of stored messages on a page, 1 to 1000.
        """
        target = resume_target(None, agent_id, conversation_id)
        check_page(before, after, order, limit)
        self.check_usable()
        where = Conversation(target.agent_id or "", target.conversation_id or DEFAULT)
        return await self.backend.list_messages(
            where, before=before, after=after, order=order, limit=limit
        )

    async def connect_provider(
        self,
        /,
        provider: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        **fields: str,
    ) -> list[str]:
        """Connect a model provider, for all agents of this state directory (Letta Code).

        Args:
            provider: ``"anthropic"``, ``"openai"``, ``"ollama"``, ``"openai-compatible"``, ...
            api_key: The provider's key. Letta Code stores it.
            base_url: The address of the provider's API, for a provider that needs one.
            **fields: Other fields that the provider asks for. Letta Code stores them.

        Returns:
            The handles of all models that are available now.

        Raises:
            InvalidInputError: There is no such provider (the message names those spelled alike), or
                fields are missing.
        """
        from letta_adapters.client.providers import connect_provider

        given = {"apiKey": api_key, "baseUrl": base_url, **fields}
        return await connect_provider(self, provider, given)

    async def runtime_status(self) -> RuntimeStatus:
        """Return the state of the embedded runtime: its memory, and the processes that use it.

        Raises:
            UnsupportedOptionError: This backend has no embedded runtime; only ``Local`` has one.
        """
        self.check_usable()
        return await self.backend.runtime_status()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make any call of the Letta API (``"GET", "/v1/tools/"``) and return the decoded JSON."""
        self.check_usable()
        verb = checked_method(method)
        answer = await self.backend.request(verb, path, params=params, body=body)
        # A call made by hand may change or delete an agent or a conversation that something here
        # has cached, so it counts like a call of ours.
        change = change_of(verb, path, body)
        if change is not None:
            self.notice(change)
        return answer

    async def close(self) -> None:
        """Stop the turns that are running and close for good. It can be called more than once."""
        if self._closed:
            return
        self._closed = True
        # The order matters: messages that wait must not begin while others are stopped, and the
        # connection must outlive the turns that are told to stop through it.
        await withdraw(tuple(self.queue), "client")
        await self.works.end()
        for turn in tuple(self.turns.values()):
            await turn.stop("The client was closed.")
        if self._finishing:
            await asyncio.wait(self._finishing)
        try:
            for host in tuple(self.mcp_hosts):
                await host.aclose()
        finally:
            await self.backend.aclose()

    async def __aenter__(self) -> AsyncLettaClient:
        self.check_usable()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def backend_name(self) -> str:
        """The kind of backend: ``"rest"``, ``"local"`` or ``"remote"``."""
        return self.backend.name

    @property
    def busy(self) -> bool:
        """True while a turn runs or waits, an MCP server is connected, or a clean-up goes on."""
        return bool(self.turns or self.queue or self.mcp_hosts or self._finishing)

    @property
    def closed(self) -> bool:
        """True once the client was closed, which is final."""
        return self._closed

    # -- for sessions -----------------------------------------------------------------------

    def check_usable(self) -> None:
        """Raise if this client is closed, or belongs to another event loop."""
        if self._closed:
            raise SessionClosedError(
                "This client is closed.", hint="Make a new one; a closed client is final."
            )
        # Connections and locks belong to the loop they were made on: used on another one they would
        # hang or fail in odd places, so the mistake is named here.
        loop = running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            state = "which is closed" if self._loop.is_closed() else "which still runs elsewhere"
            raise WrongEventLoopError(
                f"This client was opened on event loop {id(self._loop):#x} ({state}) and is now "
                f"used on {id(loop):#x}."
            )

    def watch(self, watcher: Callable[[Change], None]) -> None:
        """Call ``watcher`` with every change this client makes to an agent or a conversation."""
        self._watchers.append(watcher)

    def notice(self, change: Change) -> None:
        """Drop all that was cached of an agent or a conversation which has just changed."""
        self.backend.notice(change)
        if change.agent_id:
            self.handles.forget(change.agent_id)
        for watcher in self._watchers:
            watcher(change)

    async def enter(
        self, conversation: Conversation, owner: object, *, in_line: bool = False
    ) -> Callable[[], None]:
        """Wait until no turn is active in the conversation, and return a function that frees it.

        First come, first served, in the whole process: clients of one server on several event loops
        take turns. A turn whose reader has given it up is aborted.

        Args:
            conversation: The conversation to take.
            owner: The task or thread that takes it.
            in_line: True if the owner goes on while this waits, and so may still read the turn that
                is in the way.

        Raises:
            ConversationBusyError: The wait would never end, because the owner itself would have to
                read the turn that is in the way.
        """
        self.check_outside(conversation)
        await self._make_way(conversation, None if in_line else owner)
        # A thread that waits here cannot read a turn of its own in another client; the lock must
        # know it to find out that the wait would never end.
        blocks = owner if isinstance(owner, threading.Thread) else None
        try:
            give_back = await take((self._place, conversation), blocks, waits=in_line)
        except NeverFreeError as error:
            raise ConversationBusyError(
                "Another client of this thread has not ended its turn in this conversation.",
                hint="Read its stream to the end, or close it.",
                accepted=False,
            ) from error

        def leave() -> None:
            self.turns.pop(conversation, None)
            give_back()

        return leave

    def check_outside(self, conversation: Conversation) -> None:
        """Raise if the caller is a tool of the conversation's turn, which waits for that tool."""
        turn = self.turns.get(conversation)
        if (turn is not None and turn.waits_for_caller()) or serves(conversation):
            raise WaitsForItselfError(
                "The conversation's turn waits for the tool that wants to use it.", accepted=False
            )

    async def make_way(self, waiting: Turn) -> None:
        """Stop the turn that blocks a waiting one, if the blocking turn's reader has given it up.

        Raises:
            ConversationBusyError: The reader would have to read another turn first.
        """
        await self._make_way(waiting.conversation, waiting.owner)

    async def _make_way(self, conversation: Conversation, owner: object) -> None:
        turn = self.turns.get(conversation)
        if turn is None:
            return
        if turn.given_up(owner):
            await turn.stop("The turn was left unfinished and another message was sent.")
        elif owner is not None and turn.unread and turn.left_behind(owner):
            # Nobody else reads that turn and this owner waits here instead of reading it: without
            # this error both would wait for ever.
            raise unread_error()

    async def finish(self, work: Awaitable[None]) -> None:
        """Run a clean-up to its end even if the caller is cancelled; ``close`` waits for it."""
        await asyncio.shield(self.finish_later(work))

    def finish_later(self, work: Awaitable[None]) -> asyncio.Future[None]:
        """Start a clean-up that runs beside everything else; ``close`` waits for it."""
        task = asyncio.ensure_future(work)
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return task


def make_session(
    client: AsyncLettaClient,
    target: Target,
    options: Mapping[str, Any],
    *,
    owns_client: bool = False,
    off_loop: bool = False,
) -> AsyncSession:
    """Validate the options against the client's backend and make a session that is not open yet."""
    from letta_adapters.backends.base import check_supported

    checked = SessionOptions(**options)
    check_supported(checked, client.backend.name)
    if checked.agent_free and (target.agent_id or not target.new):
        raise InvalidInputError(
            "agent_free is for a new conversation without an agent.",
            hint="Use create_session(agent_free=True, ...) with no agent id; resume it by its id.",
        )
    return AsyncSession(client, target, checked, owns_client=owns_client, off_loop=off_loop)


def new_target(agent_id: str | None) -> Target:
    """Return the target of ``create_session(agent_id)``."""
    return Target(agent_id=agent_id, new=True)


def resume_target(id: str | None, agent_id: str | None, conversation_id: str | None) -> Target:
    """Return the target of ``resume_session(...)``; raise InvalidInputError for bad ids."""
    if id is not None:
        # The prefix of an id tells what it names, so one argument serves for both.
        is_conversation = isinstance(id, str) and id.startswith(CONVERSATION)
        if (conversation_id if is_conversation else agent_id) is not None:
            raise InvalidInputError("The same kind of id was given twice.")
        if is_conversation:
            conversation_id = id
        else:
            agent_id = id
    if agent_id is None and conversation_id is None:
        raise InvalidInputError(
            "resume_session needs an agent id or a conversation id.",
            hint="create_session() starts a fresh conversation without one.",
        )
    if conversation_id == DEFAULT and agent_id is None:
        raise InvalidInputError("The default conversation needs its agent's id.")
    return Target(agent_id=agent_id, conversation_id=conversation_id)
