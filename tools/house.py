"""Print how the package is built, in figures: ``python -m tools.house [--calls] [--single]``.

Each row has a name, the value of this checkout, the target, and whether it is met. ``--calls`` adds
how often one call of the LangChain adapter changes modules on its way to the wire; that one runs
the package, against a Letta in memory. All others read the source. ``--single`` lists the modules
that one other imports, which may belong into that one. The package's ``__init__`` is one of the
modules, but not of the graph: it imports what it names only when asked.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.fakes import FakeLetta
from tests.test_road import FLOORS
from tools.changes import follow
from tools.road import (
    Tree,
    count_floors,
    count_lines,
    find_circles,
    find_single_users,
    find_upward,
    fold_to_top,
    measure_functions,
)

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "letta_adapters"
# What a backend is called in `Backend.name`.
BACKENDS: Final = frozenset({"rest", "local", "remote"})
# Where a backend's name may be compared: the backends themselves and what a user types.
MAY_COMPARE: Final = ("backends", "cli")
# The most parameters that a function may have.
WIDTH: Final = 6
_QUESTION: Final = re.compile(r"\?\s*$")
_WHAT: Final = re.compile(r"(What|Which)\b")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``low`` and ``high`` bound the target; without them there is none."""

    name: str
    value: float
    high: float | None = None
    low: float | None = None
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value is within the target; ``None`` if there is no target."""
        if self.high is None and self.low is None:
            return None
        above = self.low is None or self.value >= self.low
        return above and (self.high is None or self.value <= self.high)


def measure(
    tree: Tree, floors: Sequence[Sequence[str]], may_compare: Sequence[str] = MAY_COMPARE
) -> list[Row]:
    """Return all figures that the source alone tells.

    Args:
        tree: The package.
        floors: Its layers, from below to above, by top-level names.
        may_compare: The top-level names in which a backend's name may be compared.
    """
    compared = list(find_comparisons(tree, may_compare))
    widest = next(list_wide(tree))
    wide = takewhile(lambda item: item[0] > WIDTH, list_wide(tree))
    too_wide = [f"{name} {count}" for count, name in wide]
    long_module = max(tree.sources, key=lambda name: count_lines(tree.sources[name]))
    long_function, lines = max(measure_functions(tree), key=lambda item: item[1])
    docs = list(read_docstrings(tree))
    texts = [*tree.sources.values(), tree.face.read_text("utf-8")]
    total = sum(count_lines(text) for text in texts)
    comments = sum(count_comments(text) for text in texts)
    tops = {name.split(".")[0] for name in tree.modules}
    packages = {name.split(".")[0] for name in tree.modules if "." in name}
    return [
        Row("modules", len(texts), high=150),
        Row("top-level modules", len(tops - packages) + 1, high=12),
        Row("floors of top-level names", count_floors(fold_to_top(tree.graph)), high=11),
        Row("floors of imports at module level", count_floors(tree.eager)),
        Row("import circles", len(find_circles(tree.graph)), high=0),
        Row("imports that run up", len(find_upward(tree.graph, floors)), high=0),
        Row("modules that one other imports", len(find_single_users(tree.graph)), high=30),
        Row("parameters of the widest function", widest[0], high=WIDTH, detail=widest[1]),
        Row(
            f"functions of more than {WIDTH}", len(too_wide), high=0, detail=", ".join(too_wide[:4])
        ),
        Row("a backend's name compared", len(compared), high=0, detail=", ".join(compared)),
        Row("D401: not imperative", count_d401(tree), high=0),
        Row("docstrings that ask", sum(bool(_QUESTION.search(head(d))) for d in docs), high=0),
        Row("docstrings from What, Which", sum(bool(_WHAT.match(d)) for d in docs), high=0),
        Row("comment lines, %", round(100 * comments / total, 1), low=4),
        Row("package lines", total, high=27_300),
        Row("longest module", count_lines(tree.sources[long_module]), high=600, detail=long_module),
        Row("longest function", lines, high=60, detail=long_function),
    ]


def count_comments(text: str) -> int:
    """Return the number of lines that hold nothing but a comment."""
    return sum(line.lstrip().startswith("#") for line in text.splitlines())


def read_docstrings(tree: Tree) -> Iterator[str]:
    """Yield every docstring of a module, class or function."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for parsed in tree.parsed.values():
        for node in ast.walk(parsed):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text:
                yield text


def head(docstring: str) -> str:
    """Return the first paragraph of a docstring."""
    return docstring.split("\n\n")[0]


def count_d401(tree: Tree) -> int:
    """Return how many docstrings ruff does not find imperative."""
    files = [str(file) for file in tree.modules.values()]
    convention = 'lint.pydocstyle.convention="google"'
    options = ["--isolated", "--no-cache", "--select", "D401", "--config", convention]
    command = [sys.executable, "-m", "ruff", "check", *options, "--output-format", "json", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"ruff failed: {done.stderr.strip()}")
    return len(json.loads(done.stdout))


