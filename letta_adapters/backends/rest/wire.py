"""Internal: the sockets below httpx, read with less work than its own transport does.

httpx reads a socket through anyio, which asks the system to start and to stop looking at it, and
makes a cancel scope and a timer, for every read: 30 to 40 µs where each token comes by itself. Here
a socket is looked at all the time, and one timer serves all reads. HTTP itself is httpcore's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import select
import ssl
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable
from functools import partial
from types import FunctionType
from typing import Any, Final

import httpcore
import httpx

from letta_adapters._utils.tasks import limit

# Bytes that were read before anybody wanted them; at more the server has to wait.
_HIGH: Final = 65536
# Bytes that are joined to those that follow them; copying more would cost more than a packet does.
_HELD: Final = 16384
# As browsers do where a name has several addresses (RFC 8305).
_NEXT_ADDRESS_SECONDS: Final = 0.25
_FAULTS: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


class Transport:
    """Sends requests as ``httpx.AsyncHTTPTransport`` does, one at a time and to one server.

    Args:
        verify: The certificates that are trusted.
        keepalive_expiry: The seconds that an unused connection is kept.
    """

    def __init__(self, verify: ssl.SSLContext, keepalive_expiry: float | None) -> None:
        self._connect = partial(
            httpcore.AsyncHTTPConnection,
            ssl_context=verify,
            keepalive_expiry=keepalive_expiry,
            network_backend=Network(),
        )
        self._connection: httpcore.AsyncHTTPConnection | None = None
        # Those whose response was lost sight of: they must not block the next request.
        self._lost: list[httpcore.AsyncHTTPConnection] = []

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return the response with its body unread."""
        assert isinstance(request.stream, httpx.AsyncByteStream)
        url = request.url
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        connection = self._connection
        if connection is None or not connection.is_available() or connection.has_expired():
            connection = await self._open(target)
        try:
            answer = await connection.handle_async_request(
                httpcore.Request(
                    request.method,
                    target,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except _FAULTS as fault:
            raise _translate(fault) from fault
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer.stream),
            extensions=answer.extensions,
        )

    async def _open(self, target: httpcore.URL) -> httpcore.AsyncHTTPConnection:
        """Return a new connection in place of the one that cannot be used, if there is one."""
        old = self._connection
        made = self._connection = self._connect(target.origin)
        if old is not None and old.is_idle():
            await old.aclose()
        elif old is not None and not old.is_closed():
            self._lost = [lost for lost in self._lost if not lost.is_closed()] + [old]
        return made

    async def aclose(self) -> None:
        """Close the connection, also in the middle of a response."""
        closing = self._lost if self._connection is None else [*self._lost, self._connection]
        self._connection, self._lost = None, []
        for connection in closing:
            await connection.aclose()


def may_replace_httpx() -> bool:
    """Return whether :class:`Transport` may stand for httpx's own transport, on the running loop.

    Tracers, and what records or invents answers for tests, put a function of their own in the place
    of httpx's: then they have to see every request, so that it is used. It is used as well on event
    loops that are not asyncio's own (uvloop), whose connections take other arguments.
    """
    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        return False
    sending = vars(httpx.AsyncHTTPTransport).get("handle_async_request")
    return (
        type(sending) is FunctionType
        and sending.__module__.partition(".")[0] == "httpx"
        and not hasattr(sending, "__wrapped__")
        and sending.__code__.co_name == "handle_async_request"
    )


def _translate(fault: Exception) -> Exception:
    """Return httpx's exception for one of httpcore, which have the same names."""
    made: Exception = getattr(httpx, type(fault).__name__)(str(fault))
    return made


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except _FAULTS as fault:
            raise _translate(fault) from fault


class Network(httpcore.AsyncNetworkBackend):
    """Opens connections with asyncio's own means."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a connection; only what httpcore's pool was given is asked for here."""
        assert local_address is None and not socket_options
        loop = asyncio.get_running_loop()
        # An address stands for itself: there is nothing to try beside it.
        delay = None if _is_address(host) else _NEXT_ADDRESS_SECONDS
        connecting = loop.create_connection(Socket, host, port, happy_eyeballs_delay=delay)
        try:
            if timeout is None:
                _, made = await connecting
            else:
                async with limit(timeout, httpcore.ConnectTimeout):
                    _, made = await connecting
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return Stream(made)

    async def sleep(self, seconds: float) -> None:
        """Sleep between the attempts to connect."""
        await asyncio.sleep(seconds)


