"""A Letta API, and OpenAI's, for many clients at once: one thread, in a process of its own.

Every message is answered in the same way: the head at once, then ``DELAY`` seconds of a thinking
model, then 20 tokens, each in an HTTP chunk of its own, or one whole message if no tokens were
asked for. It counts the connections that were opened and the pages of messages that were asked for.
With a certificate it speaks TLS. In the conversation of an agent that is called so, it does not
think and says one token.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import resource
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from benchmarks import wire
from benchmarks.server import spawn

DELAY = 0.5  # seconds
EVENTS = 23
# The name of the agent (its conversations, OpenAI's model) that says one token at once.
AT_ONCE, ONE = "at-once", 4
# The conversation that has so many stored messages.
STORED, STORED_IN = 10_000, "conv-long"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 21:53:02 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


@contextmanager
def running(certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Run a server process, and yield its base URL.

    Args:
        certificate: The files of a certificate and its key; ``None`` is plain HTTP.
    """
    with spawn("benchmarks.crowd_server", *map(str, certificate or ())) as port:
        yield f"https://localhost:{port}" if certificate else f"http://127.0.0.1:{port}"


def more_files() -> None:
    """Let this process open as many files as it may; each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Connection(asyncio.Protocol):
    opened = pages = 0
    made = itertools.count()

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        _Connection.opened += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        if not end or len(rest) < length:
            return
        # A client sends its next request when it has the answer to the last.
        self._received = b""
        method, target, _ = head.decode("latin-1").split(" ", 2)
        where, _, query = target.partition("?")
        self._answer(method, where.strip("/").split("/"), query, rest)

    def _answer(self, method: str, path: list[str], query: str, data: bytes) -> None:
        body = json.loads(data) if data else {}
        if path[0] == "opened":
            self._json({"connections": _Connection.opened, "pages": _Connection.pages})
        elif method == "POST" and path[1] == "chat" and body["model"] == AT_ONCE:
            self._json(wire.openai_whole(ONE))
        elif method == "POST" and path[1] == "chat" and not body.get("stream"):
            asyncio.get_running_loop().call_later(DELAY, self._json, wire.openai_whole(EVENTS))
        elif method == "POST" and path[1] == "chat":
            self._stream(wire.openai_chunks(EVENTS))
        elif method == "POST" and path[-1] == "messages" and AT_ONCE in path[2]:
            self._transport.write(_HEAD)
            self._send(wire.chunks(ONE) if body.get("stream_tokens") else wire.whole(ONE))
        elif method == "POST" and path[-1] == "messages":
            self._stream(wire.chunks(EVENTS) if body.get("stream_tokens") else wire.whole(EVENTS))
        elif method == "GET" and path[2:] == [STORED_IN, "messages"]:
            _Connection.pages += 1
            self._json(_page(dict(parse_qsl(query))))
        elif path[1] == "agents":
            self._json({"id": wire.AGENT_ID, "model": "openai/gpt-4.1", "tools": []})
        elif path[1] == "conversations" and path[-1] != "messages":
            kind = AT_ONCE if AT_ONCE in query else "new"
            made = path[2] if len(path) > 2 else f"conv-{kind}-{next(_Connection.made)}"
            self._json({"id": made, "agent_id": wire.AGENT_ID, "model": None})
        else:
            self._json([])

    def _json(self, body: object) -> None:
        data = json.dumps(body).encode()
        self._transport.write(_JSON % (len(data), data))

    def _stream(self, chunks: Sequence[bytes]) -> None:
        self._transport.write(_HEAD)
        asyncio.get_running_loop().call_later(DELAY, self._send, chunks)

    def _send(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            self._transport.write(chunk)


def _page(query: dict[str, str]) -> Sequence[object]:
    """Return a page of the long conversation: newest first, or oldest first behind a message."""
    stored, limit = wire.stored(STORED), int(query["limit"])
    if query["order"] == "asc":
        start = _number(query["after"]) + 1 if "after" in query else 0
        return stored[start : start + limit]
    end = _number(query["before"]) if "before" in query else STORED
    return stored[max(0, end - limit) : end][::-1]


def _number(stored_id: str) -> int:
    return int(stored_id.split("-")[1], 16)


async def _serve(certificate: Sequence[str]) -> None:
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, ssl=context, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    more_files()
    asyncio.run(_serve(sys.argv[1:]))
