"""Internal: implement the object that the ``letta_cassette`` fixture gives to a test.

While it is played, the network is blocked: a test that reaches a server during a replay tests
something else than the recording.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from unittest.mock import patch

import httpx
from pydantic import SecretStr

from letta_adapters.testing.cassette import Cassette, is_frame
from letta_adapters.testing.recording.player import CassetteMissError, CassetteTransport
from letta_adapters.testing.recording.recorder import (
    ExtendingTransport,
    OpenTransports,
    RecordingTransport,
)
from letta_adapters.testing.recording.save import save_cassette
from letta_adapters.testing.sanitizer.sanitize import RequestCleaner, SanitizeRules

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from letta_adapters.backends.config import Remote
    from letta_adapters.testing.recording.player import CassetteTransportKwargs
    from letta_adapters.testing.recording.websocket import (
        WebSocketPlayer,
        WebSocketPlayerKwargs,
        WebSocketRecorder,
    )

Transport: TypeAlias = "RecordingTransport | CassetteTransport | ExtendingTransport"

# The client's settings on replay. The sanitizer writes the same address into recordings.
REPLAY_URL = "http://letta.test"
REPLAY_KEY = "test-key"
REPLAY_SOCKET = "ws://letta.test/ws"


Scope = Literal["function", "module", "session"]


@dataclass(frozen=True)
class CassetteSpec:
    """The arguments of ``@pytest.mark.letta_cassette``.

    Attributes:
        name: The file below the cassette directory, without ``.yaml``; by default made from the
            test's name.
        shared: Several tests use the one file, which needs a ``name``.
        base_url_env: The environment variable with the server's URL while recording.
        model_env: The environment variable with the scripted model's URL while recording.
        player: ``"transport"`` for this package's own player, ``"vcr"`` for vcrpy patching httpx.
        timing: Record delays.
        network: The test may reach other hosts while it replays.
        scope: One cassette for each test (``"function"``), or one for all tests of a module or a
            session.
    """

    name: str | None = None
    shared: bool = False
    base_url_env: str = "LETTA_BASE_URL"
    model_env: str = "LETTA_RIG_MODEL"
    player: Literal["transport", "vcr"] = "transport"
    timing: bool = False
    network: bool = False
    scope: Scope = "function"

    def __post_init__(self) -> None:
        # Without a name each test would get a file of its own.
        if self.shared and self.name is None:
            raise ValueError("letta_cassette(shared=True) needs a name")
        if self.player not in ("transport", "vcr"):
            raise ValueError(f"letta_cassette(player={self.player!r}): 'transport' or 'vcr'")
        if self.scope not in ("function", "module", "session"):
            scopes = "'function', 'module' or 'session'"
            raise ValueError(f"letta_cassette(scope={self.scope!r}): {scopes}")


class LettaCassette:
    """The cassette of one test, being recorded, played, or (if it is ``extending``) both.

    The fixture ``letta_cassette`` gives it to a test::

        @pytest.mark.letta_cassette
        async def test_it(letta_cassette):
            rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
            async with AsyncLettaClient(rest, http_client=letta_cassette.http_client()) as client:
                assert (await client.prompt("Hello!")).success

    A test may change ``rules`` and ``secrets``, which go to :func:`save_cassette` and to the
    player, before its first request.

    Attributes:
        path: The file.
        recording: The test talks to a real server, and what is said is recorded.
        extending: The recording is played, and what it does not contain is asked and added.
        base_url: The server's URL for the client under test: the real one while recording, a fixed
            one otherwise.
        api_key: The API key for the client under test, likewise; ``None`` if a recording has none.
        rules: The sanitizer's rules.
        secrets: More texts that must not be in the file.
    """

    def __init__(
        self, path: Path, spec: CassetteSpec, *, recording: bool, extending: bool = False
    ) -> None:
        self.path = path
        self.recording = recording
        self.extending = extending
        self.base_url = REPLAY_URL
        self.api_key: str | None = REPLAY_KEY
        self.secrets: list[str] = []
        self._spec = spec
        self._options: CassetteTransportKwargs = {}
        self._require_all_played = True
        if recording:
            # A recording of an App Server alone needs no Letta API.
            alone = bool(os.environ.get("LETTA_APP_SERVER_URL"))
            given = os.environ.get(spec.base_url_env, "")
            self.base_url = given if alone else _read_variable(spec.base_url_env)
            self.api_key = os.environ.get("LETTA_API_KEY") or None
        # With its path: of an address that is not known as the server's only the origin is
        # replaced.
        self.rules = SanitizeRules(base_url=self.base_url or None)
        self._refused: list[CassetteMissError] = []

    def guard(self) -> AbstractContextManager[None]:
        """Return a context in which, on replay, nothing but this machine can be reached."""
        # A recording needs the server.
        free = self.recording or self._spec.network
        return nullcontext() if free else block_network(self._refuse)

    def _refuse(self, host: str) -> CassetteMissError:
        return make_refusal(host, self)

    def note_refused(self, error: CassetteMissError) -> None:
        """Note an error, to fail at the end as well: the code under test may swallow it."""
        # A tracer or a telemetry thread that sends by itself is not the test's fault.
        if not _in_background():
            self._refused.append(error)

    @property
    def transport(self) -> Transport:
        """Return the transport behind every client of this test (with ``player="vcr"``: none)."""
        raise NotImplementedError

    def make_transport(self) -> Transport:
        """Return a transport that a client may own and close: one per client and event loop."""
        transport = self.transport
        # A player has no connections, so any client may close it. A recorder's siblings have their
        # own.
        return transport if isinstance(transport, CassetteTransport) else transport.sibling()

    def http_client(self, **options: Any) -> httpx.AsyncClient:
        """Return an async httpx client that records or replays; ``options`` are httpx's."""
        return httpx.AsyncClient(**self._client_options(options))

    def sync_http_client(self, **options: Any) -> httpx.Client:
        """Return a sync httpx client that records or replays; ``options`` are httpx's."""
        return httpx.Client(**self._client_options(options))

    @property
    def app_server(self) -> Remote:
        """Return the App Server to talk to; while recording, that of ``LETTA_APP_SERVER_URL``."""
        from letta_adapters.backends.config import Remote

        # Extending the HTTP part of a recording needs no App Server: the frames are played.
        if not self.recording or (self.extending and not os.environ.get("LETTA_APP_SERVER_URL")):
            return Remote(url=REPLAY_SOCKET, auth_token=SecretStr(REPLAY_KEY))
        token = SecretStr(os.environ.get("LETTA_APP_SERVER_TOKEN", ""))
        return Remote(url=_read_variable("LETTA_APP_SERVER_URL"), auth_token=token)

    def websocket(
        self, **options: Unpack[WebSocketPlayerKwargs]
    ) -> WebSocketRecorder | WebSocketPlayer:
        """Return the recorder, or the player, of connections to an App Server.

        ``with letta_cassette.websocket():`` records or replays every client of the block; a client
        can also be given it: ``connector=letta_cassette.websocket()``. It is made once in a test.
        ``options`` are those of
        :class:`~letta_adapters.testing.recording.websocket.WebSocketPlayer`.
        """
        raise NotImplementedError

    def script(self, *replies: Any) -> None:
        """Tell the scripted model what to answer; does nothing on replay."""
        if self.recording:
            from letta_adapters.testing.scripted_model import RemoteScript

            RemoteScript(_read_variable(self._spec.model_env)).script(*replies)

    def replay_options(
        self, *, require_all_played: bool = True, **options: Unpack[CassetteTransportKwargs]
    ) -> None:
        """Set the options of the :class:`CassetteTransport`, before its first use.

        Does nothing while recording.

        Args:
            require_all_played: ``False``: do not fail the test for recorded requests that it did
                not make.
            **options: The options of :class:`CassetteTransport`.

        Raises:
            RuntimeError: The transport exists already.
        """
        self._options = options
        self._require_all_played = require_all_played

    def leave(self) -> None:
        """Close and unpatch what the test left open or patched, once its fixtures are torn down."""

    def only_in_part(self) -> None:
        """Allow parts to stay unplayed, because not all users of this cassette were run."""
        self._require_all_played = False

    def finish(self) -> None:
        """Write the recording, or check that all of it was played, once the test has passed.

        Raises:
            AssertionError: A leak, an unplayed interaction, nothing recorded, or a host that was to
                be reached.
        """
        if self._refused:
            raise self._refused[0]
        self._finish()

    def _finish(self) -> None:
        raise NotImplementedError

    def _client_options(self, options: dict[str, Any]) -> dict[str, Any]:
        # The test's own options win: it may wrap the transport, or talk to another path.
        return {"base_url": self.base_url, "transport": self.make_transport(), **options}

    def _save(self, cassette: Cassette) -> None:
        if not cassette.interactions:
            raise AssertionError("nothing was recorded: the test made no request")
        save_cassette(cassette, self.path, rules=self.rules, secrets=self.secrets)


