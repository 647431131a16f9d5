"""What ``session.stream()`` yields: a closed union of frozen dataclasses, told apart by ``.type``.

The tags are those of the TypeScript SDK. ``AssistantMessage``, ``ReasoningMessage`` and
``ToolCallMessage`` are always complete, one per ``otid`` / tool call; fragments appear only as
``StreamEvent`` (ask for them with ``include_partial_messages=True``). Exactly one
``ResultMessage`` ends every turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, TypeAlias

from letta_adapters.errors import LettaError, error_for_code

# How much of broken arguments the agent is shown again, in characters.
_SHOWN_ARGUMENTS: Final = 2000


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a turn, summed over its steps and requests. ``None`` = the provider said nothing.

    ``prompt_tokens`` already contains ``cached_input_tokens`` and ``cache_write_tokens``;
    ``context_tokens`` is the size of the last step's context.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    context_tokens: int | None = None
    step_count: int = 0

    def __add__(self, other: Usage) -> Usage:
        def plus(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            plus(self.cached_input_tokens, other.cached_input_tokens),
            plus(self.cache_write_tokens, other.cache_write_tokens),
            plus(self.reasoning_tokens, other.reasoning_tokens),
            self.context_tokens if other.context_tokens is None else other.context_tokens,
            self.step_count + other.step_count,
        )

    def __sub__(self, earlier: Usage) -> Usage:
        """What was used since ``earlier``, of the same turn."""

        def minus(a: int | None, b: int | None) -> int | None:
            return None if a is None else a - (b or 0)

        return Usage(
            self.prompt_tokens - earlier.prompt_tokens,
            self.completion_tokens - earlier.completion_tokens,
            self.total_tokens - earlier.total_tokens,
            minus(self.cached_input_tokens, earlier.cached_input_tokens),
            minus(self.cache_write_tokens, earlier.cache_write_tokens),
            minus(self.reasoning_tokens, earlier.reasoning_tokens),
            self.context_tokens,
            self.step_count - earlier.step_count,
        )


@dataclass(frozen=True, slots=True)
class InitMessage:
    """The session is open. First message of a session's first stream."""

    type: ClassVar[Literal["init"]] = "init"
    agent_id: str
    conversation_id: str
    session_id: str
    backend: str
    model: str | None = None
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """A complete piece of the answer. ``content`` is its text."""

    type: ClassVar[Literal["assistant"]] = "assistant"
    content: str
    id: str | None = None
    otid: str | None = None
    seq_id: int | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReasoningMessage:
    """A complete thought. ``redacted``: the provider hides its text (``content`` is opaque)."""

    type: ClassVar[Literal["reasoning"]] = "reasoning"
    content: str
    id: str | None = None
    otid: str | None = None
    seq_id: int | None = None
    run_id: str | None = None
    signature: str | None = None
    source: str | None = None
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class ToolCallMessage:
    """A complete tool call.

    ``tool_input`` is the parsed arguments, ``{}`` when they are not a JSON object;
    ``raw_arguments`` is what the model wrote. ``requires_approval``: the turn waited for this
    client (a client-side tool, or a server tool that asks).
    """

    type: ClassVar[Literal["tool_call"]] = "tool_call"
    tool_call_id: str
    tool_name: str
    tool_input: Mapping[str, Any]
    raw_arguments: str = ""
    requires_approval: bool = False
    id: str | None = None
    otid: str | None = None
    seq_id: int | None = None
    run_id: str | None = None

    @property
    def problem(self) -> str:
        """Why the call cannot be run, for the agent to read: its arguments are no JSON object.

        ``""`` for a call that can. Nobody guesses what broken arguments were to be: a call that was
        cut off after ``{"a": 1,`` would run with the defaults of all that is missing.
        """
        return "" if self.tool_input else broken_arguments(self.tool_name, self.raw_arguments)


