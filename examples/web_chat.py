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
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from _agent import backend, heard
from _serve import serve
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from letta_adapters import AsyncLettaClient, AsyncSession, Local, tool
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse
from letta_adapters.web import AskViewers, HubOptions, Hubs, Viewer, create_app

KEY = secrets.token_urlsafe(24)

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Chat</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width">
<style>
  body { font: 16px/1.4 system-ui, sans-serif; max-width: 40em; margin: 0 auto; padding: 1em }
  #log { display: flex; flex-direction: column; gap: .5em; padding-bottom: 1em }
  #log div { white-space: pre-wrap; overflow-wrap: anywhere; border-radius: .8em }
  .user, .assistant { padding: .5em .8em; max-width: 85% }
  .user { align-self: flex-end; background: #2557a7; color: #fff }
  .assistant { align-self: flex-start; background: #eceff3 }
  .note { color: #5a6270; font-size: .9em; padding: 0 .8em }
  .error { color: #a3262a; font-size: .9em; padding: 0 .8em }
  form { display: flex; gap: .5em; position: sticky; bottom: 0; background: #fff; padding: .5em 0 }
  input { flex: 1; min-width: 0 }
  input, button { font: inherit; padding: .4em .8em; border: 1px solid #bbc; border-radius: .5em }
  #log button { margin-left: .5em; padding: .1em .6em }
</style>
<div id="log"></div>
<form id="form">
  <input id="text" aria-label="Message" autofocus> <button id="send" disabled>Send</button>
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
    scrollTo(0, document.body.scrollHeight);
    return line;
  }

  async function post(path, data) {
    const answer = await fetch(path + "?key=" + encodeURIComponent(key), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(data),
    });
    if (answer.ok) return true;
    row({}, "error", (await answer.json()).error.message);
  }

  function message(m) {
    if (m.type === "user" || m.type === "assistant") row(m.otid || m.id, m.type, m.content);
    if (m.type === "tool_call") row(m.tool_call_id, "note", "Runs " + m.tool_name);
    if (m.type === "tool_progress" && m.content) row(m.tool_call_id, "note", m.content);
    if (m.type === "tool_result") row(m.tool_call_id, "note", m.tool_name + ": " + m.content);
    if (m.type === "result" && !m.success) row({}, "error", m.error_detail);
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
    document.getElementById("send").disabled = false;
  });
  on("message", message);
  on("approval", approval);
  on("answered", (a) => row("ask " + a.tool_call_id, "note", "Answer: " + a.answer));
  on("failed", (f) => row({}, "error", f.message));

  document.getElementById("form").onsubmit = async (e) => {
    e.preventDefault();
    const text = document.getElementById("text");
    const said = text.value;
    text.value = "";
    // What was not taken is not lost.
    if (!(await post("messages", { text: said, key: crypto.randomUUID() }))) text.value ||= said;
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


if __name__ == "__main__":
    with backend(stand_in) as spec:
        address = f"http://127.0.0.1:{{port}}/?key={KEY}"
        visitor = visit if "--visit" in sys.argv else None
        asyncio.run(serve(make_app(spec), f"Open {address}", visitor))
