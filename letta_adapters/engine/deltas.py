"""Internal: the new text in a fragment of a message, whatever form the fragment is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from letta_adapters.messages import (
    AssistantMessage,
    Message,
    Plain,
    ResultMessage,
    StreamEvent,
    content_text,
)

_Kind = Literal["assistant", "reasoning"]
# By the ``message_type`` of the wire: the kind of text, and the field that holds it.
_FIELDS: Final[Mapping[str, tuple[_Kind, str]]] = {
    "assistant_message": ("assistant", "content"),
    "reasoning_message": ("reasoning", "reasoning"),
}
# By the field of a ``delta``, in the order in which the TypeScript SDK looks.
_DELTAS: Final[Mapping[str, _Kind]] = {"reasoning": "reasoning", "text": "assistant"}


@dataclass(frozen=True, slots=True)
class StreamTextDelta(Plain):
    """New text in a fragment: of the answer (``assistant``) or of a thought (``reasoning``)."""

    kind: _Kind
    text: str


def extract_stream_text_delta(message: object) -> StreamTextDelta | None:
    """Return the text that a :class:`StreamEvent` adds; ``None`` for anything without such text.

    ::

        for message in session.stream():
            delta = extract_stream_text_delta(message)
            if delta and delta.kind == "assistant":
                print(delta.text, end="", flush=True)

    Args:
        message: A message of a stream, what ``message.to_dict()`` made of it, or the ``event`` of a
            ``StreamEvent`` alone. The event is Letta's own (``message_type``), or has a ``delta``
            with ``text`` or ``reasoning``: the TypeScript SDK (0.1.14) knows both forms.
    """
    event = _find_event(message)
    if event is None:
        return None
    delta = event.get("delta")
    if isinstance(delta, Mapping):
        for field, kind in _DELTAS.items():
            if isinstance(text := delta.get(field), str) and text:
                return StreamTextDelta(kind, text)
    kind_and_field = _FIELDS.get(str(event.get("message_type")))
    if kind_and_field is None:
        return None
    try:
        text = content_text(event.get(kind_and_field[1]))
    except TypeError:  # parts whose texts are none, in an event that nobody has looked at
        return None
    return StreamTextDelta(kind_and_field[0], text) if text else None


class TextReader:
    """Read the answer's text out of a turn's messages, each piece of it once."""

    __slots__ = ("_streamed",)

    def __init__(self) -> None:
        # The messages whose text has come in fragments, and comes once more when it is complete.
        self._streamed: set[str | None] = set()

    def read(self, message: Message) -> str:
        """Return the text that a message adds to the answer; ``""`` for one that adds none.

        Raises:
            LettaError: The message is the result of a turn that failed.
        """
        if isinstance(message, StreamEvent):
            delta = extract_stream_text_delta(message)
            if delta is None or delta.kind != "assistant":
                return ""
            self._streamed.add(message.otid or message.event.get("id"))
            return delta.text
        if isinstance(message, AssistantMessage):
            return "" if (message.otid or message.id) in self._streamed else message.content
        if isinstance(message, ResultMessage):
            message.raise_for_status()
        return ""


def _find_event(message: object) -> Mapping[str, Any] | None:
    if isinstance(message, StreamEvent):
        return message.event
    if not isinstance(message, Mapping):
        return None
    event = message.get("event") if message.get("type") == "stream_event" else message
    return event if isinstance(event, Mapping) else None
