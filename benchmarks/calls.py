"""Measure the memory that calls leave behind: after 10,000 it must be what it was after 1,000.

Each call asks in a conversation of its own, which is removed afterwards (``LettaLLM``). A server in
the same process answers from a table, so that only the client's memory can grow. It is either the
Letta API behind an ``httpx.MockTransport``, or an App Server on loopback that sends the state of
the device, 13 kB, twice a turn, as Letta Code does.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.report import show, versions
from letta_adapters import AsyncLettaClient, Rest
from tools.fake_app_server import Frame, fake_app_server, reply

CALLS = 10_000
QUICK_CALLS = 2_000
BAR_MB = 5.0
_AT_ONCE = 20
_AGENT = {"id": "agent-1", "name": "a", "model": "p/m", "tools": [], "tags": []}


def run(*, quick: bool = False) -> bool:
    """Measure and print; return ``False`` if memory grew with the calls."""
    calls = QUICK_CALLS if quick else CALLS
    early = calls // 10
    print(f"\nMemory that calls leave: {versions('httpx')}, {calls} calls of LettaLLM")
    rows = []
    met = True
    for kind in ("rest", "app-server"):
        command = [sys.executable, "-m", "benchmarks.calls", kind, str(calls)]
        here = Path(__file__).parent.parent
        done = subprocess.run(command, cwd=here, stdout=subprocess.PIPE, check=True, text=True)
        found = json.loads(done.stdout)
        growth = found["late"] - found["early"]
        met = met and growth < BAR_MB
        rows.append(
            (
                kind,
                f"{found['early']:.1f} MB",
                f"{found['late']:.1f} MB",
                f"{growth * 1024 / (calls - early):.2f} kB",
                "yes" if growth < BAR_MB else "NO",
            )
        )
    head = ("", f"after {early}", f"after {calls}", "a call", f"< {BAR_MB:g} MB more")
    show("resident memory", head, rows)
    return met


# -- the Letta API --------------------------------------------------------------------------------


def _api() -> httpx.MockTransport:
    number = itertools.count(1)

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.rstrip("/")
        if request.method == "POST" and path.endswith("/messages"):
            return _turn(next(number))
        if request.method == "POST":
            return httpx.Response(200, json={"id": f"conv-{next(number)}", "agent_id": "agent-1"})
        if path.startswith("/v1/agents/"):
            return httpx.Response(200, json=_AGENT)
        return httpx.Response(200, json=[] if request.method == "GET" else {})

    return httpx.MockTransport(answer)


def _turn(number: int) -> httpx.Response:
    base = {"run_id": f"run-{number}", "id": f"message-{number}", "otid": f"otid-{number}"}
    events = (
        {**base, "message_type": "assistant_message", "content": "An answer."},
        {"message_type": "stop_reason", "stop_reason": "end_turn"},
        {"message_type": "usage_statistics", "prompt_tokens": 1, "completion_tokens": 1},
    )
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    headers = {"content-type": "text/event-stream"}
    return httpx.Response(200, headers=headers, content=body + b"data: [DONE]\n\n")


@asynccontextmanager
async def _rest() -> AsyncIterator[AsyncLettaClient]:
    async with httpx.AsyncClient(transport=_api()) as http:
        place = Rest(base_url="http://127.0.0.1:9", api_key="")
        async with AsyncLettaClient(place, http_client=http) as client:
            yield client


# -- an App Server --------------------------------------------------------------------------------

_DEVICE = {"current_loaded_tools": ["Bash"], "filler": "x" * 13_000}


def _frames(frame: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Return the frames that Letta Code sends for a request, in order (seen in letta 0.34.12)."""
    kind = frame["type"]
    if kind == "app_server_info":
        return [{"protocol_version": 1, "backend": "local"}]
    if kind == "runtime_start":
        where = {"agent_id": "agent-1", "conversation_id": f"local-conv-{number}"}
        device = {"type": "update_device_status", "runtime": where, "device_status": _DEVICE}
        conversation = {"id": where["conversation_id"], "agent_id": "agent-1"}
        return [device, {"runtime": where, "agent": _AGENT, "conversation": conversation}]
    if kind != "input":
        found = {"agent": _AGENT, "conversation": {"id": "local-conv-1"}, "messages": []}
        return [{**found, "entries": [], "available_handles": []}]
    where, run = frame["runtime"], f"local-run-{number}"
    message = frame["payload"]["messages"][0]["client_message_id"]
    loop = {
        "status": "PROCESSING_API_RESPONSE",
        "client_message_ids_by_run_id": {run: [message]},
    }
    delta = {
        "message_type": "assistant_message",
        "id": f"ui-msg-{number}",
        "run_id": run,
        "content": [{"type": "text", "text": "An answer."}],
    }
    told = [
        {"type": "update_device_status", "device_status": _DEVICE},
        {"type": "update_loop_status", "loop_status": loop},
        {"type": "stream_delta", "delta": delta},
        {"type": "update_device_status", "device_status": _DEVICE},
        {"type": "turn_finished", "stop_reason": "end_turn", "run_id": run},
    ]
    return [{"accepted": True}, *({**item, "runtime": where} for item in told)]


def _app_server() -> AbstractAsyncContextManager[AsyncLettaClient]:
    number = itertools.count(1)

    def play(frame: Frame) -> Iterator[Frame]:
        for sent in _frames(frame, next(number)):
            runtime = {"runtime": frame["runtime"]} if "runtime" in frame else {}
            yield sent if "type" in sent else reply(frame, **{**runtime, **sent})

    return fake_app_server(play)


# -- a process of its own -------------------------------------------------------------------------


async def _measure(kind: str, calls: int) -> dict[str, float]:
    from letta_adapters.llama_index import LettaLLM

    process, found = psutil.Process(), {}
    async with _rest() if kind == "rest" else _app_server() as client:
        model = LettaLLM(agent_id="agent-1", client=client)
        for done in range(0, calls, _AT_ONCE):
            if done == calls // 10:
                gc.collect()
                found["early"] = process.memory_info().rss / 2**20
            await asyncio.gather(*(model.acomplete(f"question {done}") for _ in range(_AT_ONCE)))
        gc.collect()
        found["late"] = process.memory_info().rss / 2**20
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(sys.argv[1], int(sys.argv[2])))))
