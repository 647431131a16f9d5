"""The notebook runs from its first cell to its last, in a kernel of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests._wheel import needs_wheel

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"

pytestmark = pytest.mark.slow


@needs_wheel
def test_a_notebook_runs_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    for name in ("LETTA_API_KEY", "LETTA_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=100, resources=where).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "* mean_temperature {'city': 'Vienna'}" in printed
    assert "I looked: 22.7 degrees in Vienna." in printed
    assert printed.count("You asked for the temperature in Vienna.") == 2
