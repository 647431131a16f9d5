"""The site holds every page and every public name, and what is made from the source is of today."""

from __future__ import annotations

import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import griffe
import pytest
import yaml

import letta_adapters
import letta_adapters.backends.runtime.errors
from tools.pages import compatibility, errors, reference
from tools.pages.build import find_foreign, find_warnings

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PUBLIC: Final = (
    "letta_adapters",
    "letta_adapters.langchain",
    "letta_adapters.llama_index",
    "letta_adapters.testing",
    "letta_adapters.tracing",
    "letta_adapters.web",
    "letta_adapters.web.agui",
)
# Suites to inherit from, which docs/testing.md describes with all they can be told.
ELSEWHERE: Final = {"letta_adapters.testing.llama_index"}
# The blocking twins, whose methods are made by a wrapper.
TWINS: Final = ("LettaClient", "Session", "Agents", "Conversations", "Models")


def list_nav(entries: list[Any]) -> list[str]:
    pages: list[str] = []
    for entry in entries:
        (value,) = entry.values()
        pages += list_nav(value) if isinstance(value, list) else [value]
    return pages


def test_every_page_is_in_the_navigation_once() -> None:
    nav = list_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    there = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    assert sorted(nav) == sorted(there), "add a new page to `nav` in mkdocs.yml"


def test_the_reference_is_what_the_tool_writes() -> None:
    made = reference.render_all()
    assert set(made) == set(reference.PAGES.glob("*.md"))
    for file, text in made.items():
        assert file.read_text("utf-8") == text, "run `python -m tools.pages.reference`"


def test_every_public_package_is_in_the_reference() -> None:
    package = ROOT / "letta_adapters"
    found = set()
    for file in package.rglob("__init__.py"):
        text = file.read_text("utf-8")
        if "\n__all__ = " in text and not text.startswith('"""Internal'):
            found.add(".".join(("letta_adapters", *file.parent.relative_to(package).parts)))
    assert found == {*PUBLIC, *ELSEWHERE}
    assert {*reference.MODULES, "letta_adapters"} == {*PUBLIC}


def test_every_public_name_is_documented_on_one_page() -> None:
    written = [
        name
        for file in reference.PAGES.glob("*.md")
        for name in re.findall(r"^::: (\S+)$", file.read_text("utf-8"), re.MULTILINE)
    ]
    public = {f"{m}.{name}" for m in PUBLIC for name in import_module(m).__all__}
    reached = {name for names in reference.REACHED.values() for name in names}
    assert sorted(written) == sorted(public - {"letta_adapters.__version__"} | reached)
    print(f"public names documented: {len(written)} of {len(public) - 1 + len(reached)}")


@pytest.fixture(scope="module")
def shown() -> griffe.Object:
    """What the reference shows, as mkdocstrings loads it."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    (python,) = [p["mkdocstrings"] for p in settings["plugins"] if isinstance(p, dict)]
    extensions = python["handlers"]["python"]["options"]["extensions"]
    loaded = griffe.load(
        "letta_adapters", search_paths=[ROOT], extensions=griffe.load_extensions(*extensions)
    )
    assert isinstance(loaded, griffe.Module)
    return loaded


@pytest.mark.parametrize("name", TWINS)
def test_a_method_that_a_wrapper_made_is_shown_with_its_real_signature(
    shown: griffe.Object, name: str
) -> None:
    real = getattr(import_module("letta_adapters.sync.client"), name)
    page = shown["sync.client"][name]
    for method, there in inspect.getmembers(real, inspect.isfunction):
        if method.startswith("_"):
            continue
        here = page.all_members[method]
        assert here.is_function, f"{name}.{method}"
        assert here.docstring, f"{name}.{method}"
        # Keywords of a `TypedDict` are shown one by one, where Python has them as `**options`.
        given = [
            p.name for p in inspect.signature(there).parameters.values() if p.kind != p.VAR_KEYWORD
        ]
        assert [p.name for p in here.parameters][: len(given)] == given, f"{name}.{method}"


@pytest.mark.parametrize("name", ["Rest", "Local", "Remote"])
def test_a_constructor_that_pydantic_makes_is_shown(shown: griffe.Object, name: str) -> None:
    given = list(inspect.signature(getattr(letta_adapters, name)).parameters)
    here = [parameter.name for parameter in shown[name].final_target.parameters]
    assert here == ["self", *given]


def test_docstrings_are_markdown_in_the_reference(shown: griffe.Object) -> None:
    docstring = shown["LettaClient"].final_target.docstring
    assert docstring is not None
    assert ":class:" not in docstring.value
    assert "```python\nwith LettaClient(" in docstring.value
    assert "::\n" not in docstring.value


def test_what_griffe_says_of_a_docstring_is_a_warning() -> None:
    told = "Build started\ngriffe: a.py:1: Parameter 'b' does not appear\nNo issues found\n"
    assert find_warnings(told) == ["griffe: a.py:1: Parameter 'b' does not appear"]


def test_what_a_page_would_load_from_another_host_is_found() -> None:
    page = '<link href="https://fonts.test/a.css"><a href="https://e.test/"><script src="b.js">'
    assert find_foreign(page) == ["https://fonts.test/a.css"]


def test_the_page_of_errors_is_what_the_tool_writes() -> None:
    assert errors.PAGE.read_text("utf-8") == errors.render(), "run `python -m tools.pages.errors`"


def test_every_error_says_what_to_do() -> None:
    tree = errors.list_classes()
    assert {cls.__name__ for cls in tree} == {
        name
        for module in (letta_adapters.errors, letta_adapters.backends.runtime.errors)
        for name in dir(module)
        if name.endswith("Error") and name[0] != "_"
    }
    assert [cls.__name__ for cls in tree if not errors.find_advice(cls)] == []


def test_what_to_do_is_said_of_errors_that_exist() -> None:
    assert set(errors.ADVICE) <= {cls.__name__ for cls in errors.list_classes()}


def test_the_table_of_versions_is_what_the_tool_writes() -> None:
    kept = json.loads(compatibility.KEPT.read_text("utf-8"))
    said = "run `python -m tools.pages.compatibility write`"
    assert compatibility.PAGE.read_text("utf-8") == compatibility.render(kept), said


def test_what_ran_is_recorded_and_shown(tmp_path: Path) -> None:
    assert compatibility.main(["record", "all tests", str(tmp_path)]) == 0
    (ran,) = compatibility.read(tmp_path)
    assert ran["label"] == "all tests"
    assert ran["versions"]["pytest"] == pytest.__version__
    page = compatibility.render([ran])
    assert f"| Python {ran['python']}<br>all tests |" in page
    assert f"| `pytest` | >=8 | {pytest.__version__} |" in page
