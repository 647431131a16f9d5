"""The messages that ``session.stream()`` yields: frozen dataclasses, told apart by ``.type``.

The tags are those of the TypeScript SDK. ``AssistantMessage``, ``ReasoningMessage`` and
``ToolCallMessage`` are always complete, one per ``otid`` / tool call; fragments appear only as
``StreamEvent`` (ask for them with ``include_partial_messages=True``). Exactly one
``ResultMessage`` ends every turn::

    for message in session.stream():
        if message.type == "assistant":
            print(message.content)
        elif message.type == "result":
            message.raise_for_status()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Final, Literal, TypeAlias, get_args

from letta_adapters.errors import InvalidInputError, LettaError, error_for_code
from letta_adapters.messages.arguments import arguments_in as arguments_in
from letta_adapters.messages.arguments import broken_arguments as broken_arguments

# The characters of an answer that a repr shows.
_SHOWN: Final = 60


class Plain:
    """A dataclass that can be written as JSON.

    Internal: use ``to_dict()`` of the messages and pages.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as dicts, lists and plain values that ``json.dumps`` takes.

        A message keeps its ``type``, so that :func:`message_from_dict` reads it back.
        """
        plain: dict[str, Any] = _plain(self)
        return plain


def _plain(value: Any) -> Any:
    # `is_dataclass` is true of a class itself as well.
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Usage(Plain):
    """The tokens of a turn, summed over its steps and requests.

    ``None`` means that the model provider did not say. ``prompt_tokens`` already contains
    ``cached_input_tokens`` and ``cache_write_tokens``; ``context_tokens`` is the size of the last
    step's context.
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
        # An unknown number leaves the known one as it is; only two unknown ones stay unknown.
        def plus(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            plus(self.cached_input_tokens, other.cached_input_tokens),
            plus(self.cache_write_tokens, other.cache_write_tokens),
            plus(self.reasoning_tokens, other.reasoning_tokens),
            # The size of a context is not a sum: the later one counts.
            self.context_tokens if other.context_tokens is None else other.context_tokens,
            self.step_count + other.step_count,
        )

    def __sub__(self, earlier: Usage) -> Usage:
        """Return the tokens used since ``earlier``, an older count of the same turn."""

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


@dataclass(frozen=True)
class InitMessage(Plain):
    """The session is open. This is the first message of a session's first stream."""

    type: Literal["init"] = field(default="init", kw_only=True, repr=False)
    agent_id: str
    conversation_id: str
    session_id: str
    backend: str
    model: str | None = None
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class UserMessage(Plain):
    """A message of the user, as the conversation holds it.

    It stands in the pages of stored messages, and Letta Code repeats what was sent in the stream.
    ``content`` is the text without what Letta put in front of it (``<system-reminder>``);
    ``parts`` is the whole content as it is stored, images included, if it is more than a text.
    """

    type: Literal["user"] = field(default="user", kw_only=True, repr=False)
    content: str
    parts: tuple[Mapping[str, Any], ...] = ()
    id: str | None = None
    otid: str | None = None
    seq_id: int | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class SystemMessage(Plain):
    """The system prompt, which stored conversations begin with; ``content`` is its text."""

    type: Literal["system"] = field(default="system", kw_only=True, repr=False)
    content: str
    id: str | None = None
    otid: str | None = None
    seq_id: int | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class AssistantMessage(Plain):
    """A complete piece of the answer; ``content`` is its text."""

    type: Literal["assistant"] = field(default="assistant", kw_only=True, repr=False)
    content: str
    id: str | None = None
    otid: str | None = None
    seq_id: int | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class ReasoningMessage(Plain):
    """A complete thought; if ``redacted``, the provider hides its text (``content`` is opaque)."""

    type: Literal["reasoning"] = field(default="reasoning", kw_only=True, repr=False)
    content: str
    id: str | None = None
    otid: str | None = None
    seq_id: int | None = None
    run_id: str | None = None
    signature: str | None = None
    source: str | None = None
    redacted: bool = False


