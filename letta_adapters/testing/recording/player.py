"""Internal: answer requests from a cassette: as the stream it was, cut at any place, or broken.

vcrpy's player hands on each body in one piece and at once, and cannot express a cut, a timeout or a
429 before the answer. This one plays the same file. It has no global state, so any number can be in
use at once. It does not exercise httpcore (pools, connect timeouts, HTTP framing).
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

import anyio
import anyio.lowlevel
import httpx

from letta_adapters.errors import InvalidInputError
from letta_adapters.testing.cassette import (
    CLOSED_BY_CLIENT,
    Cassette,
    RecordedRequest,
    RecordedResponse,
    split_events,
)
from letta_adapters.testing.recording.binding import Matcher, PlayableInteraction
from letta_adapters.testing.recording.matching import (
    RequestKey,
    ServerIds,
    list_differences,
    make_request_key,
)
from letta_adapters.testing.sanitizer.sanitize import RequestCleaner, SanitizeRules

if TYPE_CHECKING:
    from typing_extensions import Unpack

Chunking: TypeAlias = Literal["recorded", "event", "whole"] | int | Callable[[bytes], list[bytes]]
Timing: TypeAlias = Literal["none", "recorded"] | float
Fault: TypeAlias = int | httpx.Response | Exception | type[Exception] | None


def parse_timing(timing: Timing) -> float:
    """Return the factor on recorded delays.

    Raises:
        InvalidInputError: ``timing`` is another word than ``"none"`` or ``"recorded"``.
    """
    if not isinstance(timing, str):
        return timing
    try:
        return {"none": 0.0, "recorded": 1.0}[timing]
    except KeyError:
        raise InvalidInputError(
            f"timing={timing!r} is none: 'none', 'recorded', or a factor on the recorded delays."
        ) from None


class ReplayKwargs(TypedDict, total=False):
    """The keywords of every player; see :class:`ReplayOptions`."""

    timing: Timing
    sleep: Callable[[float], Awaitable[object]]
    cut_after: int | None
    rules: SanitizeRules | None
    secrets: Iterable[str]


class CassetteTransportKwargs(ReplayKwargs, total=False):
    """The keywords of :class:`CassetteTransport`."""

    chunking: Chunking
    first_byte_delay: float
    faults: Iterable[Fault]
    sync_sleep: Callable[[float], object] | None


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """How a recording is played, whatever it was recorded of.

    Attributes:
        timing: ``"none"``, ``"recorded"``, or a factor for the recorded delays.
        sleep: The clock, for tests: ``await sleep(seconds)``.
        cut_after: Where the network breaks: after so many bytes of a stream, or so many frames.
        rules: The rules that the recording was saved with.
        secrets: The secrets that it was saved with.
        scale: The factor that ``timing`` means.

    Raises:
        InvalidInputError: ``timing`` is another word than ``"none"`` or ``"recorded"``.
    """

    timing: Timing = "none"
    sleep: Callable[[float], Awaitable[object]] = anyio.sleep
    cut_after: int | None = None
    rules: SanitizeRules | None = None
    secrets: Iterable[str] = ()
    scale: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", parse_timing(self.timing))
        # They are read more than once, and an iterator could be read only once.
        object.__setattr__(self, "secrets", tuple(self.secrets))

    def make_cleaner(self) -> RequestCleaner:
        """Return a cleaner that brings requests to the form in which they were saved."""
        return RequestCleaner(self.rules, self.secrets)


@dataclass(frozen=True, kw_only=True)
class _TransportOptions(ReplayOptions):
    """How :class:`CassetteTransport` plays a recording."""

    chunking: Chunking = "recorded"
    first_byte_delay: float = 0.0
    faults: Iterable[Fault] = ()
    sync_sleep: Callable[[float], object] | None = None

    def pause(self, seconds: float) -> None:
        """Wait as a synchronous client does."""
        (self.sync_sleep or time.sleep)(seconds)


class CassetteMissError(AssertionError):
    """The error for a request that the cassette does not contain (any more), with the nearest ones.

    It is not an ``httpx`` error, so that no client's retry or error mapping takes it for a network
    problem. Code that catches ``Exception`` can still swallow it, therefore the transport remembers
    it and :meth:`CassetteTransport.assert_all_played` raises it again.
    """


class CassetteTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """An httpx transport that answers each request with the recorded interaction that it equals.

    ::

        player = CassetteTransport("cassettes/hello.yaml")
        async with httpx.AsyncClient(transport=player, base_url="http://letta.test") as client:
            await client.get("/v1/agents")
            await client.get("/v1/models")
        player.assert_all_played()

    Each interaction is played once, in order. Requests match by method, path, query and normalised
    body (JSON by meaning; ids made by the client and everything that the sanitizer replaces are
    ignored). Where parallel sessions ask in another order than they did, an id that was handed out
    to one of several equal requests is bound when it is first used. A request without a match
    raises :class:`CassetteMissError`.

    The options are independent of each other:

    * ``chunking``: ``"recorded"`` or ``"event"`` (one SSE event a chunk, other bodies whole),
      ``"whole"``, a number of bytes, or a function from the body to its chunks;
    * ``timing``: ``"none"``, ``"recorded"``, or a factor (0.1 is ten times as fast) on the recorded
      delays; ``sleep`` / ``sync_sleep`` (seconds) replace the real ones;
    * ``cut_after``: event streams break (``RemoteProtocolError``) after that many bytes;
    * ``first_byte_delay``: seconds before each answer begins. If it exceeds the request's read
      timeout, ``ReadTimeout`` is raised after sleeping for just that timeout;
    * ``faults``: answers given before the recorded ones, one a request: a status, a response, an
      exception; ``None`` lets one request through;
    * ``rules``, ``secrets``: those that the recording was saved with, if the requests contain any
      of the texts they name.

    Recorded breaks (``x_error``) happen again. A recording that the client closed stays open after
    its last byte until it is closed again or the read timeout is over (sync: ``ReadTimeout`` at
    once). It is safe to use from several tasks, threads or event loops.
    """

    def __init__(
        self,
        cassette: Cassette | str | Path,
        **options: Unpack[CassetteTransportKwargs],
    ) -> None:
        self.options = _TransportOptions(**options)
        self.cassette = cassette if isinstance(cassette, Cassette) else Cassette.load(cassette)
        self._faults = deque(self.options.faults)
        self._misses: list[CassetteMissError] = []
        self._lock = threading.Lock()
        # Ids that the server made must come back as they were; those of the client match any.
        self._server_ids = ServerIds(self.cassette)
        self._clean = self.options.make_cleaner()
        self._entries = [
            PlayableInteraction(number, item.request, item.response, self._key(item.request))
            for number, item in enumerate(self.cassette, 1)
        ]
        self._matcher = Matcher(self._entries, self._server_ids)
        # A second one for live requests: secrets learnt from the recorded ones must not affect how
        # these are compared.
        self._clean = self.options.make_cleaner()

    @property
    def all_played(self) -> bool:
        """Return whether every interaction was played and nothing else was asked for."""
        return not self._misses and all(entry.played for entry in self._entries)

    @property
    def unplayed(self) -> list[str]:
        """Return the interactions not played yet: number, method and path of each."""
        return [entry.label for entry in self._entries if not entry.played]

    def assert_all_played(self) -> None:
        """Raise ``AssertionError`` for a miss, an unplayed interaction or an unused fault."""
        if self._misses:
            raise self._misses[0]
        if self.unplayed:
            listed = "\n  ".join(self.unplayed)
            raise AssertionError(f"recorded interactions were not played:\n  {listed}")
        if any(fault is not None for fault in self._faults):
            raise AssertionError(f"{len(self._faults)} scripted faults were not used")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from the cassette.

        Raises:
            CassetteMissError: The cassette has no answer.
            Exception: The scripted fault, or the recorded error.
        """
        request.read()
        fault, response = self._next(request)
        pause = _Pause(self.options.first_byte_delay, request)
        if pause.seconds:
            self.options.pause(pause.seconds)
        pause.check()
        if response is None:
            return _answer_fault(fault, request)
        # A synchronous client cannot be kept waiting for ever: what it gave up on fails at once.
        player = _ResponsePlayer(self, response, request)
        player.check_begun()
        return player.answer()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from the cassette.

        Raises:
            CassetteMissError: The cassette has no answer.
            Exception: The scripted fault, or the recorded error.
        """
        await request.aread()
        fault, response = self._next(request)
        pause = _Pause(self.options.first_byte_delay, request)
        await (self.options.sleep(pause.seconds) if pause.seconds else anyio.lowlevel.checkpoint())
        pause.check()
        if response is None:
            return _answer_fault(fault, request)
        player = _ResponsePlayer(self, response, request)
        # No response had begun when the recording ended. A client that gave up waiting must do so
        # again.
        if response.status == 0:
            await player.wait_if_client_gave_up()
            player.check_begun()
        return player.answer()

    def answer_to(self, request: RecordedRequest) -> RecordedResponse:
        """Play the answer to ``request``, as it is recorded.

        Raises:
            CassetteMissError: The cassette has no answer.
        """
        key = self._key(request)
        found = self._matcher.take(key)
        if found is None:
            raise self.missed(self._explain(key))
        return found[1]

    def missed(self, text: str) -> CassetteMissError:
        """Note a miss and return the error to raise."""
        self._misses.append(CassetteMissError(text))
        return self._misses[-1]

    def holds(self, request: httpx.Request) -> bool:
        """Return whether there is an answer left to ``request`` (whose body is read)."""
        # Other threads may be played to meanwhile, and what they take is gone.
        with self._lock:
            return self._matcher.knows(self._key(to_recorded(request)))

    def made(self, token: str) -> bool:
        """Return whether an id is one that the recording's server made."""
        return token in self._server_ids

    def _next(self, request: httpx.Request) -> tuple[Fault, RecordedResponse | None]:
        with self._lock:
            # A fault takes the place of an answer, which stays for the next request.
            fault = self._faults.popleft() if self._faults else None
            if fault is not None:
                return fault, None
            return None, self.answer_to(to_recorded(request))

    def _key(self, request: RecordedRequest) -> RequestKey:
        return make_request_key(self._clean(request), self._server_ids.__contains__)

    def _explain(self, key: RequestKey) -> str:
        lines = [f"the cassette has no (further) answer for {key.method} {key.path}"]
        # An equal request that was played already is the most common cause: the code sent it once
        # more.
        same = [entry for entry in self._entries if entry.key == key]
        if same:
            lines.append(f"  equal requests, all played already: {len(same)} ({same[-1].label})")
        # The reader wants to know which recorded request was meant, and what differs: mostly one
        # word of a prompt, or an id.
        near = sorted(
            (entry for entry in self._entries if entry.key != key),
            key=lambda entry: (-entry.key.score(key), entry.played, entry.number),
        )
        for entry in near[:3]:
            lines.append(f"  near: {entry.label}{' (played already)' if entry.played else ''}")
            lines.extend(f"    {line}" for line in list_differences(key, entry.key))
        return "\n".join(lines)


