"""Short ways to say what tests say often."""

from __future__ import annotations

from typing import Any

from letta_adapters import (
    Message,
    ResultMessage,
    StreamEvent,
    ToolCallMessage,
    ToolResultMessage,
    extract_stream_text_delta,
)
from letta_adapters.messages import content_text


async def turn(session: Any, message: Any, **kwargs: Any) -> list[Message]:
    """Send and collect everything."""
    await session.send(message, **kwargs)
    return [item async for item in session.stream()]


def types(messages: list[Message]) -> list[str]:
    """The types in order, runs of stream events as one."""
    names: list[str] = []
    for message in messages:
        if names[-1:] != ["stream_event"] or message.type != "stream_event":
            names.append(message.type)
    return names


def result_of(messages: list[Message]) -> ResultMessage:
    """The one result, which is last."""
    results = [m for m in messages if isinstance(m, ResultMessage)]
    assert len(results) == 1
    assert messages[-1] is results[0]
    return results[0]


def streamed_text(messages: list[Message], kind: str) -> str:
    """What the fragments say together."""
    deltas = [extract_stream_text_delta(m) for m in messages if isinstance(m, StreamEvent)]
    return "".join(d.text for d in deltas if d is not None and d.kind == kind)


def said(page: Any, kind: str = "") -> list[str]:
    """The texts of a page of messages, in its order (of one ``message_type``)."""
    return [content_text(m["content"]) for m in page.raw if kind in m["message_type"]]


def calls(messages: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """The tools that were called, with their input."""
    return [(m.tool_name, dict(m.tool_input)) for m in messages if isinstance(m, ToolCallMessage)]


def results(messages: list[Any]) -> list[tuple[str, bool]]:
    """What the tools returned, and whether that is an error."""
    return [
        # What one of Letta Code's shells puts before it has times and ids in it.
        (m.content.rpartition("\nOutput:\n")[2], m.is_error)
        for m in messages
        if isinstance(m, ToolResultMessage)
    ]
