"""Internal: send HTTP requests to the Letta API, and return JSON, byte streams or typed errors.

Beside ``senders`` and ``wire``, which are below it, this is the only module that knows httpx. Reads
are retried (by tenacity); nothing else is, because a POST whose answer was lost may have been
accepted.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import platform
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import httpx
import tenacity

from letta_adapters._utils.checks import check_path
from letta_adapters._utils.tasks import limit
from letta_adapters._version import __version__
from letta_adapters.backends.base import Files
from letta_adapters.backends.config import CLOUD_URL, Rest, api_address
from letta_adapters.backends.http_errors import error_from_response
from letta_adapters.backends.proxies import find_proxy
from letta_adapters.backends.replies import check_api
from letta_adapters.backends.rest.connections import Connections, Lease
from letta_adapters.backends.rest.senders import Client, Sender, check_environment, make_sender
from letta_adapters.backends.rest.uploads import check_files, make_form
from letta_adapters.engine.reading import read_json
from letta_adapters.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidInputError,
    LettaError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamTruncatedError,
    TimeoutAfterAcceptanceError,
    TimeoutBeforeAcceptanceError,
)

READ_ATTEMPTS: Final = 3
# After the last event the server closes the response; waiting for it keeps the connection reusable.
_DRAIN_SECONDS: Final = 0.5
# The greatest size of a reply: more than a page of a thousand messages with images in them.
MAX_REPLY_BYTES: Final = 256 << 20
# The headers that httpx gives to every client.
_HTTPX: Final = {
    "accept": "*/*",
    "connection": "keep-alive",
    "user-agent": f"python-httpx/{httpx.__version__}",
}
# A server that corrects a path (a slash at its end) needs one.
_REDIRECTS: Final = 3
# The settings of the connections, which an injected client has itself.
_LIMITS: Final = {"max_connections", "max_keepalive_connections", "keepalive_expiry"}
# The request never left this machine, so it is certain that the server did not take it.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


# Parsing a URL is a third of what a request costs to build, and most go to few places.
_parse_url: Final = functools.lru_cache(maxsize=1024)(httpx.URL)


class ByteStream:
    """The body of one streaming response; it is read once, and every failure is a typed error."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        # httpx's own decoders would copy every chunk; the request asked for identity encoding.
        plain = response.headers.get("content-encoding", "identity") == "identity"
        source = response.stream if plain else response.aiter_bytes()
        assert isinstance(source, AsyncIterator | httpx.AsyncByteStream)
        self._chunks = source.__aiter__()
        self.next_chunk = self._chunks.__anext__

    def error(self, cause: Exception) -> LettaError:
        """Return the typed error of a failure while reading."""
        if isinstance(cause, httpx.TimeoutException):
            return TimeoutAfterAcceptanceError(
                "The server went silent: nothing came, not even a keep-alive ping.", accepted=True
            )
        return StreamTruncatedError(
            f"The connection was lost in the middle of the answer ({_describe(cause)}).",
            accepted=True,
        )

    async def drain(self) -> None:
        """Read to the response's end if it comes at once, else give the connection up."""

        try:
            async with limit(_DRAIN_SECONDS, _LATE):
                async for _ in self._chunks:
                    pass
        except STREAM_ERRORS:
            await self.aclose()

    async def aclose(self) -> None:
        """Give the response up; this never fails, and does not stop the agent."""
        try:
            await self._response.aclose()
        except STREAM_ERRORS:
            return


_log: Final = logging.getLogger("letta_adapters.http")

# The error of an exchange that takes too long in all.
_LATE: Final = httpx.ReadTimeout
# The exceptions of sending a request or reading a body.
STREAM_ERRORS: Final = (httpx.RequestError, httpx.StreamError, httpx.InvalidURL, OSError)