class Socket(asyncio.Protocol):
    """A connection's bytes, and who waits for them."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.error: Exception | None = None
        self.over = False
        self.waiter: asyncio.Future[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self._unread = 0
        self._paused = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)
        self._unread += len(data)
        if self._unread > _HIGH and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        self.wake()

    def eof_received(self) -> None:
        self.over = True
        self.wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.over, self.error = True, error
        # A writer must not wait for ever; its next read tells the error.
        self.writable.set()
        self.wake()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def wake(self, error: Exception | None = None) -> None:
        """Let the reader go on, or fail."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    def take(self, most: int) -> bytes:
        """Return bytes that were read: at most so many, as they came."""
        chunk = self.chunks.popleft()
        if len(chunk) > most:
            self.chunks.appendleft(chunk[most:])
            chunk = chunk[:most]
        self._unread -= len(chunk)
        # Not before all is read: each change costs a call of the system.
        if self._paused and not self.chunks and not self.over:
            self._paused = False
            self.transport.resume_reading()
        return chunk


class Stream(httpcore.AsyncNetworkStream):
    """A connection, as httpcore reads and writes it."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        # When the read that waits is late, and the timer that looks at it. The timer is not moved
        # with each read: it is set anew when it finds that the time has moved.
        self._late_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        # What is written with what follows it: the head of a request with its body, in one packet.
        self._held = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, or else what comes next; nothing at the end."""
        socket = self._socket
        # Whoever reads writes nothing more, so nothing will be joined to this.
        if self._held:
            socket.transport.write(self._held)
            self._held = b""
        if not socket.chunks:
            if timeout is not None:
                self._late_at = self._loop.time() + timeout
                # A shorter limit than that of the read before needs a timer of its own.
                if self._timer is None or self._timer.when() > self._late_at:
                    self._watch()
            try:
                while not (socket.chunks or socket.over):
                    socket.waiter = self._loop.create_future()
                    await socket.waiter
            finally:
                self._late_at = socket.waiter = None
        # Before the error: what came until the connection broke is still the server's answer.
        if socket.chunks:
            return socket.take(max_bytes)
        if socket.error is not None:
            raise httpcore.ReadError(str(socket.error)) from socket.error
        return b""

    def _watch(self) -> None:
        self._stop_timer()
        if self._late_at is None:
            return
        if self._loop.time() >= self._late_at:
            self._socket.wake(httpcore.ReadTimeout("nothing came in time"))
        else:
            self._timer = self._loop.call_at(self._late_at, self._watch)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write it before anything is read, and wait if the server does not take it."""
        socket = self._socket
        # asyncio drops what is written to such a transport, and raises nothing.
        if socket.transport.is_closing():
            raise httpcore.WriteError(str(socket.error or "The connection is closed."))
        if not self._held and len(buffer) < _HELD:
            self._held = buffer
            return
        if len(buffer) < _HELD:
            buffer = self._held + buffer
        elif self._held:
            socket.transport.write(self._held)
        self._held = b""
        socket.transport.write(buffer)
        if not socket.writable.is_set():
            if timeout is None:
                await socket.writable.wait()
            else:
                async with limit(timeout, httpcore.WriteTimeout):
                    await socket.writable.wait()

    async def aclose(self) -> None:
        """Close the connection at once, over TLS as well."""
        self._stop_timer()
        self._socket.transport.abort()
        await asyncio.sleep(0)  # for the socket to be closed when this returns

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Go on over TLS."""
        socket = self._socket
        starting = self._loop.start_tls(
            socket.transport, socket, ssl_context, server_hostname=server_hostname
        )
        try:
            if timeout is None:
                made = await starting
            else:
                async with limit(timeout, httpcore.ConnectTimeout):
                    made = await starting
        except BaseException as error:
            socket.transport.abort()
            if isinstance(error, OSError):  # as ssl.SSLError is
                raise httpcore.ConnectError(str(error)) from error
            raise
        socket.transport = made
        return self

    def get_extra_info(self, info: str) -> Any:
        """Tell what httpcore asks: whether the server has said or ended anything unasked."""
        socket = self._socket
        if info == "is_readable":
            return bool(socket.chunks) or socket.over or _is_readable(socket.transport)
        name = {"client_addr": "sockname", "server_addr": "peername"}.get(info, info)
        return socket.transport.get_extra_info(name)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_readable(transport: asyncio.Transport) -> bool:
    """Return whether bytes, or the end, have come that the loop has not looked at yet."""
    found = transport.get_extra_info("socket")
    if found is None or found.fileno() < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([found], [], [], 0)[0])
    looking = select.poll()
    looking.register(found, select.POLLIN)
    return bool(looking.poll(0))
