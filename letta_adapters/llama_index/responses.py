"""Build LlamaIndex responses from the pieces of an answer.

The message of each response has all text so far; its delta is the new text.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse

from letta_adapters.chat import ChatEvent
from letta_adapters.chat.response import STOPPED, Part, ResponseReader
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
        self._text = ""
        self._thinking = ""
        self._ephemeral = ephemeral
        self._server: list[dict[str, Any]] = []

    def feed(self, event: ChatEvent) -> list[ChatResponse]:
        """Return the responses that an event of the call adds."""
        return [made for piece in self._reader.read(event) for made in self._respond(piece)]

    def replay(self, pieces: Iterable[Part]) -> list[ChatResponse]:
        """Return all responses of a whole answer."""
        return [made for piece in pieces for made in self._respond(piece)] + self.finish()

    def finish(self) -> list[ChatResponse]:
        """Return the last response: tool calls, usage, and where the answer was given."""
        return [self.build("")]

    def _respond(self, piece: Part) -> list[ChatResponse]:
        """Return the responses of one piece; a tool that ran on the server has none of its own."""
        kind, value = piece
        if kind == "text":
            self._text += value
            return [ChatResponse(message=self._build_message(), delta=value)]
        if kind == "reasoning":
            self._thinking += value
            # A response has no field for reasoning; LlamaIndex' own integrations put it here too.
            extra = {"thinking_delta": value}
            return [ChatResponse(message=self._build_message(), delta="", additional_kwargs=extra)]
        self._server += describe_server_tool(piece)
        return []

    def _build_message(self) -> ChatMessage:
        return build_assistant_message(self._text, self._thinking)

    def add(self, pieces: Iterable[Part]) -> ResponseMaker:
        """Add pieces without a response for each; return this object."""
        for kind, value in pieces:
            if kind == "text":
                self._text += value
            elif kind == "reasoning":
                self._thinking += value
            else:
                self._server += describe_server_tool((kind, value))
        return self

    def build(self, delta: str | None = None) -> ChatResponse:
        """Return the complete answer.

        Args:
            delta: The new text of this response.
        """
        end = self._reader.end
        assert end is not None
        # The conversation is removed now, so no history can go on from this answer.
        marker = None if self._ephemeral and not end.marker.pending else end.marker
        message = build_assistant_message(self._text, self._thinking, end.pending, marker)
        if end.pending:
            # LlamaIndex' programs look for the calls of a stream here.
            message.additional_kwargs["tool_calls"] = [_to_openai(call) for call in end.pending]
        raw: dict[str, Any] = {
            "stop_reason": STOPPED if self._reader.stopped else end.stop_reason,
            "agent_id": end.agent_id,
            "conversation_id": end.conversation_id,
            "run_ids": list(end.run_ids),
            "model": end.model,
        }
        if self._server:
            raw["server_tools"] = self._server
        counts = {} if end.usage is None else count_tokens(end.usage)
        if counts:
            raw["usage"] = counts
        extra = {**counts, "stop_reason": raw["stop_reason"]}
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


def describe_server_tool(piece: Part) -> list[dict[str, Any]]:
    """Return the entry of a response's ``raw`` about a tool that the agent ran itself."""
    kind, value = piece
    if kind == "server_call":
        about = {"tool_call_id": value.tool_call_id, "tool_name": value.tool_name}
        return [{**about, "tool_kwargs": dict(value.tool_input)}]
    if kind == "server_result":
        about = {"tool_call_id": value.tool_call_id, "tool_name": value.tool_name}
        return [{**about, "output": value.content, "is_error": value.is_error}]
    return []


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
