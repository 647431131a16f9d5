"""The client: a backend, and everything that can be done on it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

from letta_adapters._checks import CONVERSATION, checked_method
from letta_adapters._locks import NeverFreeError, take
from letta_adapters._loops import running_loop
from letta_adapters.backends.base import DEFAULT, Backend, Conversation, Order, Target
from letta_adapters.changes import Change, change_of
from letta_adapters.errors import (
    ConversationBusyError,
    InvalidInputError,
    SessionClosedError,
    WaitsForItselfError,
    WrongEventLoopError,
)
from letta_adapters.handles import Handles
from letta_adapters.messages import MessagePage, ResultMessage
from letta_adapters.options import AgentKwargs, AgentOptions, SessionKwargs, SessionOptions
from letta_adapters.outbox import unread_error, withdraw
from letta_adapters.resources import AsyncAgents, AsyncConversations, AsyncModels
from letta_adapters.session import PAGE_SIZE, AsyncSession, check_page
from letta_adapters.specs import BackendSpec, Local, Remote, Rest, RuntimeStatus
from letta_adapters.turns import serves
from letta_adapters.works import Works

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Unpack

    from letta_adapters.mcp_servers import McpHost
    from letta_adapters.turns import Turn


def resolve_backend(backend: BackendSpec | None) -> Rest | Local | Remote:
    """The backend configuration meant by an object, a name, or (``None``) the environment.

    Nothing given means the Letta API if ``LETTA_BASE_URL`` or ``LETTA_API_KEY`` is set, an App
    Server if ``LETTA_APP_SERVER_URL`` is set, else the local runtime.
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


def _make_backend(spec: Rest | Local | Remote, http_client: Any) -> Backend:
    if isinstance(spec, Rest):
        from letta_adapters.backends.rest.backend import RestBackend

        return RestBackend(spec, http_client)
    if http_client is not None:
        raise InvalidInputError(
            f"http_client is for the Letta API; {type(spec).__name__} does not speak HTTP."
        )
    from letta_adapters.backends import letta_code

    if isinstance(spec, Remote):
        return letta_code.remote_backend(spec)
    return letta_code.local_backend(spec)


def _place_of(spec: Rest | Local | Remote) -> Hashable:
    """Return what two clients have in common whose conversations are the same."""
    where = {Rest: "base_url", Local: "data_dir", Remote: "url"}[type(spec)]
    return type(spec).__name__, str(getattr(spec, where) or "")


