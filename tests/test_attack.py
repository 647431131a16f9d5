"""A sample of ``python -m tools.attack`` in every test run."""

from __future__ import annotations

import logging

import pytest

from tools.attack.__main__ import run


@pytest.mark.slow
def test_a_sample_of_the_attacks_comes_to_nothing_bad(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "letta_adapters")
    said: list[str] = []
    assert run(20261129, quick=True, say=said.append) == []
    attacks = [line for line in said if line.startswith("| ")][1:]
    assert len(attacks) == 7
    assert all(int(line.split(" | ")[1]) > 5 for line in attacks)
