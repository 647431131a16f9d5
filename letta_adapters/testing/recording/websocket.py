"""Internal: record and replay the App Server's WebSocket, frame by frame.

A recording is a cassette like any other. Each frame of ours is an interaction (``SEND``), and the
frames that came until our next one are its response, as an event stream; a new connection is an
interaction of its own (``WEBSOCKET``). So the sanitizer and the leak scanner look at frames as they
look at HTTP, and vcrpy can read the file.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from letta_adapters.backends.connector import Connector, ConnectorBlock, Socket
from letta_adapters.testing.cassette import (
    OPENED,
    SENT,
    Cassette,
    Headers,
    Interaction,
    RecordedRequest,
    RecordedResponse,
    group_connections,
)
from letta_adapters.testing.recording.lanes import Lanes, Timed, read_frames, replace_names
from letta_adapters.testing.recording.matching import find_fresh_texts, make_frame_comparison
from letta_adapters.testing.recording.player import CassetteMissError, ReplayKwargs, ReplayOptions
from letta_adapters.testing.recording.recorder import round_delay

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

_WEBSOCKETS: Final[Connector] = connect
_JSON: Final = (("content-type", "application/json"),)
_STREAM: Final = (("content-type", "text/event-stream"),)
_REQUEST_ID: Final = re.compile(r"\bla-[0-9a-f]{32}\b")
# The fields of a device status that the client reads. The rest is 13 kB about the machine, sent
# twice in a turn.
_DEVICE: Final = frozenset(
    {
        "current_loaded_tools",
        "current_permission_mode",
        "current_working_directory",
        "is_processing",
        "pending_control_requests",
    }
)


class _BaseConnector:
    """Base of what opens connections in place of ``websockets``, as a connector or as a block.

    As a connector it is given to clients (``connector=``). As a block (``with``) it reaches the
    clients that were given none, wherever they connect: in tasks that were begun in the block, on
    the loop of sync clients, in plain threads.
    """

    def __init__(self) -> None:
        self._blocks: list[ConnectorBlock] = []

    async def connect(self, url: str, /, **options: Any) -> Socket:
        """Open a connection."""
        raise NotImplementedError

    def __call__(self, url: str, /, *args: Any, **options: Any) -> Awaitable[Socket]:
        """Open a connection: this is a :class:`~letta_adapters.Connector`."""
        return self.connect(url, **options)

    def __enter__(self) -> Self:
        block = ConnectorBlock(self)
        block.open()
        self._blocks.append(block)
        return self

    def __exit__(self, *error: object) -> None:
        # The innermost first: one recorder may be entered again inside of its own block.
        self._blocks.pop().close()


# -- recording ----------------------------------------------------------------------------------


class WebSocketRecorder(_BaseConnector):
    """A recorder of the frames of the connections that it opens.

    ::

        recorder = WebSocketRecorder()
        with LettaClient(Remote(url="ws://127.0.0.1:4500"), connector=recorder) as client:
            ...
        save_cassette(recorder.cassette, "cassettes/session.yaml")

    Where no client can be given a connector, ``with recorder:`` is a block in which it opens all
    connections of clients that have none. Several recorders and players may be in use at once.

    Args:
        clock: Monotonic time in seconds.
        connector: Opens the connections that are recorded, in place of ``websockets.connect``.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        connector: Connector | None = None,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._takes: list[_FrameGroup] = []
        self._sockets = 0
        self._real = _WEBSOCKETS if connector is None else connector

    @property
    def cassette(self) -> Cassette:
        """Return what was recorded so far."""
        numbers: dict[str, str] = {}
        return Cassette([take.interaction(numbers) for take in self._takes])

    async def connect(self, url: str, /, **options: Any) -> Socket:
        """Open a connection and record its frames."""
        socket = await self._real(url, **options)
        return _RecordingSocket(
            socket, self.opened(url, dict(options.get("additional_headers") or {}))
        )

    def opened(self, url: str, headers: Mapping[str, str]) -> ConnectionRecording:
        """Begin to record a new connection.

        Args:
            url: Its address.
            headers: The headers of its handshake: a secret in them is secret in frames, too.
        """
        self._sockets += 1
        # A number in the address keeps the frames of several connections apart.
        name = url if self._sockets == 1 else f"{url}?connection={self._sockets}"
        talk = ConnectionRecording(name, self._takes, self._clock)
        talk.began(OPENED, "", tuple(headers.items()))
        return talk


