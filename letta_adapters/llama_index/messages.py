"""Internal: translate LlamaIndex messages into entries of a history, and tools into Letta's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import BaseTool, ToolOutput, ToolSelection

from letta_adapters.chat import HistoryMessage, Marker
from letta_adapters.chat.history import encode_call
from letta_adapters.chat.marker import MARKER_KEY
from letta_adapters.content import ImageContent, TextContent, image_from_bytes, image_from_url
from letta_adapters.content import to_wire as content_to_wire
from letta_adapters.engine.assembler import parse_arguments
from letta_adapters.errors import InvalidInputError
from letta_adapters.messages import PendingToolCall, broken_arguments
from letta_adapters.permissions import Allow, Deny, normalise_decision

_ROLES: Final[Mapping[str, Any]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Advice for kinds of blocks that Letta does not take.
_INSTEAD: Final[Mapping[str, str]] = {
    "document": "Extract the text of the document first, and send that.",
    "audio": "Transcribe it first, and send the text.",
    "video": "Send a description, or some of its frames as images.",
}
# Kinds of blocks that are a model's own affair and are not sent to the agent.
_SILENT: Final = frozenset({"cache", "thinking", "tool_call", "citation"})


def to_entries(messages: Iterable[ChatMessage]) -> list[HistoryMessage]:
    """Return the history as the history rule reads it.

    Raises:
        InvalidInputError: Content that Letta's messages do not have (documents, audio, video).
    """
    return [to_entry(message) for message in messages]


def to_entry(message: ChatMessage) -> HistoryMessage:
    """Return one message as an entry.

    Raises:
        InvalidInputError: Its role or its content has no place in a Letta conversation.
    """
    # LlamaIndex takes roles as an enum and as plain strings.
    role = _ROLES.get(str(getattr(message.role, "value", message.role)))
    if role is None:
        raise InvalidInputError(f"A message of role {message.role!r} has no place in a Letta turn.")
    extra = message.additional_kwargs
    name = _read_text_of(extra, "name")
    if role == "assistant":
        return HistoryMessage(
            "assistant",
            _read_text(message, "assistant"),
            name=name,
            marker=Marker.find_in(extra),
            tool_calls=tuple(_read_calls(message)),
        )
    if role == "tool":
        return HistoryMessage(
            "tool",
            _read_content(message),
            tool_call_id=str(extra.get("tool_call_id") or ""),
            is_error=bool(extra.get("is_error")),
            decision=_read_decision(extra.get("decision")),
            fact=bool(extra.get("fact")),
            ends=bool(extra.get("ends")),
        )
    if role == "system":
        return HistoryMessage("system", _read_text(message, "system"))
    known = _read_text_of(extra, "id")
    return HistoryMessage("user", _read_content(message), id=known, name=name)


def _read_text_of(extra: Mapping[str, Any], key: str) -> str | None:
    """Return a value of a message's further fields, which may be of any type, as text."""
    value = extra.get(key)
    return None if value is None else str(value)


def _read_text(message: ChatMessage, role: str) -> str:
    """Return all text of a message, without the separators that ``content`` puts between blocks.

    Raises:
        InvalidInputError: It holds an image, which only users and tools can show.
    """
    parts = [part for block in message.blocks for part in _read_parts(block, keep_blank=True)]
    if not all(isinstance(part, TextContent) for part in parts):
        raise InvalidInputError(
            f"A message of the {role} holds an image; a Letta agent is shown images by users and "
            "by tools only.",
            hint="Put the image into a user's message.",
        )
    return "".join(part.text for part in parts if isinstance(part, TextContent))


def _read_decision(value: Any) -> Allow | Deny | None:
    return None if value is None else normalise_decision(value)


def _read_calls(message: ChatMessage) -> Iterable[PendingToolCall]:
    """Yield the tool calls in a message."""
    for block in message.blocks:
        if isinstance(block, ToolCallBlock):
            yield encode_call(block.tool_call_id, block.tool_name, block.tool_kwargs)


def _read_content(message: ChatMessage) -> str | list[dict[str, Any]]:
    """Return a message's content: text, or parts in Letta's wire form if there are images."""
    parts = [part for block in message.blocks for part in _read_parts(block)]
    if all(isinstance(part, TextContent) for part in parts):
        # LlamaIndex joins its text blocks with a new line.
        return "\n".join(part.text for part in parts if isinstance(part, TextContent))
    wire = content_to_wire(parts)
    return wire if isinstance(wire, str) else list(wire)


