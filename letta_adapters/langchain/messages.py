"""Internal: translate LangChain messages into entries of a history, and tools into Letta's."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolMessage,
)
from langchain_core.utils.function_calling import convert_to_openai_tool

from letta_adapters.chat import HistoryMessage, Marker
from letta_adapters.chat.history import encode_call
from letta_adapters.content import ImageContent, TextContent, image_from_url
from letta_adapters.content import to_wire as content_to_wire
from letta_adapters.errors import InvalidInputError
from letta_adapters.langchain._compat import SOURCE, SUMMARY
from letta_adapters.messages import PendingToolCall
from letta_adapters.permissions import Allow, Deny
from letta_adapters.tools.client_side import check_tool_names
from letta_adapters.tools.frameworks import SCHEMA_NAMES, rename_schema

# The key in ``additional_kwargs`` under which the answer to a permission question carries the
# decision. Not in ``artifact``, which belongs to tools: a tool's output must not be able to allow
# anything.
DECISION_KEY: Final = "letta_decision"
# The key of an answer that ends the turn although nobody has decided.
ENDS_KEY: Final = "letta_ends"
_ROLES: Final[Mapping[str, Literal["user", "assistant", "system"]]] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
}
# Kinds of content blocks that are a model's own affair and are not sent to the agent.
_SILENT: Final = frozenset(
    {
        "reasoning",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_result",
        "non_standard",
        "cache_point",
    }
)


_IMAGES: Final = frozenset({"image", "image_url"})
_MEDIA: Final = frozenset({"audio", "video", "file", "input_audio"})


def to_entries(messages: Iterable[BaseMessage]) -> list[HistoryMessage]:
    """Return the history as the history rule reads it.

    Raises:
        InvalidInputError: Content that Letta's messages do not have (PDF, audio, video, files).
    """
    return [_to_entry(message) for message in messages]


def _to_entry(message: BaseMessage) -> HistoryMessage:
    """Return one message as an entry."""
    if isinstance(message, AIMessage):
        return HistoryMessage(
            "assistant",
            _read_answer(message),
            id=message.id,
            name=message.name,
            marker=read_marker(message),
            tool_calls=tuple(_read_calls(message)),
        )
    if isinstance(message, ToolMessage):
        return HistoryMessage(
            "tool",
            _read_content(message.content),
            id=message.id,
            tool_call_id=message.tool_call_id,
            is_error=message.status == "error",
            decision=message.additional_kwargs.get(DECISION_KEY),
            ends=message.additional_kwargs.get(ENDS_KEY) is True,
        )
    if isinstance(message, SystemMessage):
        return HistoryMessage("system", _read_system(message), id=message.id)
    if isinstance(message, HumanMessage):
        # LangChain's SummarizationMiddleware marks its summaries so; they stand for older messages.
        summary = message.additional_kwargs.get(SOURCE) == SUMMARY
        content = _read_content(message.content)
        return HistoryMessage("user", content, id=message.id, name=message.name, summary=summary)
    role = _ROLES.get(message.role) if isinstance(message, ChatMessage) else None
    if role is None:
        raise InvalidInputError(
            f"A message of type {message.type!r} has no place in a Letta conversation.",
            hint="Use system, human, ai and tool messages.",
        )
    return HistoryMessage(role, _read_content(message.content), id=message.id, name=message.name)


def _read_answer(message: AIMessage) -> str | list[dict[str, Any]]:
    """Return an answer's content without blocks that are a model's own affair (thoughts, tools).

    Raises:
        InvalidInputError: It holds audio, video or a file, which no Letta message holds.
    """
    if isinstance(message.content, str):
        return str(message.text)
    # `text` skips all blocks but text, so it would lose an image without a word.
    kinds = {str(b.get("type")) for b in message.content if isinstance(b, Mapping)}
    if kinds.isdisjoint(_IMAGES | _MEDIA):
        return str(message.text)
    shown = _IMAGES | _MEDIA | {"text"}
    return _read_content(
        [b for b in message.content if isinstance(b, str) or b.get("type") in shown]
    )


def _read_system(message: SystemMessage) -> str:
    """Return the text of a system message.

    Raises:
        InvalidInputError: It holds something else.
    """
    for block in () if isinstance(message.content, str) else message.content:
        kind = str(block.get("type")) if isinstance(block, Mapping) else "text"
        if kind not in _SILENT and _PARTS.get(kind) is not _read_text_block:
            raise InvalidInputError(
                f"A system message for a Letta agent holds text, not {kind!r}.",
                hint="Put it into a user's message.",
            )
    return str(message.text)


def check_decisions(messages: Sequence[BaseMessage]) -> None:
    """Refuse an answer to a permission question whose decision stands where it is not read.

    Args:
        messages: The history.

    Raises:
        InvalidInputError: An ``artifact`` looks like a decision; the error tells what to write
            instead.
    """
    # Only the newest answer of an agent can have questions that are still open.
    for message in reversed(messages):
        marker = read_marker(message)
        if marker is not None:
            questions = marker.questions or ()
            break
    else:
        return
    for message in messages:
        if isinstance(message, ToolMessage) and message.tool_call_id in questions:
            artifact = message.artifact
            looks = isinstance(artifact, Allow | Deny) or (
                isinstance(artifact, Mapping) and artifact.get("behavior") in ("allow", "deny")
            )
            if looks and DECISION_KEY not in message.additional_kwargs:
                raise InvalidInputError(
                    "The artifact of a tool's message is no decision about the agent's own tool "
                    f"(call {message.tool_call_id}).",
                    hint="Make the message with letta_adapters.langchain.decide(call, True).",
                )


def read_marker(message: BaseMessage) -> Marker | None:
    """Return the marker of a message that an agent of ours gave, or ``None``."""
    return Marker.find_in(message.response_metadata)


def _read_calls(message: AIMessage) -> Iterable[PendingToolCall]:
    """Yield the tool calls of an answer, those with broken arguments included."""
    for call in message.tool_calls:
        yield encode_call(call["id"], call["name"], call["args"])
    for broken in message.invalid_tool_calls:
        yield encode_call(broken["id"], broken["name"] or "", read_raw_arguments(broken))


def read_raw_arguments(broken: InvalidToolCall) -> str:
    """Return the arguments of a call that cannot be run, as the model wrote them.

    A message that was put together from chunks has no error text, and the arguments are a JSON
    string in it: see ``chunks.py``.

    Args:
        broken: The call, as LangChain keeps it.
    """
    given = broken["args"] or ""
    if broken.get("error"):
        return given
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return value if isinstance(value, str) else given


def _read_content(content: str | Sequence[str | Mapping[str, Any]]) -> str | list[dict[str, Any]]:
    """Return content as Letta's wire form has it: a text, or parts without blank ones."""
    if isinstance(content, str):
        return content
    parts: list[TextContent | ImageContent] = []
    for item in content:
        part = TextContent(item) if isinstance(item, str) else _read_part(item)
        if isinstance(part, ImageContent) or (part is not None and part.text.strip()):
            parts.append(part)
    if not parts:
        return ""
    wire = content_to_wire(parts)
    return wire if isinstance(wire, str) else list(wire)


