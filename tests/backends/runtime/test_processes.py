"""Several processes on one directory, and what is left when a process ends: nothing."""

from __future__ import annotations

import json
import os
import signal
import sys

import psutil
import pytest

from letta_adapters.testing.scripted_model import Reply
from tests.backends.runtime.conftest import wait_gone

ENDS = ["return", "raise", "SIGINT", "SIGTERM", "SIGKILL"]
CASES = [*((end, True) for end in ENDS), ("SIGKILL", False)]


@pytest.mark.parametrize(("end", "turn"), CASES)
def test_no_process_is_left_behind(child, home, model, end, turn):
    model.script(Reply("one two three four " * 20, token_delay=0.2))
    order = {"model_url": model.base_url, "say": "hello"} if turn else {}
    one = child(end if end in ("return", "raise") else "wait", **order)
    told = one.told()
    assert told["owned"] and psutil.pid_exists(told["pid"])
    if end.startswith("SIG"):
        # To the group, as a terminal does: the server must not be in it.
        assert os.getpgid(told["pid"]) != one.process.pid
        os.killpg(one.process.pid, getattr(signal, end))
    _, stderr = one.process.communicate(timeout=30)
    wait_gone(home)
    assert ("on purpose" in stderr) == (end == "raise")
    assert "letta_adapters" not in stderr, stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sub-reapers exist on Linux only")
def test_no_process_is_left_behind_below_a_sub_reaper(child, home):
    reaper = child("wait", module="_subreaper")
    told = reaper.told()
    out, err = reaper.process.communicate(timeout=30)
    assert json.loads(out) >= 1, err
    assert not psutil.pid_exists(told["pid"])
    wait_gone(home, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_the_server_alive(child, home):
    one = child("fork")
    told = one.told()
    one.process.kill()
    wait_gone(home)
    assert psutil.pid_exists(told["forked"])
    os.kill(told["forked"], signal.SIGKILL)


async def test_a_joined_process_takes_over_after_a_crash_of_the_server(child, start):
    told = child("wait").told()
    joined = await start()
    psutil.Process(told["pid"]).kill()
    again = await start()
    assert again.owned and again.pid != joined.pid


def test_processes_that_start_at_the_same_time_share_one_server(child):
    told = [one.told() for one in [child("wait") for _ in range(3)]]
    assert len({one["pid"] for one in told}) == 1
    assert sorted(one["owned"] for one in told) == [False, False, True]
