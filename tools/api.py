"""Print how the public API differs from that of a git reference: ``python -m tools.api OLD_REF``.

Compared are the names that ``letta_adapters`` and its packages ``langchain``, ``llama_index``,
``testing`` and ``web`` export, wherever they are defined: a class that only moved is the same. The
source is read by griffe (in the ``dev`` extra); nothing is imported or run. A line begins with
``-`` (removed), ``~`` (changed) or ``+`` (added); what griffe takes for a break is said below it.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import griffe

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "letta_adapters"
FACES: Final = ("", "langchain", "llama_index", "testing", "web")


@dataclass(frozen=True, slots=True)
class Item:
    """A public thing: how it is written, and griffe's object for it."""

    text: str
    thing: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. ``before`` or ``now`` is empty for what was added or removed."""

    name: str
    before: str
    now: str
    breaks: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.before:
            return f"+ {self.name}{self.now}"
        if not self.now:
            return f"- {self.name}{self.before}"
        lines = [f"~ {self.name}", f"    before  {self.before}", f"    now     {self.now}"]
        return "\n".join([*lines, *(f"    breaks  {reason}" for reason in self.breaks)])


def read_api(folder: Path, package: str = PACKAGE, faces: Sequence[str] = FACES) -> dict[str, Item]:
    """Return every public thing of a package by its name.

    Args:
        folder: The folder that the package is in.
        package: The package's name.
        faces: The modules of it whose names are public; ``""`` is the package itself.
    """
    loaded = griffe.load(
        package,
        search_paths=[folder],
        try_relative_path=False,  # the working directory may hold the package, too
        resolve_aliases=True,
        allow_inspection=False,
    )
    found: dict[str, Item] = {}
    for face in faces:
        if face and face not in loaded.members:
            continue
        module: Any = loaded.members[face] if face else loaded
        for name in list_public(module):
            found.update(_describe(f"{module.path}.{name}", module.members.get(name)))
    return found


def list_public(module: Any) -> list[str]:
    """Return the names that a module exports: its ``__all__``, as far as that is written out.

    If it is computed, the names that it imports for type checkers alone count as well.
    """
    exports = module.exports or []
    names = {name for name in exports if isinstance(name, str)}
    if len(names) < len(exports):
        aliases = (name for name, member in module.members.items() if _is_ours(module, member))
        names |= {name for name in aliases if not name.startswith("_")}
    return sorted(names)


def _is_ours(module: Any, member: Any) -> bool:
    return bool(member.is_alias) and member.target_path.startswith(f"{module.package.path}.")


def _describe(name: str, thing: Any) -> Iterator[tuple[str, Item]]:
    """Yield a thing, and of a class what it has."""
    if thing is None:  # made at run time, like a version
        yield name, Item("", None)
        return
    try:
        thing = thing.final_target if thing.is_alias else thing
    except griffe.AliasResolutionError:
        yield name, Item(" (defined elsewhere)", None)
        return
    if thing.is_function:
        yield name, Item(_write_function(thing), thing)
    elif thing.is_attribute:
        yield name, _describe_attribute(thing)
    elif thing.is_class:
        bases = ", ".join(str(base) for base in thing.bases)
        yield name, Item(f" (class of {bases})" if bases else " (class)", thing)
        for part, member in thing.all_members.items():
            if part == "__init__" or not part.startswith("_"):
                yield from _describe(f"{name}.{part}", member)


def _write_function(function: Any) -> str:
    """Return the parameters and the result, without ``self``."""
    text = str(function.signature()).removeprefix(function.name)
    text = re.sub(r"^\((self, |self)?(/, |/)?", "(", text)
    kind = " (coroutine)" if "async" in function.labels else ""
    return f"{text}{kind}"


def _describe_attribute(attribute: Any) -> Item:
    """Describe a field, a property, or a function that was made from another one.

    ``ask = blocking(Client.ask)`` has the signature of ``Client.ask``.
    """
    source = _find_source(attribute)
    if source is not None:
        return Item(_write_function(source).removesuffix(" (coroutine)"), source)
    text = f": {attribute.annotation}" if attribute.annotation is not None else ""
    if "class-attribute" in attribute.labels and attribute.value is not None:
        text += f" = {attribute.value}"
    if "property" in attribute.labels:
        text += " (property)"
    return Item(text or " (attribute)", attribute)


def _find_source(attribute: Any) -> Any:
    value = attribute.value
    if not isinstance(value, griffe.ExprCall) or not value.arguments:
        return None
    path = getattr(value.arguments[0], "canonical_path", None)
    try:
        found = attribute.modules_collection[path] if path else None
        # An inherited method is an alias, which does not tell its result.
        found = found.final_target if found is not None and found.is_alias else found
    except (KeyError, griffe.AliasResolutionError):
        return None
    return found if found is not None and found.is_function else None


def compare(old: Mapping[str, Item], new: Mapping[str, Item]) -> list[Difference]:
    """Return the differences between two APIs: what was removed, then changed, then added.

    What only lost or gained the class that it belongs to is not listed again part by part.
    """
    removed = [Difference(n, old[n].text or " ", "") for n in sorted(old.keys() - new.keys())]
    added = [Difference(n, "", new[n].text or " ") for n in sorted(new.keys() - old.keys())]
    changed = [
        Difference(name, item.text, new[name].text, tuple(_explain(item.thing, new[name].thing)))
        for name, item in sorted(old.items())
        if name in new and new[name].text != item.text
    ]
    return [*_without_parts(removed), *changed, *_without_parts(added)]


def _without_parts(found: Sequence[Difference]) -> list[Difference]:
    names = {each.name for each in found}
    return [each for each in found if each.name.rpartition(".")[0] not in names]


def _explain(old: Any, new: Any) -> Iterator[str]:
    """Yield what griffe takes for a break between two functions or two classes themselves."""
    if old is None or new is None:
        return
    if old.kind is not new.kind:
        yield "the kind was changed"
    elif old.is_function:
        before, after = griffe.Module("api"), griffe.Module("api")
        before.members["it"], after.members["it"] = old, new
        old.public = True  # griffe looks only at what is
        for found in griffe.find_breaking_changes(before, after):
            parameter = found.old_value or found.new_value
            name = getattr(parameter, "name", "")
            yield f"{found.kind.value.lower()}{f': {name}' if name else ''}"


def extract(reference: str, folder: Path) -> None:
    """Write the package as it was at a git reference into a folder.

    Raises:
        ValueError: There is no such reference, or no package in it.
    """
    command = ["git", "-C", str(ROOT), "archive", reference, PACKAGE]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"git knows no {PACKAGE} at {reference}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and member.name.endswith(".py"):
                file = folder / member.name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.read())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the differences; the exit code is 2 if the reference does not exist, else 0."""
    parser = argparse.ArgumentParser(description="How the public API differs from a git reference.")
    parser.add_argument("reference", metavar="OLD_REF", help="a commit, a tag or a branch")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            extract(given.reference, Path(folder))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        found = compare(read_api(Path(folder)), read_api(ROOT))
    for difference in found:
        print(difference)
    kinds = [str(difference)[0] for difference in found]
    counts = {word: kinds.count(sign) for word, sign in (("removed", "-"), ("changed", "~"))}
    said = ", ".join(f"{count} {word}" for word, count in counts.items())
    print(f"{said}, {kinds.count('+')} added since {given.reference}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
