"""What a test server says on one connection: plays, made of bytes and of steps that go wrong.

Plain sockets, because the faults are made of what HTTP libraries prevent: bodies that stop in the
middle of a chunk, resets, silence. A *play* is a function of the :class:`Wire` that answers one
request; :func:`stream` makes one of bytes and steps.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults import _events as ev

if TYPE_CHECKING:
    from tests.faults._server import Server

_REASONS = {200: "OK", 307: "Temporary Redirect", 401: "Unauthorized", 409: "Conflict"}


class GoneError(Exception):
    """The client hung up, or the connection was dropped on purpose."""


@dataclass
class Request:
    """One request, as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def sends(self) -> bool:
        """Is this a message (or an answer to tool calls)?"""
        return self.method == "POST" and self.path.endswith("/messages")

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body["messages"]

    @property
    def text(self) -> str | None:
        """The user's text, ``None`` for answers to tool calls alone."""
        said = (m["content"] for m in self.messages if m.get("role") == "user")
        return next(said, None)

    @property
    def approvals(self) -> list[dict[str, Any]]:
        """The answers to tool calls, if there are any."""
        return [answer for m in self.messages for answer in m.get("approvals") or ()]


@dataclass
class Run:
    """A run, as ``/v1/runs`` lists it."""

    number: int
    conversation: str
    status: str = "running"
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def id(self) -> str:
        return ev.run_id(self.number)

    def end(self, status: str) -> None:
        if not self.over.is_set():
            self.status = status
            self.over.set()

    def row(self) -> dict[str, Any]:
        return {"id": self.id, "status": self.status, "conversation_id": self.conversation}


class Wire:
    """One request's connection, from the side of the server."""

    def __init__(self, server: Server, sock: socket.socket, request: Request) -> None:
        self.server = server
        self.sock = sock
        self.request = request
        self.run = Run(0, "")
        self.stored: list[dict[str, Any]] = []
        self.headed = False

    def raw(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            raise GoneError from None

    def head(
        self,
        status: int = 200,
        content_type: str = "text/event-stream; charset=utf-8",
        **headers: str,
    ) -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", "server: uvicorn"]
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        lines += [f"content-type: {content_type}"] if content_type else []
        if "content_length" not in headers:
            lines.append("transfer-encoding: chunked")
        self.headed = True
        self.raw("\r\n".join([*lines, "", ""]).encode())

    def chunk(self, data: bytes) -> None:
        if not self.headed:
            self.head()
        self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.raw(b"0\r\n\r\n")

    def answer(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.head(status, "application/json", content_length=str(len(data)), **headers)
        self.raw(data)

    def drop(self, *, reset: bool = False) -> None:
        """Close without ending the answer; ``reset`` with RST instead of FIN."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        raise GoneError

    def wait(self, event: threading.Event | None = None) -> bool:
        """Say nothing until ``event`` (``True``), or until the client or the test is gone."""
        while not self.server.stopping.is_set():
            if event is not None and event.wait(0.005):
                return True
            timeout = 0.0 if event is not None else 0.02
            if select.select([self.sock], [], [], timeout)[0] and not self.sock.recv(
                1, socket.MSG_PEEK
            ):
                raise GoneError
        raise GoneError

    def store(self) -> None:
        """What the server does at the end of a step: keep the input and what came of it."""
        stored, self.stored = self.stored, []
        self.server.stored.setdefault(self.run.conversation, []).extend(stored)


Step = bytes | Callable[[Wire], None]
Play = Callable[[Wire], None]


def stream(*steps: Step, keep: bool = True, stored: Iterable[dict[str, Any]] = ()) -> Play:
    """A play that sends ``steps``; with ``keep`` the input, and ``stored``, is kept afterwards."""

    def play(wire: Wire) -> None:
        for step in steps:
            if isinstance(step, bytes):
                wire.chunk(step)
            else:
                step(wire)
        if keep:
            wire.stored += stored
            wire.store()
        wire.run.end("completed")
        wire.end()

    return play


def echo(wire: Wire) -> None:
    """The answer when nothing is scripted."""
    number = wire.run.number
    said = f"You said: {wire.request.text or 'an answer'}"
    answer = ev.base("assistant_message", number, number, content=said)
    stream(ev.ping(number), ev.frame(answer), ev.ending(), stored=[answer])(wire)


def status(code: int, body: Any, **headers: str) -> Play:
    """A refusal."""

    def play(wire: Wire) -> None:
        wire.run.end("failed")
        wire.answer(code, body, **headers)

    return play


def asks(*calls: dict[str, Any], text: str = "") -> Play:
    """A turn that stops because this client has to answer tool calls."""

    def play(wire: Wire) -> None:
        number = wire.run.number
        request = ev.approval(*calls, run=number, step=number)
        said = [ev.text(text, number, number)] if text else []
        steps = [ev.ping(number), *said, ev.frame(request), ev.ending("requires_approval")]
        stream(*steps, stored=[request])(wire)

    return play


# -- steps ----------------------------------------------------------------------------------------


def hang(wire: Wire) -> None:
    """Silence, until the run is cancelled: then the stream ends as the real one does."""
    if not wire.headed:
        wire.head()
    wire.wait(wire.run.over)
    wire.chunk(ev.CANCELLED)
    wire.end()
    raise PlayedError


def deaf(wire: Wire) -> None:
    """Silence that no cancel ends."""
    wire.wait()


def held(event: threading.Event) -> Callable[[Wire], None]:
    """Silence until the test sets ``event``."""

    def step(wire: Wire) -> None:
        wire.wait(event)

    return step


def broken(
    *,
    reset: bool = False,
    run: str = "completed",
    keep: bool = True,
    stored: Iterable[dict[str, Any]] = (),
) -> Callable[[Wire], None]:
    """The connection breaks; the run goes on and ends as ``run`` says (its input kept or not)."""

    def step(wire: Wire) -> None:
        if keep:
            wire.stored += stored
            wire.store()
        if run != "running":
            wire.run.end(run)
        wire.drop(reset=reset)

    return step


class PlayedError(Exception):
    """The play is over; its connection can be used again."""
