"""Internal: the WebSocket to an App Server, which carries frames both ways and raises typed errors.

This is the only module that knows ``websockets``. One connection carries every conversation of a
client. Requests are matched by ``request_id`` and all have a time limit, because the server answers
nothing at all to a frame it does not understand; every other frame goes to the conversation it
names.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import websockets
from websockets.asyncio.client import connect

from letta_adapters._utils.files import is_full
from letta_adapters._utils.tasks import end_task, run_within
from letta_adapters.backends.app_server.frames import Frame, encode
from letta_adapters.backends.base import Conversation
from letta_adapters.backends.connector import Connector, Socket, current_connector, dial
from letta_adapters.backends.http_errors import error_from_response
from letta_adapters.backends.proxies import find_proxy, is_loopback, proxy_variables
from letta_adapters.backends.replies import check_answer
from letta_adapters.engine.app_server import PROTOCOL_VERSION
from letta_adapters.engine.reading import read_json
from letta_adapters.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    DiskFullError,
    InvalidInputError,
    LettaError,
    LettaTimeoutError,
    NotFoundError,
    ProtocolError,
    ServerError,
    SessionClosedError,
    TimeoutBeforeAcceptanceError,
)

# The server is one thread, and under load it can take a while to answer a ping.
_PING_SECONDS: Final = 20.0
_PONG_SECONDS: Final = 60.0
_log = logging.getLogger("letta_adapters.app_server")
# The server's words for a message that it did not accept because it could not note it.
_NOT_STORED: Final = "rejected by the queue"
# Frames with a part of an answer, or its end, which must name their conversation.
_OF_A_TURN: Final = ("stream_delta", "turn_finished")
# How a frame about the state of the device begins, what follows the state, and what else it holds.
_STATE: Final = '{"type":"update_device_status","device_status":'
_AFTER_STATE: Final = ',"runtime":{'
_BESIDE_STATE: Final = {"runtime", "event_seq", "emitted_at", "idempotency_key"}
# Histories and images come in one frame each.
_MAX_FRAME_BYTES: Final = 256 << 20
_LOST: Final = "The connection to the App Server was lost"
_CONNECT_ERRORS: Final = (OSError, websockets.WebSocketException, EOFError)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of an App Server (``ws://host:port/ws``), its token, and how to open the socket.

    Attributes:
        url: The address.
        token: The token it asks for.
        connector: Opens the socket; by default that of the block the opening runs in, or
            ``websockets``.
    """

    url: str
    token: str = ""
    connector: Connector | None = None

    def __repr__(self) -> str:
        return f"Endpoint(url={self.url!r})"


class State(Protocol):
    """The state of a server, in a directory on this machine."""

    @property
    def folder(self) -> Path:
        """The directory."""

    def explain(self, text: str) -> LettaError | None:
        """Return the reason of a server's refusal if it is a damaged file, else ``None``."""

    def find_memory(self, agent_id: str) -> Path:
        """Return the directory of an agent's memory repository, which need not exist."""

    def lacks(self, agent_id: str, conversation_id: str, message_id: str) -> bool:
        """Return whether a message that the server lists is not in the conversation's file."""


