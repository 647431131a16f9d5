"""Internal: build an ``AIMessage`` or its chunks from the pieces of an answer, with metadata.

Plain text is plain ``str`` content, which costs least; everything else is a list of content blocks
in LangChain's standard form (``output_version="v1"`` then has nothing left to translate).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages import content as blocks
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.tool import ToolCall, invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from letta_adapters.chat import ChatEvent
from letta_adapters.chat.marker import MARKER_KEY
from letta_adapters.chat.response import Answer, Part, ResponseReader, join_parts
from letta_adapters.messages import ToolCallMessage, ToolResultMessage, Usage

PROVIDER: Final = "letta"
# The key in ``response_metadata`` of notes about the run, which are no part of the message.
NOTES: Final = "letta_notes"
# The key in ``response_metadata`` of the server's data about permission questions, by tool call id.
QUESTIONS: Final = "letta_questions"
# The key for the number of questions in a repeated answer that were decided before.
DECIDED: Final = "letta_decided"


def build_metadata(reader: ResponseReader) -> dict[str, Any]:
    """Return the message's ``response_metadata``.

    It goes on the last chunk only: LangChain would concatenate strings of several chunks.
    """
    about, end = reader.describe(), reader.end
    assert end is not None
    made: dict[str, Any] = {
        "model_provider": PROVIDER,
        "model_name": about.pop("model") or PROVIDER,
        **about,
        MARKER_KEY: end.marker.to_dict(),
    }
    if end.replayed:
        made["replayed"] = True
    if end.decided:
        made[DECIDED] = end.decided
    # Only the two fields that a decision is made by: the others may be large.
    told = {
        call_id: {name: about[name] for name in ("kind", "default") if name in about}
        for call_id, about in end.details.items()
    }
    if any(told.values()):
        made[QUESTIONS] = told
    if reader.start is not None and reader.start.forked:
        made["forked"] = reader.start.forked
    return made


def read_usage(reader: ResponseReader) -> dict[str, Any] | None:
    """Return the message's ``UsageMetadata``; ``None`` for an answer that was given before."""
    end = reader.end
    return None if end is None or end.usage is None else to_usage_metadata(end.usage)


def to_usage_metadata(usage: Usage) -> dict[str, Any]:
    """Return Letta's token counts in LangChain's terms.

    Details are there only where the provider gave them.
    """
    made: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    # The Letta API reports 0 cache writes or none at all, depending on how the answer was streamed;
    # both come to mean the same here.
    written = usage.cache_write_tokens or None
    reads = {"cache_read": usage.cached_input_tokens, "cache_creation": written}
    given = {k: v for k, v in reads.items() if v is not None}
    if given:
        made["input_token_details"] = given
    if usage.reasoning_tokens is not None:
        made["output_token_details"] = {"reasoning": usage.reasoning_tokens}
    return made


def to_block(piece: Part) -> dict[str, Any]:
    """Return the standard content block of a piece that is no text."""
    kind, value = piece
    if kind == "reasoning":
        return {"type": "reasoning", "reasoning": value}
    if kind == "server_call":
        call: ToolCallMessage = value
        return {
            "type": "server_tool_call",
            "id": call.tool_call_id,
            "name": call.tool_name,
            "args": dict(call.tool_input),
        }
    if kind == "server_result":
        result: ToolResultMessage = value
        return {
            "type": "server_tool_result",
            "tool_call_id": result.tool_call_id,
            "status": "error" if result.is_error else "success",
            "output": result.content,
        }
    return {"type": "non_standard", "value": value}


