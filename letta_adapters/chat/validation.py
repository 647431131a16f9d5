"""Refuse a call that cannot be made before any I/O, whichever framework makes it.

Internal: not part of the public API.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from letta_adapters._utils.checks import AGENT, checked_id
from letta_adapters.chat.messages import HistoryMessage
from letta_adapters.chat.request import ChatRequest
from letta_adapters.content import sendable_text
from letta_adapters.errors import InvalidInputError
from letta_adapters.tools.client_side import check_tool_names


def checked(call: ChatRequest) -> ChatRequest:
    """Return the call as it can be made, or refuse it.

    The results of tools are cleaned of characters that UTF-8 cannot hold (an odd file name in one
    is nobody's mistake); anywhere else such characters are refused.

    Raises:
        InvalidInputError: The call names nobody (``agent_id=""``), gives no time or no steps, has
            two tools of one name or a tool name that no model takes, or has text that cannot be
            sent.
    """
    if call.agent_id is not None:
        checked_id(call.agent_id, "an agent id (agent_id)", AGENT)
    if call.conversation_id is not None:
        checked_id(call.conversation_id, "a conversation id (conversation_id)")
    thread = _thread_of(call)
    if thread is not None and not thread.strip():
        raise InvalidInputError("thread_id is empty: it names no conversation.")
    # NaN and infinity are floats too, and would make a wait that never ends.
    if call.timeout is not None and not (math.isfinite(call.timeout) and call.timeout > 0):
        raise InvalidInputError(f"timeout must be seconds greater than 0, not {call.timeout!r}.")
    if call.max_steps is not None and call.max_steps < 1:
        raise InvalidInputError(f"max_steps must be at least 1, not {call.max_steps!r}.")
    if call.model is not None and not call.model.strip():
        raise InvalidInputError("model is empty: it names no model.", hint="Leave it out.")
    check_tool_names([str(tool["name"]) for tool in call.tools])
    # Cleaned before the check below, which would refuse a tool's result for its odd characters.
    entries = [_cleaned(entry) if entry.role == "tool" else entry for entry in call.entries]
    for where, text in _texts(call, entries):
        sendable_text(text, where)
    return replace(call, entries=entries)


def _thread_of(call: ChatRequest) -> str | None:
    """Return the thread's name as the application or the framework gives it."""
    if call.thread_id is not None or call.place is None:
        return call.thread_id
    return call.place.thread


def _texts(call: ChatRequest, entries: Iterable[HistoryMessage]) -> Iterator[tuple[str, str]]:
    """Yield each text that would be sent, after the name that an error uses for it."""
    yield "thread_id", _thread_of(call) or ""
    yield "The model's name", call.model or ""
    yield "The note", call.note
    for tool in call.tools:
        for text in _strings(tool):
            yield f"The tool {tool['name']!r}", text
    for entry in entries:
        where = f"A message of the history (role {entry.role!r})"
        yield where, entry.text
        yield where, entry.name or ""
        for called in entry.tool_calls:
            yield where, called.raw_arguments


def _strings(value: object) -> Iterator[str]:
    """Yield every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)


def _cleaned(entry: HistoryMessage) -> HistoryMessage:
    """Return a tool's result without the characters that UTF-8 cannot hold."""
    if isinstance(entry.content, str):
        # Most text is ASCII, which needs no copy of it.
        return entry if entry.content.isascii() else replace(entry, content=_clean(entry.content))
    parts: list[Mapping[str, Any]] = [
        {**part, "text": _clean(str(part["text"]))} if part.get("type") == "text" else part
        for part in entry.content
    ]
    return replace(entry, content=parts)


def _clean(text: str) -> str:
    # Lone surrogates are what a Python string can hold and UTF-8 cannot.
    return text.encode("utf-8", "replace").decode("utf-8")