class ConnectionRecording:
    """A recording of one connection's frames."""

    def __init__(self, url: str, takes: list[_FrameGroup], clock: Callable[[], float]) -> None:
        self._url, self._takes, self._clock = url, takes, clock

    def began(self, method: str, text: str, headers: Headers = _JSON) -> None:
        """Note the connection, or a frame of ours."""
        self._take = _FrameGroup(method, self._url, text, headers, self._clock())
        self._takes.append(self._take)

    def sent(self, text: str) -> None:
        """Note a frame of ours."""
        self.began(SENT, text)

    def came(self, text: str | bytes) -> None:
        """Note a frame of the server's."""
        plain = text if isinstance(text, str) else text.decode()
        self._take.frames.append((self._clock(), plain))


class _FrameGroup:
    def __init__(self, method: str, url: str, text: str, headers: Headers, now: float) -> None:
        self.method, self.url, self.text, self.headers = method, url, text, headers
        self.now = now
        self.frames: list[tuple[float, str]] = []

    def interaction(self, numbers: dict[str, str]) -> Interaction:
        def numbered(text: str) -> str:
            # Request ids are new in every run; counted, two recordings of one scenario have the
            # same ones.
            return _REQUEST_ID.sub(
                lambda found: numbers.setdefault(found[0], f"la-{len(numbers) + 1}"), text
            )

        request = RecordedRequest(self.method, self.url, self.headers, numbered(self.text).encode())
        before, events, timing = self.now, [], []
        for at, text in self.frames:
            event = f"data: {numbered(_slim_down(text))}\n\n".encode()
            events.append(event)
            timing.append((round_delay((at - before) * 1000), len(event)))
            before = at
        body = b"".join(events)
        response = RecordedResponse(101, "", _STREAM, body, tuple(timing) or None)
        return Interaction(request, response)


def _slim_down(text: str) -> str:
    frame = json.loads(text)
    if isinstance(frame, dict) and frame.get("type") == "update_device_status":
        status = frame.get("device_status") or {}
        frame["device_status"] = {name: status[name] for name in _DEVICE if name in status}
    # One layout, so that two recordings of one scenario are the same.
    text = json.dumps(frame, ensure_ascii=False, sort_keys=True)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of an emoji, which only an escape can hold
        text = json.dumps(frame, sort_keys=True)
    return text


class _RecordingSocket:
    """A socket whose frames are noted as they pass."""

    def __init__(self, socket: Socket, talk: ConnectionRecording) -> None:
        self._socket, self._talk = socket, talk

    async def send(self, text: str, /) -> None:
        self._talk.sent(text)
        await self._socket.send(text)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        async for text in self._socket:
            self._talk.came(text)
            yield text

    async def close(self) -> None:
        await self._socket.close()


# -- replaying ----------------------------------------------------------------------------------


class WebSocketPlayerKwargs(ReplayKwargs, total=False):
    """The keywords of :class:`WebSocketPlayer`."""

    edit: Callable[[int, str], list[str]] | None


@dataclass(frozen=True, kw_only=True)
class _PlayerOptions(ReplayOptions):
    """How :class:`WebSocketPlayer` plays a recording."""

    edit: Callable[[int, str], list[str]] | None = None


class WebSocketPlayer(_BaseConnector):
    """A player of a recording: each connection that it opens is the next recorded one.

    ::

        player = WebSocketPlayer(Cassette.load("cassettes/session.yaml"))
        with LettaClient(Remote(url="ws://letta.test/ws"), connector=player) as client:
            ...
        player.assert_all_played()

    Where no client can be given a connector, ``with player:`` is a block in which it opens all
    connections of clients that have none. Several recorders and players may be in use at once.

    Several conversations on one connection (parallel sessions) are played independently of each
    other. Frames of ours are compared with the recorded ones. Texts that are new in every run
    (request and message ids, the working directory) may differ; they are put into the server's
    frames.

    Args:
        cassette: The recording; its HTTP part is ignored.
        timing: ``"none"``, ``"recorded"``, or a factor for the recorded delays.
        sleep: The clock, for tests: ``await sleep(seconds)``.
        cut_after: The network is gone after so many of the server's frames, and stays so.
        edit: ``(number, text) -> texts``: the texts that come in place of a frame, to drop,
            repeat or change it.
        rules: The rules that the recording was saved with.
        secrets: The secrets that it was saved with.
    """

    def __init__(
        self,
        cassette: Cassette,
        **options: Unpack[WebSocketPlayerKwargs],
    ) -> None:
        super().__init__()
        self.options = _PlayerOptions(**options)
        self.misses: list[CassetteMissError] = []
        self.came = 0
        self.clean = self.options.make_cleaner()
        items = cassette.interactions
        scenes = (deque(items[number] for number in scene) for scene in group_connections(items))
        self._scenes = deque(scenes)
        self._opened: list[_PlayedConnection] = []

    @property
    def gone(self) -> bool:
        """Return whether the network was cut off."""
        return self.options.cut_after is not None and self.came >= self.options.cut_after

    async def connect(self, url: str, /, **options: Any) -> Socket:
        """Return the next recorded connection.

        Raises:
            CassetteMissError: There was no (further) one.
            ConnectionRefusedError: The network is cut off.
        """
        # The network that broke stays away, or else a client's reconnecting would find the next
        # recorded connection and play what never followed.
        if self.gone:
            raise ConnectionRefusedError(f"cut off: {url}")
        if not self._scenes:
            raise self.missed(f"the recording has no (further) connection to {url}")
        headers = dict(options.get("additional_headers") or {})
        self.clean(RecordedRequest(OPENED, url, tuple(headers.items())))  # it learns the token
        self._opened.append(_PlayedConnection(self, self._scenes.popleft()))
        return self._opened[-1]

    def missed(self, text: str) -> CassetteMissError:
        """Note an error and return it: the sender of the frame may swallow it."""
        # A client maps whatever its socket raises to an error of its own, or tries again. The test
        # must fail for the frame all the same.
        self.misses.append(CassetteMissError(text))
        return self.misses[-1]

    def assert_all_played(self) -> None:
        """Check that the client did what was recorded.

        Raises:
            AssertionError: A frame did not fit, a recorded one was not sent, or a recorded
                connection was not opened.
        """
        if self.misses:
            raise self.misses[0]
        if self._scenes:
            raise AssertionError(f"{len(self._scenes)} recorded connections were not opened")
        unsent = [text for socket in self._opened for text in socket.unsent]
        if unsent:
            raise AssertionError(f"{len(unsent)} recorded frames were not sent: {unsent[0][:300]}")


