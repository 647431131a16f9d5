"""The asyncio event loop an async client runs on, or the error that says there is none."""

from __future__ import annotations

import asyncio
from typing import Any

from letta_adapters.errors import WrongEventLoopError


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running loop.

    Raises:
        WrongEventLoopError: This is trio, another framework's loop, or no loop at all.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise WrongEventLoopError(
            "The async client needs asyncio, and no asyncio event loop runs here.",
            hint="Start it with asyncio.run(...). Under trio, use the sync client in a worker "
            "thread (trio.to_thread.run_sync).",
        ) from None


def running_task() -> asyncio.Task[Any] | None:
    """Return the running task; raise the error of :func:`running_loop` if there is no loop."""
    return asyncio.current_task(running_loop())