def _read_parts(block: Any, *, keep_blank: bool = False) -> list[TextContent | ImageContent]:
    """Return a block as parts; a blank text, or a block that is a model's own affair, is none."""
    if isinstance(block, TextBlock):
        return [TextContent(block.text)] if keep_blank or block.text.strip() else []
    if isinstance(block, ImageBlock):
        return [_read_image(block)]
    if isinstance(block, CitableBlock):
        # A citable block is a document's excerpt, which the agent reads as its parts.
        return [
            part for inner in block.content for part in _read_parts(inner, keep_blank=keep_blank)
        ]
    kind = str(getattr(block, "block_type", type(block).__name__))
    if kind in _SILENT or isinstance(block, ThinkingBlock | ToolCallBlock):
        return []
    raise InvalidInputError(
        f"A Letta agent's messages hold text and images, not {kind!r} blocks.",
        hint=_INSTEAD.get(kind, "Send what it says as text."),
    )


def _read_image(block: ImageBlock) -> ImageContent:
    """Return an image block as Letta's image."""
    if block.url is not None and block.image is None:
        # A URL is passed on as it is: the image need not be loaded here.
        return image_from_url(str(block.url))
    try:
        # LlamaIndex knows all the forms of an image: bytes, base64, and a path.
        data = block.resolve_image().read()
    except (ValueError, OSError) as error:
        raise InvalidInputError(f"The image cannot be read: {error}") from error
    return image_from_bytes(data if isinstance(data, bytes) else str(data).encode())


def read_tool_output(output: ToolOutput) -> dict[str, Any]:
    """Return a tool's output as the fields of a tool message: its text, or all its blocks."""
    blocks = list(output.blocks)
    plain = all(isinstance(block, TextBlock) for block in blocks)
    given = {"content": output.content} if plain else {"blocks": blocks}
    return {**given, "is_error": output.is_error}


def to_wire_tools(tools: Sequence[BaseTool]) -> list[dict[str, Any]]:
    """Return LlamaIndex tools as client-side tools of Letta.

    Raises:
        InvalidInputError: Something is no tool.
    """
    made = []
    for tool in tools:
        if not isinstance(tool, BaseTool):
            raise InvalidInputError(
                f"{tool!r} is not a tool.", hint="Use FunctionTool.from_defaults."
            )
        about = tool.metadata
        made.append(
            {
                "name": about.get_name(),
                "description": about.description or "",
                "parameters": about.get_parameters_dict(),
            }
        )
    return made


def build_assistant_message(
    text: str,
    thinking: str = "",
    calls: Sequence[Any] = (),
    marker: Marker | None = None,
) -> ChatMessage:
    """Return an answer as LlamaIndex' message.

    Args:
        text: The text of the answer.
        thinking: The agent's reasoning.
        calls: The tool calls that wait for the caller.
        marker: Where the answer was given.
    """
    blocks: list[Any] = [TextBlock(text=text)]
    # One for each token has a text alone, and is made without looking at what it has not.
    if not (thinking or calls or marker):
        return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
    # Thinking stands first: that is the order in which a model says things.
    if thinking:
        blocks.insert(0, ThinkingBlock(content=thinking))
    blocks += [
        ToolCallBlock(
            tool_call_id=call.tool_call_id,
            tool_name=call.tool_name,
            # Arguments that are no JSON object stay the text they are, so that the fault can be
            # seen.
            tool_kwargs=dict(call.tool_input) or call.raw_arguments or {},
        )
        for call in calls
    ]
    extra = {} if marker is None else {MARKER_KEY: marker.to_dict()}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=extra)


def to_selection(call: ToolCallBlock) -> ToolSelection:
    """Return a call as it is to be run; one whose arguments are no JSON object names no tool."""
    name, given = call.tool_name, call.tool_kwargs
    # LlamaIndex' error about an unknown tool names it, and so tells the fault.
    problem = broken_arguments(name, given) if isinstance(given, str) else ""
    return ToolSelection(
        tool_id=call.tool_call_id or "",
        tool_name=f"{name} ({problem})" if problem else name,
        tool_kwargs=parse_arguments(given) if isinstance(given, str) else given,
    )
