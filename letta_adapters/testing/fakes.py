"""A Letta in memory, for unit tests of an application: no server, no process, no recording.

::

    from letta_adapters.langchain import ChatLetta
    from letta_adapters.testing.fakes import FakeLetta

    letta = FakeLetta("Hello Ada.", "You are Ada.")
    model = ChatLetta(client=letta.client())
    assert model.invoke("I am Ada.").text == "Hello Ada."
    assert letta.said == ["I am Ada."]

It implements the Letta API inside an ``httpx`` transport, so everything above the wire is real:
sessions, tools, approvals, history, ``ChatLetta``, ``LettaRunnable``, ``LettaLLM``, ``LettaAgent``.
It does not do what else a real server does (memory, its own tools, compaction): use a recording or
the embedded runtime for that. This package's own suite runs the same cases against it and against
real servers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any, Final

import httpx
from pydantic import SecretStr

from letta_adapters.backends.default_agent import DEFAULT_AGENT_TAG
from letta_adapters.testing.model_protocol import Reply, Usage, split_tokens

if TYPE_CHECKING:
    from letta_adapters.backends.config import Rest
    from letta_adapters.client.client import AsyncLettaClient
    from letta_adapters.sync.client import LettaClient

_URL: Final = "http://letta.fake"
# Its models take an effort, as those of this provider do.
_PROVIDER: Final = "openai"
_CONVERSATION: Final = r"/v1/conversations/([^/]+)"
_Answer = tuple[int, Any]
_numbers: Final = itertools.count()


class FakeLetta:
    """A Letta API in memory, whose agents answer with the given replies, in order.

    It has one agent, the default one; others are made as in any Letta.

    ::

        letta = FakeLetta("Hello Ada.", Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2})]))
        model = ChatLetta(client=letta.client())

    Args:
        *replies: Texts, or :class:`~letta_adapters.testing.scripted_model.Reply` objects (thoughts,
            tool calls, errors). One with ``when=`` waits for a message that contains it; one with
            ``repeat=True`` stays. Without a reply left, an agent says ``You said: ...``.
        model: The handle of its agents' model.

    Attributes:
        said: The texts that users sent, in order, in all conversations.
        requests: The bodies of all turns, as they were sent.
    """

    def __init__(self, *replies: str | Reply, model: str = "fake/model") -> None:
        self.said: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self._model = model
        self._replies: list[Reply] = []
        self._agents: dict[str, dict[str, Any]] = {}
        self._conversations: dict[str, dict[str, Any]] = {}
        self._messages: dict[str, list[dict[str, Any]]] = {}
        # The streams that are being sent, by conversation; true once one is cancelled.
        self._sending: dict[str, list[bool]] = {}
        self._count = 0
        # Every fake has ids of its own: what a process remembers of another one must not match.
        self._number = next(_numbers) % 0x10000
        self._lock = threading.Lock()  # several event loops may talk to it
        # As in a Letta that is in use: to make the first one takes a third of a second, in which
        # other processes could show that they are making one too.
        self._create_agent((), {}, {"tags": [DEFAULT_AGENT_TAG]})
        self.script(*replies)

    def script(self, *replies: str | Reply) -> None:
        """Answer with these replies from now on, instead of those that are left."""
        self._replies = [r if isinstance(r, Reply) else Reply(r) for r in replies]

    def client(self) -> LettaClient:
        """Return a synchronous client of it, which adapters take for asynchronous calls too."""
        from letta_adapters.sync.client import LettaClient

        return LettaClient(_make_rest(), http_client=self.http_client())

    def async_client(self) -> AsyncLettaClient:
        """Return an asynchronous client of it."""
        from letta_adapters.client.client import AsyncLettaClient

        return AsyncLettaClient(_make_rest(), http_client=self.http_client())

    def http_client(self) -> httpx.AsyncClient:
        """Return the httpx client that the Letta clients use."""
        return httpx.AsyncClient(base_url=_URL, transport=httpx.MockTransport(self._handle))

    # -- the server -------------------------------------------------------------------------

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        body = _read_body(request)
        where = request.url.path.rstrip("/")
        # A turn is answered with a stream, everything else with JSON.
        if request.method == "POST" and (found := re.fullmatch(f"{_CONVERSATION}/messages", where)):
            return self._run_turn(found[1], body, dict(request.url.params))
        with self._lock:
            status, answer = self._answer_json(
                request.method, where, dict(request.url.params), body
            )
        return httpx.Response(status, json=answer)

    def _answer_json(self, method: str, path: str, query: dict[str, str], body: Any) -> _Answer:
        # One table for all routes, so that what the fake speaks can be read in one place. A route
        # that is not there is told, not guessed: a test must not pass by an empty answer.
        for verb, pattern, handler in _ROUTES:
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                return handler(self, found.groups(), query, body)
        return 404, {"detail": f"The fake has no {method} {path}."}

    def _make_id(self, kind: str) -> str:
        self._count += 1
        # Counted, so that a test sees the same ids in every run.
        return f"{kind}-{self._count:08d}-{self._number:04x}-4000-a000-000000000000"

    def _create_agent(self, _: Any, __: Any, body: Mapping[str, Any]) -> _Answer:
        id_ = self._make_id("agent")
        made = {"model": self._model, "tags": [], "tools": [], "model_settings": {}, **body}
        made["model_settings"] = {"provider_type": _PROVIDER, **(made["model_settings"] or {})}
        self._agents[id_] = {**made, "id": id_, "name": body.get("name") or "agent"}
        return 200, self._agents[id_]

    def _list_agents(self, _: Any, query: Mapping[str, str], __: Any) -> _Answer:
        tag = query.get("tags")
        return 200, [a for a in self._agents.values() if tag is None or tag in a["tags"]]

    def _agent(self, ids: Sequence[str], _: Any, body: Mapping[str, Any]) -> _Answer:
        agent = self._agents.get(ids[0])
        if agent is None:
            return 404, {"detail": f"Agent {ids[0]} not found"}
        # One handler serves GET and PATCH: without a body nothing changes.
        agent |= body
        return 200, agent

    def _export_agent(self, ids: Sequence[str], _: Any, __: Any) -> _Answer:
        agent = self._agents.get(ids[0])
        if agent is None:
            return 404, {"detail": f"Agent {ids[0]} not found"}
        own = {"id": "agent-0", "llm_config": {"handle": agent["model"]}, "tool_ids": []}
        lists: dict[str, Any] = {name: [] for name in _FILE_LISTS}
        # Blocks and tools of a fake are no more than what was said of them at the start.
        kept = {k: agent[k] for k in ("name", "system", "tags") if k in agent}
        return 200, {"agents": [kept | own], **lists}

    def _import_agents(self, _: Any, __: Any, body: Mapping[str, Any]) -> _Answer:
        document = json.loads(body["file"])
        made = []
        for agent in document["agents"]:
            kept = {k: agent[k] for k in ("name", "system", "tags", "tool_rules") if k in agent}
            given = {k: body[k] for k in ("name", "model") if k in body}
            made.append(self._create_agent((), {}, kept | given)[1]["id"])
        return 200, {"agent_ids": made}

    def _delete_agent(self, ids: Sequence[str], _: Any, __: Any) -> _Answer:
        return (200, None) if self._agents.pop(ids[0], None) else (404, {"detail": "not found"})

    def _create_conversation(self, _: Any, query: Mapping[str, str], body: Any) -> _Answer:
        if query.get("agent_id") not in self._agents:
            return 404, {"detail": f"Agent {query.get('agent_id')} not found"}
        id_ = self._make_id("conv")
        made = {"summary": None, "model": None, "model_settings": None, **body}
        self._conversations[id_] = {**made, "id": id_, "agent_id": query.get("agent_id")}
        self._messages[id_] = []
        return 200, self._conversations[id_]

    def _list_conversations(self, _: Any, query: Mapping[str, str], __: Any) -> _Answer:
        agent, wanted = query.get("agent_id"), query.get("summary_search", "")
        listed = [c for c in self._conversations.values() if c["agent_id"] == agent]
        found = [c for c in listed if wanted in (c.get("summary") or "")]
        return 200, found[::-1]  # the newest first, as the server does

    def _conversation(self, ids: Sequence[str], _: Any, body: Mapping[str, Any]) -> _Answer:
        found = self._conversations.get(ids[0])
        if found is None:
            return 404, {"detail": f"Conversation {ids[0]} not found"}
        found |= body
        return 200, found

    def _delete_conversation(self, ids: Sequence[str], _: Any, __: Any) -> _Answer:
        self._messages.pop(ids[0], None)
        gone = self._conversations.pop(ids[0], None)
        return (200, None) if gone else (404, {"detail": "not found"})

    def _list_messages(self, ids: Sequence[str], query: Mapping[str, str], __: Any) -> _Answer:
        items = self._messages.get(_place(ids[0], query))
        if items is None:
            # The default conversation of an agent exists from the beginning, with nothing in it.
            return (200, []) if ids[0] == "default" else (404, {"detail": "not found"})
        listed = list(reversed(items)) if query.get("order", "desc") == "desc" else list(items)
        cursor = query.get("before") or query.get("after")
        ids = [item["id"] for item in listed]
        # An unknown one gives the first page, as the server does.
        if cursor in ids:
            listed = listed[ids.index(cursor) + 1 :]
        return 200, listed[: int(query.get("limit", "100"))]

    def _cancel(self, ids: Sequence[str], query: Mapping[str, str], _: Any) -> _Answer:
        flag = self._sending.get(_place(ids[0], query))
        if flag is None:
            return 409, {"detail": "No active runs to cancel"}
        flag[0] = True
        return 200, {}

    def _list_runs(self, _: Any, __: Any, ___: Any) -> _Answer:
        return 200, []  # none is ever active: a turn is over before it is answered

    def _list_models(self, _: Any, __: Any, ___: Any) -> _Answer:
        name = self._model.rpartition("/")[2]
        return 200, [{"handle": self._model, "name": name, "provider_type": _PROVIDER}]

    # -- turns ------------------------------------------------------------------------------

    def _run_turn(
        self, conversation: str, body: dict[str, Any], query: dict[str, str]
    ) -> httpx.Response:
        place = _place(conversation, {**query, **body})
        with self._lock:
            items = self._messages.get(place)
            if items is None and conversation != "default":
                return httpx.Response(404, json={"detail": f"Conversation {place} not found"})
            items = self._messages.setdefault(place, [])
            waiting = _find_waiting(items)
            answers = [m for m in body["messages"] if m.get("type") == "approval"]
            # As the server does: a conversation that waits for an approval takes nothing else.
            if waiting and not answers:
                return httpx.Response(409, json=_PENDING)
            self.requests.append(body)
            # All of a turn is made while the lock is held, and sent after it: turns of several
            # conversations may stream at once, and what each of them stored stays in order.
            run = self._make_id("run")
            events = [*self._take(items, body["messages"], waiting, run)]
            reply = Reply()
            if body.get("max_steps") == len(answers) == len(body["messages"]) == 1:
                # Taking the answers to the calls was the one step that was allowed.
                events.append({"message_type": "stop_reason", "stop_reason": "max_steps"})
            else:
                # A request of answers to tool calls says nothing, so the user's last message still
                # decides which reply fits.
                reply = self._choose_reply(" ".join(self.said[-1:]))
                events += self._answer(items, reply, run, stream=bool(body.get("stream_tokens")))
        return httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            content=self._send(place, events, reply),
        )

    async def _send(
        self, place: str, events: Sequence[Mapping[str, Any]], reply: Reply
    ) -> AsyncIterator[bytes]:
        """Yield a turn's events; a turn that is cancelled ends at its next one."""
        flag = self._sending[place] = [False]
        try:
            async for piece in _send_events(events, reply):
                if flag[0]:
                    yield _CANCELLED
                    return
                yield piece
        finally:
            if self._sending.get(place) is flag:
                del self._sending[place]

    def _choose_reply(self, text: str) -> Reply:
        # The first that fits, not the first: parallel conversations ask in an order that is chance.
        for at, reply in enumerate(self._replies):
            if reply.when is None or reply.when in text:
                return reply if reply.repeat else self._replies.pop(at)
        return Reply(f"You said: {text}")

    def _make_item(self, kind: str, run: str, **fields: Any) -> dict[str, Any]:
        id_ = self._make_id("message")
        return {"id": id_, "message_type": kind, "otid": id_, "run_id": run, **_NOTHING, **fields}

    def _take(
        self,
        items: list[dict[str, Any]],
        messages: Sequence[Mapping[str, Any]],
        waiting: Mapping[str, str],
        run: str,
    ) -> list[dict[str, Any]]:
        """Store the sent messages, and return the events that repeat the results of tools."""
        events = []
        for message in messages:
            if message.get("type") == "approval":
                returns = [_make_return(answer) for answer in message["approvals"]]
                for returned in returns:
                    name = waiting.get(returned["tool_call_id"])
                    made = {**returned, "name": name, "tool_returns": [returned]}
                    events.append(self._make_item("tool_return_message", run, **made))
                items += events
                continue
            content = message["content"]
            role = message.get("role", "user")
            fields = {"content": content, "otid": message.get("otid")}
            items.append(self._make_item(f"{role}_message", run, **fields))
            if role == "user":
                self.said.append(_read_text(content))
        return events

    def _answer(
        self, items: list[dict[str, Any]], reply: Reply, run: str, *, stream: bool
    ) -> list[dict[str, Any]]:
        if reply.error is not None:
            return [_make_failure(reply, run)]
        events, stored = [], []
        if reply.reasoning:
            thought = "".join(split_tokens(reply.reasoning))
            stored.append(
                self._make_item("reasoning_message", run, reasoning=thought, source="fake")
            )
            events += _split_pieces(stored[-1], "reasoning", reply.reasoning if stream else thought)
        # Stored whole and streamed in pieces, as a server does: who lists the messages later sees
        # none of the pieces.
        # An empty answer is a message, too, but tool calls alone come without one.
        if reply.text or not reply.tool_calls:
            text = "".join(split_tokens(reply.text))
            stored.append(self._make_item("assistant_message", run, content=text))
            events += _split_pieces(stored[-1], "content", reply.text if stream else text)
        reason = "end_turn"
        if reply.tool_calls:
            calls = [
                {
                    "name": call.name,
                    "arguments": call.encoded(),
                    "tool_call_id": call.id or self._make_id("call"),
                }
                for call in reply.tool_calls
            ]
            # The server sends parallel calls in `tool_calls`, and the first one in `tool_call` as
            # well.
            fields = {"tool_call": calls[0], "tool_calls": calls}
            stored.append(self._make_item("approval_request_message", run, **fields))
            events.append(stored[-1])
            reason = "requires_approval"
        items += stored
        usage = {**_write_usage(reply.usage or Usage()), "message_type": "usage_statistics"}
        return [*events, {"message_type": "stop_reason", "stop_reason": reason}, usage]


