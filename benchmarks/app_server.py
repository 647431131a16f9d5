"""Measure CPU per event of an App Server's turn, apart from what a turn costs whatever its length.

A server in a process of its own plays the frames that Letta Code 0.34.12 sends in a turn of so many
tokens, the three about the state of the device included, 13 kB each. The same frames are read by
``websockets`` and ``json.loads``. The cost of an event is the slope between short and long turns.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.report import show, spread, versions
from benchmarks.server import spawn
from letta_adapters import AsyncLettaClient, Remote
from letta_adapters.messages import ResultMessage, StreamEvent

SHORT, LONG = 20, 200
TURNS = 30
ROUNDS = 15
BAR = 2.5
_AGENT = "agent-local-62898615-fedc-440a-9e0e-21ff174761c7"
_WHERE = {"agent_id": _AGENT, "conversation_id": "local-conv-1"}
_DATE = "2026-11-30T01:58:53.968Z"
# As large and as full of small things as what Letta Code tells of a machine.
_DEVICE = {
    "current_permission_mode": "strict",
    "current_loaded_tools": [f"Tool{number}" for number in range(20)],
    "available_skills": [
        {"id": f"skill-{number}", "name": f"Skill {number}", "enabled": True, "tags": ["a", "b"]}
        for number in range(155)
    ],
    "pending_control_requests": [],
}

Turn = Callable[[int], Awaitable[str]]


def run(*, quick: bool = False) -> bool:
    """Measure and print; return ``False`` if a token was lost."""
    print(f"\nApp Server: {versions('websockets', 'pydantic')}")
    with _server() as url:
        return asyncio.run(_measure(url, 3 if quick else ROUNDS))


async def _measure(url: str, rounds: int) -> bool:
    async with connect(url) as socket, AsyncLettaClient(Remote(url=url)) as client:
        session = client.resume_session(
            agent_id=_AGENT,
            conversation_id=_WHERE["conversation_id"],
            include_partial_messages=True,
        )
        turns: dict[str, Turn] = {
            "recv + json.loads": _raw(socket),
            "letta-adapters": _ours(session),
        }
        for name, turn in turns.items():  # the warm-up
            for tokens in (SHORT, LONG):
                if await turn(tokens) != "".join(_tokens(tokens)):
                    print(f"{name}: got another text than was sent")
                    return False
        found: dict[str, dict[int, list[float]]] = {n: {SHORT: [], LONG: []} for n in turns}
        for _ in range(rounds):
            for name, turn in turns.items():
                for tokens in (SHORT, LONG):
                    gc.collect()
                    start = time.process_time()
                    for _ in range(TURNS):
                        await turn(tokens)
                    found[name][tokens].append((time.process_time() - start) / TURNS * 1e6)
    slopes = {
        name: [(b - a) / (LONG - SHORT) for a, b in zip(by[SHORT], by[LONG], strict=True)]
        for name, by in found.items()
    }
    raw, ours = slopes.values()
    ratios = [b / a for a, b in zip(raw, ours, strict=True)]
    met = f"<= {BAR}: {'yes' if median(ratios) <= BAR else 'NO'}"
    rows = [
        (name, spread(slopes[name]), spread(by[SHORT], 0), spread(by[LONG], 0))
        for name, by in found.items()
    ]
    head = ("", "CPU µs/event", f"a turn of {SHORT}, µs", f"a turn of {LONG}, µs")
    show(f"{rounds} rounds, median [quartiles]; ratio {spread(ratios, 2)} {met}", head, rows)
    return True


def _raw(socket: Any) -> Turn:
    async def turn(tokens: int) -> str:
        texts = []
        await socket.send(json.dumps({"type": "input", **_input(tokens)}))
        while True:
            frame = json.loads(await socket.recv())
            if frame["type"] == "stream_delta":
                delta = frame["delta"]
                if delta["message_type"] == "assistant_message":
                    texts.append(delta["content"][0]["text"])
            elif frame["type"] == "turn_finished":
                return "".join(texts)

    return turn


def _ours(session: Any) -> Turn:
    async def turn(tokens: int) -> str:
        texts = []
        await session.send(f"tokens: {tokens}")
        async for message in session.stream():
            if type(message) is StreamEvent:
                texts.append(message.event["content"][0]["text"])
            elif type(message) is ResultMessage and not message.success:
                return str(message)
        return "".join(texts)

    return turn


def _input(tokens: int) -> dict[str, Any]:
    message = {"content": f"tokens: {tokens}", "client_message_id": "otid-1"}
    return {"request_id": "1", "runtime": _WHERE, "payload": {"messages": [message]}}


# -- the server -----------------------------------------------------------------------------------


def _tokens(count: int) -> Iterator[str]:
    return (f"tok{number} " for number in range(count))


def _frames(frame: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """Yield the frames that Letta Code sends for a request, in order (seen in letta 0.34.12)."""
    kind = frame["type"]
    if kind != "input":
        agent = {"id": _AGENT, "name": "a", "model": "p/m", "tools": [], "tags": []}
        conversation = {"id": _WHERE["conversation_id"], "agent_id": _AGENT}
        yield {
            "type": f"{kind}_response",
            "request_id": frame.get("request_id"),
            "success": True,
            "protocol_version": 1,
            "backend": "local",
            "runtime": _WHERE,
            "agent": agent,
            "conversation": conversation,
            "messages": [],
        }
        return
    message = frame["payload"]["messages"][0]
    run = f"local-run-{number}"
    yield {"type": "input_accepted", "request_id": frame["request_id"], "accepted": True}
    busy = {
        "status": "PROCESSING_API_RESPONSE",
        "active_run_ids": [run],
        "client_message_ids_by_run_id": {run: [message["client_message_id"]]},
    }
    yield {"type": "update_loop_status", "loop_status": busy}
    yield {"type": "update_device_status", "device_status": _DEVICE}
    for seq, token in enumerate(_tokens(int(re.findall(r"\d+", str(message["content"]))[0]))):
        delta = {
            "id": f"ui-msg-{number}",
            "date": _DATE,
            **_WHERE,
            "message_type": "assistant_message",
            "content": [{"type": "text", "text": token}],
            "run_id": run,
            "seq_id": seq,
            "type": "message",
        }
        yield {"type": "stream_delta", "delta": delta}
    over = {"message_type": "stop_reason", "stop_reason": "end_turn", "run_id": run}
    yield {"type": "stream_delta", "delta": {**over, **_WHERE, "date": _DATE, "type": "message"}}
    idle = {"status": "WAITING_ON_INPUT", "active_run_ids": [], "client_message_ids_by_run_id": {}}
    yield {"type": "update_loop_status", "loop_status": idle}
    yield {"type": "update_device_status", "device_status": _DEVICE}
    yield {"type": "turn_finished", "turn_id": "t", "stop_reason": "end_turn", "run_id": run}
    yield {"type": "update_device_status", "device_status": _DEVICE}


async def _handle(socket: ServerConnection) -> None:
    seq, turns = itertools.count(1), itertools.count(1)
    async for text in socket:
        asked = json.loads(text)
        for frame in _frames(asked, next(turns)):
            kind, number = frame["type"], next(seq)
            told = {"event_seq": number, "emitted_at": _DATE, "idempotency_key": f"{kind}:{number}"}
            full = {**frame, "runtime": _WHERE, **({} if "request_id" in frame else told)}
            await socket.send(json.dumps(full, separators=(",", ":")))


async def _serve() -> None:
    async with serve(_handle, "127.0.0.1", 0, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def _server() -> Iterator[str]:
    with spawn("benchmarks.app_server") as port:
        yield f"ws://127.0.0.1:{port}/ws"


if __name__ == "__main__":
    asyncio.run(_serve())
