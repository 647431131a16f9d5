"""Internal: turn the scripted model's script into its wire format, without any sockets.

The input is a :class:`Reply` (the answer that a test wants) and a :class:`ModelRequest` (what was
asked). The output is JSON objects of OpenAI's chat-completions protocol, either one body
(:func:`make_completion_body`) or the stream of chunks that spells it
(:func:`make_completion_chunks`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

# Constants, so that two recordings of one script are equal in everything the model sent.
COMPLETION_ID = "chatcmpl-scripted"
CREATED = 1_700_000_000
ARGUMENT_PIECE = 10  # characters of tool-call arguments per delta
EMBEDDING_SIZE = 8


@dataclass(frozen=True)
class Usage:
    """The token counts of one answer, as the provider would bill them.

    ``cached`` is part of ``prompt`` and ``reasoning`` is part of ``completion``, as in OpenAI's own
    accounting.
    """

    prompt: int = 100
    completion: int = 20
    cached: int = 64
    reasoning: int = 5

    def wire(self) -> dict[str, Any]:
        """Return the ``usage`` object of a chat completion."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


@dataclass(frozen=True)
class ToolUse:
    """A tool call of the model.

    ::

        ToolUse("add", {"a": 1, "b": 2})

    Attributes:
        name: The tool's name.
        arguments: Encoded as JSON if it is a dict; sent verbatim if it is a str, which may be
            invalid JSON on purpose.
        id: The call's id; without one the model counts ``call_1``, ``call_2``, and so on.
    """

    name: str
    arguments: dict[str, Any] | str
    id: str | None = None

    def encoded(self) -> str:
        """Return the arguments as the string that goes over the wire."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class ModelError:
    """An HTTP error instead of an answer, in OpenAI's error envelope.

    ::

        Reply(error=ModelError(429, "slow down", code="rate_limit_exceeded"))
    """

    status: int
    message: str = "scripted error"
    type: str = "server_error"
    code: str | None = None

    def wire(self) -> dict[str, Any]:
        """Return the JSON body that goes with ``status``."""
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return {"error": error}


@dataclass(frozen=True)
class Reply:
    """A scripted answer of the model.

    ::

        Reply("It is 3.", reasoning="One and two.")
        Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2})], when="1 + 2")

    Attributes:
        text: A str is split into word tokens; a sequence gives the exact deltas.
        reasoning: The same for thoughts, which go first, as ``reasoning_content``.
        tool_calls: The tool calls that follow the text.
        usage: The token counts; ``None`` for :class:`Usage`'s defaults.
        error: An error to send instead of an answer.
        delay: Seconds before the first byte.
        token_delay: Seconds between two deltas.
        break_after: Drop the TCP connection after this many deltas (an answer that is not streamed
            is dropped in the middle of its body).
        finish_reason: Sent instead of the one that the content implies.
        when: Answer only requests whose last user text contains this.
        repeat: Keep the reply in the queue after use.
    """

    text: str | Sequence[str] = ""
    reasoning: str | Sequence[str] = ""
    tool_calls: Sequence[ToolUse] = ()
    usage: Usage | None = None
    error: ModelError | None = None
    delay: float = 0.0
    token_delay: float = 0.0
    break_after: int | None = None
    finish_reason: str | None = None
    when: str | None = None
    repeat: bool = False

    def ending(self) -> str:
        """Return the ``finish_reason`` to send: the given one, or what the content implies."""
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")


@dataclass(frozen=True)
class ModelRequest:
    """A request that reached the model; ``body`` is its JSON body."""

    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the conversation as sent (empty when there is none)."""
        return list(self.body.get("messages") or [])

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Return the tool definitions offered to the model (empty when there are none)."""
        return list(self.body.get("tools") or [])

    @property
    def last_user_text(self) -> str:
        """Return the text of the last user message, its text parts joined; ``""`` without one."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return _read_text(message.get("content"))
        return ""

    @property
    def stream(self) -> bool:
        """Return whether the caller asked for server-sent events."""
        return bool(self.body.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """Return whether a streamed answer must end with a usage chunk."""
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    def echo(self) -> Reply:
        """Return the answer if nothing is scripted: repeat the last user text or tool result."""
        messages = self.messages
        if messages and messages[-1].get("role") == "tool":
            return Reply(f"Tool said: {_read_text(messages[-1].get('content'))}")
        return Reply(f"You said: {self.last_user_text}")


def _read_text(content: object) -> str:
    """Return message content (str, list of parts or None) as text; other parts are left out."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, Mapping))
    return "".join(text for text in parts if isinstance(text, str))


def reply_to_json(reply: Reply | str) -> dict[str, Any]:
    """Return a reply as plain JSON data; the inverse of :func:`reply_from_json`."""
    return asdict(Reply(reply) if isinstance(reply, str) else reply)


def reply_from_json(data: object) -> Reply:
    """Return the reply that JSON data describes.

    Args:
        data: A str, or an object with the names of :class:`Reply`'s fields.

    Raises:
        TypeError: Anything else, including an unknown or missing field.
    """
    if isinstance(data, str):
        return Reply(data)
    if not isinstance(data, Mapping):
        raise TypeError(f"a reply is a string or an object, not {type(data).__name__}")
    fields = dict(data)
    fields["tool_calls"] = tuple(ToolUse(**call) for call in fields.get("tool_calls") or ())
    # Each part is built by its class, which refuses a field that it does not know: a misspelt
    # script must fail when it is given, not when it is used.
    for name, kind in (("usage", Usage), ("error", ModelError)):
        if fields.get(name) is not None:
            fields[name] = kind(**fields[name])
    return Reply(**fields)


def split_tokens(text: str | Sequence[str]) -> list[str]:
    """Return the deltas of ``text``: word tokens of a str, which join to it, or the sequence."""
    # Blanks go with the word before them, so that no delta is empty and nothing is lost.
    return re.findall(r"\s*\S+\s*|\s+", text) if isinstance(text, str) else list(text)


def _list_deltas(reply: Reply, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield every ``delta`` of a streamed answer, in order; parallel calls interleave by index."""
    for token in split_tokens(reply.reasoning):
        yield {"reasoning_content": token}
    for token in split_tokens(reply.text):
        yield {"content": token}
    pieces: list[list[dict[str, Any]]] = []
    for index, (call, call_id) in enumerate(zip(reply.tool_calls, ids, strict=True)):
        # OpenAI sends a call's id and name once, and then its arguments in pieces.
        head = {"name": call.name, "arguments": ""}
        encoded = call.encoded()
        cuts = range(0, len(encoded), ARGUMENT_PIECE)
        pieces.append([{"index": index, "id": call_id, "type": "function", "function": head}])
        pieces[-1] += [
            {"index": index, "function": {"arguments": encoded[cut : cut + ARGUMENT_PIECE]}}
            for cut in cuts
        ]
    # Interleaved on purpose: a client must tell parallel calls apart by their index.
    for row in zip_longest(*pieces):
        for piece in row:
            if piece is not None:
                yield {"tool_calls": [piece]}


def make_completion_chunks(
    reply: Reply, request: ModelRequest, ids: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the ``chat.completion.chunk`` objects of a streamed answer, but not the ``[DONE]``.

    The first delta carries the role as well, so that ``break_after`` counts what a reader would
    call deltas.

    Args:
        reply: The answer.
        request: The request, for its model and whether it wants the usage.
        ids: One id per tool call.
    """
    base = {
        "id": COMPLETION_ID,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": request.body.get("model"),
    }
    role = {"role": "assistant"}
    for delta in _list_deltas(reply, ids):
        choice = {"index": 0, "delta": {**role, **delta}, "finish_reason": None}
        yield {**base, "choices": [choice]}
        role = {}
    # A reply without any delta announces its role here.
    yield {**base, "choices": [{"index": 0, "delta": role, "finish_reason": reply.ending()}]}
    # OpenAI sends the usage in a last chunk without choices, and only on request.
    if request.wants_usage:
        yield {**base, "choices": [], "usage": (reply.usage or Usage()).wire()}


def make_completion_body(reply: Reply, request: ModelRequest, ids: Sequence[str]) -> dict[str, Any]:
    """Return the ``chat.completion`` object of an answer that is not streamed."""
    content = "".join(split_tokens(reply.text))
    # An answer without text, such as one of tool calls alone, has null as its content.
    message: dict[str, Any] = {"role": "assistant", "content": content or None}
    if reply.reasoning:
        message["reasoning_content"] = "".join(split_tokens(reply.reasoning))
    if reply.tool_calls:
        message["tool_calls"] = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.encoded()},
            }
            for call, call_id in zip(reply.tool_calls, ids, strict=True)
        ]
    return {
        "id": COMPLETION_ID,
        "object": "chat.completion",
        "created": CREATED,
        "model": request.body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": reply.ending()}],
        "usage": (reply.usage or Usage()).wire(),
    }


def make_embeddings_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an embeddings answer with one constant vector per input.

    That is enough for a caller that only needs *some* embedding.
    """
    given = body.get("input", "")
    # A list of integers is one input that was tokenized already.
    many = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
    vector = [0.1] * int(body.get("dimensions") or EMBEDDING_SIZE)
    count = len(given) if many else 1
    data = [{"object": "embedding", "index": i, "embedding": vector} for i in range(count)]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": body.get("model"), "usage": usage}


def make_models_body(models: Sequence[str], **about: str) -> dict[str, Any]:
    """Return the answer of ``GET /v1/models``, with the fields ``about`` in every model."""
    data = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "scripted", **about}
        for name in models
    ]
    return {"object": "list", "data": data}