# Fields that the server sends with every message, even if they are empty.
_NOTHING: Final[dict[str, Any]] = {
    "date": "2026-01-01T00:00:00+00:00",
    "name": None,
    "sender_id": None,
    "step_id": None,
    "is_err": None,
    "seq_id": None,
}
_CANCELLED: Final = (
    b'data: {"message_type": "stop_reason", "stop_reason": "cancelled"}\n\ndata: [DONE]\n\n'
)
_PENDING: Final = {
    "detail": {
        "code": "PENDING_APPROVAL",
        "message": "The agent is waiting for approval on a tool call.",
    }
}
# The parts of an agent file besides its agents, which are empty in one of a fake.
_FILE_LISTS: Final = ("groups", "blocks", "files", "sources", "tools", "mcp_servers", "skills")
_Handler = Callable[[FakeLetta, Sequence[str], Mapping[str, str], Any], _Answer]
_ROUTES: Final[tuple[tuple[str, str, _Handler], ...]] = (
    ("POST", r"/v1/agents", FakeLetta._create_agent),
    ("GET", r"/v1/agents", FakeLetta._list_agents),
    ("POST", r"/v1/agents/import", FakeLetta._import_agents),
    ("GET", r"/v1/agents/([^/]+)/export", FakeLetta._export_agent),
    ("GET", r"/v1/agents/([^/]+)", FakeLetta._agent),
    ("PATCH", r"/v1/agents/([^/]+)", FakeLetta._agent),
    ("DELETE", r"/v1/agents/([^/]+)", FakeLetta._delete_agent),
    ("POST", r"/v1/conversations", FakeLetta._create_conversation),
    ("GET", r"/v1/conversations", FakeLetta._list_conversations),
    ("GET", _CONVERSATION, FakeLetta._conversation),
    ("PATCH", _CONVERSATION, FakeLetta._conversation),
    ("DELETE", _CONVERSATION, FakeLetta._delete_conversation),
    ("GET", rf"{_CONVERSATION}/messages", FakeLetta._list_messages),
    ("POST", rf"{_CONVERSATION}/cancel", FakeLetta._cancel),
    ("GET", r"/v1/models", FakeLetta._list_models),
    ("GET", r"/v1/runs", FakeLetta._list_runs),
)


