"""What the ``letta_cassette`` fixture hands to a test, in its recording and replaying forms."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import httpx
from pydantic import SecretStr

from letta_adapters.testing._closing import Opened
from letta_adapters.testing._extending import ExtendingTransport
from letta_adapters.testing._offline import offline
from letta_adapters.testing._save import save_cassette
from letta_adapters.testing.cassette import Cassette, is_frame
from letta_adapters.testing.recorder import RecordingTransport
from letta_adapters.testing.replay import CassetteMissError, CassetteTransport
from letta_adapters.testing.sanitize import RequestCleaner, SanitizeRules

if TYPE_CHECKING:
    from letta_adapters.specs import Remote
    from letta_adapters.testing.websocket import WebSocketPlayer, WebSocketRecorder

Transport: TypeAlias = "RecordingTransport | CassetteTransport | ExtendingTransport"

REPLAY_URL = "http://letta.test"
REPLAY_KEY = "test-key"
REPLAY_SOCKET = "ws://letta.test/ws"


Scope = Literal["function", "module", "session"]


@dataclass(frozen=True)
class CassetteSpec:
    """The arguments of ``@pytest.mark.letta_cassette``.

    ``name``: the file below the cassette directory, without ``.yaml`` (default: from the test's
    name). ``shared``: several tests use the one file, which needs a ``name``. ``base_url_env`` and
    ``model_env``: the environment variables with the server's and the scripted model's URL while
    recording. ``player``: our own transport, or vcrpy patching httpx. ``timing``: record delays.
    ``network``: the test may reach other hosts while it replays. ``scope``: one cassette for each
    test (``"function"``), or for all tests of a module or a session.
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
        if self.shared and self.name is None:
            raise ValueError("letta_cassette(shared=True) needs a name")
        if self.player not in ("transport", "vcr"):
            raise ValueError(f"letta_cassette(player={self.player!r}): 'transport' or 'vcr'")
        if self.scope not in ("function", "module", "session"):
            scopes = "'function', 'module' or 'session'"
            raise ValueError(f"letta_cassette(scope={self.scope!r}): {scopes}")


