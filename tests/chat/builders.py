"""Messages, answers and events of calls, as short as the tests of the pure stages need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from letta_adapters.backends.base import Conversation
from letta_adapters.backends.capabilities import LETTA_CODE, REST, Capabilities
from letta_adapters.chat import (
    ChatRequest,
    HistoryMessage,
    Marker,
    ResponseCompleted,
    ResponseStarted,
)
from letta_adapters.chat.context import ChatContext
from letta_adapters.chat.history import split_history
from letta_adapters.chat.routing import choose_route
from letta_adapters.messages import PendingToolCall, StreamEvent, ToolCallMessage

AGENT = "agent-1"
CONVERSATION = Conversation(AGENT, "conv-1")
TOOL = {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}
OTHER_TOOL = {"name": "find", "description": "Find.", "parameters": {"type": "object"}}
IMAGE = {"type": "image", "source": {"type": "url", "url": "http://letta.test/x.png"}}
CALL = PendingToolCall("call-1", "add", '{"a": 1}')


def user(text: Any, **fields: Any) -> HistoryMessage:
    """A message of the user's."""
    return HistoryMessage("user", text, **fields)


def result(text: Any, call_id: str = "call-1", **fields: Any) -> HistoryMessage:
    """A tool's result."""
    return HistoryMessage("tool", text, tool_call_id=call_id, **fields)


def marked(**fields: Any) -> Marker:
    """A marker of an answer in ``conv-1``."""
    given: dict[str, Any] = {"conversation_id": "conv-1", "head": ("otid-1",), **fields}
    return Marker(backend="rest", agent_id=AGENT, **given)


def answer(text: str, before: Sequence[HistoryMessage] = (), **fields: Any) -> HistoryMessage:
    """The agent's answer to these messages; ``fields`` are those of its marker."""
    inputs = tuple(entry.digest() for entry in before)
    return HistoryMessage("assistant", text, marker=marked(inputs=inputs, **fields))


def asking(
    before: Sequence[HistoryMessage] = (), *calls: PendingToolCall, **fields: Any
) -> HistoryMessage:
    """The agent's answer to these messages, which calls tools and waits for their results."""
    calls = calls or (CALL,)
    pending = tuple((call.tool_call_id, call.tool_name) for call in calls)
    inputs = tuple(entry.digest() for entry in before)
    marker = marked(inputs=inputs, pending=pending, **fields)
    return HistoryMessage("assistant", "", marker=marker, tool_calls=calls)


class Traits(NamedTuple):
    """What the pure stages see of a backend."""

    name: str
    capabilities: Capabilities


def on_the_way(
    history: Sequence[HistoryMessage], backend: str = "rest", **fields: Any
) -> ChatContext:
    """The call with this history, on its route; a conversation that has to be made is ``conv-1``.

    ``fields`` are those of the request.
    """
    call = ChatRequest(entries=history, agent_id=AGENT, **fields)
    split = split_history(history, AGENT, call.place)
    route = choose_route(call, split, AGENT)
    route = route if route.conversation else route.at(CONVERSATION)
    traits = Traits(backend, REST if backend == "rest" else LETTA_CODE)
    return ChatContext(traits, AGENT, call, split, route)


def call_message(
    call_id: str = "call-1", name: str = "add", raw: str = '{"a": 1}', **fields: Any
) -> ToolCallMessage:
    """A whole tool call of a turn."""
    arguments = {"a": 1} if raw == '{"a": 1}' else {}
    return ToolCallMessage(call_id, name, arguments, raw, **fields)


def text_event(text: str, otid: str | None = "otid-1") -> StreamEvent:
    """A fragment of an answer's text."""
    return StreamEvent({"message_type": "assistant_message", "otid": otid, "content": text})


def started(**fields: Any) -> ResponseStarted:
    """The first event of a call."""
    return ResponseStarted("answer-1", AGENT, "conv-1", "rest", **fields)


def ended(*pending: ToolCallMessage, **fields: Any) -> ResponseCompleted:
    """The last event of a call."""
    return ResponseCompleted(marked(), pending, **fields)