@dataclass(frozen=True, slots=True)
class ToolResultMessage:
    """What a tool returned, as the model sees it. One per tool call.

    ``traceback``: where your tool, or ``can_use_tool``, raised an exception: its traceback, as
    text. The model does not see it.
    """

    type: ClassVar[Literal["tool_result"]] = "tool_result"
    tool_call_id: str
    content: str
    is_error: bool = False
    tool_name: str | None = None
    stdout: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()
    id: str | None = None
    otid: str | None = None
    seq_id: int | None = None
    run_id: str | None = None
    traceback: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One fragment, as it came over the wire: ``event`` is Letta's own object.

    ``fragment`` counts the fragments of a turn. Letta numbers the events of background runs and of
    the App Server only, and one that comes again (a page was loaded anew, a log is read) must be
    told from one that is equal.
    """

    type: ClassVar[Literal["stream_event"]] = "stream_event"
    event: Mapping[str, Any]
    fragment: int | None = field(default=None, compare=False)

    @property
    def otid(self) -> str | None:
        """Which message this fragment belongs to."""
        return self.event.get("otid")

    @property
    def seq_id(self) -> int | None:
        """Position in the run; only background runs number their events."""
        return self.event.get("seq_id")

    @property
    def run_id(self) -> str | None:
        """The run that produced it."""
        return self.event.get("run_id")


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """Why the turn failed; the failed ``ResultMessage`` follows. ``error_type`` is the server's."""

    type: ClassVar[Literal["error"]] = "error"
    message: str
    error_code: str
    error_type: str | None = None
    stop_reason: str | None = None
    detail: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class RetryMessage:
    """The agent's runtime repeats a model call. Text of the failed attempt is void."""

    type: ClassVar[Literal["retry"]] = "retry"
    reason: str
    attempt: int
    max_attempts: int
    delay_ms: int
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class ResultMessage:
    """The end of a turn.

    ``result`` is the final answer's text (``None`` when the turn failed). ``usage`` is summed over
    all steps of the turn. ``input_stored`` says, for a failed turn, whether the conversation holds
    this turn's message: ``False`` means it is safe to send again, ``None`` that it could not be
    found out.
    """

    type: ClassVar[Literal["result"]] = "result"
    success: bool
    result: str | None
    stop_reason: str | None
    usage: Usage
    duration_ms: int
    agent_id: str | None = None
    conversation_id: str | None = None
    run_ids: tuple[str, ...] = ()
    error_code: str | None = None
    error_detail: str | None = None
    input_stored: bool | None = None

    def raise_for_status(self) -> ResultMessage:
        """Return self, or raise the typed :class:`LettaError` of a failed turn."""
        if self.success:
            return self
        raise self.to_error()

    def to_error(self) -> LettaError:
        """The exception of a failed turn (see :mod:`letta_adapters.errors`)."""
        return error_for_code(
            self.error_code or "turn_failed",
            self.error_detail or "The turn failed.",
            run_id=self.run_ids[-1] if self.run_ids else None,
            accepted=self.input_stored,
        )


@dataclass(frozen=True, slots=True)
class QueueUpdateMessage:
    """What waits behind the running turn (ask for it with ``include_status_messages=True``).

    ``items``: what is queued now, each with ``id``, ``client_message_id``, ``kind``, ``content``
    and, if it was put on hold by an abort, ``paused``. ``removed``: what left the queue. Source:
    Letta Code's ``update_queue`` frame.
    """

    type: ClassVar[Literal["queue_update"]] = "queue_update"
    items: tuple[Mapping[str, Any], ...] = ()
    removed: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class LoopStatusMessage:
    """What the agent's loop is at (ask for it with ``include_status_messages=True``).

    ``status``: ``SENDING_API_REQUEST``, ``WAITING_FOR_API_RESPONSE``, ``PROCESSING_API_RESPONSE``,
    ``EXECUTING_CLIENT_SIDE_TOOL``, ``WAITING_ON_INPUT``, ... Source: Letta Code's
    ``update_loop_status`` frame.
    """

    type: ClassVar[Literal["loop_status"]] = "loop_status"
    status: str
    run_ids: tuple[str, ...] = ()
    executing_tool_call_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """An event this version does not know, kept whole. ``event_type`` is the wire's name for it."""

    type: ClassVar[Literal["unknown"]] = "unknown"
    raw: Mapping[str, Any]

    @property
    def event_type(self) -> str:
        """The ``message_type`` on the wire, or ``""``."""
        return str(self.raw.get("message_type") or "")


