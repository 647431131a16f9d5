"""Chat with an agent in the browser: several tabs, reload at any time, allow its tools by a button.

    python examples/web_chat.py           (prints the address to open)
    python examples/web_chat.py --visit   (a program visits it, allows the tool, and it ends)

Only who has the address gets in: it carries a key that is made at every start. Use the sessions of
your own users in `authorize` instead.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from _agent import backend, heard
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from letta_adapters import AsyncLettaClient, AsyncSession, Local, tool
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse
from letta_adapters.web import AskViewers, HubOptions, Hubs, Viewer, create_app

KEY = secrets.token_urlsafe(24)

PAGE = """<!doctype html>
<meta charset="utf-8"><title>Chat</title>
<style>
  body { font: 16px sans-serif; max-width: 40em; margin: 2em auto }
  #log div { margin: .5em 0; white-space: pre-wrap }
  .user { color: #036 } .note { color: #777 }
</style>
<div id="log"></div>
<form id="form">
  <input id="text" size="50" autofocus> <button>Send</button>
  <button type="button" id="stop">Stop</button>
</form>
<script>
  const key = new URLSearchParams(location.search).get("key");
  const log = document.getElementById("log");
  const rows = new Map();

  // Text that an agent or another viewer wrote is never taken for HTML.
  function row(id, kind, text) {
    let line = rows.get(id);
    if (!line) {
      line = document.createElement("div");
      line.className = kind;
      rows.set(id, line);
      log.append(line);
    }
    line.textContent = text;
    return line;
  }

  async function post(path, data) {
    const answer = await fetch(path + "?key=" + encodeURIComponent(key), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(data),
    });
    if (!answer.ok) alert((await answer.json()).error.message);
  }

  function message(m) {
    if (m.type === "user" || m.type === "assistant") row(m.otid || m.id, m.type, m.content);
    if (m.type === "tool_call") row(m.tool_call_id, "note", "Runs " + m.tool_name);
    if (m.type === "tool_result") row(m.tool_call_id, "note", m.tool_name + ": " + m.content);
    if (m.type === "result" && !m.success) row({}, "note", m.error_detail);
    if (m.type === "stream_event" && m.event.message_type === "assistant_message") {
      const id = m.event.otid || m.event.id;
      const before = rows.get(id);
      row(id, "assistant", (before ? before.textContent : "") + text(m.event.content));
    }
  }

  function text(content) {
    if (typeof content === "string") return content;
    return (content || []).map((part) => part.text || "").join("");
  }

  function approval(call) {
    if (!call.tool_name) return;
    const asks = "May " + call.tool_name + " run with " + JSON.stringify(call.input) + "? ";
    const line = row("ask " + call.tool_call_id, "note", asks);
    for (const allow of [true, false]) {
      const button = document.createElement("button");
      button.textContent = allow ? "Allow" : "Deny";
      button.onclick = () => post("approvals", { tool_call_id: call.tool_call_id, allow });
      line.append(button);
    }
  }

  const source = new EventSource("events?key=" + encodeURIComponent(key));
  const on = (kind, act) => source.addEventListener(kind, (e) => act(JSON.parse(e.data)));
  on("snapshot", (all) => {
    rows.clear();
    log.replaceChildren();
    all.messages.forEach(message);
    all.approvals.forEach(approval);
  });
  on("message", message);
  on("approval", approval);
  on("answered", (a) => row("ask " + a.tool_call_id, "note", "Answer: " + a.answer));
  on("failed", (f) => row({}, "note", f.message));

  document.getElementById("form").onsubmit = (e) => {
    e.preventDefault();
    const text = document.getElementById("text");
    post("messages", { text: text.value, key: crypto.randomUUID() });
    text.value = "";
  };
  document.getElementById("stop").onclick = () => post("stop", {});
</script>
"""


@tool
def read_thermometer(place: str) -> str:
    """Read the thermometer of a place.

    Args:
        place: The place.
    """
    return f"{len(place) + 10} degrees in {place}"


def stand_in(request: ModelRequest, asked: str) -> Reply:
    found = heard(request)
    if found is not None:
        return Reply(f"I read: {found}.")
    if "warm" in asked:
        return Reply(tool_calls=[ToolUse("read_thermometer", {"place": "Vienna"})])
    return Reply(f"You said: {asked}")


def authorize(connection: HTTPConnection) -> Viewer | None:
    """Let in who has the key; all of them are in one room and may do everything there."""
    given = connection.query_params.get("key", "")
    if not hmac.compare_digest(given.encode(), KEY.encode()):
        return None
    return Viewer(name="someone", room="the only one", may_send=True, may_approve=True)


def make_app(spec: Local | None) -> Starlette:
    """Return the application; its client lives as long as it does."""
    open_client: dict[str, tuple[AsyncLettaClient, str]] = {}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncLettaClient(spec) as client:
            agent = await client.create_agent(name="web-chat", persona="I am a helpful assistant.")
            open_client["it"] = (client, agent)
            yield

    def open_session(_: str, ask: AskViewers) -> AsyncSession:
        client, agent = open_client["it"]
        return client.resume_session(
            agent, can_use_tool=ask, tools=[read_thermometer], include_partial_messages=True
        )

    async def page(_: Request) -> HTMLResponse:
        # The address has the key in it, so no other site is to be told of it.
        return HTMLResponse(PAGE, headers={"Referrer-Policy": "no-referrer"})

    hubs = Hubs(open_session, options=HubOptions(close_after=60))
    return create_app(hubs, authorize=authorize, pages=[Route("/", page)], lifespan=lifespan)


async def visit(port: int) -> None:
    """Do what a person does in the browser."""
    url, key = f"http://127.0.0.1:{port}", {"key": KEY}
    async with httpx.AsyncClient(base_url=url, params=key, timeout=60, trust_env=False) as browser:
        assert "EventSource" in (await browser.get("/")).text
        assert (await browser.get("/events", params={"key": "guessed"})).status_code == 403
        async with browser.stream("GET", "/events") as events:
            kind = ""
            async for line in events.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and await act(browser, kind, json.loads(value)):
                    return


async def act(browser: httpx.AsyncClient, kind: str, data: dict) -> bool:
    """Show an event and react to it; return true at the end of the turn."""
    if kind == "snapshot":
        await browser.post("/messages", json={"text": "How warm is it in Vienna?"})
    elif kind == "approval":
        print(f"  May {data['tool_name']} run with {data['input']}? Yes.")
        yes = {"tool_call_id": data["tool_call_id"], "allow": True}
        (await browser.post("/approvals", json=yes)).raise_for_status()
    elif kind == "message" and data["type"] in ("user", "assistant"):
        print(f"  {data['type']}: {data['content']}")
    return kind == "message" and data["type"] == "result"


async def serve(spec: Local | None, visited: bool) -> None:
    """Serve on a free port of this machine only."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    # The address has the key in it: it is not logged.
    config = uvicorn.Config(make_app(spec), log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve([listening]))
    if visited:
        await visit(port)
        server.should_exit = True
    else:
        print(f"Open http://127.0.0.1:{port}/?key={KEY}")
    await serving


if __name__ == "__main__":
    with backend(stand_in) as spec:
        asyncio.run(serve(spec, "--visit" in sys.argv))