class TransportCassette(LettaCassette):
    """A cassette that records and replays by an httpx transport: streams stay streams."""

    _transport: Transport | None = None
    _recorder: WebSocketRecorder | None = None
    _player: WebSocketPlayer | None = None

    @property
    def transport(self) -> Transport:
        """Return the one recorder or player of this test, made at first use."""
        if self._transport is None:
            self._transport = self._open()
        return self._transport

    def _open(self) -> Transport:
        recorder = RecordingTransport(timing=self._spec.timing)
        if self.recording and not self.extending:
            return recorder
        # Faults and delays are for replays: a recording that is extended is played as it is.
        options: CassetteTransportKwargs = {"rules": self.rules, "secrets": self.secrets}
        if not self.extending:
            options.update(self._options)
        # One file may hold HTTP and WebSocket traffic. Each has a player of its own.
        part = self._part(frames=False)
        player = CassetteTransport(part, **options)
        return ExtendingTransport(player, recorder, self.base_url) if self.extending else player

    def replay_options(
        self, *, require_all_played: bool = True, **options: Unpack[CassetteTransportKwargs]
    ) -> None:
        """Set the options of the player; see :meth:`LettaCassette.replay_options`."""
        if isinstance(self._transport, CassetteTransport):
            raise RuntimeError("replay_options() comes before the first use of the transport")
        super().replay_options(require_all_played=require_all_played, **options)

    def leave(self) -> None:
        """Close the connections that clients left open."""
        if self._transport is not None and not isinstance(self._transport, CassetteTransport):
            self._transport.release()

    def _finish(self) -> None:
        transport = self.transport
        if isinstance(transport, CassetteTransport):
            self._check_played(transport)
            return
        if isinstance(transport, ExtendingTransport):
            self._check_played(transport.player)
            # Nothing new was asked, so the file stays as it is.
            if not transport.has_more and self._recorder is None:
                return
        # One file for both kinds of traffic: a test has one conversation, however it was carried.
        frames = self._recorder.cassette if self._recorder is not None else ()
        # Frames that were played are saved again with the extended HTTP part.
        if self._player is not None:
            frames = self._part(frames=True)
        self._save(Cassette([*transport.cassette, *frames]))

    def _check_played(self, transport: CassetteTransport) -> None:
        if not self._require_all_played:
            return
        transport.assert_all_played()
        if self._player is not None:
            self._player.assert_all_played()
        elif self._part(frames=True).interactions:
            raise AssertionError("the recorded WebSocket was not used")

    def websocket(
        self, **options: Unpack[WebSocketPlayerKwargs]
    ) -> WebSocketRecorder | WebSocketPlayer:
        """Record or replay App Server connections; see :meth:`LettaCassette.websocket`."""
        from letta_adapters.testing.recording.websocket import WebSocketPlayer, WebSocketRecorder

        if self._recorder is not None or self._player is not None:
            raise RuntimeError("letta_cassette.websocket() is for once a test: it would begin anew")
        # Frames cannot be added to a recorded connection: if there are any, they are played.
        if self.recording and not (self.extending and self._part(frames=True).interactions):
            self._recorder = WebSocketRecorder()
            return self._recorder
        given: WebSocketPlayerKwargs = {"rules": self.rules, "secrets": self.secrets}
        given.update(options)
        self._player = WebSocketPlayer(self._part(frames=True), **given)
        return self._player

    @cached_property
    def _whole(self) -> Cassette:
        return Cassette.load(self.path)

    def _part(self, *, frames: bool) -> Cassette:
        return Cassette([item for item in self._whole if is_frame(item) is frames])


