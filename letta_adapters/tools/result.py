"""Internal: the result of a tool as the model reads it, made of values and exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import to_json

from letta_adapters.content import ImageContent, TextContent, to_wire
from letta_adapters.errors import InvalidInputError
from letta_adapters.tools.schema import short_error

_MAX_ERROR_CHARS: Final = 4000
# The keys of a result as the TypeScript SDK and MCP write it.
_FAILED: Final = ("isError", "is_error")
_WRITTEN: Final = frozenset({"content", "details", *_FAILED})


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool as the model reads it: text or content parts, and whether it failed.

    A tool may return one itself, to report a failure without raising. ``traceback`` is the
    traceback of an exception that the tool raised; the model does not see it.
    """

    content: str | list[dict[str, Any]]
    is_error: bool = False
    traceback: str | None = field(default=None, compare=False, repr=False)


def read_result(value: object) -> ToolResult:
    """Return what a tool returned as a result; never raise.

    A dict of the form that the TypeScript SDK and MCP have for results (``content``, ``isError``)
    is one: its content is what the model reads, and a failure stays a failure. ``details`` are for
    the program, and are left out.
    """
    if isinstance(value, ToolResult):
        # Formatted like any other value, since what it holds may not be fit to be sent.
        return ToolResult(format_result(value.content), value.is_error, value.traceback)
    try:
        read = _read_written(value) if isinstance(value, Mapping) else None
    except Exception:  # a value of the user's own class that cannot even be looked at
        read = None
    return ToolResult(format_result(value)) if read is None else read


def _read_written(value: Mapping[Any, Any]) -> ToolResult | None:
    """Return the result that a dict of that form says; ``None`` if it is data of another kind."""
    given = {key: item for key, item in value.items() if item is not None}
    flags = [given[key] for key in _FAILED if key in given]
    if not given.keys() <= _WRITTEN or "content" not in given or len(flags) > 1:
        return None
    content = given["content"]
    if not all(isinstance(flag, bool) for flag in flags):
        return None
    # Without the flag only parts tell such a result from other data that has a "content".
    if flags and (isinstance(content, str) or content in ([], ())):
        return ToolResult(format_result(content or ""), flags[0])
    parts = _as_parts(content) if isinstance(content, (list, tuple)) else None
    return None if parts is None else ToolResult(parts, any(flags))


def format_result(value: object) -> str | list[dict[str, Any]]:
    """Return a tool's return value as the model reads it; never raise.

    A string stays as it is and ``None`` becomes ``""``. Text and images (of
    :mod:`letta_adapters.content`, or parts as they are on the wire) become a list of parts.
    Everything else becomes JSON, by ``str()`` where JSON cannot hold it.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        # Not str(value): a subclass of str, such as an enum, may print as something else.
        return clean_text(str.__str__(value))
    try:
        parts = _as_parts(value)
        return clean_text(to_json(value, fallback=str).decode()) if parts is None else parts
    # A value that cannot be made JSON must not cost the whole turn.
    except Exception:
        return clean_text(_safe_str(value))


def _as_parts(value: object) -> str | list[dict[str, Any]] | None:
    """Return parts for the wire, ``""`` if all are empty, ``None`` if these are no parts."""
    items: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    # A list that holds anything else is data, and becomes JSON as a whole.
    if not any(map(_is_part, items)) or not all(_is_part(i) or isinstance(i, str) for i in items):
        return None
    # Providers refuse an empty text part, and a model needs none.
    try:
        texts = [_as_part(item) for item in items]
        filled = [item for item in texts if not isinstance(item, TextContent) or item.text.strip()]
        return to_wire(filled) if filled else ""
    except InvalidInputError:  # a dict that only looked like a part
        return None


def _as_part(item: Any) -> Any:
    if isinstance(item, str):
        return TextContent(clean_text(item))
    if _is_written_image(item):
        return ImageContent(data=item["data"], media_type=item["mimeType"])
    # A dict becomes an object of ours, so that an empty text is left out however it was written.
    if (
        isinstance(item, Mapping)
        and item.keys() == {"type", "text"}
        and isinstance(item["text"], str)
    ):
        return TextContent(clean_text(item["text"]))
    return item


def _is_written_image(item: object) -> bool:
    """Return whether it is an image as the TypeScript SDK and MCP write it."""
    return (
        isinstance(item, Mapping)
        and item.get("type") == "image"
        and {"data", "mimeType"} <= {*item}
    )


def _is_part(item: object) -> bool:
    if isinstance(item, Mapping):
        kind = item.get("type")
        shown = (kind == "text" and "text" in item) or (kind == "image" and "source" in item)
        return shown or _is_written_image(item)
    return isinstance(item, (TextContent, ImageContent))


def format_error(error: BaseException) -> str:
    """Return an exception as the model reads it: its type and message, without a traceback."""
    if isinstance(error, ValidationError):
        return f"Validation error: {short_error(error)}"
    message = _safe_str(error)
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return clean_text(text if len(text) <= _MAX_ERROR_CHARS else text[:_MAX_ERROR_CHARS] + "...")


def _safe_str(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def clean_text(text: str) -> str:
    """Replace lone surrogates, which odd file names hold and which cannot be sent, by ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")
