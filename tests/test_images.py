"""Images fetched by this process: within limits, from public addresses, nothing sent along."""

from __future__ import annotations

import base64
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from letta_adapters import images
from letta_adapters.errors import InvalidInputError
from letta_adapters.images import fetch_image

PNG = b"\x89PNG\r\n\x1a\n" + b"rest of it"
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers as told; its URL."""
    servers = []

    def start(
        body: bytes = PNG, *, status: int = 200, kind: str = "image/png", location: str = "",
        endless: bool = False, length: int | None = None,
    ) -> str:  # fmt: skip
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.server.seen.append(dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if length is not None:
                    self.send_header("Content-Length", str(length))
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                self.wfile.write(body)
                while endless:
                    self.wfile.write(b"x" * 65536)
                    time.sleep(0.001)

            def log_message(self, *_: Any) -> None: ...

            def handle(self) -> None:
                with suppress(OSError):
                    super().handle()

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.seen = []
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/a.png"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refused(url: str, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        fetch_image(url, **options)
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_an_image_with_its_bytes(serve: Serve) -> None:
    image = fetch_image(serve() + "?key=secret", allow_private=True)
    assert image.media_type == "image/png"
    assert base64.b64decode(image.data or "") == PNG
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert fetch_image(data) == image


def test_only_public_addresses(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "127.0.0.1 is not a public address" in refused(serve() + "?key=secret")
    for host in (
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "0.0.0.0",
        "100.64.0.1",
    ):
        assert "not a public address" in refused(f"http://{host}/x.png?key=secret")
    # A name whose addresses are not all what they seem: the one that is used is the one checked.
    inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.168.0.7", 80))]
    monkeypatch.setattr(images.socket, "getaddrinfo", lambda *_, **__: inside)
    assert "192.168.0.7" in refused("https://public.example/x.png")


def test_redirects_are_checked_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    good = serve()
    assert fetch_image(serve(status=302, location=good), allow_private=True).data
    assert "scheme" in refused(serve(status=302, location="file:///etc/passwd"), allow_private=True)
    loop = serve(status=302, location="/a.png")
    assert "redirects" in refused(loop, allow_private=True)
    # The first address passes; the second one is looked at as well.
    inner = serve(status=302, location="http://10.0.0.1/x.png")
    monkeypatch.setattr(images, "_is_public", lambda address: str(address) == "127.0.0.1")
    assert "10.0.0.1 is not a public address" in refused(inner)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"status": 404}, "404"),
        ({"kind": "text/html"}, "text/html"),
        ({"body": b"<html>"}, "PNG, JPEG"),
        ({"status": 302}, "302"),
    ],
)
def test_what_is_no_image(serve: Serve, answer: Any, why: str) -> None:
    assert why in refused(serve(**answer), allow_private=True)


def test_limits_of_size_and_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 1 << 20)
    assert "larger than 1 MB" in refused(serve(endless=True), allow_private=True)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.png?key=secret"
        refused(url, allow_private=True, seconds=0.2)


def test_nothing_is_sent_along_and_no_proxy_is_used(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch_image(serve(), allow_private=True).data
    assert "password" in refused("http://user:secret@example.com/x.png")


def test_no_address_that_is_translated_into_a_private_one() -> None:
    for host in ("[64:ff9b::10.0.0.1]", "[64:ff9b:1::a00:1]", "[::10.0.0.1]"):
        assert "not a public address" in refused(f"http://{host}/x.png?key=secret")
    assert images._is_public(ipaddress.ip_address("64:ff9b::808:808"))
    assert images._is_public(ipaddress.ip_address("2001:4860:4860::8888"))


@contextmanager
def slow(answer: bytes) -> Iterator[str]:
    """A server that begins to answer and then sends a byte now and then; its URL."""
    done = threading.Event()

    def run() -> None:
        with suppress(OSError):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                # Well within the limit of one read, and far beyond that of all.
                while not done.wait(0.02):
                    connection.sendall(b"0")

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = threading.Thread(target=run)
        server.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/x.png?key=secret"
        finally:
            done.set()
            listening.close()
            server.join(20)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["status", "header", "chunk"],
)
def test_the_time_is_a_limit_over_all_that_a_slow_server_sends(answer: bytes) -> None:
    with slow(answer) as url:
        began = time.monotonic()
        refused(url, allow_private=True, seconds=0.3)
        assert time.monotonic() - began < 10


def test_half_an_image_is_none(serve: Serve) -> None:
    cut = serve(length=len(PNG) + 1)
    assert "in the middle" in refused(cut, allow_private=True)
    assert fetch_image(serve(length=len(PNG)), allow_private=True).data


def test_a_redirect_to_no_address_is_refused(serve: Serve) -> None:
    assert "no address" in refused(serve(status=302, location="http://[::1"), allow_private=True)
