"""What the tests of the pure stages are refused, they are refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.chat.conftest import IoRefusedError


def test_a_pure_stage_opens_no_socket() -> None:
    with pytest.raises(IoRefusedError):
        socket.socket()
    with pytest.raises(IoRefusedError):
        socket.create_connection(("127.0.0.1", 9))


def test_a_pure_stage_runs_no_event_loop() -> None:
    # What every event loop begins with.
    with pytest.raises(IoRefusedError):
        socket.socketpair()


def test_a_pure_stage_starts_no_process() -> None:
    with pytest.raises(IoRefusedError):
        subprocess.run([sys.executable, "-V"], check=False)
    with pytest.raises(IoRefusedError):
        os.system("true")


async def test_a_test_on_an_event_loop_keeps_its_sockets() -> None:
    socket.socket().close()
