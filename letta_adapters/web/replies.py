"""Internal: what a client is told when something fails."""

from __future__ import annotations

import logging
from typing import Any, Final

from letta_adapters.errors import (
    ConflictError,
    ConversationBusyError,
    InvalidInputError,
    LettaError,
    NotFoundError,
    NotPermittedError,
    SessionClosedError,
)

_log: Final = logging.getLogger(__name__)
# About what the client has asked, in words for it. The others speak of this server's own affairs:
# of paths, addresses and settings.
_STATUS: Final[tuple[tuple[type[LettaError], int], ...]] = (
    (NotPermittedError, 403),
    (InvalidInputError, 400),
    (ConversationBusyError, 429),
    (ConflictError, 409),
    (NotFoundError, 404),
    (SessionClosedError, 503),
)


def find_status(error: Exception) -> int:
    """Return the HTTP status for an error.

    Args:
        error: The error.
    """
    found = next((status for cls, status in _STATUS if isinstance(error, cls)), None)
    return found or (502 if isinstance(error, LettaError) else 500)


def describe_error(error: Exception) -> dict[str, Any]:
    """Return an error for a client: ``code``, ``message`` and ``hint``.

    Args:
        error: The error.
    """
    if isinstance(error, tuple(cls for cls, _ in _STATUS)):
        assert isinstance(error, LettaError)
        return {"code": error.code, "message": error.message, "hint": error.hint}
    code = error.code if isinstance(error, LettaError) else "internal"
    _log.warning("A client was told of %s: %s", code, error)
    return {
        "code": code,
        "message": "The agent cannot be reached." if code != "internal" else "This has failed.",
        "hint": "The server's log has the reason.",
    }