@dataclass(frozen=True)
class ToolCallMessage(Plain):
    """A complete tool call.

    ``tool_input`` holds the parsed arguments, ``{}`` when they are not a JSON object, and
    ``raw_arguments`` the text that the model wrote. ``requires_approval`` is true if the turn
    waited for this client (a client-side tool, or a server tool that asks).
    """

    type: Literal["tool_call"] = field(default="tool_call", kw_only=True, repr=False)
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
        """A text for the agent if the call's arguments are no JSON object; ``""`` if they are one.

        Broken arguments are never guessed: a call that was cut off after ``{"a": 1,`` would run
        with the defaults of all that is missing.
        """
        # Input that is not empty was read from the arguments, so they need no second look.
        return "" if self.tool_input else broken_arguments(self.tool_name, self.raw_arguments)


@dataclass(frozen=True)
class ToolResultMessage(Plain):
    """The result of a tool as the model sees it; there is one per tool call.

    ``traceback`` is the text of the traceback if your tool, or ``can_use_tool``, raised an
    exception. The model does not see it.
    """

    type: Literal["tool_result"] = field(default="tool_result", kw_only=True, repr=False)
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


@dataclass(frozen=True)
class ToolProgressMessage(Plain):
    """A report of a tool of yours that is running (``ToolContext.report``, or an MCP server's).

    It comes while the tool runs, before the tool's result. It is for people: the agent does not see
    it, and no conversation stores it. ``content`` is a text, ``progress`` of ``total`` is done, in
    any unit. ``number`` counts the reports of a call from 1; a gap is what a slow reader missed.
    """

    type: Literal["tool_progress"] = field(default="tool_progress", kw_only=True, repr=False)
    tool_call_id: str
    tool_name: str
    content: str = ""
    progress: float | None = None
    total: float | None = None
    number: int = 1


@dataclass(frozen=True)
class StreamEvent(Plain):
    """One fragment of a message; ``event`` is Letta's own object as it came over the wire.

    ``fragment`` counts the fragments of a turn. Letta numbers the events of background runs and of
    the App Server only, and an event that is read twice (a page loaded anew, a log) must be told
    from a later one that is equal to it.
    """

    type: Literal["stream_event"] = field(default="stream_event", kw_only=True, repr=False)
    event: Mapping[str, Any]
    fragment: int | None = field(default=None, compare=False)

    @property
    def otid(self) -> str | None:
        """The ``otid`` of the message that this fragment belongs to."""
        return self.event.get("otid")

    @property
    def seq_id(self) -> int | None:
        """The position in the run; only background runs number their events."""
        return self.event.get("seq_id")

    @property
    def run_id(self) -> str | None:
        """The id of the run that produced the fragment."""
        return self.event.get("run_id")


@dataclass(frozen=True)
class ErrorMessage(Plain):
    """The reason why the turn failed; a failed ``ResultMessage`` follows.

    ``error_code`` is this package's machine code (see :mod:`letta_adapters.errors`), ``error_type``
    the server's own name for the failure.
    """

    type: Literal["error"] = field(default="error", kw_only=True, repr=False)
    message: str
    error_code: str
    error_type: str | None = None
    stop_reason: str | None = None
    detail: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class RetryMessage(Plain):
    """The agent's runtime repeats a model call. The text of the failed attempt is void."""

    type: Literal["retry"] = field(default="retry", kw_only=True, repr=False)
    reason: str
    attempt: int
    max_attempts: int
    delay_ms: int
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class PendingToolCall(Plain):
    """A tool call that waits; the Letta API tells the stored message that asks, and its run."""

    tool_call_id: str
    tool_name: str
    raw_arguments: str = ""
    message_id: str | None = field(default=None, compare=False)
    run_id: str | None = field(default=None, compare=False)

    @property
    def tool_input(self) -> Mapping[str, Any]:
        """The arguments, parsed; ``{}`` if they are no JSON object (see :attr:`problem`)."""
        return arguments_in(self.raw_arguments) or {}

    @property
    def problem(self) -> str:
        """A text for the agent if the arguments are no JSON object; ``""`` if they are one."""
        return broken_arguments(self.tool_name, self.raw_arguments)


@dataclass(frozen=True, slots=True)
class RecoveredCall(Plain):
    """A call that an earlier turn left open, and its fate when ``run_turn`` met it.

    If nobody could be ``asked`` it was ended without a decision, and was not run. ``allowed`` says
    whether it was.
    """

    call: PendingToolCall
    asked: bool
    allowed: bool


