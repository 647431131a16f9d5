"""The figures of how the package is built, on a small package that has one fault of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.fakes import FakeLetta
from tools.changes import follow
from tools.house import Row, find_comparisons, format_rows, list_single, measure
from tools.road import Tree, count_floors, find_circles, find_single_users, find_upward

FLOORS = ((), ("engine",), ("client",), ("adapter",))
TOY = {
    "__init__.py": '"""Hold a toy."""\n',
    "errors.py": '"""Which errors there are."""\n\n# One for all.\nclass Toy(Exception): ...\n',
    "engine/__init__.py": "",
    "engine/turn.py": """
        from typing import TYPE_CHECKING
        import json

        from toy import errors

        if TYPE_CHECKING:
            from toy.client import Client

        def run(client: "Client", a, b, *, c):
            '''Is it over?'''
            return client.kind == "rest"
    """,
    "client.py": """
        from toy.engine.turn import run

        class Client:
            def ask(self, text):
                '''The answer to a text.'''
                from toy.adapter import shown
                return shown(run(self, 1, 2, c=3))
    """,
    "adapter.py": """
        import json
        from toy.client import Client

        class Encoder(json.JSONEncoder):
            def iterencode(self, o, _one_shot=False, a=1, b=2, c=3, d=4, e=5): ...

        def shown(text, backend="rest"):
            '''Show it.'''
            return text if backend in ("rest", "remote") else Client
    """,
    "cli/main.py": 'def main(name):\n    return name == "local"\n',
}


def plant(folder: Path, files: Mapping[str, str] = TOY) -> Tree:
    for name, text in files.items():
        file = folder / "toy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [line.removeprefix(" " * 8) for line in text.strip("\n").split("\n")]
        file.write_text("\n".join(lines).rstrip() + "\n")
    return Tree(folder / "toy")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return plant(tmp_path)


def test_imports_for_types_and_inside_functions_close_a_circle(tree: Tree) -> None:
    assert find_circles(tree.graph) == {frozenset({"engine.turn", "client", "adapter"})}
    assert find_circles(tree.eager) == set()


def test_an_import_that_runs_up_is_named(tree: Tree) -> None:
    assert find_upward(tree.graph, FLOORS) == {("engine.turn", "client"), ("client", "adapter")}


def test_floors_are_the_longest_chain_and_a_circle_is_one(tree: Tree) -> None:
    assert count_floors(tree.eager) == 4  # errors, engine.turn, client, adapter
    assert count_floors(tree.graph) == 2


def test_modules_that_one_other_imports(tree: Tree) -> None:
    users = {"errors": "engine.turn", "engine.turn": "client", "adapter": "client"}
    assert find_single_users(tree.graph) == users
    assert list_single(tree)[1:] == [
        "engine.turn (11 lines) <- client (7)",
        "errors (4 lines) <- engine.turn (11)",
    ]


def test_a_backends_name_is_compared_only_where_it_may_be(tree: Tree) -> None:
    places = {place.split(":")[0] for place in find_comparisons(tree)}
    assert places == {"engine.turn", "adapter"}


def test_the_table_of_the_toy(tree: Tree) -> None:
    rows = {row.name: row for row in measure(tree, FLOORS)}
    assert rows["modules"].value == 7
    assert rows["top-level modules"].value == 4
    assert rows["import circles"].value == 1
    widest = rows["parameters of the widest function"]
    # What the framework's own method takes is not the package's to say.
    assert (widest.value, widest.detail, widest.met) == (4, "engine.turn.run", True)
    assert rows["D401: not imperative"].value == 1
    assert rows["docstrings that ask"].value == 1
    assert rows["docstrings from What, Which"].value == 1
    assert rows["comment lines, %"].met is False
    assert rows["longest module"].detail == "engine.turn"


def test_a_row_says_whether_its_target_is_met() -> None:
    rows = [Row("circles", 1, high=0), Row("comments", 5, low=4), Row("floors", 1234)]
    assert [row.met for row in rows] == [False, True, None]
    assert [line.split() for line in format_rows(rows).splitlines()] == [
        ["today", "target", "met"],
        ["circles", "1", "0", "no"],
        ["comments", "5", "≥", "4", "yes"],
        ["floors", "1,234"],
    ]


async def test_a_call_is_followed_until_its_message_is_sent() -> None:
    async with FakeLetta("Hello.").async_client() as client:
        changes, answer = await follow(ChatLetta(client=client), [("user", "Hi.")])
    assert answer.text == "Hello."
    assert changes.count >= len(changes.modules) > 10
    assert {"letta_adapters.chat.stream", "letta_adapters.backends.rest.http"} <= changes.modules


async def test_a_call_is_followed_beyond_what_it_reads_first() -> None:
    async with FakeLetta("Hello.", "Hello again.").async_client() as client:
        model = ChatLetta(client=client)
        answer = await model.ainvoke([("user", "Hi.")])
        changes, _ = await follow(model, [("user", "Hi."), answer, ("user", "Hi again.")])
    # It lists messages at the address that it sends its own to.
    assert "letta_adapters.backends.rest.turn" in changes.modules
    assert not any(name.startswith("letta_adapters.testing") for name in changes.modules)
