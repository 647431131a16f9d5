"""Just enough of the App Server protocol for a turn: raw frames, no backend.

The runtime asks about every tool, in every mode. A conversation whose mode is ``unrestricted`` is
answered here as the backend would answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import websockets

from letta_adapters.backends.runtime.manager import RuntimeHandle

MODEL = "lmstudio/scripted"
Frame = dict[str, Any]


class Wire:
    """One connection; ``frames`` is all that came in."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count()
        self.frames: list[Frame] = []
        self._allows = False

    async def pump(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for text in self._socket:
                frame = json.loads(text)
                self.frames.append(frame)
                if self._allows and frame.get("type") == "control_request":
                    await self._allow(frame)

    async def _allow(self, question: Frame) -> None:
        decision = {"behavior": "allow"}
        request_id = question["request_id"]
        payload = {"kind": "approval_response", "request_id": request_id, "decision": decision}
        frame = {"type": "input", "runtime": question["runtime"], "payload": payload}
        await self._socket.send(json.dumps({"request_id": f"a-{request_id}", **frame}))

    async def until(self, wanted: Callable[[Frame], bool], seconds: float = 30.0) -> Frame:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for frame in self.frames:
                if wanted(frame):
                    return frame
            await asyncio.sleep(0.02)
        raise TimeoutError([frame["type"] for frame in self.frames])

    async def ask(self, kind: str, **fields: Any) -> Frame:
        number = f"r{next(self._numbers)}"
        await self._socket.send(json.dumps({"type": kind, "request_id": number, **fields}))
        return await self.until(lambda frame: frame.get("request_id") == number)

    async def new_conversation(self, mode: str = "standard") -> dict[str, str]:
        self._allows = mode == "unrestricted"
        agent = {"body": {"name": "test", "model": MODEL, "system": "Be brief."}, "memfs": True}
        answer = await self.ask("runtime_start", create_agent=agent, mode=mode, skill_sources=[])
        assert answer["success"], answer
        runtime: dict[str, str] = answer["runtime"]
        return runtime

    async def reopen(self, runtime: dict[str, str]) -> None:
        answer = await self.ask("runtime_start", **runtime, mode="standard", skill_sources=[])
        assert answer["success"], answer

    async def say(self, runtime: dict[str, str], text: str, message_id: str) -> None:
        message = {"role": "user", "content": text, "client_message_id": message_id}
        payload = {"kind": "create_message", "messages": [message]}
        answer = await self.ask("input", runtime=runtime, payload=payload)
        assert answer["accepted"], answer

    async def finished(self) -> Frame:
        return await self.until(lambda frame: frame["type"] == "turn_finished")


@contextlib.asynccontextmanager
async def connected(handle: RuntimeHandle) -> AsyncIterator[Wire]:
    headers = {"Authorization": f"Bearer {handle.token}"}
    async with websockets.connect(
        handle.url, additional_headers=headers, max_size=None, proxy=None
    ) as socket:
        wire = Wire(socket)
        pump = asyncio.create_task(wire.pump())
        try:
            yield wire
        finally:
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pump
