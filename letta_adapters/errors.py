"""The exceptions that this package raises; all of them are a :class:`LettaError`.

::

    LettaError
    ├── InvalidInputError             (also a ValueError)   code "invalid_input"
    │   ├── UnsupportedOptionError                          code "unsupported_option"
    │   ├── WrongToolCallsError       not the calls that wait code "wrong_tool_calls"
    │   └── UnsupportedImageError     a model without vision code "unsupported_image"
    ├── ConfigurationError            nothing to talk to    code "configuration"
    ├── AuthenticationError           the Letta API key     code "authentication"
    ├── NotFoundError                                       code "not_found"
    ├── ConflictError                                       code "conflict"
    │   ├── ConversationBusyError     another run is active code "conversation_busy"
    │   │   └── WaitsForItselfError   a tool's own turn     code "waits_for_itself"
    │   ├── PendingApprovalError      a tool call waits     code "pending_approval"
    │   └── HistoryMismatchError      not this conversation's history  code "history_mismatch"
    ├── RateLimitError                                      code "rate_limit"
    ├── ConnectionFailedError         (also a ConnectionError) code "connection_failed"
    │   └── StreamTruncatedError      cut in mid-answer     code "stream_truncated"
    ├── LettaTimeoutError             (also a TimeoutError) code "timeout"
    │   ├── TimeoutBeforeAcceptanceError                    code "timeout_before_acceptance"
    │   └── TimeoutAfterAcceptanceError                     code "timeout_after_acceptance"
    ├── CorruptStateError             a file of it is torn  code "corrupt_state"
    ├── DiskFullError                 nothing can be stored code "disk_full"
    ├── ServerError                   5xx                   code "server_error"
    ├── ProtocolError                 not what the protocol allows  code "protocol_error"
    ├── TurnFailedError               an accepted turn ended badly  its stop reason as code
    │   ├── TurnCancelledError                              code "cancelled"
    │   ├── TurnDetachedError         left as it is         code "detached"
    │   ├── StructuredOutputError     no data of the shape  code "invalid_structured_output"
    │   └── ModelProviderError        the model behind the agent    code "provider_error"
    │       ├── ProviderRefusedError  it will again             code "provider_refused"
    │       ├── ProviderAuthenticationError                 code "provider_authentication"
    │       └── ProviderRateLimitError  (also a RateLimitError)     code "provider_rate_limit"
    ├── SessionClosedError                                  code "session_closed"
    ├── NotPermittedError         who asks may not (web)    code "not_permitted"
    └── WrongEventLoopError                                 code "wrong_event_loop"

Every instance has a ``code``, which is stable and meant for programs, and a ``message`` and a
``hint`` for people (``str()`` shows both). Where they apply it has ``status_code``, ``run_id``, and
``accepted``, which says whether the server took the message (``None`` if that is unknown). No API
key is ever part of any of them::

    try:
        session.send("Hello!")
    except LettaError as error:
        if error.accepted is False:
            ...  # nothing was stored: it is safe to send it again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

_E = TypeVar("_E", bound="LettaError")


def join_sentences(message: str, hint: str) -> str:
    """Return a message and a hint as sentences, with a full stop between them if there is none."""
    if not message or not hint:
        return message or hint
    ended = message.rstrip().endswith((".", "!", "?", ":", "..."))
    return f"{message.rstrip()}{'' if ended else '.'} {hint}"


class LettaError(Exception):
    """The base of all errors; ``code`` is for programs, ``message`` and ``hint`` are for people."""

    default_code: ClassVar[str] = "error"
    default_hint: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        status_code: int | None = None,
        run_id: str | None = None,
        accepted: bool | None = None,
    ) -> None:
        self.message = message
        self.code = code or self.default_code
        self.hint = self.default_hint if hint is None else hint
        self.status_code = status_code
        self.run_id = run_id
        self.accepted = accepted
        super().__init__(join_sentences(message, self.hint))

    def as_class(self, cls: type[_E]) -> _E:
        """Return the same error as an instance of another class of this tree."""
        made = _rebuild(cls, dict(self.__dict__), self.args)
        assert isinstance(made, cls)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        # The message alone is not enough to rebuild the keyword-only fields (multiprocessing,
        # Celery and joblib all pickle exceptions).
        return (_rebuild, (type(self), dict(self.__dict__), self.args))


def _rebuild(cls: type[LettaError], state: dict[str, Any], args: tuple[Any, ...]) -> LettaError:
    # Not by calling the class: its constructor takes other arguments than those that were kept.
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidInputError(LettaError, ValueError):
    """The input is wrong; found before any I/O, or refused by the server with 400 or 422."""

    default_code = "invalid_input"


class UnsupportedOptionError(InvalidInputError):
    """The backend does not have ``option``; ``supported_by`` names the backends that do."""

    default_code = "unsupported_option"

    def __init__(
        self, option: str, *, backend: str, supported_by: Sequence[str] = (), reason: str = ""
    ) -> None:
        self.option = option
        self.backend = backend
        self.supported_by = tuple(supported_by)
        why = f": {reason}" if reason else "."
        hint = f"Use {' or '.join(self.supported_by)} for it." if supported_by else ""
        super().__init__(f"{option!r} is not supported by the {backend!r} backend{why}", hint=hint)

    @classmethod
    def from_message(cls, message: str, **fields: Any) -> UnsupportedOptionError:
        """Rebuild an error of which only the text is left, as the result of a turn has it."""
        # Past the constructor, which makes the text out of fields that are lost.
        error = cls.__new__(cls)
        LettaError.__init__(error, message, **fields)
        error.option, error.backend, error.supported_by = "", "", ()
        return error


class WrongToolCallsError(InvalidInputError):
    """The answers are not those to the calls that wait, all of them and no others.

    ``missing`` are the ids of the calls without an answer, ``unknown`` those of the answers that
    nobody waits for.
    """

    default_code = "wrong_tool_calls"
    default_hint = "Read session.pending_approvals() and answer all of them together."

    def __init__(
        self,
        message: str = "",
        *,
        missing: Sequence[str] = (),
        unknown: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        told = [f"No answer is given for: {', '.join(missing)}."] if missing else []
        told += [f"No call waits that is called: {', '.join(unknown)}."] if unknown else []
        super().__init__(message or " ".join(told), **{"accepted": False, **kwargs})
        self.missing = tuple(missing)
        self.unknown = tuple(unknown)


class UnsupportedImageError(InvalidInputError):
    """The message shows an image, and its model cannot see one.

    If ``accepted`` is ``False`` this was known before and nothing was sent. Otherwise the message
    is stored.
    """

    default_code = "unsupported_image"


class ConfigurationError(LettaError):
    """No backend can be made from the arguments and the environment variables."""

    default_code = "configuration"


class AuthenticationError(LettaError):
    """The Letta API refused the key (HTTP 401 / 403)."""

    default_code = "authentication"
    default_hint = "Set LETTA_API_KEY, or pass Rest(api_key=...)."


class NotFoundError(LettaError):
    """The agent, conversation, run or model does not exist (HTTP 404)."""

    default_code = "not_found"
    default_hint = "Check the id, and that base_url points at the server that has it."


class ConflictError(LettaError):
    """The conversation's state does not allow this now (HTTP 409)."""

    default_code = "conflict"