class ChunkMaker:
    """Make the chunks of one streamed message."""

    def __init__(self, reader: ResponseReader) -> None:
        self._reader = reader
        self._index = -1
        self._last = ""

    def feed(self, event: ChatEvent) -> list[ChatGenerationChunk]:
        """Return the chunks that an event of the call adds."""
        return [
            ChatGenerationChunk(message=self.make_chunk(piece))
            for piece in self._reader.read(event)
        ]

    def finish(self) -> list[ChatGenerationChunk]:
        """Return the chunk that ends the message."""
        return [ChatGenerationChunk(message=self.make_last())]

    def replay(self, pieces: Iterable[Part]) -> list[ChatGenerationChunk]:
        """Return all chunks of a whole answer."""
        made = [ChatGenerationChunk(message=self.make_chunk(piece)) for piece in pieces]
        return made + self.finish()

    def make_chunk(self, piece: Part) -> AIMessageChunk:
        """Return the chunk of one piece.

        Blocks of one kind that follow each other get one index, so LangChain merges them into one
        block.
        """
        kind, value = piece
        if kind == "text":
            self._last = kind
            return AIMessageChunk(content=value, id=self._reader.id)
        if kind == "note":
            noted = {NOTES: [value]}
            # A note is about the run, so it stays out of the message's content.
            return AIMessageChunk(content="", id=self._reader.id, response_metadata=noted)
        if kind != self._last or kind != "reasoning":
            self._index += 1
        self._last = kind
        block = {**to_block(piece), "index": self._index}
        return AIMessageChunk(
            content=[block],
            id=self._reader.id,
            response_metadata={"model_provider": PROVIDER},
        )

    def make_last(self) -> AIMessageChunk:
        """Return the chunk that ends the message: tool calls, usage, metadata."""
        reader = self._reader
        calls = [
            tool_call_chunk(
                name=call.tool_name, args=_encode_arguments(call), id=call.tool_call_id, index=i
            )
            for i, call in enumerate(reader.tool_calls)
        ]
        return AIMessageChunk(
            content="",
            id=reader.id,
            tool_call_chunks=calls,
            usage_metadata=cast("Any", read_usage(reader)),
            response_metadata=build_metadata(reader),
            chunk_position="last",
        )


def build_message(answer: Answer) -> AIMessage:
    """Return the whole answer as one message, equal to the sum of its chunks.

    The exception are broken tool calls, see :func:`_encode_arguments`.
    """
    notes = [value for kind, value in answer.pieces if kind == "note"]
    # Fragments are joined as adding up chunks would join them: a note between two does not count.
    said = join_parts(part for part in answer.pieces if part[0] != "note")
    content: list[Any] = [part[1] if part[0] == "text" else to_block(part) for part in said]
    # One text is a plain string, as chunks of text alone would add up to.
    plain = not content or (len(content) == 1 and isinstance(content[0], str))
    reader = answer.reader
    return AIMessage(
        content="".join(content) if plain else content,
        id=reader.id,
        tool_calls=[_to_tool_call(call) for call in reader.tool_calls if not call.problem],
        invalid_tool_calls=[
            invalid_tool_call(
                name=call.tool_name,
                args=call.raw_arguments,
                id=call.tool_call_id,
                error=call.problem,
            )
            for call in reader.tool_calls
            if call.problem
        ],
        usage_metadata=cast("Any", read_usage(reader)),
        response_metadata=build_metadata(reader) | ({NOTES: notes} if notes else {}),
    )


def _encode_arguments(call: ToolCallMessage) -> str:
    """Return a call's arguments so that LangChain's streaming parser reads them as they are.

    That parser repairs JSON that was cut off, and a tool would run with the defaults of all that is
    missing. A JSON string it leaves alone, and calls the call invalid; it is read again by
    :func:`~letta_adapters.langchain.messages.read_raw_arguments`. And ``null`` means no arguments
    to some models.
    """
    if call.problem:
        return json.dumps(call.raw_arguments)
    return call.raw_arguments if call.tool_input else "{}"


def _to_tool_call(call: ToolCallMessage) -> ToolCall:
    return tool_call(name=call.tool_name, args=dict(call.tool_input), id=call.tool_call_id)


def _translate(message: AIMessage) -> list[blocks.ContentBlock]:
    """Return content of ours as standard blocks.

    Texts are strings in it, all else is standard already.
    """
    content = message.content
    items = [content] if isinstance(content, str) else content
    made: list[Any] = []
    for item in items:
        if isinstance(item, str):
            if item:
                made.append({"type": "text", "text": item})
        else:
            made.append(item)
    # Until the last chunk the arguments of a call may be incomplete, so LangChain shows chunks of
    # it.
    if isinstance(message, AIMessageChunk) and message.chunk_position != "last":
        made += message.tool_call_chunks
    else:
        made += [*message.tool_calls, *message.invalid_tool_calls]
    return cast("list[blocks.ContentBlock]", made)


# LangChain asks the translator of a message's provider for `content_blocks`.
register_translator(PROVIDER, _translate, _translate)