class VcrCassette(LettaCassette):
    """A cassette that records and replays by vcrpy, which patches httpx while the test runs."""

    def __init__(
        self, path: Path, spec: CassetteSpec, *, recording: bool, extending: bool = False
    ) -> None:
        super().__init__(path, spec, recording=recording, extending=extending)
        from letta_adapters.testing.recording.vcr import letta_vcr

        # Recording anew is `once`, with the old file ignored: vcrpy's `all` would keep interactions
        # that are not asked for any more.
        mode = "new_episodes" if extending else "once" if recording else "none"
        configured = letta_vcr(
            record_mode=mode,
            ignore_existing=recording and not extending,
            rules=self.rules,
            # Called at every request, because a test may still change the rules and secrets.
            cleaner=lambda: RequestCleaner(self.rules, self.secrets),
        )
        self._context: AbstractContextManager[Any] = configured.use_cassette(str(path))
        self._played: Any = self._context.__enter__()
        # vcrpy adds new interactions to the loaded ones, whose number is needed at the end.
        self._recorded = len(self._played)
        self._connections = OpenTransports()

    def http_client(self, **options: Any) -> httpx.AsyncClient:
        """Return an async httpx client; see :meth:`LettaCassette.http_client`."""
        return super().http_client(**{"transport": self._connections.asynchronous(), **options})

    def sync_http_client(self, **options: Any) -> httpx.Client:
        """Return a sync httpx client; see :meth:`LettaCassette.sync_http_client`."""
        return super().sync_http_client(**{"transport": self._connections.sync(), **options})

    @property
    def transport(self) -> Transport:
        """Raise ``RuntimeError``: vcrpy patches httpx, so there is no transport."""
        raise RuntimeError('letta_cassette(player="vcr") has no transport: use any httpx client')

    def leave(self) -> None:
        """Stop patching httpx.

        vcrpy would save the file at this point, before it is known whether the test passed. It does
        not if the context ends with an exception, hence the made-up one; :meth:`finish` saves.
        """
        self._connections.close()
        error = AssertionError("not now")
        self._context.__exit__(type(error), error, None)

    def _finish(self) -> None:
        from letta_adapters.testing.recording.vcr import read_vcr_cassette

        unplayed = self._recorded - len(self._played.play_counts)
        if (self.extending or not self.recording) and self._require_all_played and unplayed > 0:
            raise AssertionError(f"{unplayed} recorded interactions were not played")
        if self.recording and not (self.extending and len(self._played) == self._recorded):
            self._save(read_vcr_cassette(self._played))

    def _client_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"base_url": self.base_url, **options}


