"""Internal: make calls of an agent from any thread and event loop, over shared clients."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from letta_adapters._utils.files import on_thread
from letta_adapters._utils.tasks import running_loop, running_task
from letta_adapters.backends.base import Conversation
from letta_adapters.backends.config import BackendSpec, Local, Remote, Rest
from letta_adapters.backends.connector import Connector, current_connector
from letta_adapters.chat import conversations, replay
from letta_adapters.chat.cache import get_cache
from letta_adapters.chat.request import ChatEvent, ChatRequest, ResponseCompleted
from letta_adapters.chat.stream import ChatStream
from letta_adapters.client.client import AsyncLettaClient, is_busy, resolve_backend
from letta_adapters.errors import InvalidInputError, LettaError, WrongEventLoopError
from letta_adapters.permissions import denials
from letta_adapters.sync.bridge import Bridge, get_bridge
from letta_adapters.sync.client import LettaClient
from letta_adapters.sync.handoff import Closable

T = TypeVar("T")
_Spec = Rest | Local | Remote

# Unused clients that one event loop keeps, and the seconds after which one counts as unused.
_CLIENTS: Final = 64
_IDLE_SECONDS: Final = 60.0
_log: Final = logging.getLogger("letta_adapters.chat")


@dataclass(slots=True, eq=False)
class _Kept:
    """Hold a shared client.

    Attributes:
        spec: The backend it was made for.
        connector: The connector of the block it was made in.
        client: The client.
        used_at: Monotonic time of its last use, in seconds.
        at_end: Closes the client together with its event loop.
    """

    spec: _Spec
    connector: Connector | None
    client: AsyncLettaClient
    used_at: float
    at_end: AsyncGenerator[None, None] | None = None


_clients: WeakKeyDictionary[object, list[_Kept]] = WeakKeyDictionary()
# A task that nobody holds may be collected before it is done.
_closing: set[asyncio.Future[None]] = set()
_lock = threading.Lock()
# Held while a client is made, so that no two are made of a backend. An event loop that only looks
# for one does not wait for the disk of another thread.
_making = threading.Lock()


class ChatClients:
    """Make an adapter's calls, each with a client that fits the thread or loop it comes from.

    Clients are shared by all callers of a process that mean the same backend. Over the Letta API
    each event loop has its own (connections belong to a loop), and sync calls use the bridge's; an
    App Server's connection lives on the bridge's loop always, because a turn that waits for a tool
    lives no longer than it.

    Args:
        backend: The backend, as :class:`~letta_adapters.AsyncLettaClient` takes it;
            ``None``: the environment decides.
        client: Use this client instead: a ``LettaClient`` from anywhere, an ``AsyncLettaClient``
            from its own event loop only. It is not closed.
        api_key, base_url: Short for ``backend=Rest(api_key=..., base_url=...)``.

    Raises:
        InvalidInputError: Two of them name a backend.
    """

    def __init__(
        self,
        *,
        backend: BackendSpec | None = None,
        client: LettaClient | AsyncLettaClient | None = None,
        api_key: Any = None,
        base_url: str | None = None,
    ) -> None:
        by_url = api_key is not None or base_url is not None
        if sum((backend is not None, client is not None, by_url)) > 1:
            raise InvalidInputError(
                "Give backend=, client=, or api_key= / base_url=: each of them names the backend."
            )
        if client is not None and not isinstance(client, LettaClient | AsyncLettaClient):
            raise InvalidInputError(
                f"client is {type(client).__name__}, not a LettaClient or AsyncLettaClient."
            )
        self._client = client
        # False where the environment decides, because the application named no backend.
        self.named = by_url or backend is not None or client is not None
        if by_url:
            backend = Rest(**_drop_none(api_key=api_key, base_url=base_url))
        self._spec = None if client is not None else resolve_backend(backend)

    @property
    def backend_name(self) -> str:
        """Return ``"rest"``, ``"local"`` or ``"remote"``."""
        if self._client is not None:
            return self._client.backend_name
        if isinstance(self._spec, Rest):
            return "rest"
        return "local" if isinstance(self._spec, Local) else "remote"

    @property
    def spec(self) -> _Spec:
        """Return the backend as it can be written down: the settings, not the connection."""
        if isinstance(self._client, LettaClient):
            return self._client._core.spec
        if self._client is not None:
            return self._client.spec
        assert self._spec is not None
        return self._spec

    # -- calls ------------------------------------------------------------------------------

    def stream(self, call: ChatRequest) -> Generator[ChatEvent, None, None]:
        """Yield the events of a call, in this thread. Closing the generator stops the agent."""
        client = self._sync_client()
        return get_bridge().iterate(ChatStream(client, call, threading.current_thread()))

    def collect(self, call: ChatRequest) -> list[ChatEvent]:
        """Return all events of a call, in this thread. Interrupting the wait stops the agent.

        The thread is woken once, which costs less than once for each event.
        """
        client = self._sync_client()
        stream = ChatStream(client, call, threading.current_thread())
        return get_bridge().call(_collect(stream))

    def astream(self, call: ChatRequest) -> Closable[ChatEvent]:
        """Return the events of a call, in this task; its ``aclose()`` stops the agent."""
        if self._here():
            return ChatStream(self._async_client(), call)
        known = self._known_client()
        if known is None:
            return self._astream_first(call, running_task())
        return get_bridge().aiterate(ChatStream(known, call, running_task()))

    async def _astream_first(
        self, call: ChatRequest, owner: object
    ) -> AsyncGenerator[ChatEvent, None]:
        """Yield the events of a call whose client is still to be made."""
        client = await on_thread(self._sync_client)
        async with aclosing(get_bridge().aiterate(ChatStream(client, call, owner))) as events:
            async for event in events:
                yield event

    def run(self, work: Callable[[AsyncLettaClient], Awaitable[T]]) -> T:
        """Run other work with the client, from this thread.

        Args:
            work: Called with the client, on the client's event loop.
        """
        return get_bridge().call(_do(work, self._sync_client()))

    async def arun(self, work: Callable[[AsyncLettaClient], Awaitable[T]]) -> T:
        """Run other work with the client, from this task.

        Args:
            work: Called with the client, on the client's event loop.
        """
        if self._here():
            return await work(self._async_client())
        client = self._known_client()
        if client is None:
            client = await on_thread(self._sync_client)
        return await get_bridge().acall(_do(work, client))

    def abandon(self, end: ResponseCompleted, *, remove: bool = False) -> ResponseCompleted:
        """Give up a turn whose calls nobody will answer, and return its last event anew.

        Args:
            end: The last event of the call.
            remove: The conversation was for this one call: remove it.

        Returns:
            The event without pending calls, and with the newest message as the head of its marker.
        """
        return self.run(lambda client: _abandon(client, end, remove))

    async def aabandon(self, end: ResponseCompleted, *, remove: bool = False) -> ResponseCompleted:
        """Give up such a turn from a task; see :meth:`abandon`.

        Args:
            end: The last event of the call.
            remove: The conversation was for this one call: remove it.
        """
        return await self.arun(lambda client: _abandon(client, end, remove))

    # -- clients ----------------------------------------------------------------------------

    def _here(self) -> bool:
        """Return whether asynchronous calls use a client of their own event loop."""
        if self._client is not None:
            return isinstance(self._client, AsyncLettaClient)
        return isinstance(self._spec, Rest)

    def _sync_client(self) -> AsyncLettaClient:
        """Return the client on the bridge's loop."""
        if isinstance(self._client, AsyncLettaClient):
            raise WrongEventLoopError(
                "A synchronous call cannot use an AsyncLettaClient.",
                hint="Pass a LettaClient, or call the asynchronous methods on its event loop.",
            )
        if self._client is not None:
            return self._client._core
        assert self._spec is not None
        return _get_shared(get_bridge(), self._spec)

    def _known_client(self) -> AsyncLettaClient | None:
        """Return the client on the bridge's loop, if that costs no look at the disk.

        ``None``: it has to be made, and a disk may keep whoever makes it waiting.
        """
        if self._client is not None:
            return self._sync_client()
        assert self._spec is not None
        return _find_shared(get_bridge(), self._spec)

    def _async_client(self) -> AsyncLettaClient:
        """Return the client of the running loop."""
        if isinstance(self._client, AsyncLettaClient):
            return self._client
        assert self._spec is not None
        return _get_shared(running_loop(), self._spec)


