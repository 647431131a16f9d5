"""Internal: build the events of LangChain's v3 streaming protocol from the pieces of an answer.

The order is ``message-start``, then for each block ``content-block-start``, ``-delta`` and
``-finish``, then ``message-finish``. Going through chunks instead costs seven times as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from letta_adapters.chat import ChatEvent
from letta_adapters.chat.response import Part, ResponseReader
from letta_adapters.langchain.chunks import (
    NOTES,
    PROVIDER,
    build_metadata,
    read_usage,
    to_block,
)
from letta_adapters.messages import ToolCallMessage

Event = dict[str, Any]
_DELTAS = {"text": ("text-delta", "text"), "reasoning": ("reasoning-delta", "reasoning")}


class EventMaker:
    """Make the protocol events of one message."""

    def __init__(self, reader: ResponseReader) -> None:
        self._reader = reader
        self._index = -1
        self._open: str = ""
        self._parts: list[str] = []
        self._begun = False
        self._notes: list[Event] = []

    def feed(self, event: ChatEvent) -> list[Event]:
        """Return the protocol events that an event of the call adds."""
        # The message can start only after the first event was read, which names the answer.
        made = [] if self._begun else self._begin()
        for piece in self._reader.read(event):
            made += self.list_events(piece)
        if not self._begun:
            made = self._begin() + made
        return made

    def replay(self, pieces: Iterable[Part]) -> list[Event]:
        """Return all protocol events of a whole answer."""
        made = self._begin()
        for piece in pieces:
            made += self.list_events(piece)
        return made + self.finish()

    def _begin(self) -> list[Event]:
        """Return the event that starts the message, once the call's first event is read."""
        start = self._reader.start
        if start is None:
            return []
        self._begun = True
        metadata: dict[str, Any] = {"provider": PROVIDER}
        if start.model:
            metadata["model"] = start.model
        id_ = self._reader.id or ""
        return [{"event": "message-start", "role": "ai", "id": id_, "metadata": metadata}]

    def list_events(self, piece: Part) -> Iterator[Event]:
        """Yield the protocol events of one piece."""
        kind, value = piece
        if kind == "note":
            # Notes are no part of the message; they go into the metadata at its end.
            self._notes.append(value)
            return
        delta = _DELTAS.get(kind)
        if delta is None:
            yield from self._close()
            yield from self._announce_block(to_block(piece))
            return
        name, field = delta
        # The protocol knows one open block at a time, so another kind closes the one before.
        if self._open != kind:
            yield from self._close()
            self._index += 1
            self._open = kind
            skeleton = {"type": field, field: ""}
            yield {"event": "content-block-start", "index": self._index, "content": skeleton}
        self._parts.append(value)
        yield {
            "event": "content-block-delta",
            "index": self._index,
            "delta": {"type": name, field: value},
        }

    def _close(self) -> Iterator[Event]:
        """Yield the end of the open block, if one is open."""
        if not self._open:
            return
        # The end of a block repeats its whole content, so that a consumer need not add up deltas.
        kind, self._open = self._open, ""
        text, self._parts = "".join(self._parts), []
        block = {"type": kind, kind: text}
        yield {"event": "content-block-finish", "index": self._index, "content": block}

    def _announce_block(self, block: Event) -> Iterator[Event]:
        """Yield start and end of a block that does not come in fragments."""
        self._index += 1
        yield {"event": "content-block-start", "index": self._index, "content": _empty_block(block)}
        yield {"event": "content-block-finish", "index": self._index, "content": block}

    def finish(self) -> list[Event]:
        """Return the events that end the message."""
        return list(self._list_end())

    def _list_end(self) -> Iterator[Event]:
        yield from self._close()
        # Which calls wait for the caller is known only now that the turn is over.
        for call in self._reader.tool_calls:
            yield from self._announce_call(call)
        metadata = build_metadata(self._reader) | ({NOTES: self._notes} if self._notes else {})
        made: Event = {"event": "message-finish", "metadata": metadata}
        usage = read_usage(self._reader)
        if usage is not None:
            made["usage"] = usage
        yield made

    def _announce_call(self, call: ToolCallMessage) -> Iterator[Event]:
        """Yield start and end of a tool call that waits for the caller."""
        self._index += 1
        named = {"id": call.tool_call_id, "name": call.tool_name}
        chunk = {"type": "tool_call_chunk", **named, "args": ""}
        yield {"event": "content-block-start", "index": self._index, "content": chunk}
        block: Event = {"type": "tool_call", **named, "args": dict(call.tool_input)}
        if call.problem:
            block = {"type": "invalid_tool_call", **named, "args": call.raw_arguments}
            # The arguments are no JSON object: no tool may be run with them.
            block["error"] = call.problem
        yield {"event": "content-block-finish", "index": self._index, "content": block}


def _empty_block(block: Event) -> Event:
    """Return a block without its content, for the start of a block that comes whole."""
    if block["type"] == "server_tool_call":
        return {**block, "args": {}}
    if block["type"] == "server_tool_result":
        return {k: v for k, v in block.items() if k != "output"}
    return {**block, "value": {}}