class _PlayedConnection:
    """A recorded connection, as the client sees it."""

    def __init__(self, player: WebSocketPlayer, scene: deque[Interaction]) -> None:
        self._player, self._scene = player, scene
        # Recorded texts that are new in every run, with those sent now in their place: the server's
        # frames repeat them.
        self._fresh: dict[str, str] = {}
        self._coming: deque[tuple[float, str]] = deque()
        # An event, and no queue: closing must wake the reader, too, without a frame to hand on.
        self._news = asyncio.Event()
        self._closed = self._broken = False
        self._differ = make_frame_comparison(player.clean)
        # The first interaction is the connection itself: its frames come before any of ours.
        self._release(read_frames(scene.popleft()))
        self._lanes = Lanes(list(scene), self._differ)

    @property
    def unsent(self) -> list[str]:
        """Return the recorded frames that the client has not sent yet."""
        if self._lanes.several:
            return self._lanes.unsent
        return [interaction.request.body.decode() for interaction in self._scene]

    async def send(self, text: str, /) -> None:
        if self._closed or self._broken:
            raise ConnectionClosedError(None, None)
        # With a single conversation every frame has its place, and a wrong one can be explained
        # exactly.
        if self._lanes.several:
            self._send_in_a_lane(text)
            return
        if not self._scene:
            raise self._player.missed(f"nothing more was sent, but now: {text[:300]}")
        recorded = self._scene[0].request.body.decode()
        if difference := self._differ(recorded, text):
            raise self._player.missed(f"another frame was sent than recorded: {difference}")
        self._fresh |= find_fresh_texts(json.loads(recorded), json.loads(text))
        self._release(read_frames(self._scene.popleft()))

    def _send_in_a_lane(self, text: str) -> None:
        lane = self._lanes.take(text)
        if lane is None:
            raise self._player.missed(
                f"no recorded conversation goes on with this frame: {text[:300]}"
            )
        step = lane.steps[lane.at]
        recorded = replace_names(step.sent, lane.names)
        self._fresh |= find_fresh_texts(json.loads(recorded), json.loads(text))
        came = [(delay, replace_names(frame, lane.names)) for delay, frame in step.came]
        self._release(came)
        self._lanes.given(lane, (frame for _, frame in came))

    def _release(self, frames: Iterable[Timed]) -> None:
        """Let the frames that came after a frame of ours come now."""
        for delay, frame in frames:
            # All are replaced at once: a text that is put in may look like one to replace.
            text = replace_names(frame, self._fresh)
            self._coming.append((delay / 1000 * self._player.options.scale, text))
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[str]:
        player = self._player
        while not self._closed:
            if player.gone:
                self._broken = True
                raise ConnectionClosedError(None, None)
            if not self._coming:
                self._news.clear()
                await self._news.wait()
                continue
            delay, text = self._coming.popleft()
            if delay:
                await player.options.sleep(delay)
            player.came += 1
            edit = player.options.edit
            for made in [text] if edit is None else edit(player.came, text):
                yield made

    async def close(self) -> None:
        self._closed = True
        self._news.set()
