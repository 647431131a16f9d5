"""Internal: build LlamaIndex responses from the pieces of an answer.

The message of each response has all text so far; its delta is the new text.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse

from letta_adapters.chat import ChatEvent
from letta_adapters.chat.response import AnswerSoFar, Part, ResponseReader
from letta_adapters.llama_index.messages import build_assistant_message
from letta_adapters.messages import ToolCallMessage


class ResponseMaker:
    """Make the responses of one streamed answer.

    Args:
        reader: Reads the call's events.
        ephemeral: The conversation was for this call alone: unless it waits for results, the answer
            must not say that a history could go on there.
    """

    def __init__(self, reader: ResponseReader, *, ephemeral: bool = False) -> None:
        self._reader = reader
        self._so_far = AnswerSoFar()
        self._ephemeral = ephemeral

    def feed(self, event: ChatEvent) -> list[ChatResponse]:
        """Return the responses that an event of the call adds."""
        return self._respond(self._reader.read(event))

    def replay(self, pieces: Iterable[Part]) -> list[ChatResponse]:
        """Return all responses of a whole answer."""
        return self._respond(pieces) + self.finish()

    def finish(self) -> list[ChatResponse]:
        """Return the last response: tool calls, usage, and where the answer was given."""
        return [self.build("")]

    def _respond(self, pieces: Iterable[Part]) -> list[ChatResponse]:
        """Return the responses of pieces; a tool that ran on the server has none of its own."""
        made: list[ChatResponse] = []
        for piece in pieces:
            self._so_far.add(piece)
            kind, value = piece
            if kind == "text":
                made.append(ChatResponse(message=self._build_message(), delta=value))
            elif kind == "reasoning":
                # A response has no field for reasoning; LlamaIndex' own integrations put it here.
                extra = {"thinking_delta": value}
                message = self._build_message()
                made.append(ChatResponse(message=message, delta="", additional_kwargs=extra))
        return made

    def _build_message(self) -> ChatMessage:
        return build_assistant_message(self._so_far.text, self._so_far.reasoning)

    def add(self, pieces: Iterable[Part]) -> ResponseMaker:
        """Add pieces without a response for each; return this object."""
        # Nobody looks at the responses in between, each of which would copy the text so far.
        for piece in pieces:
            self._so_far.add(piece)
        return self

    def build(self, delta: str | None = None) -> ChatResponse:
        """Return the complete answer.

        Args:
            delta: The new text of this response.
        """
        end, said = self._reader.end, self._so_far
        assert end is not None
        # The conversation is removed now, so no history can go on from this answer.
        marker = None if self._ephemeral and not end.marker.pending else end.marker
        message = build_assistant_message(said.text, said.reasoning, end.pending, marker)
        if end.pending:
            # LlamaIndex' programs look for the calls of a stream here.
            message.additional_kwargs["tool_calls"] = [_to_openai(call) for call in end.pending]
        raw = build_raw(self._reader)
        if said.server_tools:
            raw["server_tools"] = [describe_server_tool(part) for part in said.server_tools]
        return to_response(message, raw, delta)


def build_raw(reader: ResponseReader) -> dict[str, Any]:
    """Return the data of a complete answer about itself: a response's ``raw``."""
    usage = reader.end.usage if reader.end is not None else None
    return reader.describe() | ({} if usage is None else {"usage": count_tokens(usage)})


def to_response(
    message: ChatMessage, raw: dict[str, Any], delta: str | None = None
) -> ChatResponse:
    """Return a complete answer as LlamaIndex' response.

    Args:
        message: The message.
        raw: Its data, see :func:`build_raw`.
        delta: The new text of this response.
    """
    # Handlers look for token counts in either place.
    extra = {**raw.get("usage", {}), "stop_reason": raw["stop_reason"]}
    return ChatResponse(message=message, raw=raw, delta=delta, additional_kwargs=extra)


def _to_openai(call: ToolCallMessage) -> dict[str, Any]:
    """Return a tool call in OpenAI's form, which LlamaIndex' programs read."""
    function = {"name": call.tool_name, "arguments": call.raw_arguments}
    return {"id": call.tool_call_id, "type": "function", "function": function}


def count_tokens(usage: Any) -> dict[str, int]:
    """Return token counts under the names that LlamaIndex' handlers look for."""
    made = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    # Providers that do not report these counts must not seem to report zero.
    details = {
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
    return made | {name: value for name, value in details.items() if value is not None}


def describe_server_tool(part: Part) -> dict[str, Any]:
    """Return the entry of a response's ``raw`` about a tool that the agent ran itself.

    Args:
        part: The call of the tool, or its result.
    """
    kind, value = part
    about = {"tool_call_id": value.tool_call_id, "tool_name": value.tool_name}
    if kind == "server_call":
        return {**about, "tool_kwargs": dict(value.tool_input)}
    return {**about, "output": value.content, "is_error": value.is_error}


def build_response(
    reader: ResponseReader, pieces: Iterable[Part], *, ephemeral: bool
) -> ChatResponse:
    """Return a whole answer that was not streamed."""
    return ResponseMaker(reader, ephemeral=ephemeral).add(pieces).build()


def as_completion(response: ChatResponse) -> CompletionResponse:
    """Return the same response for callers who asked with a prompt."""
    # Not `content`, which puts a new line between blocks.
    text = "".join(getattr(block, "text", "") for block in response.message.blocks)
    return CompletionResponse(
        text=text,
        delta=response.delta,
        raw=response.raw,
        additional_kwargs=response.additional_kwargs,
    )


def to_completions(
    responses: Generator[ChatResponse, None, None],
) -> Generator[CompletionResponse, None, None]:
    """Yield the same responses for callers who asked with a prompt."""
    try:
        for response in responses:
            yield as_completion(response)
    finally:
        responses.close()


async def to_acompletions(
    responses: AsyncGenerator[ChatResponse, None],
) -> AsyncGenerator[CompletionResponse, None]:
    """Yield the same responses for callers who asked with a prompt."""
    try:
        async for response in responses:
            yield as_completion(response)
    finally:
        await responses.aclose()