def _read_body(request: httpx.Request) -> Any:
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/"):
        return json.loads(request.content) if request.content else {}
    form = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + request.content)
    return {
        str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
        if part.get_filename()
        else str(part.get_payload())
        for part in form.walk()
        if not part.is_multipart()
    }


def _make_rest() -> Rest:
    from letta_adapters.backends.config import Rest

    return Rest(base_url=_URL, api_key=SecretStr(""))


def _place(conversation: str, given: Mapping[str, Any]) -> str:
    """Return a conversation's key; the default conversation is another one for each agent."""
    return f"default:{given.get('agent_id')}" if conversation == "default" else conversation


def _find_waiting(items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the tool names by call id if the newest message asks for approvals, else nothing."""
    if not items or items[-1]["message_type"] != "approval_request_message":
        return {}
    return {call["tool_call_id"]: call["name"] for call in items[-1]["tool_calls"]}


def _make_return(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message part for the result of a tool.

    A client-side tool sends its result. The agent's own tool is only approved or denied; the fake
    does not run it, and says that it ran.
    """
    status, text = answer.get("status", "success"), answer.get("tool_return")
    if answer.get("type") == "approval":
        status = "success" if answer.get("approve") else "error"
        text = "ran" if answer.get("approve") else f"Denied: {answer.get('reason')}"
    about = {"type": "tool", "tool_call_id": answer["tool_call_id"], "stdout": None, "stderr": None}
    return {**about, "tool_return": text, "status": status}


def _read_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def _write_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "cached_input_tokens": usage.cached,
        "reasoning_tokens": usage.reasoning,
        "step_count": 1,
    }


def _split_pieces(
    item: Mapping[str, Any], field: str, text: str | Sequence[str]
) -> list[dict[str, Any]]:
    return [{**item, field: token} for token in (split_tokens(text) if text else [""])]


def _make_failure(reply: Reply, run: str) -> dict[str, Any]:
    assert reply.error is not None
    return {
        "message_type": "error_message",
        "run_id": run,
        "error_type": "llm_error",
        "message": reply.error.message,
        "detail": reply.error.message,
        "seq_id": None,
    }


async def _send_events(events: Sequence[Mapping[str, Any]], reply: Reply) -> AsyncIterator[bytes]:
    # The answer has begun by now (the status is sent), so a delay looks like a model that thinks.
    await asyncio.sleep(reply.delay)
    for event in events:
        if event.get("message_type") in ("assistant_message", "reasoning_message"):
            await asyncio.sleep(reply.token_delay)
        yield f"data: {json.dumps(event)}\n\n".encode()
    yield b"data: [DONE]\n\n"
