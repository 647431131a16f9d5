"""A Letta API on loopback: plays scripted streams, and misbehaves on demand.

It keeps the little state that a client's recovery looks at (stored messages, runs, pending
approvals) by the rules of letta 0.16.8, and every request it got. What it is scripted with answers
``POST .../messages``, in order; without a script every message is answered with an echo.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.faults import _events as ev
from tests.faults._wire import (
    GoneError,
    Play,
    PlayedError,
    Request,
    Run,
    Wire,
    echo,
    status,
    stream,
)

# -- the server -----------------------------------------------------------------------------------


@dataclass
class _Override:
    method: str
    path: str
    play: Play
    times: int


class Server:
    """Listens while it is entered. ``url`` is what ``Rest(base_url=...)`` takes."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.stored: dict[str, list[dict[str, Any]]] = {}
        self.runs: list[Run] = []
        self.agents: dict[str, dict[str, Any]] = {ev.AGENT: _agent(ev.AGENT)}
        self.blocks: list[dict[str, Any]] = []
        self.resumes: list[Play] = []
        self.stopping = threading.Event()
        # Looked at by tests that wait for something to have arrived.
        self.changed = threading.Condition()
        self._plays: list[Play] = []
        self._overrides: list[_Override] = []
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []
        self._made = 1
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Server:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the test server hangs"

    # -- what tests say and ask ----------------------------------------------------------------

    def script(self, *plays: Play) -> None:
        """What the next messages are answered with, in order."""
        self._plays += plays

    def override(self, method: str, path: str, play: Play, times: int = 1) -> None:
        """Answer the next ``times`` requests of ``method`` whose path matches with ``play``."""
        self._overrides.append(_Override(method, path, play, times))

    def relent(self) -> None:
        """Answer all further requests as usual."""
        self._overrides.clear()

    def sent(self, text: str | None = None) -> list[Request]:
        """The messages (and answers to tool calls) that arrived; with ``text`` only those."""
        return [r for r in self.requests if r.sends and (text is None or r.text == text)]

    def texts(self) -> list[str]:
        """The user texts that arrived, in order."""
        return [r.text for r in self.sent() if r.text is not None]

    def count(self, method: str, path: str) -> int:
        """How many requests of ``method`` had a path that matches."""
        return sum(r.method == method and bool(re.search(path, r.path)) for r in self.requests)

    @property
    def cancels(self) -> int:
        return self.count("POST", r"/cancel$")

    @property
    def active(self) -> list[Run]:
        return [run for run in self.runs if run.status == "running"]

    def pending(self, conversation: str = ev.CONV) -> list[str]:
        """The tool calls that wait for an answer."""
        newest = (self.stored.get(conversation) or [{}])[-1]
        calls = newest.get("tool_calls") or ()
        waiting = newest.get("message_type") == "approval_request_message"
        return [c["tool_call_id"] for c in calls] if waiting else []

    def leave_pending(self, *calls: dict[str, Any], conversation: str = ev.CONV) -> None:
        """What a client that died leaves behind."""
        self.stored.setdefault(conversation, []).append(ev.approval(*(calls or (ev.call(),))))

    def hang_up(self) -> None:
        """Close all connections, as a server does with those that nobody uses."""
        for sock in self._socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def open_connections(self) -> int:
        """Return how many connections neither side has closed."""
        return sum(sock.fileno() != -1 for sock in self._socks)

    def wait_for(self, met: Callable[[], Any], seconds: float = 20) -> None:
        """Block until a request made ``met`` true. For worker threads, not for an event loop."""
        with self.changed:
            assert self.changed.wait_for(met, seconds), "the request never came"

    # -- connections ---------------------------------------------------------------------------

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._socks.append(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with suppress(GoneError, OSError), sock, sock.makefile("rb") as file:
            while (request := _read(file)) is not None:
                wire = Wire(self, sock, request)
                with self._lock:
                    play = self._choose(wire)
                with self.changed:
                    self.requests.append(request)
                    self.changed.notify_all()
                with suppress(PlayedError):
                    play(wire)

    # -- routes --------------------------------------------------------------------------------

    def _choose(self, wire: Wire) -> Play:
        request = wire.request
        for override in self._overrides:
            if (
                override.method == request.method
                and override.times > 0
                and re.search(override.path, request.path)
            ):
                override.times -= 1
                return override.play
        if request.sends:
            return self._message(wire)
        body = self._lookup(request)
        if callable(body):
            return body
        return lambda wire: wire.answer(200, body)

    def _message(self, wire: Wire) -> Play:
        conversation = wire.request.path.split("/")[-2]
        waiting = self.pending(conversation)
        wire.run = Run(len(self.runs) + 1, conversation)
        self.runs.append(wire.run)
        number = wire.run.number
        given = [a["tool_call_id"] for a in wire.request.approvals]
        if not given:
            refusal = ev.PENDING if waiting else None
        else:
            refusal = f"Invalid tool call IDs. Expected '{waiting}', but received '{given}'."
            refusal = (
                None
                if sorted(given) == sorted(waiting)
                else refusal
                if waiting
                else ev.NOTHING_PENDING
            )
        if refusal is not None:
            return stream(ev.ping(number), ev.internal_error(refusal, run=number), keep=False)
        for message in wire.request.messages:
            kind = "approval_response_message" if message.get("approvals") else "user_message"
            row = ev.base(
                kind, number, number, otid=message.get("otid"), content=message.get("content")
            )
            wire.stored.append(row | {"approvals": message.get("approvals")})
        if wire.request.body.get("max_steps") == 1:
            return stream(ev.ping(number), ev.ending("max_steps"))
        return self._plays.pop(0) if self._plays else echo

    def _lookup(self, request: Request) -> Any:
        parts = request.path.strip("/").split("/")[1:]
        match (request.method, *parts):
            case ("GET", "conversations", conversation, "messages"):
                return self._page(conversation, request.query)
            case ("POST", "conversations", conversation, "cancel"):
                return self._cancel(conversation)
            case ("GET", "conversations", conversation):
                return {"id": conversation, "agent_id": ev.AGENT, "model": None}
            case ("POST", "conversations"):
                self._made += 1
                return {"id": f"conv-00000000-0000-4000-8000-{self._made:012d}", "model": None}
            case (_, "runs", *rest):
                return self._runs(request, rest)
            case (_, "agents", *rest):
                return self._agents(request, rest)
            case ("POST", "conversations", _, "recompile") | ("PATCH", "blocks", _):
                return self._change_memory(request, parts[1])
            case ("GET", "models"):
                return [{"handle": "openai-proxy/scripted", "model_type": "llm"}]
        return status(404, {"detail": f"Not Found: {request.method} {request.path}"})

    def _runs(self, request: Request, rest: list[str]) -> Any:
        if not rest:
            wanted = request.query.get("conversation_id", "default")
            return [r.row() for r in reversed(self.runs) if r.conversation == wanted]
        if rest[1:] == ["messages"]:
            rows = [row for rows in self.stored.values() for row in rows]
            return [row for row in rows if row["run_id"] == rest[0]]
        if rest[1:] == ["stream"]:
            return self.resumes.pop(0) if self.resumes else status(503, {"detail": ev.NO_REDIS})
        return next(r.row() for r in self.runs if r.id == rest[0])

    def _agents(self, request: Request, rest: list[str]) -> Any:
        if request.method == "POST":
            agent = (
                _agent(f"agent-00000000-0000-4000-8000-{len(self.agents) + 1:012d}") | request.body
            )
            agent["created_at"] = f"2026-11-23T17:18:{len(self.agents):02d}.000000Z"
            self.agents[agent["id"]] = agent
            return agent
        if not rest:
            tag = request.query.get("tags")
            return [a for a in self.agents.values() if tag is None or tag in a["tags"]]
        if rest[1:] == ["core-memory", "blocks"]:
            return self.blocks
        if rest[0] not in self.agents:
            return status(404, {"detail": f"Agent with ID {rest[0]} not found"})
        if request.method == "PATCH":
            self.agents[rest[0]] |= request.body
        return self.agents.pop(rest[0]) if request.method == "DELETE" else self.agents[rest[0]]

    def _change_memory(self, request: Request, id_: str) -> Any:
        found = [block for block in self.blocks if block["id"] == id_]
        for block in found:
            block |= request.body
        return found[0] if found else "You are ..."

    def _page(self, conversation: str, query: dict[str, str]) -> list[dict[str, Any]]:
        system = ev.base("system_message", content="You are ...", otid=None, id=ev.message_id(0))
        rows = [system, *self.stored.get(conversation, ())]
        return list(reversed(rows))[: int(query.get("limit", 100))]

    def _cancel(self, conversation: str) -> Any:
        active = [run for run in self.active if run.conversation == conversation]
        if not active:
            text = f"CONFLICT: No active runs to cancel for conversation {conversation}"
            return status(409, {"detail": text})
        for run in active:
            run.end("cancelled")
        return {run.id: "cancelled" for run in active}


def _agent(agent_id: str) -> dict[str, Any]:
    return {
        "id": agent_id,
        "model": "openai-proxy/scripted",
        "tools": [],
        "tool_rules": [],
        "tags": [],
    }


def _read(file: Any) -> Request | None:
    """The next request on a connection, ``None`` when the client is done with it."""
    line = file.readline().decode().split()
    if len(line) < 2:
        return None
    headers = {}
    while (row := file.readline().strip()) != b"":
        name, _, value = row.decode().partition(":")
        headers[name.lower()] = value.strip()
    data = file.read(int(headers.get("content-length", 0)))
    url = urlsplit(line[1])
    query = {k: v[0] for k, v in parse_qs(url.query).items()}
    body = json.loads(data) if data else None
    return Request(line[0], unquote(url.path), query, headers, body)


def closed_port() -> int:
    """A port on loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
