"""An MCP server in bare JSON-RPC over stdio, for what the mcp package's own servers never do.

``odd.py [stubborn] [child] [mute] [toolless] [garbage]``
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

OPTIONS = sys.argv[1:]
SVG = {"type": "image", "data": "PHN2Zy8+", "mimeType": "image/svg+xml"}
RESULTS: dict[str, dict[str, Any]] = {
    "svg": {"content": [SVG]},
    "audio": {"content": [{"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}]},
    "link": {
        "content": [{"type": "resource_link", "uri": "file:///a.txt", "name": "a", "size": 3}]
    },
    "file": {
        "content": [
            {"type": "resource", "resource": {"uri": "file:///a.txt", "text": "inside"}},
            {"type": "resource", "resource": {"uri": "file:///b", "blob": "AAAA"}},
        ]
    },
    "mute_failure": {"content": [], "isError": True},
    "data": {"content": [], "structuredContent": {"a": None, "b": [1]}},
    "summary": {
        "content": [{"type": "text", "text": "2 rows"}],
        "structuredContent": {"rows": [1, 2]},
    },
    "nothing": {"content": []},
    "null": {"content": [{"type": "text", "text": "null"}]},
}


def remember(pid: int) -> None:
    if "PID_FILE" in os.environ:
        with Path(os.environ["PID_FILE"]).open("a") as file:
            file.write(f"{pid}\n")


def listing(params: dict[str, Any]) -> dict[str, Any]:
    """Three tools a page; the last page points at itself."""
    names = [*list(RESULTS)[:-1], "refuse", "svg"]
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
    tools.append({"name": "null", "inputSchema": {"type": "object", "required": None}})
    start = int(params.get("cursor") or 0)
    after = min(start + 3, len(tools) - 1)
    return {"tools": tools[start : start + 3], "nextCursor": str(after)}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        capabilities = {} if "toolless" in OPTIONS else {"tools": {}}
        return {
            "protocolVersion": "2025-06-18",
            "capabilities": capabilities,
            "serverInfo": {"name": "odd", "version": "1"},
        }
    if method == "tools/list" and "toolless" not in OPTIONS:
        return listing(params)
    if method == "tools/call" and params["name"] in RESULTS:
        return RESULTS[params["name"]]
    raise LookupError(method)


def main() -> None:
    remember(os.getpid())
    if "stubborn" in OPTIONS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in OPTIONS:
        child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
        remember(child.pid)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "mute" in OPTIONS:
            continue
        if "garbage" in OPTIONS:
            print("not JSON", flush=True)
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            reply["result"] = answer(message["method"], message.get("params") or {})
        except LookupError:
            reply["error"] = {"code": -32601, "message": "no such method"}
        print(json.dumps(reply), flush=True)
    while "stubborn" in OPTIONS or "child" in OPTIONS:
        time.sleep(1)


main()
