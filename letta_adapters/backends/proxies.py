"""Internal: the proxy of the environment of a connection, for errors that name it."""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from typing import Final
from urllib.parse import urlsplit

# The schemes whose proxies are used; the first that is set counts: httpx 0.28 and websockets 15.
_BY_SCHEME: Final = {
    "http": ("http", "all"),
    "https": ("https", "all"),
    "ws": ("ws", "socks", "https", "http"),
    "wss": ("wss", "socks", "https"),
}


def is_loopback(url: str) -> bool:
    """Return whether the address is this machine's own, where no proxy can help."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_proxy(url: str) -> str:
    """Return ``"HTTPS_PROXY (http://proxy:3128)"``; ``""`` where no proxy is used.

    The variable of the environment is named, and the proxy's address without its password. Without
    a variable (a setting of the system) the address stands alone.
    """
    if is_loopback(url):
        return ""
    try:
        parts = urlsplit(url)
        if urllib.request.proxy_bypass(parts.hostname or ""):
            return ""
        found = urllib.request.getproxies()
    except (OSError, ValueError):
        return ""
    for scheme in _BY_SCHEME.get(parts.scheme, ()):
        if address := found.get(scheme):
            variable = _variable(f"{scheme}_proxy")
            shown = _public(address)
            return f"{variable} ({shown})" if variable else shown
    return ""


def any_proxy() -> bool:
    """Return whether httpx has proxies to choose from, or addresses to keep from them."""
    try:
        return not {"http", "https", "all", "no"}.isdisjoint(urllib.request.getproxies())
    except (OSError, ValueError):
        # Not known: then httpx' own client is used, which looks for itself.
        return True


def proxy_variables() -> str:
    """Return the proxy variables that are set, as in ``"ALL_PROXY and NO_PROXY"``."""
    schemes = ("http_proxy", "https_proxy", "socks_proxy", "all_proxy", "no_proxy")
    names = [name for name in map(_variable, schemes) if name]
    return " and ".join(names) or "the proxy settings"


def _variable(name: str) -> str:
    return next((n for n in (name, name.upper()) if os.environ.get(n)), "")


def _public(address: str) -> str:
    """Return an address without the password it may hold."""
    head, at, tail = address.rpartition("@")
    scheme = head.partition("://")[0]
    return f"{scheme}://{tail}" if at else address