def to_recorded(request: httpx.Request) -> RecordedRequest:
    """Return a request, whose body is read, in the form that recordings have."""
    return RecordedRequest(
        method=request.method,
        uri=str(request.url),
        headers=tuple(request.headers.multi_items()),
        body=request.content,
    )


class _Pause:
    """A wait that the request's read timeout may cut short."""

    def __init__(self, seconds: float, request: httpx.Request) -> None:
        timeout = request.extensions.get("timeout", {}).get("read")
        self.too_long = timeout is not None and seconds > timeout
        self.seconds: float = timeout if self.too_long else seconds

    def check(self) -> None:
        if self.too_long:
            raise httpx.ReadTimeout("The read operation timed out")


class _ResponsePlayer:
    """A recorded response on its way to the client."""

    def __init__(
        self, owner: CassetteTransport, response: RecordedResponse, request: httpx.Request
    ) -> None:
        self.owner = owner
        self.response = response
        self.request = request

    def check_begun(self) -> None:
        # Status 0 is how a recording says that no answer had begun.
        if self.response.status == 0:
            raise self.error()

    async def wait_if_client_gave_up(self) -> None:
        if self.response.error is None or self.response.error.type == CLOSED_BY_CLIENT:
            await _wait_for_ever(anyio.Event(), self.request)

    def error(self) -> Exception:
        kind = self.response.error.type if self.response.error else CLOSED_BY_CLIENT
        if kind == CLOSED_BY_CLIENT:
            return httpx.ReadTimeout("the recording ends where its client stopped reading")
        # An exception that this httpx does not know counts as a broken connection.
        error_class = getattr(httpx, kind, httpx.RemoteProtocolError)
        return error_class(f"{kind} (recorded)")

    def answer(self) -> httpx.Response:
        return httpx.Response(
            self.response.status,
            # The stored body is not compressed, whatever the header said.
            headers=[pair for pair in self.response.headers if pair[0] != "content-encoding"],
            stream=_PlayedStream(self),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": self.response.reason.encode("ascii", "ignore"),
            },
        )

    @property
    def is_plain(self) -> bool:
        """Return whether the whole body comes at once, without delay, cut or error."""
        delays = self.owner.options.scale and self.response.timing
        return not delays and self.cut is None and self.response.error is None

    def chunks(self) -> list[bytes]:
        """Return the body, cut as it is to be handed on."""
        return self._chunks(self.response.body)

    def script(self) -> Iterator[tuple[float, bytes]]:
        """Yield (seconds to wait, chunk); if the body then ends in an error, ``final`` has it."""
        cut = self.cut
        # A cut counts bytes of the body, so it may fall inside of a chunk, and of an event.
        offset = 0
        for chunk in self.chunks():
            piece = chunk if cut is None else chunk[: max(cut - offset, 0)]
            if piece:
                yield self._delay(offset, offset + len(piece)), piece
            offset += len(chunk)

    @property
    def cut(self) -> int | None:
        after = self.owner.options.cut_after
        # A place beyond the body's end cuts nothing.
        fits = after is not None and self.response.is_sse and after <= len(self.response.body)
        return after if fits else None

    @property
    def final(self) -> Exception | None:
        if self.cut is not None:
            return httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body "
                "(incomplete chunked read)"
            )
        return None if self.response.error is None else self.error()

    @property
    def stays_open(self) -> bool:
        error = self.response.error
        return self.cut is None and error is not None and error.type == CLOSED_BY_CLIENT

    def _chunks(self, body: bytes) -> list[bytes]:
        how = self.owner.options.chunking
        if callable(how):
            chunks = how(body)
            if b"".join(chunks) != body:
                raise ValueError("chunking changed the body")
            return chunks
        if isinstance(how, int):
            return [body[start : start + how] for start in range(0, len(body), how)]
        if how == "whole" or not self.response.is_sse:
            return [body]
        return split_events(body)

    def _delay(self, start: int, end: int) -> float:
        timing, scale = self.response.timing, self.owner.options.scale
        if not scale or not timing:
            return 0.0
        # A chunk has arrived when the last of the recorded events that begin in it has.
        starts = list(accumulate((count for _, count in timing[:-1]), initial=0))
        pieces = timing[bisect_left(starts, start) : bisect_left(starts, end)]
        return sum(delay for delay, _ in pieces) / 1000 * scale


