"""Work with an agent on a folder of yours, in the browser: it shows what it would change first.

    python examples/coworker.py                 (on a small folder made for the purpose)
    python examples/coworker.py FOLDER
    python examples/coworker.py --visit         (a program visits it, and it ends)

The agent reads in the folder unasked. Whatever writes, runs or leaves the folder waits for you: you
see the difference, and allow it, deny it, or change it first. Reload the page whenever you like.
Needs Letta Code on this machine, so no LETTA_API_KEY or LETTA_BASE_URL.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from _agent import backend, heard
from _serve import serve
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from letta_adapters import Allow, AsyncLettaClient, AsyncSession, Local, PermissionContext
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse
from letta_adapters.web import AskViewers, HubOptions, Hubs, Viewer, create_app

KEY = secrets.token_urlsafe(24)
PAGE = Path(__file__).with_name("coworker.html").read_text("utf-8")
# The page runs its own script and nothing else, and no other site learns its address.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
}
FILES = {"notes.txt": "buy milk\nbuy milk\nwater the plants\n", "old.txt": "Nobody needs this.\n"}


def authorize(connection: HTTPConnection) -> Viewer | None:
    """Let in who has the address, which has the key in it."""
    given = connection.query_params.get("key", "")
    if not hmac.compare_digest(given.encode(), KEY.encode()):
        return None
    return Viewer(name="you", room="folder", may_send=True, may_approve=True, may_edit=True)


def make_app(spec: Local | None, folder: Path) -> Starlette:
    """Return the application for one folder; its client lives as long as it does."""
    open_client: dict[str, tuple[AsyncLettaClient, str]] = {}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncLettaClient(spec) as client:
            agent = await client.create_agent(name="coworker", persona="I keep folders tidy.")
            open_client["it"] = (client, agent)
            yield

    def open_session(_: str, ask: AskViewers) -> AsyncSession:
        async def decide(
            name: str, tool_input: Mapping[str, Any], context: PermissionContext
        ) -> Any:
            # Reading in the folder, and the agent's own memory, need no question.
            if isinstance(context.default, Allow):
                return context.default
            return await ask(name, tool_input, context)

        client, agent = open_client["it"]
        return client.resume_session(
            agent, cwd=folder, can_use_tool=decide, include_partial_messages=True
        )

    async def page(_: Request) -> HTMLResponse:
        return HTMLResponse(PAGE, headers=HEADERS)

    def files(request: Request) -> Response:  # in a thread, as it reads the disk
        if authorize(request) is None:
            return Response(status_code=403)
        names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        return JSONResponse(names[:200])

    pages = [Route("/", page), Route("/files", files)]
    hubs = Hubs(open_session, options=HubOptions(close_after=None))
    return create_app(hubs, authorize=authorize, pages=pages, lifespan=lifespan)


def stand_in(request: ModelRequest, asked: str) -> Reply:
    """Play the model: tidy up the notes, then try to remove a file."""
    if "tidy" not in asked:
        return Reply("I am here. " * 20 + f"You said: {asked}", token_delay=0.05)
    turn = request.messages
    begun = max(i for i, m in enumerate(turn) if m["role"] == "user")
    done = sum(m["role"] == "tool" for m in turn[begun:])
    told = re.findall(r"\*\*Current working directory\*\*: (.+?)\\n", json.dumps(turn))
    notes = str(Path(told[-1]) / "notes.txt")
    calls = [
        ToolUse("Read", {"file_path": notes}),
        ToolUse(
            "Edit",
            {"file_path": notes, "old_string": "buy milk\nbuy milk", "new_string": "buy milk"},
        ),
        ToolUse("Bash", {"command": "rm old.txt", "description": "Remove the old file"}),
    ]
    if done < len(calls):
        return Reply(tool_calls=[calls[done]])
    refused = "not want" in (heard(request) or "")
    return Reply("I tidied your notes" + (", and kept old.txt." if refused else "."))


async def visit(port: int) -> None:
    """Do what a person does in the browser: change one proposal, refuse the other."""
    url, key = f"http://127.0.0.1:{port}", {"key": KEY}
    async with httpx.AsyncClient(base_url=url, params=key, timeout=60, trust_env=False) as browser:
        assert (await browser.get("/files", params={"key": "guessed"})).status_code == 403
        async with browser.stream("GET", "/events") as events:
            kind = ""
            async for line in events.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and await act(browser, kind, json.loads(value)):
                    return


async def act(browser: httpx.AsyncClient, kind: str, data: dict[str, Any]) -> bool:
    """Show an event and react to it; return true at the end of the turn."""
    if kind == "snapshot":
        await browser.post("/messages", json={"text": "Please tidy up my notes."})
    elif kind == "approval" and data["diffs"]:
        for line in data["diffs"][0]["hunks"][0]["lines"]:
            print({"add": "+", "remove": "-"}.get(line["type"], " "), line["content"])
        edited = {**data["input"], "new_string": "buy oat milk"}
        answer = {"tool_call_id": data["tool_call_id"], "allow": True, "input": edited}
        (await browser.post("/approvals", json=answer)).raise_for_status()
    elif kind == "approval":
        print(f"May {data['tool_name']} run {data['input']['command']!r}? No.")
        why = "I do not want this."
        answer = {"tool_call_id": data["tool_call_id"], "allow": False, "message": why}
        (await browser.post("/approvals", json=answer)).raise_for_status()
    elif kind == "message" and data["type"] == "assistant":
        print(data["content"])
    return kind == "message" and data["type"] == "result"


def main() -> None:
    given = [argument for argument in sys.argv[1:] if argument != "--visit"]
    with tempfile.TemporaryDirectory() as directory, backend(stand_in) as spec:
        folder = Path(given[0] if given else directory).resolve()
        if not given:
            for name, text in FILES.items():
                (folder / name).write_text(text)
        greeting = f"Working in {folder}. Open http://127.0.0.1:{{port}}/?key={KEY}"
        if spec is not None:
            greeting += "\n(The stand-in understands: Please tidy up my notes.)"
        app = make_app(spec, folder)
        asyncio.run(serve(app, greeting, visit if "--visit" in sys.argv else None))
        if not given:
            for path in sorted(folder.iterdir()):
                print(f"{path.name}: {path.read_text()!r}")


if __name__ == "__main__":
    main()