def _read_part(item: Mapping[str, Any]) -> TextContent | ImageContent | None:
    kind = str(item.get("type") or "")
    read = _PARTS.get(kind)
    if read is not None:
        return read(item)
    if kind in _SILENT:
        return None
    raise InvalidInputError(
        f"A Letta agent's messages hold text and images, not {kind or 'this content'!r}.",
        hint="Extract the text of a document first, and send that.",
    )


def _read_text_block(item: Mapping[str, Any]) -> TextContent:
    return TextContent(str(item.get("text") or ""))


def _read_image(item: Mapping[str, Any]) -> ImageContent:
    """Read an image block: LangChain's own, in both of its forms, or Anthropic's."""
    source = item.get("source")
    if isinstance(source, Mapping):
        # Anthropic nests the same fields under `source`.
        item = {**source, "source_type": source.get("type")}
    media_type = item.get("mime_type") or item.get("media_type")
    data = item.get("base64") or (item.get("data") if item.get("source_type") != "url" else None)
    if data:
        return ImageContent(data=str(data), media_type=media_type)
    url = item.get("url")
    if not isinstance(url, str) or not url:
        raise InvalidInputError(
            "An image needs its base64 data or a URL.",
            hint="File ids of other providers mean nothing to Letta.",
        )
    return image_from_url(url)


