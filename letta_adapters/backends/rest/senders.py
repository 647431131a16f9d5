"""Internal: what sends over one connection: our transport, httpx's own, or one through a proxy."""

from __future__ import annotations

import functools
import os
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from letta_adapters.backends.config import Rest
from letta_adapters.backends.proxies import any_proxy, is_loopback, proxy_variables
from letta_adapters.backends.rest.wire import Transport, may_replace_httpx
from letta_adapters.errors import ConfigurationError


class Client:
    """Sends through an httpx client: an injected one, or one that knows a proxy."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.aclose = client.aclose

    async def send(self, request: httpx.Request) -> httpx.Response:
        # `http.py` decides about redirects; an injected client may be set to follow any.
        return await self._client.send(request, stream=True, follow_redirects=False)


class Direct:
    """Sends over httpx' transport itself: no cookies, no proxies, and a fifth of the work less."""

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self.send = transport.handle_async_request
        self.aclose = transport.aclose


Sender = Client | Direct | Transport


def make_sender(rest: Rest, base_url: str) -> Sender:
    """Return what sends over one connection of the running loop; it is opened when it is needed.

    Raises:
        ConfigurationError: httpx cannot use the proxy or the certificates of the environment.
    """
    if _needs_proxy(base_url):
        return _proxied(rest)
    verify = _ssl_context()
    if may_replace_httpx():
        return Transport(verify, rest.keepalive_expiry)
    return Direct(httpx.AsyncHTTPTransport(verify=verify, limits=_limits(rest)))


def check_environment(rest: Rest, base_url: str) -> None:
    """Refuse settings of the environment that no connection could be made with; needs no loop.

    Raises:
        ConfigurationError: httpx cannot use the proxy or the certificates of the environment.
    """
    if _needs_proxy(base_url):
        _proxied(rest)
    else:
        _ssl_context()


def _needs_proxy(base_url: str) -> bool:
    # No proxy reaches this machine's own addresses.
    return not is_loopback(base_url) and any_proxy()


def _limits(rest: Rest) -> httpx.Limits:
    # No limit here: a connection that httpx lost sight of must not block the next request.
    return httpx.Limits(
        max_connections=None,
        max_keepalive_connections=1,
        keepalive_expiry=rest.keepalive_expiry,
    )


def _proxied(rest: Rest) -> Client:
    """Return what sends over the proxy of the environment."""
    verify = _ssl_context()
    try:
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # none kept, none sent
        return Client(httpx.AsyncClient(verify=verify, cookies=cookies, limits=_limits(rest)))
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        socks = isinstance(error, ImportError)
        raise ConfigurationError(
            f"The environment's proxy cannot be used ({proxy_variables()}): {error}",
            hint="For a SOCKS proxy: pip install 'httpx[socks]'. Else set NO_PROXY, or unset it."
            if socks
            else "Write it as http://host:port; NO_PROXY takes names and addresses.",
        ) from error


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    # Building one costs ~25 ms; every client of the process can share it.
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # a missing file, or one with something else in it
        raise ConfigurationError(
            "The certificates that SSL_CERT_FILE names cannot be read: "
            f"{os.environ.get('SSL_CERT_FILE')!r} ({error.strerror or error}).",
            hint="Set it to a file of PEM certificates, or unset it.",
        ) from error
