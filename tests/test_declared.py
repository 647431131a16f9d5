"""What the package imports is declared, for whoever installs just that extra."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "letta_adapters"
# The name to install, where it is another one than the name to import.
DISTRIBUTION: Final = {
    "ag_ui": "ag-ui-protocol",
    "llama_index": "llama-index-core",
    "markdown_it": "markdown-it-py",
    "llama_index_instrumentation": "llama-index-instrumentation",
    "pydantic_core": "pydantic",  # pydantic requires exactly one version of it
    "vcr": "vcrpy",
    "workflows": "llama-index-workflows",
    "yaml": "pyyaml",
}
# The extras with which a part of the package is used.
EXTRAS: Final = {
    "langchain": ("langchain",),
    "llama_index": ("llama-index",),
    "testing": ("testing",),
    "testing/llama_index": ("testing", "llama-index"),
    "web": ("agui", "web"),
    "cli": ("cli",),
}
# What is imported and not declared, each with the reason.
UNDECLARED: Final = {
    ("langchain", "langgraph"): "imported in a graph only, so it is there",
    ("cli", "langchain_core"): "the demo shows it where it is installed",
    ("cli", "llama_index"): "the demo shows it where it is installed",
    ("", "opentelemetry"): "imported by `tracing.instrument`, which names the extra `[otel]`",
    ("testing", "pytest_asyncio"): "for the live contracts, which say so",
}


def _read_lists() -> dict[str, set[str]]:
    """The names that each extra (``""``: the base) installs; tomllib is newer than Python 3.10."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    base = text.split("\ndependencies = [")[1].split("\n]")[0]
    extras = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    lists = re.findall(r"^([\w-]+) = \[(.*?)\](?:  #[^\n]*)?$", extras, re.MULTILINE | re.DOTALL)
    return {
        name: {n.lower().replace("_", "-") for n in re.findall(r'"([A-Za-z0-9_.-]+)', body)}
        for name, body in [("", base), *lists]
    }


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from (name.partition(".")[0] for name in names)


def _room(file: Path) -> str:
    where = file.relative_to(PACKAGE).parent.as_posix()
    fitting = [room for room in EXTRAS if where == room or where.startswith(f"{room}/")]
    return max(fitting, key=len, default="")


LISTS: Final = _read_lists()


@pytest.mark.parametrize("room", ["", *EXTRAS])
def test_what_a_part_of_the_package_imports_is_installed_with_it(room: str) -> None:
    declared = LISTS[""].union(*(LISTS.get(extra, set()) for extra in EXTRAS.get(room, ())))
    files = [file for file in PACKAGE.rglob("*.py") if _room(file) == room]
    assert files
    missing = {
        (file.relative_to(PACKAGE).as_posix(), name)
        for file in files
        for name in _imports(file)
        if name not in (*sys.stdlib_module_names, "letta_adapters")
        and DISTRIBUTION.get(name, name.replace("_", "-")) not in declared
        and (room, name) not in UNDECLARED
    }
    assert not missing