class LettaCassette:
    """One test's cassette: being recorded (``recording``) or played; both, if it is ``extending``.

    ``path``: the file. ``base_url``, ``api_key``: what to give to the client under test; the real
    ones while recording (``api_key`` may then be ``None``), fixed ones otherwise. ``rules`` and
    ``secrets`` go to :func:`save_cassette` and to the player; a test may change them before its
    first request.
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
        self._options: dict[str, Any] = {}
        self._require_all_played = True
        if recording:
            # A recording of an App Server alone needs no Letta API.
            alone = bool(os.environ.get("LETTA_APP_SERVER_URL"))
            given = os.environ.get(spec.base_url_env, "")
            self.base_url = given if alone else _environment(spec.base_url_env)
            self.api_key = os.environ.get("LETTA_API_KEY") or None
        self.rules = SanitizeRules(base_url=self.base_url or None)
        self._refused: list[CassetteMissError] = []

    def guard(self) -> AbstractContextManager[None]:
        """While a recording is played, nothing but this machine can be reached in this context."""
        free = self.recording or self._spec.network
        return nullcontext() if free else offline(self._refuse)

    def _refuse(self, host: str) -> CassetteMissError:
        return refused(host, self)

    def note_refused(self, error: CassetteMissError) -> None:
        """Fail at the end as well: the code under test may swallow the error."""
        if not _in_background():
            self._refused.append(error)

    @property
    def transport(self) -> Transport:
        """The transport behind every client of this test (with ``player="vcr"``: none)."""
        raise NotImplementedError

    def make_transport(self) -> Transport:
        """A transport a client may own and close: one per client and per event loop."""
        transport = self.transport
        return transport if isinstance(transport, CassetteTransport) else transport.sibling()

    def http_client(self, **options: Any) -> httpx.AsyncClient:
        """An async httpx client that records or replays; ``options`` are httpx's."""
        return httpx.AsyncClient(**self._client_options(options))

    def sync_http_client(self, **options: Any) -> httpx.Client:
        """A sync httpx client that records or replays; ``options`` are httpx's."""
        return httpx.Client(**self._client_options(options))

    @property
    def app_server(self) -> Remote:
        """The App Server to talk to: ``LETTA_APP_SERVER_URL``'s while recording."""
        from letta_adapters.specs import Remote

        if not self.recording or (self.extending and not os.environ.get("LETTA_APP_SERVER_URL")):
            return Remote(url=REPLAY_SOCKET, auth_token=SecretStr(REPLAY_KEY))
        token = SecretStr(os.environ.get("LETTA_APP_SERVER_TOKEN", ""))
        return Remote(url=_environment("LETTA_APP_SERVER_URL"), auth_token=token)

    def websocket(self, **options: Any) -> WebSocketRecorder | WebSocketPlayer:
        """A context in which every connection to an App Server is recorded, or replayed.

        Once a test. ``options`` are
        :class:`~letta_adapters.testing.websocket.WebSocketPlayer`'s.
        """
        raise NotImplementedError

    def script(self, *replies: Any) -> None:
        """Tell the scripted model what to answer; does nothing on replay."""
        if self.recording:
            from letta_adapters.testing.scripted_model import RemoteScript

            RemoteScript(_environment(self._spec.model_env)).script(*replies)

    def replay_options(self, *, require_all_played: bool = True, **options: Any) -> None:
        """Options for the :class:`CassetteTransport`; to be called before its first use.

        ``require_all_played=False``: do not fail the test for what it did not ask for. Raises
        ``RuntimeError`` once the transport exists. Does nothing while recording.
        """
        self._options = options
        self._require_all_played = require_all_played

    def leave(self) -> None:
        """The test's fixtures are torn down: close and unpatch what is still open or patched."""

    def only_in_part(self) -> None:
        """Not all who use this cassette were run: they need not have played all of it."""
        self._require_all_played = False

    def finish(self) -> None:
        """The test passed: write the recording, or check that all of it was played.

        Raises ``AssertionError`` (a leak, an unplayed interaction, nothing recorded, a host that
        was to be reached).
        """
        if self._refused:
            raise self._refused[0]
        self._finish()

    def _finish(self) -> None:
        raise NotImplementedError

    def _client_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"base_url": self.base_url, "transport": self.make_transport(), **options}

    def _save(self, cassette: Cassette) -> None:
        if not cassette.interactions:
            raise AssertionError("nothing was recorded: the test made no request")
        save_cassette(cassette, self.path, rules=self.rules, secrets=self.secrets)


class TransportCassette(LettaCassette):
    """Recording and replaying by transport: streams stay streams."""

    _transport: Transport | None = None
    _recorder: WebSocketRecorder | None = None
    _player: WebSocketPlayer | None = None

    @property
    def transport(self) -> Transport:
        """The one recorder or player of this test, made at first use."""
        if self._transport is None:
            self._transport = self._opened()
        return self._transport

    def _opened(self) -> Transport:
        recorder = RecordingTransport(timing=self._spec.timing)
        if self.recording and not self.extending:
            return recorder
        options = {} if self.extending else self._options
        part = self._part(frames=False)
        player = CassetteTransport(part, rules=self.rules, secrets=self.secrets, **options)
        return ExtendingTransport(player, recorder, self.base_url) if self.extending else player

    def replay_options(self, *, require_all_played: bool = True, **options: Any) -> None:
        """See :meth:`LettaCassette.replay_options`."""
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
            if not transport.has_more and self._recorder is None:
                return
        frames = self._recorder.cassette if self._recorder is not None else ()
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

    def websocket(self, **options: Any) -> WebSocketRecorder | WebSocketPlayer:
        """See :meth:`LettaCassette.websocket`."""
        from letta_adapters.testing.websocket import WebSocketPlayer, WebSocketRecorder

        if self._recorder is not None or self._player is not None:
            raise RuntimeError("letta_cassette.websocket() is for once a test: it would begin anew")
        if self.recording and not (self.extending and self._part(frames=True).interactions):
            self._recorder = WebSocketRecorder()
            return self._recorder
        given = {"rules": self.rules, "secrets": self.secrets, **options}
        self._player = WebSocketPlayer(self._part(frames=True), **given)
        return self._player

    @cached_property
    def _whole(self) -> Cassette:
        return Cassette.load(self.path)

    def _part(self, *, frames: bool) -> Cassette:
        return Cassette([item for item in self._whole if is_frame(item) is frames])


