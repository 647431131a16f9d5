"""Load the examples that serve a page, each time anew."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return an example as a module, and leave nothing of it behind for other tests."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module(name)
    for loaded in (name, "_agent", "_serve"):
        monkeypatch.delitem(sys.modules, loaded)
    return module