KINDS: dict[str, Callable[..., LettaCassette]] = {
    "transport": TransportCassette,
    "vcr": VcrCassette,
}


def make_refusal(host: str, kit: LettaCassette | None) -> CassetteMissError:
    """Return the error of a test that plays ``kit`` and tried to reach a host."""
    text = f"a recording is being played, and the test tried to reach {host!r}"
    hint = "give letta_cassette.http_client() to the client, or mark the test with network=True"
    error = CassetteMissError(f"{text}; {hint}")
    if kit is not None:
        kit.note_refused(error)
    return error


def _in_background() -> bool:
    """Return whether neither the test nor an event loop runs in this thread.

    Such a thread belongs to somebody else, for example a tracer.
    """
    thread = threading.current_thread()
    # The names of asyncio's worker threads: name resolution for the test runs there.
    if thread is threading.main_thread() or thread.name.startswith("asyncio_"):
        return False
    with suppress(RuntimeError):
        return asyncio.get_running_loop() is None
    return True


def _read_variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise RuntimeError(f"recording needs the environment variable {name}")
    return value


# -- no network on replay -----------------------------------------------------------------------


@contextmanager
def block_network(make_refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Refuse to resolve names and to connect, except on this machine's own loopback interface.

    Event loops that are not asyncio's own (``uvloop``) resolve and connect by themselves, so they
    are not covered.

    Args:
        make_refusal: Makes the error to raise from the host that was to be reached.
    """
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    getaddrinfo = socket.getaddrinfo

    def check(own: socket.socket, address: Any) -> Any:
        # Unix sockets stay on this machine.
        if own.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise make_refusal(str(address[0]))
        return address

    def resolve(host: Any, *rest: Any, **options: Any) -> Any:
        if not _is_loopback(host):
            raise make_refusal(host.decode() if isinstance(host, bytes) else str(host))
        return getaddrinfo(host, *rest, **options)

    # Patched at the socket, so that every library is covered, whatever it is built on.
    with (
        patch.object(socket.socket, "connect", lambda own, to: connect(own, check(own, to))),
        patch.object(socket.socket, "connect_ex", lambda own, to: connect_ex(own, check(own, to))),
        patch.object(socket, "getaddrinfo", resolve),
    ):
        yield


def _is_loopback(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(name).partition("%")[0]).is_loopback
    except ValueError:
        return False
