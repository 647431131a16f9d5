"""Show the API reference what griffe cannot read by itself, as an extension of griffe.

Griffe reads the source and runs nothing. So a method that ``sync.bridge.blocking`` makes is an
attribute for it, without parameters; here it becomes the function that it is, with the signature
and the docstring of its asynchronous twin. And griffe takes docstrings for Markdown, which knows
no roles such as ``:class:`` and no ``::`` before a block of code.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?(?:[\w.]*\.)?(\w+)`")
_FULL_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`([\w.]+)`")


def to_markdown(docstring: str) -> str:
    """Return a docstring as Markdown: roles as code, blocks behind ``::`` as fenced Python."""
    text = _ROLE.sub(r"`\1`", _FULL_ROLE.sub(r"`\1`", docstring))
    return _fence(text)


def _fence(text: str) -> str:
    done: list[str] = []
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.rstrip().endswith("::"):
            done.append(line)
            continue
        before = len(line) - len(line.lstrip())
        if line.strip() != "::":
            done.append(line.rstrip()[:-1])
        block: list[str] = []
        while at < len(lines) and (
            not lines[at].strip() or len(lines[at]) - len(lines[at].lstrip()) > before
        ):
            block.append(lines[at][before + 4 :])
            at += 1
        code = "\n".join(block).strip("\n").splitlines()
        kind = "text" if _is_drawing(code) else "python"
        pad = " " * before
        done += ["", f"{pad}```{kind}", *(pad + part if part else "" for part in code)]
        done += [f"{pad}```", ""]
    return "\n".join(done)


def _is_drawing(code: list[str]) -> bool:
    """Return whether a block is no Python: a tree of classes, a table."""
    try:
        compile("\n".join(code), "docstring", "exec", flags=0x2000, dont_inherit=True)
    except SyntaxError:
        return True
    return False


class Docstrings(griffe.Extension):
    """Make functions of what ``blocking`` returns, signatures of fields, Markdown of docstrings."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Change a package once all of it was read."""
        if pkg.path != "letta_adapters":
            return
        made_here = [m for m in pkg["sync.client"].members.values() if not m.is_alias]
        for found in (member for member in made_here if member.is_class):
            _name_wrapped(pkg, found)
        # A docstring belongs to one object here, however many names lead to it.
        _convert(pkg, set())


def _name_wrapped(pkg: griffe.Module, found: Any) -> None:
    for name, member in list(found.members.items()):
        value = getattr(member, "value", None)
        if not member.is_attribute or not isinstance(value, griffe.ExprCall):
            continue
        if str(value.function) != "blocking":
            continue
        owner, _, method = str(value.arguments[0]).rpartition(".")
        twin = pkg["sync.client"][owner].final_target[method]
        made = griffe.Function(
            name,
            parameters=twin.parameters,
            returns=twin.returns,
            docstring=twin.docstring,
            lineno=member.lineno,
            endlineno=member.endlineno,
            parent=found,
        )
        found.set_member(name, made)


def _convert(found: griffe.Object | griffe.Alias, seen: set[int]) -> None:
    if found.is_alias:
        return
    docstring = found.docstring
    if docstring is not None and id(docstring) not in seen:
        seen.add(id(docstring))
        docstring.value = to_markdown(docstring.value)
        if isinstance(found, griffe.Class) and "\nArgs:\n" in docstring.value:
            _sign(found)
    for member in found.members.values():
        _convert(member, seen)


def _sign(found: griffe.Class) -> None:
    """Give a class the constructor that it has when it runs, where its source shows none.

    Pydantic makes one of a model's fields, and others are inherited from frameworks.
    """
    own = found.members.get("__init__")
    shown = [str(d.callable_path) for d in own.decorators] if own is not None else ["none"]
    # `show_keywords` adds the keywords of fields to a signature.
    if "dataclass" in found.labels or not any(d.endswith(("none", "show_keywords")) for d in shown):
        return
    real = getattr(import_module(found.module.path), found.name)
    made = griffe.Function("__init__", parent=found, parameters=griffe.Parameters())
    made.parameters.add(griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword))
    for name, parameter in inspect.signature(real).parameters.items():
        default = parameter.default
        made.parameters.add(
            griffe.Parameter(
                name,
                annotation=_show(parameter.annotation),
                kind=griffe.ParameterKind[parameter.kind.name.lower()],
                default=None if default is inspect.Parameter.empty else _show_default(default),
            )
        )
    found.set_member("__init__", made)


def _show(annotation: Any) -> str | None:
    if annotation is inspect.Parameter.empty:
        return None
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _show_default(default: Any) -> str:
    # A default that is made anew for each object says nothing of use, and holds an address.
    said = repr(default)
    return "..." if " at 0x" in said or said == "<factory>" else said