class VcrCassette(LettaCassette):
    """Recording and replaying by vcrpy, which patches httpx while the test runs."""

    def __init__(
        self, path: Path, spec: CassetteSpec, *, recording: bool, extending: bool = False
    ) -> None:
        super().__init__(path, spec, recording=recording, extending=extending)
        from letta_adapters.testing.vcr import letta_vcr

        mode = "new_episodes" if extending else "once" if recording else "none"
        configured = letta_vcr(
            record_mode=mode,
            ignore_existing=recording and not extending,
            rules=self.rules,
            # A test may still change them.
            cleaner=lambda: RequestCleaner(self.rules, self.secrets),
        )
        self._context: AbstractContextManager[Any] = configured.use_cassette(str(path))
        self._played: Any = self._context.__enter__()
        self._recorded = len(self._played)
        self._connections = Opened()

    def http_client(self, **options: Any) -> httpx.AsyncClient:
        """See :meth:`LettaCassette.http_client`."""
        return super().http_client(**{"transport": self._connections.asynchronous(), **options})

    def sync_http_client(self, **options: Any) -> httpx.Client:
        """See :meth:`LettaCassette.sync_http_client`."""
        return super().sync_http_client(**{"transport": self._connections.sync(), **options})

    @property
    def transport(self) -> Transport:
        """There is none: raises ``RuntimeError``."""
        raise RuntimeError('letta_cassette(player="vcr") has no transport: use any httpx client')

    def leave(self) -> None:
        """Stop patching. Saving is left to :meth:`finish`, hence the made-up exception."""
        self._connections.close()
        error = AssertionError("not now")
        self._context.__exit__(type(error), error, None)

    def _finish(self) -> None:
        from letta_adapters.testing.vcr import recorded_by_vcr

        unplayed = self._recorded - len(self._played.play_counts)
        if (self.extending or not self.recording) and self._require_all_played and unplayed > 0:
            raise AssertionError(f"{unplayed} recorded interactions were not played")
        if self.recording and not (self.extending and len(self._played) == self._recorded):
            self._save(recorded_by_vcr(self._played))

    def _client_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"base_url": self.base_url, **options}


KINDS: dict[str, Callable[..., LettaCassette]] = {
    "transport": TransportCassette,
    "vcr": VcrCassette,
}


def refused(host: str, kit: LettaCassette | None) -> CassetteMissError:
    """Return the error of a test that plays ``kit`` and tried to reach a host."""
    text = f"a recording is being played, and the test tried to reach {host!r}"
    hint = "give letta_cassette.http_client() to the client, or mark the test with network=True"
    error = CassetteMissError(f"{text}; {hint}")
    if kit is not None:
        kit.note_refused(error)
    return error


def _in_background() -> bool:
    """Is this a thread that the test knows nothing of, such as a tracer's, and no event loop's?"""
    thread = threading.current_thread()
    if thread is threading.main_thread() or thread.name.startswith("asyncio_"):
        return False
    with suppress(RuntimeError):
        return asyncio.get_running_loop() is None
    return True


def _environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise RuntimeError(f"recording needs the environment variable {name}")
    return value
