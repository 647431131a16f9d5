"""Data flows one way, from bytes to adapters; imports go the other way, and only that way."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

from tools.road import Tree, count_lines, find_circles, find_upward, measure_functions

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "letta_adapters"

# From below to above. A module imports of its own floor and of those below. What is not named is
# the vocabulary of floor 0: errors, messages, content, permissions, the base of all options and
# helpers that know nobody. Options name settings of MCP servers, which are tools: they stand above
# `tools`. `engine` knows neither, so it comes first.
FLOORS: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("engine", "tracing"),
    ("tools",),
    ("options",),
    ("backends", "specs"),
    ("client", "session"),
    ("sync", "chat"),
    ("langchain", "llama_index"),
    ("testing",),
    ("cli", "web", "aio", "__main__"),
)
TREE: Final = Tree(ROOT / PACKAGE)


def test_there_are_no_circles() -> None:
    assert find_circles(TREE.graph) == set()


def test_no_import_goes_up() -> None:
    assert find_upward(TREE.graph, FLOORS) == set()


@pytest.mark.parametrize(
    "rooms",
    [
        ("langchain", "llama_index"),
        ("backends.rest", "backends.app_server", "backends.runtime"),
        ("testing.leaks", "testing.sanitizer"),
    ],
    ids=["adapters", "backends", "scanner and sanitizer"],
)
def test_neighbours_do_not_know_each_other(rooms: tuple[str, ...]) -> None:
    assert not [
        (a, b)
        for a, named in TREE.graph.items()
        for b in named
        for room in rooms
        for other in rooms
        if room != other and _is_in(a, room) and _is_in(b, other)
    ]


def _is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def test_the_engine_does_no_io_and_knows_messages_and_errors_only() -> None:
    engine = [name for name in TREE.parsed if _is_in(name, "engine")]
    known = {named for name in engine for named in TREE.graph[name] if not _is_in(named, "engine")}
    assert known == {"errors", "messages"}
    outside = {
        full.split(".")[0]
        for name in engine
        for node in ast.walk(TREE.parsed[name])
        for full in TREE.list_imports(node)
    }
    # Whatever joins these must not be able to read a clock, a file or a socket.
    pure = {"collections", "dataclasses", "hashlib", "itertools", "json", "pydantic_core", "re"}
    assert outside - pure == {"__future__", PACKAGE, "typing"}


@pytest.mark.parametrize(
    ("library", "rooms"),
    # The clients name the type of what a user may give them.
    [
        (
            "httpx",
            {
                "backends.rest.http",
                "backends.rest.senders",
                "backends.rest.wire",
                "client.client",
                "sync.client",
            },
        ),
        ("httpcore", {"backends.rest.wire"}),
        ("websockets", {"backends.app_server.connection"}),
        ("starlette", {"web.access", "web.agui.route", "web.app", "web.serving", "web.socket"}),
    ],
)
def test_a_wire_stays_in_its_room(library: str, rooms: set[str]) -> None:
    users = {
        name
        for name, parsed in TREE.parsed.items()
        if name.split(".")[0] not in ("testing", "cli")
        for node in ast.walk(parsed)
        if any(full.split(".")[0] == library for full in TREE.list_imports(node))
    }
    assert users == rooms


def test_rooms_are_small() -> None:
    modules = {name: count_lines(text) for name, text in TREE.sources.items()}
    assert {name: lines for name, lines in modules.items() if lines > 600} == {}
    functions = dict(measure_functions(TREE))
    assert {name: lines for name, lines in functions.items() if lines > 60} == {}