# -- backends' names ------------------------------------------------------------------------


def find_comparisons(tree: Tree, may_compare: Sequence[str] = MAY_COMPARE) -> Iterator[str]:
    """Yield where a backend's name is compared, as ``module:line``."""
    for name, parsed in tree.parsed.items():
        if name.split(".")[0] in may_compare:
            continue
        for node in ast.walk(parsed):
            if isinstance(node, ast.Compare | ast.MatchValue) and _names_backend(node):
                yield f"{name}:{node.lineno}"


def _names_backend(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Constant) and n.value in BACKENDS for n in ast.walk(node))


# -- parameters -----------------------------------------------------------------------------


def list_wide(tree: Tree) -> Iterator[tuple[int, str]]:
    """Yield how many parameters each function has, and which one it is: the widest first.

    ``self`` and ``cls``, ``*args`` and ``**kwargs`` do not count. A method that overrides one of a
    class outside the package is left out: its signature is not ours.
    """
    found = [
        (_count_parameters(function), module, owner, function.name)
        for module, parsed in tree.parsed.items()
        for function, owner in _list_owned(parsed)
    ]
    for count, module, owner, name in sorted(found, key=lambda item: item[0], reverse=True):
        if owner is None or not _overrides(tree, module, owner, name):
            yield count, ".".join([module, *([owner.name] if owner else []), name])


def _list_owned(
    tree: ast.AST, owner: ast.ClassDef | None = None
) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, ast.ClassDef | None]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, owner
            yield from _list_owned(node)
        else:
            yield from _list_owned(node, node if isinstance(node, ast.ClassDef) else owner)


def _count_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _overrides(tree: Tree, module: str, owner: ast.ClassDef, method: str) -> bool:
    """Return whether a base outside the package has the method; a constructor is always ours."""
    if method == "__init__":
        return False
    for base in owner.bases:
        text = ast.unparse(base).split("[")[0]
        home, name = _resolve(tree, module, text)
        inner = home.removeprefix(f"{tree.package}.")
        if inner in tree.parsed:
            classes = [n for n in ast.walk(tree.parsed[inner]) if isinstance(n, ast.ClassDef)]
            found = next((node for node in classes if node.name == name), None)
            if found is not None and _overrides(tree, inner, found, method):
                return True
        elif home and hasattr(getattr(importlib.import_module(home), name, None), method):
            return True
    return False


def _resolve(tree: Tree, module: str, name: str) -> tuple[str, str]:
    """Return the module and the name that a name in a module stands for."""
    first, _, rest = name.partition(".")
    for node in ast.walk(tree.parsed[module]):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if (alias.asname or alias.name) != first:
                continue
            if isinstance(node, ast.Import):
                return alias.name, rest
            return node.module or "", alias.name
    return f"{tree.package}.{module}", name


# -- calls ----------------------------------------------------------------------------------


async def measure_calls() -> list[Row]:
    """Return how often a first and a second call of ``ChatLetta`` change modules."""
    async with FakeLetta("Hello Ada.", "You are Ada.").async_client() as client:
        model = ChatLetta(client=client)
        first, answer = await follow(model, [("user", "I am Ada.")])
        history = [("user", "I am Ada."), answer, ("user", "Who am I?")]
        second, _ = await follow(model, history)
    return [
        Row(f"module changes, {name}", found.count, detail=f"{len(found.modules)} modules")
        for name, found in (("first call", first), ("next call", second))
    ]


# -- the table ------------------------------------------------------------------------------


def format_rows(rows: Sequence[Row]) -> str:
    """Return the rows as a table of text."""
    words = {True: "yes", False: "no", None: ""}
    lines = [("", "today", "target", "met", "")]
    for row in rows:
        given, word = (row.high, "≤") if row.low is None else (row.low, "≥")
        target = "" if given is None else "0" if given == 0 else f"{word} {given:,}"
        lines.append((row.name, f"{row.value:,}", target, words[row.met], row.detail))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join((*(c.ljust(w) for c, w in zip(line[:4], widths, strict=True)), line[4])).rstrip()
        for line in lines
    )


def list_single(tree: Tree) -> list[str]:
    """Return a line for each module that one other imports: both names, and how long both are."""
    size = {name: count_lines(text) for name, text in tree.sources.items()}
    return [
        f"{name} ({size[name]} lines) <- {user} ({size[user]})"
        for name, user in sorted(find_single_users(tree.graph).items())
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0, whatever it says."""
    parser = argparse.ArgumentParser(description="How the package is built, in figures.")
    parser.add_argument("--calls", action="store_true", help="count module changes in a call")
    parser.add_argument("--single", action="store_true", help="list what one module imports")
    given = parser.parse_args(arguments)
    tree = Tree(ROOT / PACKAGE)
    rows = measure(tree, FLOORS)
    if given.calls:
        rows += asyncio.run(measure_calls())
    print(format_rows(rows))
    if given.single:
        print("", *list_single(tree), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
