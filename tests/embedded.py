"""Fixtures: one agent on the real embedded runtime, and one App Server, for all tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from letta_adapters import LettaClient
from letta_adapters.testing.compliant_model import comply
from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.scripted_model import ScriptedModel
from tests._wheel import require_wheel
from tests.backends.app_server._server import AppServer


@pytest.fixture(scope="session")
def _embedded_letta() -> Iterator[LocalLetta]:
    require_wheel()
    with LocalLetta(respond=comply, models=("scripted", "scripted-two")) as letta:
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


@pytest.fixture(scope="session")
def shared_model() -> Iterator[ScriptedModel]:
    """The model behind :func:`app_server`; tests take ``model``, which starts empty."""
    with ScriptedModel(models=("scripted", "scripted-two")) as model:
        yield model


@pytest.fixture(scope="session")
def app_server(shared_model: ScriptedModel) -> Iterator[AppServer]:
    """One real App Server for all tests that do not stop it."""
    require_wheel()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        server = AppServer(Path(home), shared_model.base_url).start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def thinking_server(shared_model: ScriptedModel) -> Iterator[AppServer]:
    """An App Server that has models that think; so many that others have one without."""
    require_wheel()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        server = AppServer(Path(home), shared_model.base_url, thinking=True).start()
        yield server
        server.stop()
