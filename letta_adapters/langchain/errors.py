"""Make every error of this package an error of LangChain too.

``letta_adapters.langchain.errors.NotFoundError`` is a :class:`letta_adapters.errors.NotFoundError`
and a ``langchain_core.exceptions.ModelNotFoundError``, and so on for every class of the tree: code
that catches either goes on working.

``is_retryable`` is the attribute that LangChain's retry middleware reads. It is true only for a
failure that passes by itself *and* left nothing in the conversation: a request that may have been
accepted is not safe to send again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from langchain_core import exceptions

from letta_adapters import errors

# The first base class that fits is used, so the most special ones stand first.
_KINDS: Final[tuple[tuple[type[errors.LettaError], type[exceptions.ModelError]], ...]] = (
    (errors.ProviderAuthenticationError, exceptions.ModelAuthenticationError),
    (errors.ProviderRateLimitError, exceptions.ModelRateLimitError),
    (errors.ProviderRefusedError, exceptions.ModelInvalidRequestError),
    (errors.ModelProviderError, exceptions.ModelAPIError),
    (errors.TurnFailedError, exceptions.ModelError),
    (errors.AuthenticationError, exceptions.ModelAuthenticationError),
    (errors.NotFoundError, exceptions.ModelNotFoundError),
    (errors.InvalidInputError, exceptions.ModelInvalidRequestError),
    (errors.RateLimitError, exceptions.ModelRateLimitError),
    (errors.ConnectionFailedError, exceptions.ModelConnectionError),
    (errors.LettaTimeoutError, exceptions.ModelTimeoutError),
    (errors.ServerError, exceptions.ModelAPIError),
    (errors.LettaError, exceptions.ModelError),
)


def _make_class(name: str, cls: type[errors.LettaError], kind: type[exceptions.ModelError]) -> Any:
    """Return a class that is an error of ours and one of LangChain's."""
    about = {"__module__": __name__, "__qualname__": name, "__doc__": cls.__doc__}
    return type(name, (cls, kind), about)


def _list_family(cls: type[errors.LettaError]) -> Iterator[type[errors.LettaError]]:
    """Yield an error class and all its subclasses that this package defines."""
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _list_family(child)


_CLASSES: Final[dict[type[errors.LettaError], Any]] = {
    cls: _make_class(
        cls.__name__, cls, next(kind for base, kind in _KINDS if issubclass(cls, base))
    )
    for cls in _list_family(errors.LettaError)
}
# Set as names of this module, so that the classes can be imported and pickled.
globals().update({cls.__name__: as_class for cls, as_class in _CLASSES.items()})
PermissionDeniedError: Final = _make_class(
    "PermissionDeniedError", errors.AuthenticationError, exceptions.ModelPermissionDeniedError
)
ContextOverflowError: Final = _make_class(
    "ContextOverflowError", errors.TurnFailedError, exceptions.ContextOverflowError
)


def as_langchain(error: errors.LettaError) -> errors.LettaError:
    """Return the same error as LangChain's class too, with the original's fields and text.

    Args:
        error: An error of ours; one that is LangChain's already is returned as it is.
    """
    if isinstance(error, exceptions.ModelError):
        return error
    made: errors.LettaError = error.as_class(_find_class(error))
    # On the instance, because it depends on what became of this one request.
    vars(made)["is_retryable"] = errors.is_retryable(error)
    return made


def _find_class(error: errors.LettaError) -> Any:
    """Return the class for an error; its code and status decide where its class is not enough."""
    if "context_window" in error.code:
        # LangChain's summarization catches this class to shorten a history.
        return ContextOverflowError
    if isinstance(error, errors.AuthenticationError) and error.status_code == 403:
        return PermissionDeniedError
    return next(_CLASSES[cls] for cls in type(error).__mro__ if cls in _CLASSES)


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Let errors of ours leave this block as LangChain's."""
    try:
        yield
    except errors.LettaError as error:
        if isinstance(error, exceptions.ModelError):
            raise
        raise as_langchain(error) from error