class Inbox:
    """The frames of one conversation, in order; unbounded, because nothing may be dropped."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._news = asyncio.Event()
        self.lost: LettaError | None = None

    def put(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._news.set()

    def lose(self, error: LettaError) -> None:
        """Take note that no frame will come any more, for this reason."""
        self.lost = self.lost or error
        self._news.set()

    def poke(self) -> None:
        """Let the task that waits look at the time again."""
        self._news.set()

    def take(self) -> Frame | None:
        """Return the next frame that is here."""
        return self._frames.popleft() if self._frames else None

    async def wait(self, seconds: float | None) -> bool:
        """Wait for a frame or the end; return ``False`` if the time was up first."""
        if self._frames or self.lost is not None:
            return True
        self._news.clear()
        if seconds is None:
            await self._news.wait()
            return True
        # An alarm, since a time limit around the wait would cost a task for each frame.
        alarm = asyncio.get_running_loop().call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            alarm.cancel()
        return bool(self._frames) or self.lost is not None


class Connection:
    """One open socket."""

    def __init__(self, socket: Socket, request_timeout: float) -> None:
        self._socket = socket
        self._timeout = request_timeout
        self._waiting: dict[str, asyncio.Future[Frame]] = {}
        # What has come of answers that are sent in pieces, by request.
        self._pieces: dict[str, list[Any]] = {}
        self._inboxes: dict[Conversation, Inbox] = {}
        self._reader: asyncio.Task[None] | None = None
        self.lost: LettaError | None = None
        self.info: Mapping[str, Any] = {}
        # True if the server runs on this machine, started by this package.
        self.ours = False
        # The directory of its agents, if that is on this machine.
        self.state: State | None = None
        # True if the server keeps agents' memories in git. A Letta API server of one's own does
        # not.
        self.memory_in_git = True
        # Sees every frame of a conversation; the last argument is True if no turn of ours takes it.
        self.observe: Callable[[Conversation, Frame, bool], None] | None = None

    @property
    def usable(self) -> bool:
        """True while it can carry a request."""
        return self.lost is None

    @property
    def on_api(self) -> bool:
        """True if the server's agents live on a Letta API (``Local(api=...)``)."""
        return self.info.get("backend") == "api"

    @classmethod
    async def open(
        cls, endpoint: Endpoint, *, connect_timeout: float, request_timeout: float
    ) -> Connection:
        """Connect, authenticate and check that the other side speaks our protocol.

        Raises:
            AuthenticationError: The token was refused.
            ConnectionFailedError: Nobody answers, or not with this protocol.
        """
        socket = await _open_socket(endpoint, connect_timeout)
        made = cls(socket, request_timeout)
        made._reader = asyncio.create_task(made._read(), name="letta-app-server-reader")
        try:
            made.info = await made.request({"type": "app_server_info"})
            made._check_version()
        except BaseException:
            await made.aclose()
            raise
        return made

    def _check_version(self) -> None:
        spoken = self.info.get("protocol_version")
        if spoken != PROTOCOL_VERSION:
            raise ProtocolError(
                f"The App Server speaks protocol version {spoken}; this package knows "
                f"{PROTOCOL_VERSION}.",
                hint="Install matching versions of letta-adapters and letta.",
            )

    # -- out --------------------------------------------------------------------------------

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Send a frame that has no answer; raise :class:`ConnectionFailedError` on failure."""
        text = encode(frame)
        if self.lost is not None:
            raise self._gone(accepted=False)
        if _log.isEnabledFor(logging.DEBUG):
            # A frame's type and size, and never what it says.
            _log.debug("Sent %s (%d characters).", frame.get("type"), len(text))
        try:
            await self._socket.send(text)
        except _CONNECT_ERRORS as error:
            self._lose(error)
            raise self._gone(accepted=None) from error

    async def request(self, frame: Mapping[str, Any], *, timeout: float | None = None) -> Frame:
        """Send a frame and wait for its answer.

        Raises:
            LettaTimeoutError: None came in time.
            LettaError: The server refused; the class is chosen by its text.
        """
        request_id = f"la-{uuid.uuid4().hex}"
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        # Known before the frame is sent, as the answer may come at once.
        self._waiting[request_id] = future
        seconds = self._timeout if timeout is None else timeout
        try:
            await self.send({**frame, "request_id": request_id})
            answer = await run_within(seconds, future)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise _no_answer(frame, seconds) from error
        finally:
            self._waiting.pop(request_id, None)
            self._pieces.pop(request_id, None)
            # A lost connection fails both the future and send(), of which one is raised.
            if future.done() and not future.cancelled():
                future.exception()
        # Requests are answered with `success`, messages with `accepted`.
        if answer.get("success") is False or answer.get("accepted") is False:
            raise self._refusal(str(answer.get("error") or "The App Server refused."))
        check_answer(str(frame.get("type")), answer)
        return answer

    def _refusal(self, text: str) -> LettaError:
        """Return the typed error of a refusal.

        For a message that could not be stored the server does not give the reason, so it is looked
        for.
        """
        torn = None if self.state is None else self.state.explain(text)
        if torn is not None:
            return torn
        if _NOT_STORED not in text.lower():
            return refusal(text)
        if self.state is not None and is_full(self.state.folder):
            return DiskFullError(
                f"The disk that holds {self.state.folder} is full: the message was not taken.",
                accepted=False,
            )
        return ServerError(
            f"{text.rstrip('.')}: the server could not store the message.",
            hint="See whether its disk is full, and whether its state is whole: letta-adapters "
            "doctor.",
            accepted=False,
        )

    # -- in ---------------------------------------------------------------------------------

    def subscribe(self, conversation: Conversation) -> Inbox:
        """Keep the frames of this conversation from now on."""
        inbox = self._inboxes[conversation] = Inbox()
        if self.lost is not None:
            inbox.lose(self.lost)
        return inbox

    def serves(self, conversation: Conversation) -> bool:
        """Return whether a turn reads this conversation's frames."""
        return conversation in self._inboxes

    def unsubscribe(self, conversation: Conversation, inbox: Inbox) -> None:
        """Keep no frames for a reader that has gone."""
        if self._inboxes.get(conversation) is inbox:
            del self._inboxes[conversation]

    async def _read(self) -> None:
        frame: Frame | None = None
        try:
            async for text in self._socket:
                frame = None
                frame = _parse_state(text) or _parse(text)
                if _log.isEnabledFor(logging.DEBUG):
                    _log.debug("Got %s (%d characters).", frame["type"], len(text))
                self._route(frame)
            self._lose(None)
        except _CONNECT_ERRORS as error:
            self._lose(error)
        except Exception as error:  # of any kind: nobody would hear of the end of this task
            _log.warning("A frame of the App Server could not be taken.", exc_info=True)
            await self._give_up(error, frame)

    async def _give_up(self, error: Exception, frame: Frame | None) -> None:
        """End all waits here, as a frame that cannot be read may concern any of them."""
        what = "something that is no frame"
        if frame is not None:
            what = f"a frame of type {repr(frame['type'])[:80]} that this package cannot take"
        self.lost = self.lost or ProtocolError(
            f"The App Server sent {what} ({type(error).__name__}).",
            hint="Install matching versions of letta-adapters and letta.",
        )
        self._lose(None)
        with suppress(*_CONNECT_ERRORS):
            await self._socket.close()

    def _route(self, frame: Frame) -> None:
        request_id = frame.get("request_id")
        future = self._waiting.get(request_id) if isinstance(request_id, str) else None
        # The id may be of a request that was given up; then nobody waits for the answer.
        if future is not None and not future.done():
            whole = self._join(str(request_id), frame)
            if whole is not None:
                future.set_result(whole)
        runtime = frame.get("runtime")
        if not isinstance(runtime, dict):
            return  # about the device or another client, not about a conversation
        where = Conversation(
            str(runtime.get("agent_id") or ""), str(runtime.get("conversation_id") or "")
        )
        inbox = self._inboxes.get(where)
        if inbox is not None:
            inbox.put(frame)  # answers too: their place says what came before them
        if self.observe is not None:
            self.observe(where, frame, inbox is None)

    def _join(self, request_id: str, frame: Frame) -> Frame | None:
        """Return an answer once it is whole: the files of a memory come five at a time."""
        entries = frame.get("entries")
        if not isinstance(frame.get("done"), bool) or not isinstance(entries, list):
            return frame
        pieces = self._pieces.setdefault(request_id, [])
        pieces += entries
        return {**frame, "entries": pieces} if frame["done"] else None

    def _lose(self, cause: Exception | None, *, closed: bool = False) -> None:
        # The first reason stays: what follows is only its consequence.
        if self.lost is None and closed:
            self.lost = SessionClosedError("The client was closed.", hint="")
        if self.lost is None:
            why = f" ({type(cause).__name__})" if cause is not None else ""
            self.lost = ConnectionFailedError(f"{_LOST}{why}.", hint="")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._gone(accepted=None))
        for inbox in self._inboxes.values():
            inbox.lose(self.lost)

    def _gone(self, *, accepted: bool | None) -> LettaError:
        lost = self.lost or ConnectionFailedError(f"{_LOST}.", hint="")
        # A new one for each who is told: `accepted` differs, and so does the traceback.
        return type(lost)(lost.message, hint=lost.hint, accepted=accepted)

    async def aclose(self) -> None:
        """Close the socket; whoever still waits gets an error. This never fails."""
        # First, as the end of the socket would otherwise look like a lost connection.
        self._lose(None, closed=True)
        with suppress(*_CONNECT_ERRORS):
            await self._socket.close()
        if self._reader is not None:
            await end_task(self._reader)


