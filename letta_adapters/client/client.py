"""The client for agents and conversations on one backend, for asyncio code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from letta_adapters._utils.checks import CONVERSATION
from letta_adapters._utils.shown import show_object
from letta_adapters._utils.tasks import Once, await_all, running_task
from letta_adapters.backends.base import (
    DEFAULT,
    PAGE_SIZE,
    Backend,
    Conversation,
    Files,
    Order,
    PageQuery,
    Target,
)
from letta_adapters.backends.config import BackendSpec, Local, Remote, Rest, RuntimeStatus
from letta_adapters.client.blocks import AsyncBlocks, AsyncPassages, AsyncRuns, AsyncTools
from letta_adapters.client.memory import AsyncMemory
from letta_adapters.client.requests import Requests
from letta_adapters.client.resources import (
    AsyncAgents,
    AsyncConversations,
    AsyncModels,
    connect_provider,
)
from letta_adapters.client.session import AsyncSession
from letta_adapters.client.turn_slots import TurnSlots
from letta_adapters.engine.stored import make_page
from letta_adapters.errors import InvalidInputError
from letta_adapters.messages import MessagePage, ResultMessage
from letta_adapters.options import AgentKwargs, SessionKwargs, SessionOptions

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Unpack

    from letta_adapters.backends.connector import Connector
    from letta_adapters.client.structured import StructuredResult
    from letta_adapters.tools.mcp.host import McpHost

_Client = TypeVar("_Client")
T = TypeVar("T")


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


# The field that says where a backend is.
_PLACES: Final = {Rest: "base_url", Local: "data_dir", Remote: "url"}


def _make_place(spec: Rest | Local | Remote) -> Hashable:
    """Return a key that is equal for two clients whose conversations are the same ones."""
    # Without the key: two keys of one account see the same conversations.
    return type(spec).__name__, str(getattr(spec, _PLACES[type(spec)]) or "")


class AsyncLettaClient:
    """A client for Letta agents, for asyncio code.

    It belongs to the event loop on which it is first used. Close it, or use it with ``async
    with``::

        async with AsyncLettaClient("local") as client:
            agent_id = await client.create_agent(persona="I am a librarian.")
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
        # Clients of one server share its conversations, so they take turns in them. A client with
        # an HTTP client of its own may talk to anything, and so shares with nobody; one with a
        # connector shares with those that have the same.
        where = (_make_place(self.spec), id(connector))
        self._slots = TurnSlots(self.backend, where if http_client is None else object())
        self._requests = Requests(self.backend, self._slots.check_usable)
        self.handles = self._requests.handles
        memory = AsyncMemory(self._requests, where)
        self.agents = AsyncAgents(self._requests, memory, AsyncPassages(self._requests))
        self.conversations = AsyncConversations(self._requests)
        self.models = AsyncModels(self._requests)
        self.blocks = AsyncBlocks(self._requests)
        self.tools = AsyncTools(self._requests)
        self.runs = AsyncRuns(self._requests)
        # The MCP servers of sessions that are not closed.
        self._mcp_hosts: set[McpHost] = set()
        self._closing = Once()

    # -- the face ---------------------------------------------------------------------------

    @overload
    async def prompt(
        self,
        message: Any,
        agent_id: str | None = None,
        *,
        output_schema: None = None,
        output_repairs: None = None,
        **options: Unpack[SessionKwargs],
    ) -> ResultMessage: ...
    @overload
    async def prompt(
        self,
        message: Any,
        agent_id: str | None = None,
        *,
        output_schema: type[T],
        output_repairs: int | None = None,
        **options: Unpack[SessionKwargs],
    ) -> StructuredResult[T]: ...
    @overload
    async def prompt(
        self,
        message: Any,
        agent_id: str | None = None,
        *,
        output_schema: Mapping[str, Any],
        output_repairs: int | None = None,
        **options: Unpack[SessionKwargs],
    ) -> StructuredResult[Any]: ...
    async def prompt(
        self,
        message: Any,
        agent_id: str | None = None,
        *,
        output_schema: Any = None,
        output_repairs: int | None = None,
        **options: Unpack[SessionKwargs],
    ) -> ResultMessage:
        """Ask once, in a fresh conversation, and return the turn's result.

        Args:
            message: Text, an image, or a sequence of text and image parts.
            agent_id: The agent to ask. ``None`` means the default agent.
            output_schema: The data that the answer is to be; ``result.output`` is the object.
            output_repairs: How often an answer that does not fit goes back to the agent.
            **options: See :class:`~letta_adapters.options.SessionOptions`.

        Raises:
            LettaError: The message was refused. A turn that failed later is returned with
                ``success=False``.
        """
        async with self.create_session(agent_id, **options) as session:
            return await session.run_turn(
                message, output_schema=output_schema, output_repairs=output_repairs
            )

    async def create_agent(self, **options: Unpack[AgentKwargs]) -> str:
        """Create an agent and return its id.

        Args:
            **options: See :class:`~letta_adapters.options.AgentOptions`.

        Raises:
            InvalidInputError: An option is wrong. This is found before any I/O.
            UnsupportedOptionError: This backend does not have one of the options.
        """
        return await self.agents.create(**options)

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
        query = PageQuery(limit, before, after, order)
        self._slots.check_usable()
        where = Conversation(target.agent_id or "", target.conversation_id or DEFAULT)
        return make_page(await self.backend.list_messages(where, query))

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
        given = {"apiKey": api_key, "baseUrl": base_url, **fields}
        return await connect_provider(self._requests, provider, given)

    async def runtime_status(self) -> RuntimeStatus:
        """Return the state of the embedded runtime: its memory, and the processes that use it.

        Raises:
            UnsupportedOptionError: This backend has no embedded runtime; only ``Local`` has one.
        """
        self._slots.check_usable()
        return await self.backend.runtime_status()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        files: Files | None = None,
    ) -> Any:
        """Make any call of the Letta API (``"GET", "/v1/tools/"``) and return the decoded JSON.

        On Letta Code ``("COMMAND", "list_memory", body={...})`` sends any command of its App Server
        with these fields, and returns the answer.

        Args:
            method: The HTTP method, or ``"COMMAND"``.
            path: The route with its ``/v1``, or the name of a command.
            params: The query.
            body: The JSON to send; beside ``files`` the other fields of the form.
            files: Files to upload, as httpx takes them: ``{"file": ("name.txt", data)}``, with
                bytes, or a file that is open in binary mode. It is read once, on a thread, while
                it is sent; nothing sends it again (the Letta API).

        Raises:
            InvalidInputError: The path leaves the API, or a file cannot be uploaded.
            UnsupportedOptionError: This backend has no such call, or takes no files.
        """
        return await self._requests.make(method, path, params=params, body=body, files=files)

    async def close(self) -> None:
        """Stop the turns that are running and close for good. It can be called more than once.

        It is carried out to its end, also when the caller is cancelled.
        """
        caller = running_task()
        await self._closing.run(lambda: self._close(caller))

    async def _close(self, caller: asyncio.Task[Any] | None) -> None:
        try:
            # The connection must outlive the turns that are told to stop through it.
            await self._slots.close(caller)
        finally:
            hosts = [asyncio.ensure_future(host.aclose()) for host in tuple(self._mcp_hosts)]
            try:
                await await_all(hosts)
            finally:
                await self.backend.aclose()
        for host in hosts:
            host.result()

    async def __aenter__(self) -> AsyncLettaClient:
        self._slots.check_usable()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        # An address holds neither a password nor a query: see `check_url`.
        field = _PLACES[type(self.spec)]
        where = getattr(self.spec, field)
        state = "closed" if self.closed else "open"
        return show_object(self, state, backend=self.backend_name, **{field: where and str(where)})

    @property
    def backend_name(self) -> str:
        """The kind of backend: ``"rest"``, ``"local"`` or ``"remote"``."""
        return self.backend.name

    @property
    def closed(self) -> bool:
        """True once the client was closed, which is final."""
        return self._slots.closed