def _read_image_url(item: Mapping[str, Any]) -> ImageContent:
    """Read OpenAI's image part."""
    given = item.get("image_url")
    url = given.get("url") if isinstance(given, Mapping) else given
    return image_from_url(str(url or ""))


_PARTS: Final[Mapping[str, Callable[[Mapping[str, Any]], TextContent | ImageContent]]] = {
    "text": _read_text_block,
    "text-plain": _read_text_block,
    "input_text": _read_text_block,
    "output_text": _read_text_block,
    "image": _read_image,
    "image_url": _read_image_url,
}


def to_wire_tools(tools: Iterable[Any], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Return tools as client-side tools of Letta.

    Args:
        tools: Functions, pydantic models, ``BaseTool``s, Runnables' tools and dicts.
        strict: Passed on into the schemas.

    Raises:
        InvalidInputError: Something cannot be a tool (the error tells why), has a name that models
            do not take, or the name of another one. A schema that is given twice, as a class and as
            a dict, is one tool.
    """
    made: list[dict[str, Any]] = []
    for tool in tools:
        wire = _to_wire_tool(tool, strict)
        is_schema = isinstance(tool, Mapping | type)
        # LangChain's agents bind a schema as a class and as a dict; two tools of one name are
        # refused.
        if not (is_schema and any(_drop_titles(wire) == _drop_titles(other) for other in made)):
            made.append(wire)
    check_tool_names([str(tool["name"]) for tool in made])
    return made


def _drop_titles(schema: Any) -> Any:
    """Return a schema without its titles, which carry no meaning and are left out by some tools."""
    if isinstance(schema, Mapping):
        return {
            k: _drop_titles(v)
            for k, v in schema.items()
            if not (k == "title" and isinstance(v, str))
        }
    return [_drop_titles(item) for item in schema] if isinstance(schema, list) else schema


def _to_wire_tool(tool: Any, strict: bool | None) -> dict[str, Any]:
    """Return one tool as a client-side tool of Letta."""
    if isinstance(tool, Mapping):
        _refuse_foreign(tool)
        # LangChain knows two of the names of a schema, and would drop it under the third.
        tool = rename_schema(tool)
    try:
        function = convert_to_openai_tool(tool, strict=strict)["function"]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInputError(f"{tool!r} is not a tool: {error}") from error
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if parameters.get("type", "object") != "object":
        raise InvalidInputError(
            f"The parameters of the tool {function['name']!r} are of type "
            f"{parameters['type']!r}: a tool's are an object."
        )
    return {
        "name": function["name"],
        # Python 3.13 takes the indentation out of docstrings, older ones leave it in.
        "description": inspect.cleandoc(function.get("description") or ""),
        "parameters": parameters,
    }


def _refuse_foreign(tool: Mapping[str, Any]) -> None:
    """Refuse a dict that names a tool which another provider runs.

    Such a dict has a type of its own and no schema of arguments (Anthropic's ``{"type":
    "web_search_20250305", "name": "web_search"}``). As a client-side tool it would be one that does
    nothing.
    """
    kind = tool.get("type")
    if kind in (None, "function", "custom", "object"):
        return
    if not tool.keys() & {"function", *SCHEMA_NAMES}:
        raise InvalidInputError(
            f"The tool {kind!r} is one that another provider runs; Letta knows nothing of it.",
            hint="Give the Letta agent a tool of its own for it, or a function of yours.",
        )
