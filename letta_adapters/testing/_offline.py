"""No network while a recording is played: a test that reaches a server tests something else."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def offline(refused: Callable[[str], Exception]) -> Iterator[None]:
    """Refuse to resolve names and to connect, but for this machine's own loopback.

    ``refused(host)`` makes the error. Loops that are not asyncio's own (``uvloop``) resolve and
    connect by themselves and are not seen.
    """
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    getaddrinfo = socket.getaddrinfo

    def check(own: socket.socket, address: Any) -> Any:
        if own.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise refused(str(address[0]))
        return address

    def resolve(host: Any, *rest: Any, **options: Any) -> Any:
        if not _is_loopback(host):
            raise refused(host.decode() if isinstance(host, bytes) else str(host))
        return getaddrinfo(host, *rest, **options)

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