async def _open_socket(endpoint: Endpoint, connect_timeout: float) -> Socket:
    """Open the socket, by the connector if there is one, and explain why it could not be opened."""
    url, connector = endpoint.url, endpoint.connector
    if connector is None:
        connector = current_connector()
    options: dict[str, Any] = {
        "additional_headers": (
            {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}
        ),
        "max_size": _MAX_FRAME_BYTES,
        "open_timeout": connect_timeout,
        "ping_interval": _PING_SECONDS,
        "ping_timeout": _PONG_SECONDS,
        "compression": None,
        # No proxy reaches this machine's own addresses, whatever the environment says.
        "proxy": None if is_loopback(url) else True,
    }
    try:
        if connector is not None:
            return await dial(connector, url, **options)
        return await connect(url, **options)
    except LettaError:
        raise  # some of them are OSErrors as well
    except websockets.InvalidStatus as error:
        raise _explain_refusal(error.response.status_code, url) from error
    except websockets.InvalidURI as error:
        raise _no_url(url) from error
    except websockets.InvalidProxy as error:
        raise _no_proxy(error) from error
    except (*_CONNECT_ERRORS, TimeoutError, asyncio.TimeoutError) as error:
        raise _no_server(url, error) from error
    except (ImportError, ValueError) as error:
        if connector is not None:
            raise  # of somebody else's code they may mean anything
        raise (_no_proxy(error) if isinstance(error, ImportError) else _no_url(url)) from error


