"""A tiny HTTP server on a real loopback socket, scripted one function a path."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SSE = "text/event-stream; charset=utf-8"


class Exchange(BaseHTTPRequestHandler):
    """One request being answered; ``body`` is what came with it."""

    protocol_version = "HTTP/1.1"
    server: Loopback
    body: bytes = b""

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.command, self.path, dict(self.headers), self.body))
        route = self.server.routes[self.path.partition("?")[0]]
        route(self)

    do_POST = do_PUT = do_GET  # noqa: N815  # the names that http.server asks for

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""

    def answer(self, body: bytes, content_type: str = "text/plain", **headers: str) -> None:
        self.begin(content_type, {"content-length": str(len(body)), **headers})
        self.wfile.write(body)

    def json(self, value: Any) -> None:
        self.answer(json.dumps(value).encode(), "application/json")

    def begin(self, content_type: str, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def stream(self, chunks: Iterable[bytes], *, ends: bool = True) -> None:
        """Send chunks as they come; without ``ends`` the connection then breaks."""
        self.begin(SSE, {"transfer-encoding": "chunked"})
        try:
            for chunk in chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            if ends:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the client went away
        if not ends:
            self.close_connection = True

    def reset(self) -> None:
        """Break the connection the hard way."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


class Loopback(ThreadingHTTPServer):
    """Runs while its ``with`` block does; ``seen`` lists (method, path, headers, body)."""

    daemon_threads = True

    def __init__(self, **routes: Callable[[Exchange], None]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.routes = {f"/{name}": route for name, route in routes.items()}
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Loopback:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.shutdown()
        self.server_close()