def _drop_none(**values: Any) -> dict[str, Any]:
    """Return the values that are not ``None``, so that the defaults stand for the others."""
    return {name: value for name, value in values.items() if value is not None}


async def _do(work: Callable[[AsyncLettaClient], Awaitable[T]], client: AsyncLettaClient) -> T:
    return await work(client)


async def _collect(stream: ChatStream) -> list[ChatEvent]:
    try:
        return [event async for event in stream]
    finally:
        await stream.aclose()


async def _abandon(
    client: AsyncLettaClient, end: ResponseCompleted, remove: bool
) -> ResponseCompleted:
    """Stop the turn that waits, deny its calls, and return its last event as it is then.

    A failure is logged, as one of a removal is: the call has its answer.
    """
    where = Conversation(end.agent_id, end.conversation_id)
    try:
        await _end_calls(client, end, where)
    except LettaError as error:
        _log.warning("The calls in %s were not given up: %r", where.conversation_id, error)
        if not remove:
            return end  # the marker tells the next call that they wait
    if remove:
        await conversations.remove(client, where)
        return replace(end, pending=(), marker=replace(end.marker, pending=()))
    # Stopping added messages, so the marker's head is no longer the newest message.
    head: tuple[str, ...] = ()
    try:
        head = replay.list_newest_names(await replay.read_newest(client, where, 1))
    except LettaError as error:
        _log.warning("The end of %s was not read: %r", where.conversation_id, error)
    return replace(
        end, pending=(), marker=replace(end.marker, pending=(), head=head or end.marker.head)
    )


