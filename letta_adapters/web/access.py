"""Internal: decide who may come in: the ``authorize`` callback, and the page that asks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from letta_adapters.errors import InvalidInputError, NotPermittedError

_log: Final = logging.getLogger(__name__)
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """A person, or a program, as your ``authorize`` callback knows it.

    ``name`` is shown to the other viewers beside what this one sends and answers. ``room`` is the
    conversation that it is let into: a word of yours that ``open_session`` understands, and never
    what a client says unless ``authorize`` has looked it up. ``may_watch``, ``may_send`` (and stop)
    and ``may_approve`` are what it may do there; the last one lets it run tools. With ``may_edit``
    it may allow a call with other arguments than the agent's, which is to run what it likes.
    """

    name: str
    room: str = ""
    may_watch: bool = True
    may_send: bool = False
    may_approve: bool = False
    may_edit: bool = False


Authorize: TypeAlias = Callable[[HTTPConnection], Viewer | Awaitable[Viewer | None] | None]


class Gate:
    """The checks that every request passes before anything of it is read.

    Args:
        authorize: Returns the viewer who asks, or ``None`` for nobody.
        allowed_origins: The origins (``https://app.example``) of pages that may ask, beside those
            of the same host.
    """

    def __init__(self, authorize: Authorize, allowed_origins: Sequence[str] = ()) -> None:
        if not callable(authorize):
            raise InvalidInputError(
                f"authorize must be a function, not {type(authorize).__name__}.",
                hint="def authorize(connection): return Viewer(name=..., room=...) or None",
            )
        if isinstance(allowed_origins, str):
            raise InvalidInputError("allowed_origins must be a list of origins, not one string.")
        self.allowed_origins = tuple(_check_origin(origin) for origin in allowed_origins)
        self._authorize = authorize

    async def admit(self, connection: HTTPConnection) -> Viewer:
        """Return the viewer who asks.

        Raises:
            NotPermittedError: The request comes from a page that may not ask, or ``authorize`` does
                not know who asks, or it raised an exception.
        """
        # First: a page that may not ask is not to learn whether its visitor is known.
        self.check_origin(connection)
        try:
            found = self._authorize(connection)
            if inspect.isawaitable(found):
                found = await found
        except Exception:
            # Not knowing who asks is no permission.
            _log.warning("authorize raised an exception; the request is refused.", exc_info=True)
            found = None
        # A user of the application's own, or True, names neither a room nor rights.
        if not isinstance(found, Viewer):
            raise NotPermittedError("This request is not authorized.")
        return found

    def check_origin(self, connection: HTTPConnection) -> None:
        """Refuse a request that a page of somebody else's has made.

        Browsers send ``Origin`` with every POST and WebSocket, and with a GET to another host. One
        without it is from a browser only if it brings a cookie or ``Sec-Fetch-Site``, and then safe
        only if it reads and the browser itself says that the page is one of ours.

        Raises:
            NotPermittedError: The page may not ask.
        """
        headers = connection.headers
        origin = headers.get("origin")
        if origin is not None:
            if origin in self.allowed_origins or _is_same_host(origin, connection):
                return
            raise NotPermittedError(
                "A page of this origin may not ask.", hint="List it in allowed_origins."
            )
        site = headers.get("sec-fetch-site")
        reads = connection.scope["type"] == "http" and connection.scope["method"] in ("GET", "HEAD")
        if reads and site in (None, "same-origin", "none"):
            return
        if not reads and site is None and "cookie" not in headers:
            return
        raise NotPermittedError("The request does not say which page it comes from.")


def _check_origin(origin: object) -> str:
    parts = urlsplit(origin if isinstance(origin, str) else "")
    bare = f"{parts.scheme}://{parts.netloc}"
    # It is compared as text: with a path or a slash it would never equal what browsers send.
    if parts.scheme not in ("http", "https") or not parts.hostname or origin != bare:
        raise InvalidInputError(
            f"{origin!r} is no origin.",
            hint='Write scheme, host and port: "https://app.example". There is no "*".',
        )
    return bare


def _is_same_host(origin: str, connection: HTTPConnection) -> bool:
    """Return whether an origin is the very host and port that the request was sent to."""
    try:
        asking = urlsplit(origin)
        scheme = str(connection.scope.get("scheme"))
        asked = urlsplit(f"//{connection.headers.get('host', '')}")
        if asking.scheme not in ("http", "https") or not asking.hostname:
            return False
        # Behind a proxy that ends TLS the request says http, and the page https.
        port = _PORTS[asking.scheme] if asked.port is None else asked.port
        # A page that came without TLS may be anybody's, so it may not ask a host that has TLS.
        secure = asking.scheme == "https" or scheme in ("http", "ws")
        own = asking.port or _PORTS[asking.scheme]
        return secure and asking.hostname == asked.hostname and own == port
    except ValueError:  # no port at all
        return False
