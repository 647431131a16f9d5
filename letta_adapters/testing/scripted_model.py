"""A scripted, OpenAI-compatible model server on loopback, for tests and for recording cassettes.

Its script is a queue of :class:`Reply` objects, which it sends as OpenAI chat completions (streamed
or not). A real Letta server can be pointed at it, and every turn goes exactly as written::

    with ScriptedModel("Hello!", Reply(tool_calls=[ToolUse("add", {"a": 1})])) as model:
        asked = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}
        httpx.post(f"{model.base_url}/chat/completions", json=asked)
        assert model.requests[0].last_user_text == "hi"

The first queued reply whose ``when`` is None or matches is taken. With an empty queue the
``respond`` function answers, and without one the model echoes. A model in another process is
scripted over HTTP through :class:`RemoteScript`. It needs the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from letta_adapters.testing.model_protocol import (
    ModelError,
    ModelRequest,
    Reply,
    ToolUse,
    Usage,
    make_completion_body,
    make_completion_chunks,
    make_embeddings_body,
    make_models_body,
    reply_from_json,
    reply_to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "ModelError",
    "ModelRequest",
    "RemoteScript",
    "Reply",
    "ScriptedModel",
    "ToolUse",
    "Usage",
]


class ScriptedModel:
    """A model server that says what it is told to; use it as a context manager.

    ::

        with ScriptedModel("Hello!") as model:
            asked = {"model": "scripted", "messages": [{"role": "user", "content": "Hi!"}]}
            httpx.post(f"{model.base_url}/chat/completions", json=asked)
        assert model.requests[0].last_user_text == "Hi!"

    Args:
        *replies: The answers, in order; a str is a :class:`Reply` with that text.
        respond: Maps a request to a reply once the queue is empty. It runs on a server thread, and
            an exception in it is answered as HTTP 500 with the exception's text.
        host: The address to listen on.
        port: The port; 0 lets the system choose a free one.
        models: The ids of the models it offers.
        vision: Say, as LM Studio does, that the models see images.
    """

    def __init__(
        self,
        *replies: Reply | str,
        respond: Callable[[ModelRequest], Reply | str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        models: Sequence[str] = ("scripted",),
        vision: bool = False,
    ) -> None:
        self.models = tuple(models)
        self.vision = vision
        self._respond = respond
        self._address = (host, port)
        self._lock = threading.Lock()
        self._queue: list[Reply] = []
        self._requests: list[ModelRequest] = []
        self._calls = 0
        self._stopping = threading.Event()
        self._server: _Server | None = None
        self.script(*replies)

    @property
    def url(self) -> str:
        """Return the server's root, where the control routes are.

        Raises:
            RuntimeError: The server is not started.
        """
        if self._server is None:
            raise RuntimeError("the scripted model is not running: call start() first")
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def base_url(self) -> str:
        """Return the base URL for an OpenAI client: ``http://127.0.0.1:PORT/v1``."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[ModelRequest]:
        """Return a copy of all chat completions asked for since :meth:`clear`, oldest first."""
        with self._lock:
            return list(self._requests)

    def script(self, *replies: Reply | str) -> None:
        """Replace the queue; tool-call ids count from ``call_1`` again."""
        # The queue is replaced and not extended: what an earlier script left over would answer the
        # wrong question.
        queue = [Reply(reply) if isinstance(reply, str) else reply for reply in replies]
        with self._lock:
            self._queue = queue
            self._calls = 0

    def clear(self) -> None:
        """Forget the queue and the recorded requests."""
        with self._lock:
            self._queue = []
            self._requests = []
            self._calls = 0

    def start(self) -> ScriptedModel:
        """Listen, serve on a daemon thread, and return self.

        Raises:
            RuntimeError: The server is running already.
        """
        if self._server is not None:
            raise RuntimeError("the scripted model is already running")
        self._stopping.clear()
        self._server = _Server(self._address, self)
        # The poll interval bounds how long stop() takes.
        run = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="scripted-model", daemon=True
        )
        run.start()
        return self

    def stop(self) -> None:
        """Stop at once: open connections are dropped, a reply in its delay included."""
        server, self._server = self._server, None
        if server is None:
            return
        # A reply that waits for its delay would hold its thread; now it ends with an error of its
        # own.
        self._stopping.set()
        # New connections end first, so that none can come after the others were dropped.
        server.shutdown()
        server.server_close()
        server.drop_connections()

    def __enter__(self) -> ScriptedModel:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def answer(self, request: ModelRequest) -> tuple[Reply, list[str]]:
        """Record ``request``, and return its reply with one id per tool call of that reply."""
        with self._lock:
            self._requests.append(request)
            reply = self._take(request.last_user_text)
        # Without the lock: `respond` may be slow, or ask this model for its requests.
        if reply is None:
            reply = self._improvise(request)
        with self._lock:
            return reply, [call.id or self._next_id() for call in reply.tool_calls]

    def pause(self, seconds: float) -> None:
        """Wait for some seconds.

        Raises:
            ConnectionAbortedError: The server was stopped meanwhile.
        """
        if seconds > 0:
            self._stopping.wait(seconds)
        if self._stopping.is_set():
            raise ConnectionAbortedError("the scripted model was stopped")

    def _take(self, user_text: str) -> Reply | None:
        """Return the first queued reply that fits, and remove it unless it repeats.

        The lock must be held.
        """
        for index, reply in enumerate(self._queue):
            if reply.when is None or reply.when in user_text:
                return reply if reply.repeat else self._queue.pop(index)
        return None

    def _improvise(self, request: ModelRequest) -> Reply:
        """Return the reply when the queue has none: that of ``respond``, else the echo."""
        if self._respond is None:
            return request.echo()
        try:
            reply = self._respond(request)
        except Exception as error:  # a test's mistake must reach the test, not only stderr
            return Reply(error=ModelError(500, f"respond() failed: {error!r}"))
        return Reply(reply) if isinstance(reply, str) else reply

    def _next_id(self) -> str:
        """Return the next deterministic tool-call id. The lock must be held."""
        # Counted, not random: a recording of the same script is the same text.
        self._calls += 1
        return f"call_{self._calls}"


