"""Internal: record HTTP traffic as it passes through a transport, without delaying it.

vcrpy reads a whole response before it hands on the first byte: a stream's first token comes last, a
stream that breaks is not recorded at all, and cancelling one cannot be recorded. Here every chunk
is handed on as it arrives, and kept as well. The exchange is stored when its body ends, when the
consumer closes it early (``closed_by_client``), or when it breaks.

Event streams are handed on cut at event boundaries (nothing is held back for it). So a consumer
that stops after the third event has had three events, however TCP grouped them, and recording the
same scenario twice stores the same bytes.

A recording can also be extended: then the requests it contains are played, and the others are sent
to the server and added.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import cast

import httpx

from letta_adapters.testing.cassette import (
    CLOSED_BY_CLIENT,
    Cassette,
    Headers,
    Interaction,
    RecordedError,
    RecordedRequest,
    RecordedResponse,
    split_events,
)
from letta_adapters.testing.recording.player import CassetteTransport, to_recorded
from letta_adapters.testing.sanitizer.patterns import ID_TOKEN
from letta_adapters.testing.sanitizer.sanitize import BASE_URL

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DONE = re.compile(rb"data: ?\[DONE\]\s*\Z")
# In milliseconds, and coarse on purpose: the same server under another load lands on the same step.
_DELAY_STEPS = (0, 20, 100, 500, 2000, 10000)
_DELAY_EDGES = (10, 50, 250, 1000, 5000)


def round_delay(delay: float) -> int:
    """Return a delay in milliseconds, rounded as recordings keep it."""
    return _DELAY_STEPS[bisect_right(_DELAY_EDGES, delay)]


@dataclass
class _Exchange:
    """An exchange while it is being recorded."""

    request: RecordedRequest
    clock: Callable[[], float]
    started: float
    status: int = 0
    reason: str = ""
    headers: Headers = ()
    body: bytearray = field(default_factory=bytearray)
    marks: list[tuple[int, float]] = field(default_factory=list)
    outcome: str | None = None
    finished: bool = False
    ended: float | None = None
    carry: bytes = b""

    def begin(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.reason = response.reason_phrase
        self.headers = tuple(response.headers.multi_items())

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Yield ``chunk`` cut after each event's end, keeping each piece before it is handed on."""
        now = self.clock()
        start = 0
        for end in self._cuts(chunk):
            if end > start:
                self.body += chunk[start:end]
                self.marks.append((len(self.body), now))
                yield chunk[start:end]
                start = end

    def _cuts(self, chunk: bytes) -> list[int]:
        if not self._is_sse:
            return [len(chunk)]
        # An event's end may straddle two chunks; at most three of its four bytes came before.
        window = self.carry + chunk
        ends = [match.end() for match in _EVENT_END.finditer(window)]
        self.carry = window[ends[-1] if ends else 0 :][-3:]
        return [end - len(window) + len(chunk) for end in ends] + [len(chunk)]

    def end(self, outcome: str | None) -> None:
        # The first outcome counts: closing a body that was read to its end is no early close.
        if not self.finished:
            self.finished = True
            self.outcome = outcome
            self.ended = self.clock()

    @property
    def _is_sse(self) -> bool:
        return any(
            name.lower() == "content-type" and "text/event-stream" in value
            for name, value in self.headers
        )

    def interaction(self, timing: bool) -> Interaction:
        body, headers = self._decode()
        outcome = self.outcome if self.finished else CLOSED_BY_CLIENT
        # The place where a client stopped reading is chance; the stored stream must not depend on
        # it.
        if outcome == CLOSED_BY_CLIENT and self._is_sse:
            body, outcome = _cut_closed_stream(body)
        response = RecordedResponse(
            status=self.status,
            reason=self.reason,
            headers=headers,
            body=body,
            timing=self._timing(body) if timing and self._is_sse else None,
            error=None if outcome is None else RecordedError(outcome, len(body)),
        )
        ended = self.clock() if self.ended is None else self.ended
        return Interaction(self.request, response, (self.started, ended))

    def _decode(self) -> tuple[bytes, Headers]:
        body, encoding = bytes(self.body), dict(self.headers).get("content-encoding", "identity")
        if encoding == "identity":
            return body, self.headers
        # The server compressed the body although asked not to. Nobody could read it in a diff, or
        # scan it.
        try:
            body = httpx.Response(200, headers=list(self.headers), content=body).content
        except httpx.DecodingError:
            return body, self.headers
        return body, tuple(pair for pair in self.headers if pair[0] != "content-encoding")

    def _timing(self, body: bytes) -> tuple[tuple[int, int], ...] | None:
        offsets = [offset for offset, _ in self.marks]
        if len(body) > (offsets[-1] if offsets else 0):
            return None  # was compressed: the marks count other bytes
        entries: list[tuple[int, int]] = []
        previous = self.started
        sizes = [len(event) for event in split_events(body)]
        for size, start in zip(sizes, accumulate([0, *sizes]), strict=False):
            # An event has arrived with the chunk that contains its first byte.
            arrived = self.marks[bisect_right(offsets, start)][1]
            delay = (arrived - previous) * 1000
            entries.append((round_delay(delay), size))
            previous = arrived
        return tuple(entries)


