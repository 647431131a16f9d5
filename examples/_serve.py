"""Serve the web applications of the examples on a free port of this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn


async def serve(
    app: Any, greeting: str, visit: Callable[[int], Awaitable[None]] | None = None
) -> None:
    """Serve an application to this machine only, until Ctrl-C.

    Args:
        app: The application.
        greeting: What is printed first; ``{port}`` in it is the port.
        visit: Visits it, given the port, in place of a person; the server ends with the visit.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        # An address may have a key in it: it is not logged.
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve([listening]))
        try:
            if visit is None:
                print(greeting.replace("{port}", str(port)), flush=True)
            else:
                await visit(port)
                server.should_exit = True
            await serving
        finally:
            server.should_exit = True
            await asyncio.wait({serving})
