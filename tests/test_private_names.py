"""Private parts of libraries are used where they are listed; of those for the wire, not at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.road import Tree

TREE: Final = Tree(Path(__file__).parents[1] / "letta_adapters")
# Their lists are held by tests of their own (`test_compat.py`).
ADAPTERS: Final = ("langchain.", "llama_index.")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module gives to anything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name


def _used(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that a module reads of something, by a dot or as a text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "setattr", "hasattr", "delattr")
            and isinstance(node.args[1], ast.Constant)
        ):
            yield str(node.args[1].value)
        elif (
            isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] != "letta_adapters"
        ):
            yield from (*str(node.module).split("."), *(alias.name for alias in node.names))


# The standard library tells the arguments of a parser by nothing else, and completion needs them.
ARGPARSE = {("cli.completion", "_SubParsersAction"), ("cli.completion", "_actions")}


def test_no_private_part_of_httpx_or_websockets_is_used() -> None:
    """A private name that no module here defines is a library's."""
    own = {name for tree in TREE.parsed.values() for name in _defined(tree)}
    foreign = {
        (module, name)
        for module, tree in TREE.parsed.items()
        if not module.startswith(ADAPTERS)
        for name in _used(tree)
        if _is_private(name) and name not in own
    }
    assert foreign == ARGPARSE