class Http:
    """A connection pool to one Letta API, with its key."""

    def __init__(self, rest: Rest, http_client: httpx.AsyncClient | None = None) -> None:
        self._rest = rest
        self.base_url, key = api_address(rest)
        self.cloud = httpx.URL(self.base_url).host == httpx.URL(CLOUD_URL).host
        if http_client is not None and not isinstance(http_client, httpx.AsyncClient):
            raise InvalidInputError(
                f"http_client must be an httpx.AsyncClient, not {type(http_client).__name__} "
                "(also for the sync client, which runs on an event loop of its own)."
            )
        self._headers = _headers(rest, key, http_client)
        if self.cloud and not self._is_authorized(http_client):
            raise AuthenticationError(
                "Letta Cloud needs an API key and there is none.",
                hint="Set LETTA_API_KEY, pass Rest(api_key=...), or set LETTA_BASE_URL to a "
                "server of your own.",
            )
        if http_client is not None and (given := _LIMITS & rest.model_fields_set):
            raise InvalidInputError(
                f"Rest({', '.join(sorted(given))}) says nothing to an injected http_client.",
                hint="Give the limits to the httpx.AsyncClient: limits=httpx.Limits(...).",
            )
        self._injected = http_client
        self._connections: Connections[Sender] = Connections(
            partial(make_sender, rest, self.base_url),
            most=rest.max_connections,
            kept=rest.max_keepalive_connections,
            seconds=rest.keepalive_expiry,
        )
        if http_client is None:
            # At once, and not at the first request.
            check_environment(rest, self.base_url)
        # The user of a client of his own has told it about proxies.
        self._via = "" if http_client is not None else find_proxy(self.base_url)
        self._timeout = httpx.Timeout(rest.request_timeout, connect=rest.connect_timeout)
        self._stream_timeout = httpx.Timeout(rest.idle_timeout, connect=rest.connect_timeout)

    def _is_authorized(self, client: httpx.AsyncClient | None) -> bool:
        """Return whether requests say who makes them, in whatever way."""
        if client is not None and ("authorization" in client.headers or client.auth is not None):
            return True
        return "authorization" in self._headers

    async def read(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Send a GET, retried while that can help, and return the decoded JSON."""
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(READ_ATTEMPTS),
            # At random: many turns that lost one server must not all come back at once.
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
            retry=tenacity.retry_if_exception(_worth_retrying),
            reraise=True,
        )
        return await retrying(self.send, "GET", path, params=params)

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        files: Files | None = None,
    ) -> Any:
        """Send one request, never repeated; return the decoded JSON (``None`` for no body).

        With ``files`` it is a form, whose other fields are those of ``body``.
        """
        if files is None:
            request = self._request(method, path, params, {"json": body}, self._timeout)
        else:
            request = self._upload(method, path, params, body, files)
        try:
            lease = await self._lease(self._rest.request_timeout)
            # The time limits of httpx begin anew with every byte, this one does not.
            async with limit(self._rest.request_timeout + self._rest.connect_timeout, _LATE):
                response = await self._open(request, lease)
                data = await _body(response)
        except STREAM_ERRORS as cause:
            raise _error_before_answer(cause, self.base_url, self._via) from cause
        try:
            decoded = read_json(data) if data else None
        except (ValueError, RecursionError) as cause:
            raise ProtocolError(
                f"{method} {path} answered with something that is no JSON.",
                hint="Check that base_url points at a Letta API.",
                status_code=response.status_code,
            ) from cause
        return check_api(method, path, decoded)

    async def stream(self, path: str, body: Mapping[str, Any]) -> ByteStream:
        """Send a POST, never repeated; return once the server has accepted it (headers)."""
        request = self._request("POST", path, None, {"json": body}, self._stream_timeout)
        try:
            lease = await self._lease(self._rest.idle_timeout, for_turn=True)
            # The time limits of httpx begin anew with every byte, this one does not.
            async with limit(self._rest.idle_timeout + self._rest.connect_timeout, _LATE):
                response = await self._open(request, lease)
        except STREAM_ERRORS as cause:
            raise _error_before_answer(cause, self.base_url, self._via) from cause
        # Something between here and the server may have answered in its place.
        content_type = response.headers.get("content-type", "")
        if not content_type.startswith("text/event-stream"):
            await response.aclose()
            raise ProtocolError(
                f"POST {path} answered with {content_type or 'no content type'!r} instead of an "
                "event stream.",
                hint="Check that base_url points at a Letta API.",
                status_code=response.status_code,
            )
        return ByteStream(response)

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        content: Mapping[str, Any],
        timeout: httpx.Timeout,
    ) -> httpx.Request:
        # httpx would send None as an empty value.
        known = {k: v for k, v in (params or {}).items() if v is not None} or None
        url = _parse_url(self.base_url + check_path(path))
        if self._injected is not None:  # it may have headers of its own
            return self._injected.build_request(
                method, url, params=known, headers=self._headers, timeout=timeout, **content
            )
        extensions = {"timeout": timeout.as_dict()}
        return httpx.Request(
            method, url, params=known, headers=self._headers, extensions=extensions, **content
        )

    def _upload(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        files: Files,
    ) -> httpx.Request:
        """Return a request with a form, whose files are read when it is sent."""
        form = {"data": make_form(body), "files": check_files(method, files)}
        try:
            request = self._request(method, path, params, form, self._timeout)
        except (TypeError, ValueError, AttributeError, OSError) as cause:
            if isinstance(cause, InvalidInputError):  # of the path
                raise
            raise InvalidInputError(f"These files cannot be uploaded ({cause}).") from cause
        request.stream = _FormStream(request.stream)
        return request

    async def _lease(self, seconds: float, *, for_turn: bool = False) -> _Lease | None:
        """Return the use of a connection; ``None`` for an injected client, which has its own."""
        if self._injected is not None:
            return None
        # Without a limit nobody waits, so that no time limit is needed.
        if self._rest.max_connections is None:
            return await self._connections.take()
        async with limit(seconds, httpx.PoolTimeout):
            return await self._connections.take(for_turn=for_turn)

    async def _open(self, request: httpx.Request, lease: _Lease | None) -> httpx.Response:
        """Send a request; return a 2xx response with its body unread, or raise a typed error.

        The connection is given back when the response is closed, or when this fails. Exceptions of
        the transport are left to the caller to translate.
        """
        began = time.monotonic()
        try:
            response = await self._send(request, lease)
        except BaseException as error:
            _tell(request, began, type(error).__name__)
            raise
        _tell(request, began, response.status_code)
        return response

    async def _send(self, request: httpx.Request, lease: _Lease | None) -> httpx.Response:
        if lease is None:
            assert self._injected is not None
            return await _answer(Client(self._injected), request)
        try:
            response = await _answer(lease.connection, request)
        except BaseException:
            await lease.give_back()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _LeasedStream(response.stream, lease)
        return response

    async def aclose(self) -> None:
        """Close all connections; those of an injected client are its owner's to close."""
        await self._connections.aclose()


_Lease = Lease[Sender]


def _tell(request: httpx.Request, began: float, outcome: int | str) -> None:
    """Log a request, for whoever looks for a fault: neither its headers, its query nor its body.

    Args:
        request: The request.
        began: The time.monotonic() at which it was sent.
        outcome: The status, or the class of the exception.
    """
    if not _log.isEnabledFor(logging.DEBUG):
        return
    milliseconds = math.ceil((time.monotonic() - began) * 1000)
    size = request.headers.get("content-length", "0")
    path = request.url.path
    _log.debug(
        "%s %s (%s bytes): %s after %d ms.",
        request.method,
        path,
        size,
        outcome,
        milliseconds,
        extra={"method": request.method, "path": path, "duration_ms": milliseconds},
    )


class _LeasedStream(httpx.AsyncByteStream):
    """The body of a response, which gives its connection back when it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, lease: _Lease) -> None:
        self._stream = stream
        self._lease = lease

    def __aiter__(self) -> AsyncIterator[bytes]:
        # The stream's own, so that this costs nothing for each chunk.
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._lease.give_back()


class _FormStream(httpx.AsyncByteStream):
    """The body of an upload. It is read once, and on a thread: a file may be slow, or a pipe."""

    def __init__(self, form: object) -> None:
        assert isinstance(form, Iterable)
        self._form: Iterable[bytes] = form
        self._begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # What httpx or a client that was injected would send again, may be half a file by now.
        if self._begun:
            raise httpx.StreamConsumed
        self._begun = True
        pieces = iter(self._form)
        while (piece := await asyncio.to_thread(_read_piece, pieces)) is not None:
            yield piece


def _read_piece(pieces: Iterator[bytes]) -> bytes | None:
    """Return the next piece of a form; ``None`` at its end.

    Raises:
        InvalidInputError: A file cannot be read.
    """
    try:
        return next(pieces, None)
    # Whatever the user's object raises is no failure of the connection.
    except Exception as cause:
        raise InvalidInputError(
            f"A file could not be read while it was uploaded ({_describe(cause)}).",
            hint="The server has only a part of it, and does nothing with that.",
        ) from cause


async def _answer(connection: Sender, request: httpx.Request) -> httpx.Response:
    """Send a request; return a 2xx response with its body unread, or raise a typed error.

    A redirect is followed only to the same scheme, host and port: another place would be sent the
    message and be believed.
    """
    for _ in range(1 + _REDIRECTS):
        response = await connection.send(request)
        if not response.has_redirect_location:
            break
        # The next request goes over the same connection, which must be free for it.
        await response.aclose()
        request = _follow(request, response)
    else:
        raise ProtocolError(
            f"The server redirects in a circle (more than {_REDIRECTS} times).", accepted=False
        )
    if response.is_success:
        return response
    try:
        data = await _body(response)
    except (ProtocolError, *STREAM_ERRORS):
        # The status alone still tells enough; a body that breaks off must not hide it.
        data = b""
    raise error_from_response(response.status_code, response.headers, data)


async def _body(response: httpx.Response) -> bytes:
    """Read a reply to its end, within bounds, and close it.

    Raises:
        ProtocolError: It is larger than any reply.
    """
    pieces, size = [], 0
    try:
        async for piece in response.aiter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_REPLY_BYTES:
                raise ProtocolError(
                    f"The server sent a reply of more than {MAX_REPLY_BYTES >> 20} MiB.",
                    status_code=response.status_code,
                )
    finally:
        await response.aclose()
    return b"".join(pieces)


def _headers(rest: Rest, key: str, client: httpx.AsyncClient | None) -> httpx.Headers:
    """Return the headers of every request, each once, whatever its spelling.

    What the options name comes before what an injected client has, and both before our own.
    """
    headers = httpx.Headers(
        {
            "accept": "*/*",
            "accept-encoding": "identity",
            "connection": "keep-alive",
            "user-agent": f"letta-adapters/{__version__} python/{platform.python_version()}",
        }
    )
    if key:
        headers["authorization"] = f"Bearer {key}"
    for name, value in () if client is None else client.headers.items():
        # What httpx gives to every client is nobody's word; and the encoding is ours to choose, as
        # streams are read undecoded.
        if value != _HTTPX.get(name) and name != "accept-encoding":
            headers.pop(name, None)
    if rest.project:
        headers["x-project-id"] = rest.project
    if key and rest.api_key is not None:
        headers["authorization"] = f"Bearer {key}"
    # One by one: a name takes the place of the same name in another spelling.
    for name, value in rest.headers.items():
        headers[name] = value
    return headers


def _follow(request: httpx.Request, response: httpx.Response) -> httpx.Request:
    """Return the request that follows a redirect; raise ProtocolError where it must not."""
    old, where = request.url, httpx.URL(response.headers["location"])
    new = where if where.scheme else old.join(where)
    code = response.status_code
    if (new.scheme, new.host, _port(new)) != (old.scheme, old.host, _port(old)):
        raise ProtocolError(
            f"The server redirects to another place, {new.scheme}://{new.netloc.decode()}, which "
            "is not followed: it would be sent the request with what it holds.",
            hint="If that is where the API is, name it as base_url.",
            status_code=code,
            accepted=False,
        )
    # A POST that became a GET would lose its message and look like a success.
    becomes_get = code in (302, 303) or (code == 301 and request.method == "POST")
    if becomes_get and request.method != "GET":
        raise ProtocolError(
            f"The server answers {request.method} with a redirect ({code}) that would turn "
            "it into GET and lose what it holds.",
            hint="Check that base_url points at a Letta API.",
            status_code=code,
            accepted=False,
        )
    if isinstance(request.stream, _FormStream):
        raise ProtocolError(
            f"The server redirects an upload to {new.path}; its files are not read again.",
            hint="Upload to that path.",
            status_code=code,
            accepted=False,
        )
    return httpx.Request(
        request.method,
        new,
        headers=request.headers,
        content=request.content,
        extensions=request.extensions,
    )


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _describe(cause: Exception) -> str:
    text = str(cause).strip()
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _error_before_answer(cause: Exception, base_url: str, via: str) -> LettaError:
    """Return the typed error of a request that got no answer; ``accepted`` is False or unknown.

    Args:
        cause: The exception of the transport.
        base_url: The address of the API.
        via: The environment variable of the proxy that it went through; ``""`` if there is none.
    """
    host = httpx.URL(base_url).netloc.decode()
    if via:
        host = f"{host} through the proxy of {via}"
    # The exact kinds first, as each of them is a TimeoutException as well.
    if isinstance(cause, httpx.PoolTimeout):
        return TimeoutBeforeAcceptanceError(
            f"No connection to {host} became free in time: all that may be open are in use.",
            hint="Raise Rest(max_connections=...), or run fewer turns at once.",
            accepted=False,
        )
    if isinstance(cause, httpx.ConnectTimeout):
        return TimeoutBeforeAcceptanceError(f"No connection to {host} in time.", accepted=False)
    if isinstance(cause, httpx.TimeoutException):
        return TimeoutBeforeAcceptanceError(f"{host} did not answer in time.")
    accepted = False if isinstance(cause, _NOT_SENT) else None
    return ConnectionFailedError(
        f"The connection to {host} failed ({_describe(cause)}).",
        hint=_hint(str(cause), via),
        accepted=accepted,
    )


def _hint(text: str, via: str) -> str | None:
    """Return advice about a failed connection, where the default says too little."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "Set SSL_CERT_FILE to the certificates to trust; REQUESTS_CA_BUNDLE is not used."
    if via:
        return "Check that the proxy runs, or name the host in NO_PROXY to go without it."
    return None


def _worth_retrying(error: BaseException) -> bool:
    if isinstance(error, ConnectionFailedError | TimeoutBeforeAcceptanceError | RateLimitError):
        return True
    return isinstance(error, ServerError) and error.status_code in (500, 502, 503, 504)
