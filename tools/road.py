"""Read a package's modules and imports from its source. Nothing is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

Graph = Mapping[str, set[str]]


class Tree:
    """A package's modules and what they import.

    Args:
        folder: The package's folder; its name is the package's.
    """

    def __init__(self, folder: Path) -> None:
        self.package = folder.name
        self.modules = _find_modules(folder)
        # The package's own file loads lazily, so it is no module of the graph.
        self.face = folder / "__init__.py"

    @cached_property
    def sources(self) -> dict[str, str]:
        """The text of each module."""
        return {name: file.read_text("utf-8") for name, file in self.modules.items()}

    @cached_property
    def parsed(self) -> dict[str, ast.Module]:
        """The syntax tree of each module."""
        return {name: ast.parse(text) for name, text in self.sources.items()}

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """The modules of the package that each module names anywhere: also for types, also late."""
        return {
            name: self._find_imports(name, ast.walk(tree)) for name, tree in self.parsed.items()
        }

    @cached_property
    def eager(self) -> dict[str, set[str]]:
        """The modules of the package that each module imports when it is imported itself."""
        return {
            name: self._find_imports(name, walk_eagerly(tree)) for name, tree in self.parsed.items()
        }

    def list_imports(self, node: ast.AST) -> list[str]:
        """Return what an import statement names: a module, or of a package the module in it."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if not isinstance(node, ast.ImportFrom):
            return []
        base = node.module or ""
        inner = [f"{base}.{alias.name}" for alias in node.names]
        return [n if n.removeprefix(f"{self.package}.") in self.modules else base for n in inner]

    def _find_imports(self, name: str, nodes: Iterator[ast.AST]) -> set[str]:
        prefix = f"{self.package}."
        named = {full for node in nodes for full in self.list_imports(node)}
        found = {full.removeprefix(prefix) for full in named if full.startswith(prefix)}
        return found & set(self.modules) - {name}


def _find_modules(folder: Path) -> dict[str, Path]:
    """Return every module by its name below the package, without the package itself."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    found.pop("", None)
    return found


def walk_eagerly(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run on import: not those of functions, nor those for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from walk_eagerly(node)


def find_circles(graph: Graph) -> set[frozenset[str]]:
    """Return the sets of modules that all import each other, directly or not."""
    reached = {name: _reach(graph, name) for name in graph}
    return {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }


def _reach(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph[waiting.pop()] - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def floor_of(name: str, floors: Sequence[Sequence[str]]) -> int:
    """Return the floor of a module: the one that lists its top-level name, else the lowest."""
    top = name.split(".")[0]
    return next((floor for floor, names in enumerate(floors) if top in names), 0)


def find_upward(graph: Graph, floors: Sequence[Sequence[str]]) -> set[tuple[str, str]]:
    """Return the imports that lead from a floor to a higher one, as ``(importer, imported)``."""
    return {
        (name, other)
        for name, named in graph.items()
        for other in named
        if floor_of(other, floors) > floor_of(name, floors)
    }


def count_floors(graph: Graph) -> int:
    """Return how many modules the longest chain of imports has; a circle counts as one."""
    group = {name: frozenset({name}) for name in graph}
    for circle in find_circles(graph):
        group.update(dict.fromkeys(circle, circle))
    heights: dict[frozenset[str], int] = {}

    def measure(members: frozenset[str]) -> int:
        if members not in heights:
            below = {group[other] for name in members for other in graph[name]} - {members}
            heights[members] = 1 + max((measure(lower) for lower in below), default=0)
        return heights[members]

    return max((measure(members) for members in set(group.values())), default=0)


def find_single_users(graph: Graph) -> dict[str, str]:
    """Return the modules that exactly one other imports, with that one."""
    users: dict[str, list[str]] = {name: [] for name in graph}
    for name, named in graph.items():
        for other in named:
            users[other].append(name)
    return {name: found[0] for name, found in users.items() if len(found) == 1}


def fold_to_top(graph: Graph) -> dict[str, set[str]]:
    """Return the graph between the top-level names: what a package's modules import, it imports."""
    folded: dict[str, set[str]] = {name.split(".")[0]: set() for name in graph}
    for name, named in graph.items():
        top = name.split(".")[0]
        folded[top] |= {other.split(".")[0] for other in named} - {top}
    return folded


def count_lines(text: str) -> int:
    """Return the number of lines of a text."""
    return len(text.splitlines())


def measure_functions(tree: Tree) -> Iterator[tuple[str, int]]:
    """Yield every function and method with its number of lines."""
    for name, parsed in tree.parsed.items():
        for node in ast.walk(parsed):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                yield f"{name}.{node.name}", node.end_lineno - node.lineno + 1
