"""The stages of a call that are pure stay pure: their tests get no socket and no subprocess."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
from typing import Any

import pytest


class IoRefusedError(AssertionError):
    """A stage of a call that only computes tried to reach something outside its arguments."""


class _NoSocket(socket.socket):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise IoRefusedError("a pure stage of a call opened a socket")


def _no_pair(*args: Any, **kwargs: Any) -> Any:
    raise IoRefusedError("a pure stage of a call made a pair of sockets, as an event loop does")


def _no_process(*args: Any, **kwargs: Any) -> Any:
    raise IoRefusedError("a pure stage of a call started a process")


@pytest.fixture(autouse=True)
def no_io(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse sockets and subprocesses in every test of this folder that is no coroutine.

    A coroutine runs on an event loop, which has sockets of its own: it tests no pure stage.
    """
    if inspect.iscoroutinefunction(request.function):
        return
    monkeypatch.setattr(socket, "socket", _NoSocket)
    monkeypatch.setattr(socket, "socketpair", _no_pair)
    for owner, name in ((subprocess, "Popen"), (os, "system"), (os, "posix_spawn")):
        if hasattr(owner, name):
            monkeypatch.setattr(owner, name, _no_process)