Message: TypeAlias = (
    InitMessage
    | AssistantMessage
    | ReasoningMessage
    | ToolCallMessage
    | ToolResultMessage
    | StreamEvent
    | ErrorMessage
    | RetryMessage
    | ResultMessage
    | QueueUpdateMessage
    | LoopStatusMessage
    | UnknownMessage
)


@dataclass(frozen=True, slots=True)
class StreamTextDelta:
    """New text in a fragment: of the answer (``assistant``) or of a thought (``reasoning``)."""

    kind: Literal["assistant", "reasoning"]
    text: str


def extract_stream_text_delta(message: object) -> StreamTextDelta | None:
    """The text a :class:`StreamEvent` adds, or ``None`` (any other message, or no text in it)."""
    if type(message) is not StreamEvent:
        return None
    event = message.event
    kind = event.get("message_type")
    if kind == "assistant_message":
        text = content_text(event.get("content"))
        return StreamTextDelta("assistant", text) if text else None
    if kind == "reasoning_message":
        text = event.get("reasoning") or ""
        return StreamTextDelta("reasoning", text) if text else None
    return None


def content_text(content: Any) -> str:
    """The text of Letta's ``content``: a string, or a list of parts whose text parts count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(p.get("text") or "" for p in content if isinstance(p, dict))
    return ""


def arguments_in(raw: str) -> dict[str, Any] | None:
    """Return the arguments of a tool call, or ``None`` for text that is no JSON object.

    Nothing, and ``null``, is how some models call without arguments.
    """
    text = raw.strip()
    if text in ("", "null"):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def broken_arguments(name: str, raw: str) -> str:
    """Return what to tell the agent of a call with such arguments; ``""`` if they can be read."""
    if arguments_in(raw) is not None:
        return ""
    shown = raw if len(raw) <= _SHOWN_ARGUMENTS else f"{raw[:_SHOWN_ARGUMENTS]}..."
    return f"{name} was not run: its arguments are no JSON object: {shown}"


@dataclass(frozen=True, slots=True)
class MessagePage:
    """One page of stored messages.

    ``messages`` are the API's own objects in ``order``: newest first (``"desc"``) unless ``"asc"``
    was asked for. Go on with ``before=page.next_before`` (or, ascending,
    ``after=page.next_after``) while ``has_more``.
    """

    messages: list[dict[str, Any]]
    next_before: str | None = None
    has_more: bool = False
    next_after: str | None = None
    order: Literal["asc", "desc"] = "desc"


@dataclass(frozen=True, slots=True)
class PendingToolCall:
    """A tool call that waits for this side's answer."""

    tool_call_id: str
    tool_name: str
    raw_arguments: str = ""


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """What ``recover_pending_approvals()`` did: the calls it denied; empty if none waited."""

    denied: tuple[PendingToolCall, ...] = ()

    @property
    def recovered(self) -> bool:
        """Was something pending, and is it cleared now?"""
        return bool(self.denied)


@dataclass(frozen=True, slots=True)
class BootstrapState:
    """What a user interface needs to draw a conversation, in one call."""

    agent_id: str
    conversation_id: str
    model: str | None
    tools: tuple[str, ...]
    page: MessagePage
    pending: tuple[PendingToolCall, ...] = field(default=())

    @property
    def has_pending_approval(self) -> bool:
        """Does a tool call wait for an answer?"""
        return bool(self.pending)
