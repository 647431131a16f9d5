"""Data flows one way, from bytes to adapters; imports go the other way, and only that way."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "letta_adapters"

# From below to above. A module imports of its own floor and of those below. What is not named is
# the vocabulary of floor 0: errors, messages, content, options and helpers that know nobody.
FLOORS: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("tools",),
    ("engine",),
    ("backends", "specs"),
    ("client", "session"),
    ("sync", "chat"),
    ("langchain", "llama_index"),
    ("testing",),
    ("cli", "aio", "__main__"),
)
# What holds these together is to be undone. One that is gone must leave this list.
CIRCLES: Final = {
    frozenset({"tools.client_side", "tools.frameworks"}),
    frozenset({"options", "tools.mcp.connection", "tools.mcp.host"}),
    frozenset(
        f"client.{name}"
        for name in ("beginning", "client", "controls", "providers", "resources", "session")
    ),
    frozenset({"sync.client", "sync.resources"}),
    frozenset({"llama_index.instrumentation", "llama_index.llm"}),
    frozenset({"llama_index.agent", "llama_index.stopping"}),
    frozenset({"langchain.chat_model", "langchain.requests", "langchain.structured_output"}),
    frozenset({"langchain.agent_loop", "langchain.runnable", "langchain.turn_stream"}),
}
UP: Final = {("options", "tools.mcp.host")}


def _modules() -> dict[str, Path]:
    """Every module by its name below the package. The package itself loads lazily: it is none."""
    found = {}
    for file in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = file.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    found.pop("")
    return found


MODULES: Final = _modules()


def _named(node: ast.AST) -> list[str]:
    """What an import statement names: the module, of a package the module in it."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    inner = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name.removeprefix(f"{PACKAGE}.") in MODULES else base for name in inner]


def _imports(name: str) -> set[str]:
    """The modules it names anywhere: for types alone and inside functions, too."""
    found = {
        full.removeprefix(f"{PACKAGE}.")
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        for full in _named(node)
        if full.startswith(f"{PACKAGE}.")
    }
    return found & set(MODULES) - {name}


GRAPH: Final = {name: _imports(name) for name in MODULES}


def _reached(start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in GRAPH[waiting.pop()] - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def _floor(name: str) -> int:
    top = name.split(".")[0]
    return next((floor for floor, names in enumerate(FLOORS) if top in names), 0)


def test_there_are_no_circles_but_the_known_ones() -> None:
    reached = {name: _reached(name) for name in GRAPH}
    circles = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in GRAPH
        if name in reached[name]
    }
    assert circles == CIRCLES


def test_no_import_goes_up_but_the_known_ones() -> None:
    up = {(a, b) for a, named in GRAPH.items() for b in named if _floor(b) > _floor(a)}
    assert up == UP


def test_the_adapters_do_not_know_each_other() -> None:
    both = {"langchain", "llama_index"}
    assert not [
        (a, b)
        for a, named in GRAPH.items()
        for b in named
        if {a.split(".")[0], b.split(".")[0]} == both
    ]


@pytest.mark.parametrize(
    ("library", "rooms"),
    # The clients name the type of what a user may give them.
    [
        ("httpx", {"backends.rest.http", "client.client", "sync.client"}),
        ("websockets", {"backends.app_server.connection"}),
    ],
)
def test_a_wire_stays_in_its_room(library: str, rooms: set[str]) -> None:
    users = {
        name
        for name, file in MODULES.items()
        if name.split(".")[0] not in ("testing", "cli")
        for node in ast.walk(ast.parse(file.read_text()))
        if any(full.split(".")[0] == library for full in _named(node))
    }
    assert users == rooms


def test_rooms_are_small() -> None:
    modules = {n: len(f.read_text().splitlines()) for n, f in MODULES.items()}
    assert {name: lines for name, lines in modules.items() if lines > 600} == {}
    functions = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, file in MODULES.items()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }
    assert {name: lines for name, lines in functions.items() if lines > 60} == {}