class _PlayedStream(httpx.AsyncByteStream, httpx.SyncByteStream):
    """A recorded body as a stream, sync or async."""

    def __init__(self, player: _ResponsePlayer) -> None:
        self._player = player
        self._closed: anyio.Event | None = None
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        player = self._player
        # Most bodies are plain, and long ones have thousands of events: these need no look at each.
        if player.is_plain:
            yield from player.chunks()
            return
        for delay, chunk in player.script():
            pause = _Pause(delay, player.request)
            if pause.seconds:
                player.owner.options.pause(pause.seconds)
            pause.check()
            yield chunk
        if player.final is not None:
            raise player.final

    async def __aiter__(self) -> AsyncIterator[bytes]:
        player = self._player
        if player.is_plain:
            for number, chunk in enumerate(player.chunks()):
                # Other tasks must get their turn, as with a real socket. One read of a real socket
                # brings many events once they come fast, so the turns become rarer.
                if number < _ONE_BY_ONE or number % _AT_ONCE == 0:
                    await _checkpoint()
                yield chunk
            return
        for delay, chunk in player.script():
            pause = _Pause(delay, player.request)
            await (player.owner.options.sleep(pause.seconds) if pause.seconds else _checkpoint())
            pause.check()
            yield chunk
        # The recorded client closed the stream before its end, so it does not end by itself.
        if player.stays_open:
            self._closed = anyio.Event()
            if not self._is_closed:
                await _wait_for_ever(self._closed, player.request)
            raise httpx.ReadError("the stream was closed while it was being read")
        if player.final is not None:
            raise player.final

    async def aclose(self) -> None:
        self._is_closed = True
        if self._closed is not None:
            self._closed.set()


# So many events of a stream come one by one, and after them so many at a time.
_ONE_BY_ONE = 200
_AT_ONCE = 16
_checkpoint = anyio.lowlevel.checkpoint


async def _wait_for_ever(closed: anyio.Event, request: httpx.Request) -> None:
    # Without a read timeout it does wait for ever, as that client would have.
    timeout = request.extensions.get("timeout", {}).get("read")
    with anyio.move_on_after(timeout):
        await closed.wait()
        return
    raise httpx.ReadTimeout("The read operation timed out")


def _answer_fault(fault: Fault, request: httpx.Request) -> httpx.Response:
    if isinstance(fault, int):
        return httpx.Response(fault, json={"detail": f"scripted fault {fault}"}, request=request)
    if isinstance(fault, httpx.Response):
        return fault
    # A class is raised as a new error each time; an object would gather the tracebacks of all.
    if isinstance(fault, type):
        raise fault("scripted fault")
    if isinstance(fault, Exception):
        raise fault
    raise TypeError(f"no such fault: {fault!r}")
