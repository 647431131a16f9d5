"""Our errors as LangChain's own: each is both, so code that catches either goes on working.

``is_retryable`` is what LangChain's retry middleware reads. It is true only for what passes by
itself *and* left nothing in the conversation: a request that may have been accepted is not safe to
send again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)

from letta_adapters import errors


class LettaModelError(errors.LettaError, ModelError):
    """Any other failure of a call."""


class LettaAuthenticationError(errors.AuthenticationError, ModelAuthenticationError):
    """The Letta API refused the key."""


class LettaPermissionError(errors.AuthenticationError, ModelPermissionDeniedError):
    """The Letta API's key may not do that."""


class LettaNotFoundError(errors.NotFoundError, ModelNotFoundError):
    """The agent, the conversation or the model does not exist."""


class LettaInvalidRequestError(errors.InvalidInputError, ModelInvalidRequestError):
    """The input is wrong, or the backend cannot do what was asked."""


class LettaConflictError(errors.ConflictError, ModelError):
    """The conversation's state does not allow this now."""


class LettaRateLimitError(errors.RateLimitError, ModelRateLimitError):
    """Too many requests."""


class LettaConnectionError(errors.ConnectionFailedError, ModelConnectionError):
    """The server could not be reached, or dropped the connection."""


class LettaModelTimeoutError(errors.LettaTimeoutError, ModelTimeoutError):
    """Something took longer than allowed."""


class LettaServerError(errors.ServerError, ModelAPIError):
    """The server failed."""


class LettaTurnError(errors.TurnFailedError, ModelError):
    """A turn ended badly; ``code`` says how."""


class LettaProviderError(errors.ModelProviderError, ModelAPIError):
    """The model behind the agent failed."""


class LettaProviderAuthenticationError(
    errors.ProviderAuthenticationError, ModelAuthenticationError
):
    """The model provider refused its key."""


class LettaProviderRateLimitError(errors.ProviderRateLimitError, ModelRateLimitError):
    """The model provider limits the rate."""


class LettaContextOverflowError(errors.TurnFailedError, ContextOverflowError):
    """The agent's context does not fit the model."""


# The first that fits; most special first.
_TWINS: tuple[tuple[type[errors.LettaError], type[errors.LettaError]], ...] = (
    (errors.ProviderAuthenticationError, LettaProviderAuthenticationError),
    (errors.ProviderRateLimitError, LettaProviderRateLimitError),
    (errors.ModelProviderError, LettaProviderError),
    (errors.TurnFailedError, LettaTurnError),
    (errors.AuthenticationError, LettaAuthenticationError),
    (errors.NotFoundError, LettaNotFoundError),
    (errors.InvalidInputError, LettaInvalidRequestError),
    (errors.ConflictError, LettaConflictError),
    (errors.RateLimitError, LettaRateLimitError),
    (errors.ConnectionFailedError, LettaConnectionError),
    (errors.LettaTimeoutError, LettaModelTimeoutError),
    (errors.ServerError, LettaServerError),
    (errors.LettaError, LettaModelError),
)
_PASSES = (
    errors.RateLimitError,
    errors.ConnectionFailedError,
    errors.LettaTimeoutError,
    errors.ServerError,
    errors.ConversationBusyError,
    LettaProviderError,
)


def as_langchain(error: errors.LettaError) -> errors.LettaError:
    """The same error, as LangChain's class too; with the fields and the text of the original."""
    if isinstance(error, ModelError):
        return error
    made = error.twin(_twin_of(error))
    passes = isinstance(error, _PASSES) or isinstance(made, _PASSES)
    made.is_retryable = passes and error.accepted is False  # type: ignore[attr-defined]
    return made


def _twin_of(error: errors.LettaError) -> type[errors.LettaError]:
    if "context_window" in error.code:
        return LettaContextOverflowError
    if isinstance(error, errors.AuthenticationError) and error.status_code == 403:
        return LettaPermissionError
    return next(twin for cls, twin in _TWINS if isinstance(error, cls))


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Errors of ours leave this block as LangChain's."""
    try:
        yield
    except errors.LettaError as error:
        if isinstance(error, ModelError):
            raise
        raise as_langchain(error) from error
