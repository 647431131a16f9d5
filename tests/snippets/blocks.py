"""Find the blocks of code in Markdown files and docstrings, and how each wants to be run.

A comment before a fence says how; without one a Python block runs in the scene ``api``::

    <!-- snippet: embedded replies="It is sunny." prints="sunny" -->
    ```python

A docstring has no room for a comment: ``tests/snippets/docstrings.py`` has those. CONTRIBUTING.md
explains the scenes and the settings.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.snippets.docstrings import MARKS
from tools.pages.griffe_docstrings import to_markdown
from tools.pages.links import ROOT, find_files
from tools.pages.reference import collect

SCENES: Final = ("api", "embedded", "servers", "pytest", "more", "not-run")
SETTINGS: Final = ("replies", "prints", "then", "needs", "raises", "reason")
_FENCE: Final = re.compile(
    r"(?:^[ ]*<!-- snippet: (?P<mark>[^\n]*?) -->\n+)?"
    r"^(?P<pad>[ ]*)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=pad)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_SETTING: Final = re.compile(r"""(\w+)=(?:"([^"]*)"|'([^']*)')""")


@dataclass
class Block:
    """A block of code: where it stands, what it says, and how it is run."""

    name: str
    language: str
    code: str
    scene: str = "api"
    settings: dict[str, str] = field(default_factory=dict)
    before: list[Block] = field(default_factory=list)

    def __str__(self) -> str:
        return self.name


def read_mark(text: str, where: str) -> tuple[str, dict[str, str]]:
    """Return the scene and the settings that a mark names."""
    scene, _, rest = text.strip().partition(" ")
    settings = {name: one or two for name, one, two in _SETTING.findall(rest)}
    left = _SETTING.sub("", rest).strip()
    if scene not in SCENES or left or not set(settings) <= set(SETTINGS):
        raise ValueError(
            f"{where}: `<!-- snippet: {text} -->` is none: a scene ({', '.join(SCENES)}), then "
            f'settings ({", ".join(SETTINGS)}) such as prints="sunny"'
        )
    if scene == "not-run" and not settings.get("reason"):
        raise ValueError(f'{where}: say why it cannot run: `not-run reason="..."`')
    return scene, settings


def find_blocks() -> list[Block]:
    """Return all blocks of the documentation, in the order in which they stand."""
    blocks: list[Block] = []
    for file in find_files():
        where = file.relative_to(ROOT).as_posix()
        if where != "CHANGELOG.md":
            blocks += _read(file.read_text("utf-8"), where)
    for where, docstring in _find_docstrings():
        if "```" in docstring or "::\n" in docstring:
            blocks += _read(to_markdown(docstring), where, MARKS.get(where, "api"))
    return blocks


def _read(text: str, where: str, default: str = "api") -> list[Block]:
    blocks: list[Block] = []
    for found in _FENCE.finditer(text):
        line = text[: found.start("pad")].count("\n") + 1
        name = f"{where}:{line}"
        scene, settings = read_mark(found["mark"] or default, name)
        code = re.sub(rf"^{found['pad']}", "", found["code"], flags=re.MULTILINE)
        block = Block(name, found["language"], code, scene, settings)
        if scene == "more":
            last = next(b for b in reversed(blocks) if b.language == "python")
            block.before, block.scene = [*last.before, last], last.scene
            block.settings = {"replies": last.settings.get("replies", ""), **settings}
        blocks.append(block)
    return blocks


def _find_docstrings() -> Iterator[tuple[str, str]]:
    public = tuple(_find_homes())
    for file in sorted((ROOT / "letta_adapters").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(file.read_text("utf-8"))
        # What users do not import is not shown to them: no page of the site has its docstrings.
        internal = (ast.get_docstring(tree) or "").startswith("Internal: ")
        for name, docstring in _walk(tree, module):
            if not internal or any(name == p or name.startswith(f"{p}.") for p in public):
                yield name, docstring


def _find_homes() -> Iterator[str]:
    """Yield where the names of the API reference are defined."""
    for name in (name for names in collect().values() for name in names):
        module, _, attribute = name.rpartition(".")
        found = getattr(import_module(module), attribute)
        if inspect.isclass(found) or inspect.isfunction(found):
            yield f"{found.__module__}.{found.__qualname__}"


def _walk(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    if isinstance(node, (ast.Module, *kinds)):
        docstring = ast.get_docstring(node)
        if docstring:
            yield name, docstring
        for child in node.body:
            if isinstance(child, kinds):
                yield from _walk(child, f"{name}.{child.name}")


def list_extras() -> set[str]:
    """Return the names of this package's extras."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    block = text.split("[project.optional-dependencies]")[1].split("\n[tool")[0]
    return set(re.findall(r"^([\w-]+) = \[", block, re.MULTILINE))


def shown_files() -> list[Path]:
    """Return the files whose text may name a command to install with."""
    return find_files()
