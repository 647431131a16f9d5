"""The distributions in ``packages/`` have an import path each, and nothing else.

``.ci/run`` builds them; ``tools/installs.py`` installs and runs them on each Python that is here.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from letta_adapters import _version
from tools import installs

PACKAGES = Path(__file__).parents[1] / "packages"
PYPROJECT = (PACKAGES.parent / "pyproject.toml").read_text("utf-8")
MODULES = {
    "langchain-letta": "langchain_letta",
    "llama-index-llms-letta": "llama_index.llms.letta",
    "llama-index-agent-letta": "llama_index.agent.letta",
}


def test_there_is_one_for_each_place_where_users_look() -> None:
    assert {folder.name for folder in PACKAGES.iterdir() if folder.is_dir()} == set(MODULES)


@pytest.mark.parametrize(("name", "module"), MODULES.items())
def test_it_is_released_in_the_version_that_it_depends_on(name: str, module: str) -> None:
    text = (PACKAGES / name / "pyproject.toml").read_text("utf-8")
    extra = "langchain" if name.startswith("langchain") else "llama-index"
    assert re.findall(r'^version = "(.*)"', text, re.MULTILINE) == [_version.__version__]
    assert re.findall(r"letta-adapters\[(.*)\]==(.*)\"", text) == [(extra, _version.__version__)]
    assert f'name = "{name}"' in text
    if extra == "llama-index":
        assert f'import_path = "{module}"' in text


@pytest.mark.parametrize(("name", "module"), MODULES.items())
def test_it_leaves_the_namespace_to_others_and_only_re_exports(name: str, module: str) -> None:
    folder = PACKAGES / name
    home = folder.joinpath(*module.split("."))
    assert [file.parent for file in folder.rglob("__init__.py")] == [home]
    assert {file.name for file in home.iterdir() if file.is_file()} == {"__init__.py", "py.typed"}
    assert (folder / "LICENSE").read_bytes() == (PACKAGES.parent / "LICENSE").read_bytes()
    assert f"from {module} import" in (folder / "README.md").read_text("utf-8")

    docstring, import_, all_ = ast.parse((home / "__init__.py").read_text("utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(import_, ast.ImportFrom)
    assert isinstance(all_, ast.Assign)
    assert import_.module in ("letta_adapters.langchain", "letta_adapters.llama_index")
    exported = ast.literal_eval(all_.value)
    assert sorted(alias.name for alias in import_.names) == sorted(exported)


def test_they_are_installed_on_each_python_that_is_promised() -> None:
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert list(installs.VERSIONS) == promised
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert installs.find_pythons([version, "3.99"]) == {version: sys.executable}


def test_what_is_installed_is_imported_and_run() -> None:
    compile(installs.ALONE, "alone", "exec")
    tree = ast.parse(installs.THIN)
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert set(MODULES.values()) <= imported
    own, thin = installs.split_wheels(["d/letta_adapters-1-py3.whl", "d/langchain_letta-1-py3.whl"])
    assert [Path(wheel).name for wheel in (*own, *thin)] == [
        "letta_adapters-1-py3.whl",
        "langchain_letta-1-py3.whl",
    ]