def _cut_closed_stream(body: bytes) -> tuple[bytes, str | None]:
    if _DONE.search(body):
        # Clients stop at [DONE] without waiting for the connection to end, which is no early close.
        return body, None
    events = split_events(body)
    if events and not _EVENT_END.search(events[-1][-4:]):
        # It is chance how much of the next event had come, and nobody can have used it.
        events.pop()
    return b"".join(events), CLOSED_BY_CLIENT


class _TeeStream(httpx.AsyncByteStream, httpx.SyncByteStream):
    """A response body that is recorded while the client reads it."""

    def __init__(self, inner: object, take: _Exchange) -> None:
        self._inner = inner
        self._take = take

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in cast("httpx.SyncByteStream", self._inner):
                yield from self._take.pieces(chunk)
        except httpx.TransportError as error:
            self._take.end(type(error).__name__)
            raise
        self._take.end(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in cast("httpx.AsyncByteStream", self._inner):
                for piece in self._take.pieces(chunk):
                    yield piece
        except httpx.TransportError as error:
            self._take.end(type(error).__name__)
            raise
        self._take.end(None)

    def close(self) -> None:
        self._take.end(CLOSED_BY_CLIENT)
        cast("httpx.SyncByteStream", self._inner).close()

    async def aclose(self) -> None:
        self._take.end(CLOSED_BY_CLIENT)
        await cast("httpx.AsyncByteStream", self._inner).aclose()


class RecordingTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """An httpx transport that passes requests on to a real one and keeps what was said.

    ::

        recorder = RecordingTransport()
        async with httpx.AsyncClient(transport=recorder, base_url=url) as client:
            ...
        save_cassette(recorder.cassette, "cassettes/hello.yaml")

    Requests go out with ``accept-encoding: identity``, because a compressed body can be neither
    read in a diff nor searched for leaks. It is safe to use from several tasks or threads at once.

    The recording is raw: keys, e-mail addresses and all. Write it only with
    :func:`letta_adapters.testing.save_cassette`, which sanitizes it.

    Args:
        inner: The transport to pass requests to; by default httpx's own, sync or async as needed.
        timing: Store ``x_timing``, the delays of events, as well.
        clock: Returns the time in seconds, for measuring them.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | httpx.BaseTransport | None = None,
        *,
        timing: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = inner
        self._sync = inner if isinstance(inner, httpx.BaseTransport) else None
        self._async = inner if isinstance(inner, httpx.AsyncBaseTransport) else None
        self._timing = timing
        self._clock = clock
        self._takes: list[_Exchange] = []
        self._lock = threading.Lock()
        self._opened = OpenTransports()

    def sibling(self) -> RecordingTransport:
        """Return a second transport with connections of its own that records into this one.

        It is for a further client: each closes its own, and each may live on an event loop of its
        own.
        """
        other = RecordingTransport(self._given, timing=self._timing, clock=self._clock)
        other._takes, other._lock, other._opened = self._takes, self._lock, self._opened
        return other

    def release(self) -> None:
        """Close every connection that this one and its siblings opened; to be called at the end.

        This is for clients that were not closed, or that do not close a transport they were given.
        Connections on an event loop that is closed already are left.
        """
        self._opened.close()

    @property
    def cassette(self) -> Cassette:
        """Return everything recorded so far, unsanitized, in the order in which the requests began.

        An exchange that is still going on is stored as closed by the client at this point.
        """
        with self._lock:
            # A copy: exchanges that begin meanwhile are in the next recording.
            takes = list(self._takes)
        return Cassette([take.interaction(self._timing) for take in takes])

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; the answer's body is recorded while the caller reads it."""
        request.read()
        if self._sync is None:
            self._sync = self._opened.sync()
        take = self._take(request)
        try:
            response = self._sync.handle_request(_ask_uncompressed(request))
        except BaseException as error:
            take.end(_name_outcome(error))
            raise
        take.begin(response)
        return _tee(response, take)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; the answer's body is recorded while the caller reads it."""
        await request.aread()
        if self._async is None:
            self._async = self._opened.asynchronous()
        take = self._take(request)
        try:
            response = await self._async.handle_async_request(_ask_uncompressed(request))
        except BaseException as error:
            # An exchange whose task was cancelled has ended, too.
            take.end(_name_outcome(error))
            raise
        take.begin(response)
        return _tee(response, take)

    def close(self) -> None:
        """Close the real transport's connections; the recording stays."""
        if self._sync is not None:
            self._sync.close()

    async def aclose(self) -> None:
        """Close the real transport's connections; the recording stays."""
        if self._async is not None:
            await self._async.aclose()

    def _take(self, request: httpx.Request) -> _Exchange:
        take = _Exchange(to_recorded(request), self._clock, self._clock())
        with self._lock:
            self._takes.append(take)
        return take


def _ask_uncompressed(request: httpx.Request) -> httpx.Request:
    headers = httpx.Headers(request.headers)
    headers["accept-encoding"] = "identity"
    return httpx.Request(
        request.method,
        request.url,
        headers=headers,
        stream=httpx.ByteStream(request.content),
        extensions=request.extensions,
    )


def _name_outcome(error: BaseException) -> str:
    return type(error).__name__ if isinstance(error, httpx.TransportError) else CLOSED_BY_CLIENT


def _tee(response: httpx.Response, take: _Exchange) -> httpx.Response:
    return httpx.Response(
        response.status_code,
        headers=response.headers,
        stream=_TeeStream(response.stream, take),
        extensions=response.extensions,
    )


# -- the real connections -----------------------------------------------------------------------

# A Letta client that was given an ``http_client`` leaves it open, since it is the caller's. A
# connection that nobody closes ends as a ``ResourceWarning`` in some later test. So those of a test
# are closed with it, each on the event loop that it lives on.

# Seconds that an event loop of another thread has for closing its connections.
_PATIENCE = 5.0


class _LoopNotingTransport(httpx.AsyncHTTPTransport):
    """A transport that notes the event loop on which it is used."""

    loop: asyncio.AbstractEventLoop | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.loop is None:
            with contextlib.suppress(RuntimeError):  # not asyncio's
                self.loop = asyncio.get_running_loop()
        return await super().handle_async_request(request)


class OpenTransports:
    """The real transports of one test."""

    def __init__(self) -> None:
        self._sync: list[httpx.HTTPTransport] = []
        self._async: list[_LoopNotingTransport] = []

    def sync(self) -> httpx.HTTPTransport:
        """Open another transport for synchronous clients."""
        self._sync.append(httpx.HTTPTransport())
        return self._sync[-1]

    def asynchronous(self) -> httpx.AsyncHTTPTransport:
        """Open another transport for asynchronous clients."""
        self._async.append(_LoopNotingTransport())
        return self._async[-1]

    def close(self) -> None:
        """Close every connection still open; those of an event loop that ended went with it."""
        for transport in self._sync:
            transport.close()
        for noted in self._async:
            if noted.loop is not None and not noted.loop.is_closed():
                _run(noted, noted.loop)
        self._sync.clear()
        self._async.clear()


def _run(transport: _LoopNotingTransport, loop: asyncio.AbstractEventLoop) -> None:
    # A connection belongs to its loop. A running one is a background thread's, so it is asked from
    # here; an idle one is run for just this.
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(transport.aclose(), loop).result(_PATIENCE)
    else:
        loop.run_until_complete(transport.aclose())


# -- extending a recording ----------------------------------------------------------------------


@dataclass
class ExtendingTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """An httpx transport that asks ``player`` first, and the server for what is not recorded.

    ``recorder`` sends and records these requests; ``base_url`` is the server's address. The server
    does not know the ids in the recording, so a request that names one of them cannot be sent: it
    raises a :class:`CassetteMissError` that says so.
    """

    player: CassetteTransport
    recorder: RecordingTransport
    base_url: str
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def has_more(self) -> bool:
        """Return whether anything was asked that the recording did not contain."""
        return bool(self.recorder.cassette.interactions)

    @property
    def cassette(self) -> Cassette:
        """Return the interactions recorded before, followed by those recorded now."""
        return Cassette([*self.player.cassette, *self.recorder.cassette])

    def sibling(self) -> ExtendingTransport:
        """Return a transport for another client; see :meth:`RecordingTransport.sibling`."""
        # Connections belong to one client each; the player has none, so all share it.
        return ExtendingTransport(self.player, self.recorder.sibling(), self.base_url)

    def release(self) -> None:
        """Close connections that are still open; see :meth:`RecordingTransport.release`."""
        self.recorder.release()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from the recording, or by asking the server."""
        request.read()
        recorded = self._recorded(request)
        if self._holds(recorded):
            return self.player.handle_request(recorded)
        return self.recorder.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from the recording, or by asking the server."""
        await request.aread()
        recorded = self._recorded(request)
        if self._holds(recorded):
            return await self.player.handle_async_request(recorded)
        return await self.recorder.handle_async_request(request)

    def close(self) -> None:
        """Close the real connections; the recording stays."""
        self.recorder.close()

    async def aclose(self) -> None:
        """Close the real connections; the recording stays."""
        await self.recorder.aclose()

    def _recorded(self, request: httpx.Request) -> httpx.Request:
        """Return the request as it would have been sent to the recording's server."""
        url, base = str(request.url), self.base_url.rstrip("/")
        # Recordings name the sanitizer's address instead of the server's.
        if url.startswith(base):
            url = BASE_URL + url[len(base) :]
        return httpx.Request(
            request.method,
            url,
            content=request.content,
            headers=request.headers,
            extensions=request.extensions,
        )

    def _holds(self, request: httpx.Request) -> bool:
        if self.player.holds(request):
            return True
        # A recorded id in a request that is not recorded: the server would answer with a confusing
        # 404.
        said = f"{request.url} {request.content.decode('utf-8', 'replace')}"
        known = sorted({token for token in ID_TOKEN.findall(said) if self.player.made(token)})
        if known:
            raise self.player.missed(
                f"{request.method} {request.url.path} is not recorded, and cannot be asked now: "
                f"{', '.join(known)} is of the recording, the server does not know it. Record the "
                "test anew (--letta-record=rewrite)"
            )
        return False
