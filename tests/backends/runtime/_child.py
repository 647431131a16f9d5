"""A Python process that uses the runtime and ends in a given way.

``python -m tests.backends.runtime._child '{"data_dir": ..., "end": "return"}'``;
prints one line of JSON as soon as it holds the runtime. ``end``: return | raise | wait | fork |
pause (until a line comes in). ``say``: a turn is in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from letta_adapters import Local
from letta_adapters.backends.runtime.manager import acquire


async def main(order: dict[str, Any]) -> None:
    url = order.get("model_url")
    config = Local(
        data_dir=Path(order["data_dir"]),
        openai_compatible={"base_url": url} if url else None,
        keep_running=order.get("keep_running", 0),
        **order.get("options", {}),
    )
    handle = await acquire(config)
    told: dict[str, Any] = {"pid": handle.pid, "owned": handle.owned}
    async with contextlib.AsyncExitStack() as stack:
        if order.get("say"):
            from tests.backends.runtime._wire import connected

            wire = await stack.enter_async_context(connected(handle))
            told["runtime"] = await wire.new_conversation(order.get("mode", "standard"))
            await wire.say(told["runtime"], order["say"], "cm-child")
        if order["end"] == "fork":
            told["forked"] = os.fork()
            if told["forked"] == 0:
                signal.pause()
        print(json.dumps(told), flush=True)
        if order["end"] == "raise":
            raise RuntimeError("on purpose")
        if order["end"] in ("wait", "fork"):
            await asyncio.sleep(60)
        if order["end"] == "pause":
            await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
