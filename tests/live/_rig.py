"""The rig's Letta API server: ``python -m tools.rig run -- python -m pytest -m live ...``."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from letta_adapters import Rest
from letta_adapters.testing.scripted_model import RemoteScript


def rig_server() -> Rest:
    """Name the server; skips where the model behind it cannot be told what to say."""
    if not os.environ.get("LETTA_RIG_MODEL"):
        pytest.skip("the model behind the server must be the rig's")
    return Rest(base_url=os.environ["LETTA_BASE_URL"], api_key="")


def rig_script() -> Callable[..., None]:
    """Tell the model behind it what to say."""
    return RemoteScript(os.environ["LETTA_RIG_MODEL"]).script