def get_slots(client: AsyncLettaClient) -> TurnSlots:
    """Return the client's turn slots, for callers that begin turns without a session."""
    return client._slots


def get_requests(client: AsyncLettaClient) -> Requests:
    """Return the client's requests, which tell of changes to agents and conversations."""
    return client._requests


def is_busy(client: AsyncLettaClient) -> bool:
    """Return whether a turn runs or waits, an MCP server is connected, or a clean-up goes on."""
    return client._slots.busy or bool(client._mcp_hosts)


def check_given(client: _Client, backend: BackendSpec | None) -> _Client:
    """Return the client that was given to a function which takes a client or a backend.

    Raises:
        InvalidInputError: A backend was given as well.
    """
    if backend is not None:
        raise InvalidInputError("Give either client or backend, not both.")
    return client


def make_session(
    client: AsyncLettaClient,
    target: Target,
    options: Mapping[str, Any],
    *,
    owns_client: bool = False,
    off_loop: bool = False,
) -> AsyncSession:
    """Validate the options against the client's backend and make a session that is not open yet."""
    from letta_adapters.backends.capabilities import check_supported

    checked = SessionOptions(**options)
    check_supported(checked, client.backend.name)
    if checked.agent_free and (target.agent_id or not target.new):
        raise InvalidInputError(
            "agent_free is for a new conversation without an agent.",
            hint="Use create_session(agent_free=True, ...) with no agent id; resume it by its id.",
        )
    return AsyncSession(
        client._slots,
        target,
        checked,
        mcp_hosts=client._mcp_hosts,
        on_close=client.close if owns_client else None,
        off_loop=off_loop,
    )


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
