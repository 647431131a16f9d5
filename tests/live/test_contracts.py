"""The live suite, among our own tests: ``pytest -m live``, opt-in."""

from __future__ import annotations

import pytest

from letta_adapters.testing.live.test_contracts import TestContracts, agent, client

__all__ = ["TestContracts", "agent", "client"]

pytestmark = pytest.mark.live
