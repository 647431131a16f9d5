"""The misbehaving server of ``tests/faults``, and a sync client of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from letta_adapters import LettaClient, Rest
from tests.faults.conftest import _hurry, rest, server

__all__ = ["_hurry", "rest", "server"]

ROOT = Path(__file__).parents[2]

# Every script gets these names; what it prints is compared line by line.
PRELUDE = """
import os, sys, threading, time
from letta_adapters import LettaClient, Rest
AGENT = "agent-00000000-0000-4000-8000-000000000001"
CONV = "conv-00000000-0000-4000-8000-000000000001"
def make(**options):
    return LettaClient(Rest(base_url=sys.argv[1], api_key="", **options))
def resume(client, **options):
    return client.resume_session(agent_id=AGENT, conversation_id=CONV, **options)
def say(*words):
    print(*words, flush=True)
"""


@pytest.fixture
def client(rest: Callable[..., Rest]) -> Iterator[LettaClient]:
    """A sync client of ``server``."""
    with LettaClient(rest()) as made:
        yield made


def start(script: str, url: str) -> subprocess.Popen[str]:
    """Run ``script`` in a process of its own, with every warning an error."""
    flags = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    return subprocess.Popen(
        [sys.executable, *flags, "-c", PRELUDE + script, url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Wait for its end, which must be a quiet one; the lines it printed."""
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the process hangs:\n{out}\n{err}") from None
    assert (process.returncode, err) == (0, ""), f"{out}\n{err}"
    return out.splitlines()