def _cut_text(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN].rstrip()}...")


@dataclass(frozen=True)
class ResultMessage(Plain):
    """The end of a turn; it is the last message of every stream.

    ``result`` is the final answer's text (``None`` when the turn failed). ``usage`` is summed over
    all steps of the turn. ``input_stored`` says, for a failed turn, whether the conversation holds
    this turn's message: ``False`` means it is safe to send again, ``None`` that it could not be
    found out. ``recovered`` are the calls of an earlier turn that ``run_turn`` had to answer
    first. ``partial`` is the answer of a failed turn as far as it came, up to the token at which it
    was stopped or lost; ``text`` is the one of the two that there is::

        answer = session.run_turn("Hello!").raise_for_status().result
    """

    type: Literal["result"] = field(default="result", kw_only=True, repr=False)
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
    recovered: tuple[RecoveredCall, ...] = ()
    partial: str = field(default="", compare=False)

    def __repr__(self) -> str:
        # Results are printed and logged; an answer may have pages.
        shown = {"success": self.success, "stop_reason": self.stop_reason}
        facts = [f"{name}={value!r}" for name, value in shown.items()]
        if self.result is not None:
            facts.append(f"result={_cut_text(self.result)}")
        if not self.success:
            facts.append(f"error_code={self.error_code!r}")
            facts.append(f"error_detail={_cut_text(self.error_detail or '')}")
        facts.append(f"conversation_id={self.conversation_id!r}")
        return f"ResultMessage({', '.join(facts)})"

    @property
    def text(self) -> str:
        """The answer's text: whole, or of a failed turn as far as it came."""
        return self.partial if self.result is None else self.result

    def raise_for_status(self) -> ResultMessage:
        """Return self, or raise the typed :class:`LettaError` of a failed turn."""
        if self.success:
            return self
        raise self.to_error()

    def to_error(self) -> LettaError:
        """Return the exception of a failed turn (see :mod:`letta_adapters.errors`)."""
        return error_for_code(
            self.error_code or "turn_failed",
            self.error_detail or "The turn failed.",
            run_id=self.run_ids[-1] if self.run_ids else None,
            accepted=self.input_stored,
        )


@dataclass(frozen=True)
class QueueUpdateMessage(Plain):
    """The messages that wait behind the running turn have changed (Letta Code).

    Ask for it with ``include_status_messages=True``. ``items`` are the messages queued now, each
    with ``id``, ``client_message_id``, ``kind``, ``content`` and, if an abort put it on hold,
    ``paused``. ``removed`` are those that left the queue. Source: Letta Code's ``update_queue``
    frame.
    """

    type: Literal["queue_update"] = field(default="queue_update", kw_only=True, repr=False)
    items: tuple[Mapping[str, Any], ...] = ()
    removed: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class LoopStatusMessage(Plain):
    """The agent's loop has gone on to another state (Letta Code).

    Ask for it with ``include_status_messages=True``. ``status`` is ``SENDING_API_REQUEST``,
    ``WAITING_FOR_API_RESPONSE``, ``PROCESSING_API_RESPONSE``, ``EXECUTING_CLIENT_SIDE_TOOL``,
    ``WAITING_ON_INPUT``, ... Source: Letta Code's ``update_loop_status`` frame.
    """

    type: Literal["loop_status"] = field(default="loop_status", kw_only=True, repr=False)
    status: str
    run_ids: tuple[str, ...] = ()
    executing_tool_call_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnknownMessage(Plain):
    """An event this version does not know, kept whole; ``event_type`` is its name on the wire."""

    type: Literal["unknown"] = field(default="unknown", kw_only=True, repr=False)
    raw: Mapping[str, Any]

    @property
    def event_type(self) -> str:
        """The ``message_type`` on the wire, or ``""``."""
        return str(self.raw.get("message_type") or "")


Message: TypeAlias = (
    InitMessage
    | UserMessage
    | SystemMessage
    | AssistantMessage
    | ReasoningMessage
    | ToolCallMessage
    | ToolResultMessage
    | ToolProgressMessage
    | StreamEvent
    | ErrorMessage
    | RetryMessage
    | ResultMessage
    | QueueUpdateMessage
    | LoopStatusMessage
    | UnknownMessage
)