class Unread:
    """A part of a frame that is parsed when somebody reads it first, on whatever thread."""

    __slots__ = ("_held",)

    def __init__(self, text: str) -> None:
        # The text, later what it says: in one place, so that every thread sees one of the two.
        self._held: str | dict[str, Any] = text

    def read(self) -> dict[str, Any]:
        """Return what it says.

        Raises:
            ProtocolError: It is no JSON object.
        """
        held = self._held
        if isinstance(held, dict):
            return held
        with suppress(ValueError):
            value = read_json(held)
            if value is None or isinstance(value, dict):
                self._held = value = value or {}
                return value
        raise ProtocolError(
            "The App Server sent a state of the device that this package cannot take.",
            hint="Install matching versions of letta-adapters and letta.",
        )


def _parse_state(text: str | bytes) -> Frame | None:
    """Return a frame about the device whose state, of 13 kB, is parsed when it is read.

    Each turn has three of them, and few are ever read. ``None`` for any other frame, and for one
    that is not written as letta 0.34.12 writes it: the state first, then the conversation.
    """
    if not isinstance(text, str) or not text.startswith(_STATE):
        return None
    end = text.rfind(_AFTER_STATE)
    try:
        # If the conversation came earlier, this is cut out of the state, and no JSON.
        frame = read_json("{" + text[end + 1 :])
    except ValueError:
        return None
    if end < 0 or not frame.keys() <= _BESIDE_STATE or not _is_runtime(frame["runtime"]):
        return None
    state = Unread(text[len(_STATE) : end])
    return {"type": "update_device_status", "device_status": state, **frame}