class AsyncLettaClient:
    """Letta agents, for asyncio code.

    Belongs to the event loop it is first used on. Close it, or use it with ``async with``.

    Args:
        backend: ``Rest(...)``, ``"cloud"``, ... ; ``None`` asks the environment.
        http_client: An ``httpx.AsyncClient`` to use for the Letta API (it is not closed).

    Raises:
        ConfigurationError: an App Server is meant and none is named.
        AuthenticationError: Letta Cloud is meant and there is no key.
    """

    def __init__(
        self, backend: BackendSpec | None = None, *, http_client: httpx.AsyncClient | None = None
    ) -> None:
        self.spec = resolve_backend(backend)
        self.backend: Backend = _make_backend(self.spec, http_client)
        self.agents = AsyncAgents(self)
        self.conversations = AsyncConversations(self)
        self.models = AsyncModels(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        # The turn that has each conversation, and what all clients of one server are known by.
        self.turns: dict[Conversation, Turn] = {}
        # The turns that wait for one of them, in the order they were sent.
        self.queue: list[Turn] = []
        self._place = _place_of(self.spec) if http_client is None else id(self)
        self._finishing: set[asyncio.Future[Any]] = set()
        # What sessions have on their way.
        self.works = Works(self.finish)
        # The MCP servers of sessions that are not closed.
        self.mcp_hosts: set[McpHost] = set()
        self._closed = False
        # Who remembers something of agents and conversations; set up once per client.
        self._watchers: list[Callable[[Change], None]] = []
        self.handles = Handles()

    # -- the face ---------------------------------------------------------------------------

    async def prompt(
        self, message: Any, agent_id: str | None = None, **options: Unpack[SessionKwargs]
    ) -> ResultMessage:
        """Ask once, in a fresh conversation of the agent (without an id: of the default agent).

        Raises:
            LettaError: refused. A turn that failed later is returned with ``success=False``.
        """
        async with self.create_session(agent_id, **options) as session:
            return await session.run_turn(message)

    async def create_agent(self, **options: Unpack[AgentKwargs]) -> str:
        """Create an agent; returns its id. Options: :class:`~letta_adapters.options.AgentOptions`.

        Raises:
            InvalidInputError: a bad option, before any I/O.
            UnsupportedOptionError: one that this backend does not have.
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
        """A session in a fresh conversation. Does no I/O. Without an id: the default agent.

        Options: :class:`~letta_adapters.options.SessionOptions`.
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
        """A session that goes on. Does no I/O.

        Args:
            id: An agent id (its default conversation), or a conversation id.
            agent_id, conversation_id: The same by name; with both there is no look-up.
            options: See :class:`~letta_adapters.options.SessionOptions`.
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
        """Stored messages without a session, newest first.

        An agent id alone means its default conversation; a conversation id is enough by itself.
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
        provider: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        **fields: str,
    ) -> list[str]:
        """Connect a provider of models, for all agents of this state directory (Letta Code).

        Args:
            provider: ``"anthropic"``, ``"openai"``, ``"ollama"``, ``"openai-compatible"``, ...
            api_key, base_url, fields: What the provider wants; stored by Letta Code.

        Returns:
            The handles of all models there are now.

        Raises:
            InvalidInputError: no such provider (naming those spelled alike), or fields missing.
        """
        from letta_adapters.providers import connect_provider

        given = {"apiKey": api_key, "baseUrl": base_url, **fields}
        return await connect_provider(self, provider, given)

    async def runtime_status(self) -> RuntimeStatus:
        """What the embedded runtime says of itself: its memory, who uses it.

        Raises:
            UnsupportedOptionError: there is none; this is for ``Local``.
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
        """Any call of the Letta API (``"GET", "/v1/tools/"``); the decoded JSON."""
        self.check_usable()
        verb = checked_method(method)
        answer = await self.backend.request(verb, path, params=params, body=body)
        change = change_of(verb, path, body)
        if change is not None:
            self.notice(change)
        return answer

    async def close(self) -> None:
        """Stop turns that are running, and close for good. Can be called more than once."""
        if self._closed:
            return
        self._closed = True
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
        """``"rest"``, ``"local"`` or ``"remote"``."""
        return self.backend.name

    @property
    def busy(self) -> bool:
        """Does a turn run or wait, an MCP server serve, or a clean-up go on?"""
        return bool(self.turns or self.queue or self.mcp_hosts or self._finishing)

    @property
    def closed(self) -> bool:
        """Was it closed? That is final."""
        return self._closed

    # -- for sessions -----------------------------------------------------------------------

    def check_usable(self) -> None:
        """Raise if this client is closed, or belongs to another event loop."""
        if self._closed:
            raise SessionClosedError(
                "This client is closed.", hint="Make a new one; a closed client is final."
            )
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
        """Tell ``watcher`` of every change of an agent or a conversation by this client."""
        self._watchers.append(watcher)

    def notice(self, change: Change) -> None:
        """What was remembered of an agent or a conversation is not true any more."""
        self.backend.notice(change)
        if change.agent_id:
            self.handles.forget(change.agent_id)
        for watcher in self._watchers:
            watcher(change)

    async def enter(
        self, conversation: Conversation, owner: object, *, in_line: bool = False
    ) -> Callable[[], None]:
        """Wait until no turn of ours is active on the conversation; the result frees it again.

        First come, first served, in the whole process: clients of one server on several event loops
        take turns. A turn that was given up is aborted.

        Args:
            conversation: What is entered.
            owner: The task or thread that does so.
            in_line: The owner does not wait for it: it may read the turn that is in the way.

        Raises:
            ConversationBusyError: it would be waited for in vain: for a turn that the owner itself
                would have to read.
        """
        self.check_outside(conversation)
        await self._make_way(conversation, None if in_line else owner)
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
        """Raise if a tool of the conversation's turn, which waits for it, wants to use it."""
        turn = self.turns.get(conversation)
        if (turn is not None and turn.waits_for_caller()) or serves(conversation):
            raise WaitsForItselfError(
                "The conversation's turn waits for the tool that wants to use it.", accepted=False
            )

    async def make_way(self, waiting: Turn) -> None:
        """Stop what is in the way of a turn that waits, if whoever reads that has given it up.

        Raises:
            ConversationBusyError: the reader would have to read another turn first.
        """
        await self._make_way(waiting.conversation, waiting.owner)

    async def _make_way(self, conversation: Conversation, owner: object) -> None:
        turn = self.turns.get(conversation)
        if turn is None:
            return
        if turn.given_up(owner):
            await turn.stop("The turn was left unfinished and another message was sent.")
        elif owner is not None and turn.unread and turn.left_behind(owner):
            raise unread_error()

    async def finish(self, work: Awaitable[None]) -> None:
        """Run clean-up to its end even if the caller is cancelled; ``close`` waits for it."""
        await asyncio.shield(self.finish_later(work))

    def finish_later(self, work: Awaitable[None]) -> asyncio.Future[None]:
        """Run clean-up beside everything else; ``close`` waits for it."""
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
    """Validate the options against the client's backend; the session is not open yet."""
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
    """Where ``create_session(agent_id)`` goes."""
    return Target(agent_id=agent_id, new=True)


def resume_target(id: str | None, agent_id: str | None, conversation_id: str | None) -> Target:
    """Where ``resume_session(...)`` goes. Raises :class:`InvalidInputError` for what is no id."""
    if id is not None:
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
