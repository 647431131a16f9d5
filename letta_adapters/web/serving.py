"""Internal: what the routes have in common: bodies, errors as JSON, and streams of events."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from letta_adapters.errors import InvalidInputError, LettaError
from letta_adapters.web.replies import describe_error, find_status
from letta_adapters.web.socket import SEND_TIMEOUT

_log: Final = logging.getLogger(__name__)
# Seconds between two signs of life, which also find a client that has gone in silence.
_PING: Final = 15
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class _TooLargeError(InvalidInputError):
    """The body is longer than the limit."""


async def read_body(request: Request, max_body: int) -> bytes:
    """Return the JSON that was sent, as it is.

    Args:
        request: The request.
        max_body: The length that it may have, in bytes.

    Raises:
        InvalidInputError: It is too long, or does not say that it is JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A form of another page can send anything else without asking the browser first.
    if kind != "application/json":
        raise InvalidInputError("The body must be JSON.", hint="Content-Type: application/json")
    too_large = _TooLargeError(f"The body is longer than {max_body} bytes.", code="too_large")
    length = request.headers.get("content-length", "0")
    # Twenty digits are enough to compare: int() refuses a number of thousands of digits.
    if length.isascii() and length.isdigit() and int(length[:20]) > max_body:
        raise too_large
    # A client may tell no length, or a wrong one, so what comes is counted as well.
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_body:
            raise too_large
    return bytes(body)


class EventStream(EventSourceResponse):
    """A viewer's events; the viewer leaves with the connection, however that ends.

    Args:
        events: The events.
        leave: Called at the end.
    """

    def __init__(self, events: AsyncIterator[ServerSentEvent], leave: Callable[[], None]) -> None:
        super().__init__(events, ping=_PING, send_timeout=SEND_TIMEOUT, sep="\n")
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except TimeoutError:
            # Of one send: a client that takes nothing. It may come back with its last id.
            _log.info("A viewer was dropped: it took nothing for %g seconds.", SEND_TIMEOUT)
        finally:
            # Not in the generator of the events: it may never have begun.
            self._leave()


def guard(endpoint: Endpoint) -> Endpoint:
    """Turn what an endpoint raises into JSON: a code, a message and a hint, and nothing else."""

    @functools.wraps(endpoint)
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:
            if not isinstance(error, LettaError):
                _log.error("A request failed.", exc_info=error)
            status = 413 if isinstance(error, _TooLargeError) else find_status(error)
            return JSONResponse({"error": describe_error(error)}, status)

    return guarded