async def _end_calls(client: AsyncLettaClient, end: ResponseCompleted, where: Conversation) -> None:
    """End the turn of these calls, or else the calls that the conversation keeps."""
    held = get_cache(client).held.pop(where, None)
    # A paused turn of this process is stopped as a whole; otherwise its calls may still wait on the
    # server, where each needs an answer before the conversation can go on.
    if held is not None:
        await held.turn.stop(denials.GIVEN_UP)
    elif end.pending:
        waiting = await client.backend.pending_calls(where)
        if waiting:
            await client.backend.clear(where, waiting, denials.GIVEN_UP)


def _get_shared(home: Bridge | asyncio.AbstractEventLoop, spec: _Spec) -> AsyncLettaClient:
    """Return the client for this backend of that home (a running loop, or the bridge).

    A home keeps only the clients used last: an application that has a key for each of its users
    must not have a connection for each of them for ever.
    """
    with _making:
        found = _find_shared(home, spec)
        if found is not None:
            return found
        connector = _connector_for(spec)
        client = AsyncLettaClient(spec, connector=connector)
        return _share(home, _Kept(spec, connector, client, time.monotonic()))


def _connector_for(spec: _Spec) -> Connector | None:
    # A connection that one recorder or player has opened must not serve another one's block.
    return None if isinstance(spec, Rest) else current_connector()


def _find_shared(home: Bridge | asyncio.AbstractEventLoop, spec: _Spec) -> AsyncLettaClient | None:
    """Return the client for this backend that this home has already."""
    connector = _connector_for(spec)
    with _lock:
        known = _clients.setdefault(home, [])
        known[:] = [kept for kept in known if not kept.client.closed]
        for kept in known:
            if kept.connector is connector and (kept.spec is spec or kept.spec == spec):
                kept.used_at = time.monotonic()
                return kept.client
    return None


def _share(home: Bridge | asyncio.AbstractEventLoop, made: _Kept) -> AsyncLettaClient:
    """Keep a new client, and close those that are too many."""
    with _lock:
        # A client knows its event loop, so the weak reference to that alone would never end.
        for ended in [other for other in _clients if _has_ended(other)]:
            del _clients[ended]
        known = _clients.setdefault(home, [])
        known.append(made)
        idle = _find_idle(known)
        known[:] = [kept for kept in known if kept not in idle]
    # The bridge closes its clients at exit; any other loop has to be made to.
    if isinstance(home, Bridge):
        home.clients.add(made.client)
    else:
        made.at_end = _close_at_end(made.client)
    for kept in idle:
        _close_soon(home, kept)
    return made.client


def _has_ended(home: object) -> bool:
    """Return whether it is an event loop that was closed."""
    return isinstance(home, asyncio.AbstractEventLoop) and home.is_closed()


def _find_idle(known: list[_Kept]) -> list[_Kept]:
    """Return the clients that a home with too many of them can do without."""
    now = time.monotonic()
    unused = [
        kept
        for kept in sorted(known, key=lambda kept: kept.used_at)
        if not is_busy(kept.client) and now - kept.used_at > _IDLE_SECONDS
    ]
    return unused[: max(0, len(known) - _CLIENTS)]


def _close_soon(home: Bridge | asyncio.AbstractEventLoop, kept: _Kept) -> None:
    """Close a client on its own loop, from whichever thread this is."""
    loop = home.loop if isinstance(home, Bridge) else home

    def close() -> None:
        closing = asyncio.ensure_future(kept.client.close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)

    loop.call_soon_threadsafe(close)


def _close_at_end(client: AsyncLettaClient) -> AsyncGenerator[None, None]:
    """Close the client when its loop ends; the generator it returns has to be kept until then.

    ``asyncio.run()`` closes the asynchronous generators of its loop at the end, which is the one
    thing of its shutdown that a library can take part in.
    """

    async def until_then() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await client.close()

    waiting = until_then()
    with suppress(StopIteration):
        waiting.__anext__().send(None)  # runs to its yield: nothing in it waits
    return waiting
