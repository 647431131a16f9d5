"""An MCP server written with the mcp package: ``everything.py stdio|http|sse [port]``."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from pathlib import Path
from typing import Any

try:
    from mcp.server.mcpserver import Context, Image, MCPServer

    V1 = False
except ImportError:
    from mcp.server.fastmcp import Context, Image
    from mcp.server.fastmcp import FastMCP as MCPServer

    V1 = True

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
transport = sys.argv[1]
port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
server: Any = MCPServer("everything", **({"host": "127.0.0.1", "port": port} if V1 else {}))

if "PID_FILE" in os.environ:
    with Path(os.environ["PID_FILE"]).open("a") as file:
        file.write(f"{os.getpid()}\n")


@server.tool()
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def rows() -> dict[str, Any]:
    """Some data."""
    return {"rows": [1, 2], "note": None}


@server.tool(structured_output=False)
def picture() -> Any:
    """A picture."""
    return Image(data=PNG, format="png")


@server.tool(structured_output=False)
def both() -> Any:
    """A picture and what it shows."""
    return ["a dot", Image(data=PNG, format="png")]


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("no such city")


@server.tool()
async def sleep(seconds: float) -> str:
    """Take your time."""
    await asyncio.sleep(seconds)
    return "slept"


@server.tool()
async def count(steps: int, ctx: Context) -> str:  # type: ignore[type-arg]
    """Count, and tell of each step."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}" if step % 2 else None)
    return "counted"


@server.tool()
def die() -> str:
    """Kill the server."""
    os._exit(3)


@server.tool()
def where() -> str:
    """Process, working directory and environment."""
    names = ("TOKEN", "LETTA_SECRET", "PATH")
    return f"{os.getpid()} {Path.cwd()} {[name for name in names if name in os.environ]}"


@server.tool(name="dotted.name")
def dotted() -> str:
    """A name that Letta does not take."""
    return "dotted"


@server.tool(name="long_" + "x" * 70)
def long() -> str:
    """A long name."""
    return "long"


if transport == "stdio":
    server.run("stdio")
else:
    kind = "sse" if transport == "sse" else "streamable-http"
    server.run(kind, **({} if V1 else {"host": "127.0.0.1", "port": port}))