class ConversationBusyError(ConflictError):
    """Another client's run is active in this conversation; ``run_id`` names it if known."""

    default_code = "conversation_busy"
    default_hint = "Wait for it, abort it, or use another conversation: they run in parallel."


class WaitsForItselfError(ConversationBusyError):
    """A tool wants to use the very conversation that waits for the tool's result."""

    default_code = "waits_for_itself"
    default_hint = "Use another conversation inside a tool or a permission callback."


class PendingApprovalError(ConflictError):
    """A tool call of an earlier turn waits for an answer; ``tool_call_ids`` names it if known."""

    default_code = "pending_approval"
    default_hint = (
        "Answer it with session.respond(), or end it with session.recover_pending_approvals(), "
        "which calls no model."
    )

    def __init__(self, message: str, *, tool_call_ids: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.tool_call_ids = tuple(tool_call_ids)


class HistoryMismatchError(ConflictError):
    """The history given differs from the one that the agent's conversation has."""

    default_code = "history_mismatch"
    default_hint = (
        'Use on_mismatch="fork" to go on in a fresh conversation, or "continue" to go on in this '
        "one all the same."
    )


class RateLimitError(LettaError):
    """There were too many requests (HTTP 429); wait ``retry_after`` seconds where it is set."""

    default_code = "rate_limit"
    default_hint = "Wait and send again: nothing was stored."

    def __init__(self, message: str, *, retry_after: float | None = None, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.retry_after = retry_after


class ConnectionFailedError(LettaError, ConnectionError):
    """The server could not be reached, or dropped the connection."""

    default_code = "connection_failed"
    default_hint = "Check base_url and that the server runs."


class StreamTruncatedError(ConnectionFailedError):
    """The answer's stream was cut before its end; ``accepted`` says if the message is stored."""

    default_code = "stream_truncated"
    default_hint = ""


class LettaTimeoutError(LettaError, TimeoutError):
    """Something took longer than its time limit allows."""

    default_code = "timeout"


class TimeoutBeforeAcceptanceError(LettaTimeoutError):
    """The time was up before any sign that the server took the message."""

    default_code = "timeout_before_acceptance"


class TimeoutAfterAcceptanceError(LettaTimeoutError):
    """The server took the message, then stayed silent (idle limit) or worked on (turn limit)."""

    default_code = "timeout_after_acceptance"


class CorruptStateError(LettaError):
    """A file of an agent's state cannot be read; ``paths`` names it."""

    default_code = "corrupt_state"
    default_hint = (
        "Set it aside with `letta-adapters doctor --set-aside` (nothing is deleted), or put back a "
        "copy of your own."
    )

    def __init__(self, message: str, *, paths: Sequence[Any] = (), **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.paths = tuple(map(str, paths))


class DiskFullError(LettaError):
    """The disk that holds the agents' state is full, or a quota is used up."""

    default_code = "disk_full"
    default_hint = "Free some space there and try again, or use another Local(data_dir=...)."


class ServerError(LettaError):
    """The server failed (HTTP 5xx)."""

    default_code = "server_error"


class ProtocolError(LettaError):
    """The server sent what its protocol does not allow (bad JSON, an unexpected body)."""

    default_code = "protocol_error"


class TurnFailedError(LettaError):
    """An accepted turn ended in failure; ``code`` says how (``max_steps``, ``llm_error``, ...)."""

    default_code = "turn_failed"


class TurnCancelledError(TurnFailedError):
    """The turn was aborted, by this client or another one."""

    default_code = "cancelled"


class TurnDetachedError(TurnFailedError):
    """The turn was left as it is, for somebody else to go on with."""

    default_code = "detached"
    default_hint = "Read session.pending_approvals(), and answer with session.respond()."


class StructuredOutputError(TurnFailedError, ValueError):
    """The agent's answer is not the data that was asked for, also after it could mend it.

    ``text`` is its last answer, ``problem`` the reason, in words, why that does not fit.
    """

    default_code = "invalid_structured_output"
    default_hint = "Ask again, simplify the schema, or give the agent another model."
    text: str = ""
    problem: str = ""


class ModelProviderError(TurnFailedError):
    """The model behind the agent failed."""

    default_code = "provider_error"


class ProviderRefusedError(ModelProviderError):
    """The model provider refused the request itself (its HTTP 400, 404, 413, 422)."""

    default_code = "provider_refused"
    default_hint = "Sending it again does not help: change the request or the agent's model."


class ProviderAuthenticationError(ModelProviderError):
    """The model provider refused the key that it was given; the Letta API key is fine."""

    default_code = "provider_authentication"
    default_hint = "Check the model provider's key on the Letta server, not LETTA_API_KEY."


class ProviderRateLimitError(ModelProviderError, RateLimitError):
    """The model provider refused the request because there were too many."""

    default_code = "provider_rate_limit"


class SessionClosedError(LettaError):
    """The session or the client is closed, which is final."""

    default_code = "session_closed"
    default_hint = "Open a new one with resume_session(agent_id=..., conversation_id=...)."


class NotPermittedError(LettaError):
    """Whoever asks may not do that (:mod:`letta_adapters.web`)."""

    default_code = "not_permitted"


class WrongEventLoopError(LettaError):
    """An async client was used on another event loop than the one it was opened on."""

    default_code = "wrong_event_loop"
    default_hint = "Make one AsyncLettaClient per event loop."


# A turn tells of its failure by a code, in a result or on the wire; this leads back to the class.
_BY_CODE: dict[str, type[LettaError]] = {
    cls.default_code: cls
    for cls in (
        InvalidInputError,
        UnsupportedImageError,
        ConfigurationError,
        AuthenticationError,
        NotFoundError,
        ConflictError,
        ConversationBusyError,
        WaitsForItselfError,
        PendingApprovalError,
        HistoryMismatchError,
        RateLimitError,
        ConnectionFailedError,
        StreamTruncatedError,
        LettaTimeoutError,
        TimeoutBeforeAcceptanceError,
        TimeoutAfterAcceptanceError,
        CorruptStateError,
        DiskFullError,
        ServerError,
        ProtocolError,
        TurnCancelledError,
        TurnDetachedError,
        StructuredOutputError,
        WrongToolCallsError,
        ModelProviderError,
        ProviderRefusedError,
        ProviderAuthenticationError,
        ProviderRateLimitError,
        SessionClosedError,
        NotPermittedError,
        WrongEventLoopError,
    )
}


def error_for_code(code: str, message: str, **fields: Any) -> LettaError:
    """Return the exception for a code, as ``ResultMessage.raise_for_status()`` raises it.

    A code without a class of its own (a stop reason such as ``max_steps``) gives a
    :class:`TurnFailedError` with that code.

    Args:
        code: The machine-readable code, such as ``"rate_limit"``.
        message: The text of the error.
        **fields: Keyword arguments of :class:`LettaError`.
    """
    if code == UnsupportedOptionError.default_code:
        return UnsupportedOptionError.from_message(message, **fields)
    # A newer server may have codes that this version does not know.
    fallback = ModelProviderError if code.startswith("provider_") else TurnFailedError
    return _BY_CODE.get(code, fallback)(message, code=code, **fields)


# These may pass by themselves; all others need somebody to change something first.
_PASSES = (
    RateLimitError,
    ConnectionFailedError,
    LettaTimeoutError,
    ServerError,
    ConversationBusyError,
    ModelProviderError,
)


def is_retryable(error: BaseException) -> bool:
    """Return whether it is safe and sensible to try the same again.

    That is so if the error may pass by itself and surely left nothing in the conversation. A
    message that may have been accepted is not safe to send again.
    """
    # They belong to families that pass, but do not pass themselves.
    lasts = (ProviderAuthenticationError, ProviderRefusedError, WaitsForItselfError)
    if not isinstance(error, _PASSES) or isinstance(error, lasts):
        return False
    return error.accepted is False
