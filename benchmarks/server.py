"""A Letta API server that only streams: raw sockets, in a process of its own, on loopback.

The conversation's id, ``conv-<mode>-<events>``, decides on the answer. The modes are:

``chunks``
    Every event is one HTTP chunk, written by itself, one after the other. The server is faster
    than any client here, so a client finds many chunks in one read of the socket.
``paced``
    The same writes, ``PACE`` seconds apart: one event per socket read, as with a live model.
``burst``
    The same bytes in writes of 64 KiB.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks import wire

PACE = 300e-6  # seconds
_BURST = 65536
_OPENAI_EVENTS = 2000
_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 21:53:02 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@contextmanager
def spawn(module: str, *arguments: str) -> Iterator[int]:
    """Run a server in a process of its own, and yield its port.

    Args:
        module: Its module, which prints the port and serves until its stdin ends.
        arguments: Given to it.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()  # its end is the signal to stop
        process.wait(10)
        process.stdout.close()


@contextmanager
def running() -> Iterator[str]:
    """Run a server process, and yield its base URL."""
    with spawn("benchmarks.server") as port:
        yield f"http://127.0.0.1:{port}"


def main() -> None:
    """Serve until stdin ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection, suppress(ConnectionError):
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                more = connection.recv(_BURST)
                if not more:
                    return
                received += more
            head, _, received = received.partition(b"\r\n\r\n")
            found = _LENGTH.search(head)
            missing = int(found[1]) if found else 0
            while len(received) < missing:
                received += connection.recv(_BURST)
            body, received = received[:missing], received[missing:]
            method, target, _ = head.decode("latin-1").split(" ", 2)
            _answer(connection, method, target.partition("?")[0], body)


def _answer(connection: socket.socket, method: str, path: str, sent: bytes) -> None:
    parts = path.strip("/").split("/")
    if method == "POST" and parts[1] == "conversations" and parts[-1] == "messages":
        mode, events = wire.plan(parts[2])
        connection.sendall(_HEAD)
        _SENDERS[mode](connection, wire.chunks(events))
        return
    if method == "POST" and parts[1] == "chat":
        connection.sendall(_HEAD)
        # A model that has the name of a conversation gives the answer of that one.
        model = str(json.loads(sent).get("model"))
        events = wire.plan(model)[1] if model.startswith("conv-") else _OPENAI_EVENTS
        _chunks(connection, wire.openai_chunks(events))
        return
    # The reads a client may do around a turn.
    body: object = []
    if parts[1] == "agents":
        body = {"id": wire.AGENT_ID, "model": "openai/gpt-4.1", "tools": []}
    elif parts[1] == "conversations" and len(parts) == 3:
        body = {"id": parts[2], "agent_id": wire.AGENT_ID, "model": None}
    data = json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    connection.sendall(head % len(data) + data)


def _chunks(connection: socket.socket, chunks: tuple[bytes, ...]) -> None:
    for chunk in chunks:
        connection.sendall(chunk)


def _paced(connection: socket.socket, chunks: tuple[bytes, ...]) -> None:
    for chunk in chunks:
        time.sleep(PACE)
        connection.sendall(chunk)


def _burst(connection: socket.socket, chunks: tuple[bytes, ...]) -> None:
    body = b"".join(chunks)
    for start in range(0, len(body), _BURST):
        connection.sendall(body[start : start + _BURST])


_SENDERS = {"chunks": _chunks, "paced": _paced, "burst": _burst}


if __name__ == "__main__":
    main()