def _parse(text: str | bytes) -> Frame:
    """Return the frame.

    Raises:
        ValueError: It is none, or does not tell its type and its conversation. It may be a torn
            one, whose content would be missing from an answer.
    """
    value = read_json(text)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ValueError("no frame")
    runtime = value.get("runtime")
    if runtime is None:
        if value["type"] in _OF_A_TURN:
            raise ValueError("nobody's turn")
    elif not _is_runtime(runtime):
        raise ValueError("no runtime")
    return value


def _is_runtime(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    ids = (value.get("agent_id"), value.get("conversation_id"))
    return all(id_ is None or isinstance(id_, str) for id_ in ids)


def _explain_refusal(status: int, url: str) -> LettaError:
    if status in (401, 403):
        return AuthenticationError(
            "The App Server refused the token.",
            hint="Set LETTA_APP_SERVER_TOKEN, or pass Remote(auth_token=...).",
            status_code=status,
            accepted=False,
        )
    return ConnectionFailedError(
        f"{url} answered HTTP {status} and opened no WebSocket.",
        hint="The URL of an App Server ends in /ws.",
        status_code=status,
        accepted=False,
    )


def _no_url(url: str) -> LettaError:
    return InvalidInputError(f"Not a WebSocket URL: {url!r}.")


def _no_proxy(error: Exception) -> LettaError:
    return ConfigurationError(
        f"The environment's proxy cannot be used ({proxy_variables()}): {error}.",
        hint="For a SOCKS proxy: pip install python-socks. Else name the host in NO_PROXY.",
    )


def _no_server(url: str, error: Exception) -> LettaError:
    via = find_proxy(url)
    through = f" through the proxy of {via}" if via else ""
    return ConnectionFailedError(
        f"No App Server answers at {url}{through} ({type(error).__name__}).",
        hint="Check the URL and that `letta server --listen` runs."
        + (" NO_PROXY names hosts that need no proxy." if via else ""),
        accepted=False,
    )


def _no_answer(frame: Mapping[str, Any], seconds: float) -> LettaError:
    text = f"The App Server did not answer a {frame.get('type')} request within {seconds:g} seconds"
    if frame.get("type") == "input":
        return TimeoutBeforeAcceptanceError(f"{text}.")
    return LettaTimeoutError(f"{text}.")


def no_space(text: str) -> bool:
    """Return whether the server (Node, or its git) says that it could not write."""
    low = text.lower()
    return any(word in low for word in ("enospc", "edquot", "no space left", "quota exceeded"))


def refusal(text: str) -> LettaError:
    """Return the typed error of a refusal; the server gives nothing but a sentence."""
    of_api = re.match(r"(\d{3}) (?=\{)", text)
    if of_api:  # passed on as it came
        return error_from_response(int(of_api[1]), {}, text[of_api.end() :].encode())
    low = text.lower()
    text = text if text.endswith((".", "!", "?")) else f"{text}."  # a hint may follow
    if no_space(text):
        return DiskFullError(f"The server cannot store anything: {text}", accepted=False)
    # From the most telling word to the least, as a text may hold several of them.
    if "not found" in low:
        return NotFoundError(text, hint="Check the id.", accepted=False)
    if "belongs to" in low:
        return NotFoundError(text, hint="", accepted=False)
    if "no longer pending" in low:
        return ConflictError(text, code="no_pending_approval", accepted=False)
    if "active or queued work" in low:
        return ConflictError(text, code="conversation_busy", accepted=False)
    if "protocol violation" in low or "must be" in low or "unknown model" in low:
        return InvalidInputError(text, accepted=False)
    return ServerError(text, accepted=False)
