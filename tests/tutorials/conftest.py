"""The stage that both models of a tutorial speak from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.scripted_model import ScriptedModel
from tests._wheel import require_wheel
from tests.tutorials.control import Stage


@pytest.fixture(scope="session")
def stage() -> Stage:
    """What the models say."""
    return Stage()


@pytest.fixture(scope="session")
def control_url(stage: Stage) -> Iterator[str]:
    """The OpenAI endpoint that the control models talk to."""
    with ScriptedModel(respond=stage) as model:
        yield model.base_url


@pytest.fixture(scope="session")
def tutorials_letta(stage: Stage) -> Iterator[LocalLetta]:
    """The real embedded runtime, behind which the same script is spoken."""
    require_wheel()
    with LocalLetta(respond=stage) as letta:
        yield letta
