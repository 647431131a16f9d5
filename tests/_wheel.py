"""The ``letta`` wheel: where Letta Code is, and what tests do without it.

There are wheels for some systems only, and interpreters are tested without it, too: no Python of
ours runs in it. One reason in one place, so that a report says at once what was left out.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def payload() -> Path | None:
    """Where the wheel keeps Letta Code; ``None`` if it is not installed."""
    spec = importlib.util.find_spec("letta_code")
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / "_payload"
    return found if found.is_dir() else None


NO_WHEEL = "the letta wheel is not installed"
needs_wheel = pytest.mark.skipif(payload() is None, reason=NO_WHEEL)


def require_wheel() -> None:
    """Skip the test that asks for a fixture of the real runtime, where there is none."""
    if payload() is None:
        pytest.skip(NO_WHEEL)