def message_from_dict(data: Mapping[str, Any]) -> Message:
    """Return the message that ``message.to_dict()`` was made from.

    ::

        line = json.dumps(message.to_dict())
        assert message_from_dict(json.loads(line)) == message

    Args:
        data: The fields of a message with its ``type``, as JSON reads them.

    Raises:
        InvalidInputError: It has no known ``type``, a field that this type does not have, lacks
            one, or one of them holds a value of the wrong type. Nothing is guessed or left out.
    """
    if not isinstance(data, Mapping):
        raise InvalidInputError(
            f"A message is read from an object, not from {type(data).__name__}.",
            hint="Pass what message.to_dict() returned.",
        )
    readers = _readers()
    found = data.get("type")
    cls, reader = readers.get(found if isinstance(found, str) else "", (None, None))
    if cls is None or reader is None:
        raise InvalidInputError(
            f"{found!r} is no type of message.", hint=f"Use one of {', '.join(sorted(readers))}."
        )
    # The reader below would leave out fields that it does not know.
    unknown = sorted(map(str, data.keys() - {f.name for f in fields(cls)}))
    if unknown:
        raise InvalidInputError(
            f"A message of the type {found!r} has no {', '.join(unknown)}.",
            hint="It was written by another version, or is no message of this package.",
        )
    # Pydantic is needed here only, and importing it takes longer than the rest of the package.
    from pydantic import ValidationError

    try:
        message: Message = reader.validate_python(dict(data))
    except ValidationError as error:
        # Pydantic's own text repeats the values, which are the conversation.
        places = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise InvalidInputError(
            f"A message of the type {found!r} cannot be read: {places} is missing or wrong.",
            hint="Pass what message.to_dict() returned.",
        ) from None
    return message


@cache
def _readers() -> dict[str, tuple[type, Any]]:
    from pydantic import TypeAdapter

    return {cls.type: (cls, TypeAdapter(cls)) for cls in get_args(Message)}


def content_text(content: Any) -> str:
    """Return the text of Letta's ``content``: a string, a list of parts, or one part.

    Text parts are joined; parts of other types are left out.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if isinstance(content, list):
        return "".join(p.get("text") or "" for p in content if isinstance(p, Mapping))
    return ""


@dataclass(frozen=True, slots=True)
class MessagePage(Plain):
    """One page of stored messages.

    ``messages`` are in ``order``: newest first (``"desc"``) unless ``"asc"`` was asked for. What
    this version has no class for is an :class:`UnknownMessage`. ``raw`` are the API's own objects
    that they were read from, which also have dates; one of them may hold several messages, as
    parallel tool calls do. To read on, pass ``before=page.next_before`` (ascending:
    ``after=page.next_after``) while ``has_more`` is true::

        page = session.list_messages()
        while page.has_more:
            page = session.list_messages(before=page.next_before)
    """

    messages: tuple[Message, ...]
    raw: list[dict[str, Any]]
    next_before: str | None = None
    has_more: bool = False
    next_after: str | None = None
    order: Literal["asc", "desc"] = "desc"

    def __repr__(self) -> str:
        return (
            f"<MessagePage messages={len(self.messages)} order={self.order!r}"
            f" has_more={self.has_more}>"
        )


@dataclass(frozen=True, slots=True)
class RecoveryResult(Plain):
    """The calls that ``recover_pending_approvals()`` has ended; empty if none waited."""

    denied: tuple[PendingToolCall, ...] = ()

    @property
    def recovered(self) -> bool:
        """True if something was pending, which is now cleared."""
        return bool(self.denied)


@dataclass(frozen=True, slots=True)
class BootstrapState(Plain):
    """All that a user interface needs to draw a conversation, read in one call."""

    agent_id: str
    conversation_id: str
    model: str | None
    tools: tuple[str, ...]
    page: MessagePage
    pending: tuple[PendingToolCall, ...] = field(default=())

    @property
    def has_pending_approval(self) -> bool:
        """True if a tool call waits for an answer."""
        return bool(self.pending)
