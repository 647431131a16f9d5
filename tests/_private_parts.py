"""Look for the private parts of a framework, or of Letta Code, that the package depends on."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from letta_adapters._utils.private_parts import PrivateMethod, PrivatePart

_MARKS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def make_checks(
    package: ModuleType,
    probes: Mapping[str, Callable[[], bool]],
    *frameworks: str,
    common: Iterable[str] = (),
) -> type:
    """Return a class of tests for the lists in the package's module ``_compat``.

    Args:
        package: The package.
        probes: For each part's name, a function that returns whether the part is there.
        frameworks: The packages whose private parts these are.
        common: Names of parts that other things are called as well.
    """
    compat = importlib.import_module(f"{package.__name__}._compat")
    replaced: tuple[PrivateMethod, ...] = getattr(compat, "OVERRIDDEN", ())
    methods = (*replaced, *getattr(compat, "CALLED", ()))

    class Checks:
        @pytest.mark.parametrize("part", compat.PARTS, ids=lambda part: part.name.strip())
        def test_a_private_part_is_where_the_package_looks(self, part: PrivatePart) -> None:
            try:
                there = probes[part.name]()
            except (KeyError, ValueError, IndexError, AttributeError, ImportError):
                there = False
            assert there, explain(part)

        # Letta Code is no Python package, and has no methods.
        if methods:

            @pytest.mark.parametrize(
                "method", methods, ids=lambda m: f"{m.owner.partition(':')[2]}.{m.name}"
            )
            def test_a_private_method_takes_what_it_took(self, method: PrivateMethod) -> None:
                assert find_parameters(method) == method.parameters, explain(method)

        def test_every_private_part_has_a_probe(self) -> None:
            assert {part.name for part in compat.PARTS} == set(probes)

        def test_every_private_method_that_is_replaced_is_listed(self) -> None:
            listed = {(method.owner, method.name) for method in replaced}
            assert list_overridden(package, *frameworks) == listed

        def test_private_parts_are_named_in_one_module(self) -> None:
            words = {part.name for part in compat.PARTS} - set(common)
            assert list_strays(package, words, *frameworks) == []

    return Checks


def explain(part: PrivatePart | PrivateMethod) -> str:
    """Return the text with which a test fails whose part is gone."""
    where = part.source if isinstance(part, PrivatePart) else part.owner
    return (
        f"{part.name} of {where} is not what it was in {part.seen_in}. "
        f"Without a change in _compat.py: {part.when_gone}"
    )


def find_parameters(method: PrivateMethod) -> tuple[str, ...] | str | None:
    """Return the parameters of the installed method, in the form of the list."""
    module, _, cls = method.owner.partition(":")
    owner = getattr(importlib.import_module(module), cls)
    found = inspect.getattr_static(owner, method.name, "gone")
    if isinstance(found, property):
        return None
    if not callable(found):
        return "gone"
    parameters = inspect.signature(found).parameters.values()
    return tuple(f"{_MARKS.get(p.kind, '')}{p.name}" for p in parameters)


def list_overridden(package: ModuleType, *frameworks: str) -> set[tuple[str, str]]:
    """Return the private methods of the frameworks that the package's classes replace."""
    found = set()
    for module in _modules(package):
        for cls in vars(module).values():
            if not inspect.isclass(cls) or cls.__module__ != module.__name__:
                continue
            for name, value in vars(cls).items():
                if not _is_private(name) or not (callable(value) or isinstance(value, property)):
                    continue
                owner = next((base for base in cls.__mro__[1:] if name in vars(base)), object)
                if owner.__module__.split(".")[0] in frameworks:
                    found.add((f"{owner.__module__}:{owner.__qualname__}", name))
    return found


def list_strays(package: ModuleType, words: Iterable[str], *frameworks: str) -> list[str]:
    """Return where the package depends on a private part outside of its module ``_compat``.

    Args:
        package: The package.
        words: Private names and keys that no other module may name.
        frameworks: The packages of which no other module may import a private name.
    """
    return [
        f"{path.name}: {stray}"
        for path in sorted(Path(str(package.__file__)).parent.glob("*.py"))
        if path.name != "_compat.py"
        for stray in _strays(ast.parse(path.read_text(encoding="utf-8")), set(words), frameworks)
    ]


def _strays(tree: ast.AST, words: set[str], frameworks: tuple[str, ...]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in frameworks:
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if _is_private(name) or name in words)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in words:
                yield node.value
        elif isinstance(node, ast.Attribute) and node.attr in words:
            yield node.attr


def _modules(package: ModuleType) -> list[Any]:
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_abc_impl"
