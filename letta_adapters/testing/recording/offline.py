"""Block the network while a recording is played.

A test that reaches a server during a replay tests something else than the recording.

Internal: not part of the public API.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def offline(refused: Callable[[str], Exception]) -> Iterator[None]:
    """Refuse to resolve names and to connect, except on this machine's own loopback interface.

    Event loops that are not asyncio's own (``uvloop``) resolve and connect by themselves, so they
    are not covered.

    Args:
        refused: Makes the error to raise from the host that was to be reached.
    """
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    getaddrinfo = socket.getaddrinfo

    def check(own: socket.socket, address: Any) -> Any:
        # Unix sockets stay on this machine.
        if own.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise refused(str(address[0]))
        return address

    def resolve(host: Any, *rest: Any, **options: Any) -> Any:
        if not _is_loopback(host):
            raise refused(host.decode() if isinstance(host, bytes) else str(host))
        return getaddrinfo(host, *rest, **options)

    # Patched at the socket, so that every library is covered, whatever it is built on.
    with (
        patch.object(socket.socket, "connect", lambda own, to: connect(own, check(own, to))),
        patch.object(socket.socket, "connect_ex", lambda own, to: connect_ex(own, check(own, to))),
        patch.object(socket, "getaddrinfo", resolve),
    ):
        yield


def _is_loopback(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(name).partition("%")[0]).is_loopback
    except ValueError:
        return False