class _Server(ThreadingHTTPServer):
    """An HTTP server that remembers its connections, so that stopping can drop them."""

    # A client that stays connected must not keep the process alive.
    daemon_threads = True
    # Many sessions may connect at once; the default of 5 may delay or refuse some.
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], model: ScriptedModel) -> None:
        self.model = model
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        # Noted before its thread begins, so that stop() finds every connection.
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            # Forgotten before it is closed: stop() must not shut a socket down that is gone.
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up, or stop(), is ordinary; anything else is a bug worth a traceback.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def drop_connections(self) -> None:
        """Shut every open connection down; its thread closes it."""
        with self._open_lock:
            for connection in self._open:
                _hang_up(connection)


def _hang_up(connection: socket.socket) -> None:
    """Shut a socket down in both directions; one that is already gone is fine."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """A handler of one connection: the OpenAI routes and the control routes."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # each delta is its own packet

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a test's output belongs to the test."""

    def do_GET(self) -> None:
        """Serve ``/v1/models``, ``/api/v0/models`` and ``/requests``."""
        if self._read_path() == "/v1/models":
            self._send(200, make_models_body(self.server.model.models))
        elif self._read_path() == "/api/v0/models" and self.server.model.vision:
            # LM Studio's own route, which says of each model whether it sees images.
            self._send(200, make_models_body(self.server.model.models, type="vlm"))
        elif self._read_path() == "/requests":
            self._send(200, [request.body for request in self.server.model.requests])
        else:
            self._refuse_route()

    def do_POST(self) -> None:
        """Serve ``/v1/chat/completions`` and ``/v1/embeddings``."""
        try:
            body = json.loads(self._read())
        except ValueError as error:
            self._refuse(f"the request body is not JSON: {error}")
            return
        if not isinstance(body, dict):
            self._refuse("the request body must be a JSON object")
        elif self._read_path() == "/v1/chat/completions":
            self._complete(ModelRequest(body))
        elif self._read_path() == "/v1/embeddings":
            self._send(200, make_embeddings_body(body))
        else:
            self._refuse_route()

    def do_PUT(self) -> None:
        """Serve ``/script``: replace the queue by a JSON list of replies."""
        # Read even if it is refused: the next request on this connection follows the body.
        raw = self._read()
        if self._read_path() != "/script":
            self._refuse_route()
            return
        try:
            given = json.loads(raw)
            if not isinstance(given, list):
                raise TypeError("a script is a list of replies")
            replies = [reply_from_json(item) for item in given]
        except (ValueError, TypeError) as error:
            self._refuse(f"bad script: {error}")
            return
        self.server.model.script(*replies)
        self._send(200, {"queued": len(replies)})

    def do_DELETE(self) -> None:
        """Serve ``/requests``: forget the requests and the queue."""
        self._read()
        if self._read_path() != "/requests":
            self._refuse_route()
            return
        self.server.model.clear()
        self._send(200, {"queued": 0})

    def _complete(self, request: ModelRequest) -> None:
        """Answer one chat completion as scripted."""
        model = self.server.model
        reply, ids = model.answer(request)
        model.pause(reply.delay)
        if reply.error is not None:
            self._send(reply.error.status, reply.error.wire())
        elif request.stream:
            self._stream(reply, make_completion_chunks(reply, request, ids))
        else:
            cut = reply.break_after is not None
            self._send(200, make_completion_body(reply, request, ids), cut=cut)

    def _stream(self, reply: Reply, chunks: Iterable[dict[str, Any]]) -> None:
        """Send the chunks as server-sent events, each in a write of its own."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        # Chunked, because only then can a reader tell a dropped connection from the end.
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        # The connection is dropped between two deltas, so that a reader has whole events and no
        # end.
        for sent, chunk in enumerate(chunks):
            if sent == reply.break_after:
                self._drop()
                return
            self.server.model.pause(reply.token_delay if sent else 0)
            self._send_event(json.dumps(chunk))
        self._send_event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _send_event(self, data: str) -> None:
        """Send one server-sent event in one HTTP chunk."""
        # One write for both: two would be two packets, and the reader would see half an event.
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def _send(self, status: int, data: object, *, cut: bool = False) -> None:
        """Send a JSON answer; ``cut`` drops the connection in the middle of the body."""
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # The whole length was announced, so a reader can tell that the body is cut.
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._drop()

    def _drop(self) -> None:
        """Hang up without ending the answer."""
        self.close_connection = True
        _hang_up(self.connection)

    def _refuse(self, message: str) -> None:
        self._send(400, ModelError(400, message, "invalid_request_error").wire())

    def _refuse_route(self) -> None:
        message = f"no such route: {self.command} {self._read_path()}"
        self._send(404, ModelError(404, message, "invalid_request_error").wire())

    def _read_path(self) -> str:
        return self.path.partition("?")[0].rstrip("/")

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))


class RemoteScript:
    """A script for a :class:`ScriptedModel` in another process, sent over its control routes.

    ::

        RemoteScript(os.environ["LETTA_RIG_MODEL"]).script("Hello!", Reply("Bye."))

    ``url`` is the model's root; a base URL ending in ``/v1`` works too. Every method raises
    ``ValueError`` with the model's own message if it refuses, and ``urllib.error.URLError`` if it
    cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        # The model is on loopback: a proxy from the environment must not see these requests.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def script(self, *replies: Reply | str) -> None:
        """Replace the model's queue."""
        self._call("PUT", "/script", [reply_to_json(reply) for reply in replies])

    def requests(self) -> list[ModelRequest]:
        """Return every chat completion that the model was asked for since :meth:`clear`."""
        return [ModelRequest(body) for body in self._call("GET", "/requests")]

    def clear(self) -> None:
        """Forget the model's queue and requests."""
        self._call("DELETE", "/requests")

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        try:
            with self._opener.open(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(error.read().decode(errors="replace")) from error
