"""An App Server on loopback that says what it is told to: for faults and loads, not for behaviour.

It knows nothing of Letta Code. A *play* is a function that gets each frame a client sends and
returns the frames to send back: objects, raw text or bytes, and :data:`CLOSE`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from websockets.asyncio.server import ServerConnection, serve

from letta_adapters import AsyncLettaClient, Remote

Frame = dict[str, Any]
Play = Callable[[Frame], Iterable[Any]]

# In place of a frame: the server closes the connection.
CLOSE: Final = object()
HERE: Final = {"agent_id": "agent-1", "conversation_id": "conv-1"}


def reply(frame: Frame, **fields: Any) -> Frame:
    """Return the answer to a request, with ``fields`` as its content."""
    kind = frame["type"]
    return {
        "type": "input_accepted" if kind == "input" else f"{kind}_response",
        "request_id": frame.get("request_id"),
        "success": True,
        **({"protocol_version": 1, "backend": "local"} if kind == "app_server_info" else {}),
        **fields,
    }


def accept(frame: Frame) -> Frame:
    """Return the answer that grants a request: an agent, a conversation, an accepted message."""
    agent = {"id": HERE["agent_id"], "tags": []}
    runtime = frame.get("runtime") or HERE
    return reply(frame, accepted=True, runtime=runtime, agent=agent, messages=[])


@asynccontextmanager
async def fake_app_server(play: Play, **options: Any) -> AsyncIterator[AsyncLettaClient]:
    """Yield a client of such a server; ``options`` are those of :class:`Remote`."""

    async def handle(socket: ServerConnection) -> None:
        async for text in socket:
            for item in play(json.loads(text)):
                if item is CLOSE:
                    await socket.close()
                    return
                await socket.send(item if isinstance(item, str | bytes) else json.dumps(item))

    async with serve(handle, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncLettaClient(Remote(url=f"ws://127.0.0.1:{port}/ws", **options)) as client:
            yield client
