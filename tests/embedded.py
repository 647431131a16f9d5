"""Fixtures: one agent on the real embedded runtime for all tests, with a model that obliges."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from letta_adapters import LettaClient, Local
from letta_adapters.testing.obliging import oblige
from letta_adapters.testing.scripted_model import ScriptedModel
from tests.app_server._server import MODEL, payload


@pytest.fixture(scope="session")
def embedded_model() -> Iterator[ScriptedModel]:
    """The model behind the runtime."""
    with ScriptedModel(respond=oblige, models=("scripted", "scripted-two")) as model:
        yield model


@pytest.fixture(scope="session")
def embedded(embedded_model: ScriptedModel) -> Iterator[LettaClient]:
    """A client of a runtime of its own."""
    if payload() is None:
        pytest.skip("the letta wheel is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        spec = Local(data_dir=Path(home), openai_compatible={"base_url": embedded_model.base_url})
        with LettaClient(spec) as client:
            yield client


@pytest.fixture(scope="session")
def embedded_agent(embedded: LettaClient) -> str:
    """A bare agent."""
    return embedded.create_agent(
        name="test", model=MODEL, system_prompt="You are a test agent.", persona="I am a test."
    )
