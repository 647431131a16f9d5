"""Print the porting page: ``python -m tools.typescript > docs/typescript.md``.

``docs/typescript.json`` is the table: the names that Letta's two TypeScript SDKs export, each with
its options, fields and methods, and a row for each. A row begins with ``here:`` (the same name,
spelled as Python does), ``other:`` (another name) or ``refused:`` (with the reason; ``@name`` is
one of the reasons that several rows share). :func:`resolve` finds what a row names in the package,
so that a row cannot promise what is not there.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import letta_adapters
from letta_adapters import options
from letta_adapters.client import resources
from tools.typescript_examples import EXAMPLES, INTRODUCTION

DATA: Final = Path(__file__).parents[1] / "docs" / "typescript.json"
KINDS: Final = ("here", "other", "refused")
# How rows name what has no name of its own at the top of the package.
ROOTS: Final[Mapping[str, Any]] = {
    "client.agents": resources.AsyncAgents,
    "client.conversations": resources.AsyncConversations,
    "client.models": resources.AsyncModels,
    "client": letta_adapters.AsyncLettaClient,
    "session": letta_adapters.AsyncSession,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``ours`` is the name in this package, ``""`` without one; ``words`` says more."""

    name: str
    kind: str
    ours: str
    words: str


@cache
def load() -> dict[str, Any]:
    """Return the data of the table."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def list_names(source: Mapping[str, Any]) -> list[str]:
    """Return what one SDK exports, and as ``Owner.member`` the options, fields and methods."""
    members = [f"{owner}.{name}" for owner, names in source["members"].items() for name in names]
    return [*source["exports"], *members]


def read_rows(data: Mapping[str, Any], part: str = "rows") -> list[Row]:
    """Return the rows of a part, with their shared reasons written out.

    ``rows`` are the names, ``capabilities`` what people look for without a name for it.
    """
    rows = []
    for name, text in data[part].items():
        kind, _, rest = text.partition(": ")
        if kind == "refused":
            words = data["reasons"][rest[1:]] if rest.startswith("@") else rest
            rows.append(Row(name, kind, "", words))
        else:
            ours, _, words = rest.partition(" — ")
            rows.append(Row(name, kind, ours, words))
    return rows


def resolve(ours: str) -> bool:
    """Return whether the package has it: ``name``, ``Class.field``, ``function(parameter)``."""
    path, _, parameter = ours.removesuffix(")").partition("(")
    found, rest = _find_root(path)
    for name in rest:
        found = _get(found, name)
    return found is not None and (not parameter or parameter in _list_parameters(found))


def _find_root(path: str) -> tuple[Any, list[str]]:
    for root, target in ROOTS.items():
        if path == root or path.startswith(f"{root}."):
            return target, path[len(root) :].split(".")[1:]
    first, *rest = path.split(".")
    if first in letta_adapters.__all__:
        return getattr(letta_adapters, first), rest
    # What is not at the top of the package is named by its module.
    module = "letta_adapters"
    names = [first, *rest]
    while names and names[0].islower() and _is_module(f"{module}.{names[0]}"):
        module = f"{module}.{names.pop(0)}"
    return import_module(module), names


def _is_module(name: str) -> bool:
    try:
        import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def _get(owner: Any, name: str) -> Any:
    # The fields of models and of dataclasses with slots or without a default are no attributes.
    named = set(getattr(owner, "model_fields", ()))
    if is_dataclass(owner):
        named |= {field.name for field in fields(owner)}
    # What `__init__` sets is no attribute of the class.
    if name in named or name in _assigned(owner):
        return name
    return getattr(owner, name, None)


@cache
def _assigned(owner: Any) -> frozenset[str]:
    if not inspect.isclass(owner) or owner.__module__.partition(".")[0] != "letta_adapters":
        return frozenset()
    source = inspect.getsource(owner)
    return frozenset(re.findall(r"^\s+self\.([a-z]\w*)(?:: [^=\n]+)? = ", source, re.MULTILINE))


def _list_parameters(function: Any) -> set[str]:
    names = set()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.add(parameter.name)
            continue
        unpacked = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation))
        # Without a TypedDict it takes what the server takes, and the row says which.
        names |= set(getattr(options, unpacked[1]).__annotations__) if unpacked else {"**fields"}
    return names


def _owner(name: str) -> str:
    return name.partition(".")[0]


def _cell(row: Row) -> str:
    if not row.ours:
        return f"{row.kind}: {row.words}"
    shown = f"`{row.ours.replace('(**fields)', '(...)')}`"
    return f"{shown}: {row.words}" if row.words else shown


def render() -> str:
    """Return the page."""
    data = load()
    rows = read_rows(data)
    lines = [INTRODUCTION]
    for name, source in data["sources"].items():
        lines.append(f"- `{name}` {source['version']} (read from {source['read_from']})")
    counts = {kind: sum(row.kind == kind for row in rows) for kind in KINDS}
    lines.append(
        f"\nOf {len(rows)} names {counts['here']} are here, {counts['other']} have another name "
        f"and {counts['refused']} are refused.\n"
    )
    lines.append("## The ten things everybody does\n")
    for number, (title, theirs, ours) in enumerate(EXAMPLES, 1):
        lines.append(f"### {number}. {title}\n")
        lines += ["```ts", theirs.strip(), "```", "", "```python", ours.strip(), "```", ""]
    lines.append("## By what it does\n")
    lines += ["| wanted | here |", "|---|---|"]
    lines += [f"| {row.name} | {_cell(row)} |" for row in read_rows(data, "capabilities")]
    lines.append("\n## Exports\n")
    lines += _table([row for row in rows if "." not in row.name])
    lines.append("\n## Options, fields and methods")
    for owner in dict.fromkeys(_owner(row.name) for row in rows if "." in row.name):
        lines.append(f"\n### `{owner}`\n")
        lines += _table([r for r in rows if "." in r.name and _owner(r.name) == owner])
    return "\n".join(lines) + "\n"


def _table(rows: list[Row]) -> list[str]:
    head = ["| in TypeScript | here |", "|---|---|"]
    return head + [f"| `{row.name.rpartition('.')[2]}` | {_cell(row)} |" for row in rows]


if __name__ == "__main__":
    sys.stdout.write(render())
