"""Fixtures: one agent on the real embedded runtime for all tests, with a model that obliges."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from letta_adapters import LettaClient
from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.obliging import oblige
from letta_adapters.testing.scripted_model import ScriptedModel
from tests.app_server._server import payload


@pytest.fixture(scope="session")
def _embedded_letta() -> Iterator[LocalLetta]:
    if payload() is None:
        pytest.skip("the letta wheel is not installed")
    with LocalLetta(respond=oblige, models=("scripted", "scripted-two")) as letta:
        yield letta


@pytest.fixture(scope="session")
def embedded_model(_embedded_letta: LocalLetta) -> ScriptedModel:
    """The model behind the runtime."""
    return _embedded_letta.model


@pytest.fixture(scope="session")
def embedded(_embedded_letta: LocalLetta) -> LettaClient:
    """A client of a runtime of its own."""
    return _embedded_letta.client


@pytest.fixture(scope="session")
def embedded_agent(_embedded_letta: LocalLetta) -> str:
    """A bare agent."""
    return _embedded_letta.agent()
