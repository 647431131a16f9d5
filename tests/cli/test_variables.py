"""One table has all environment variables that this package reads; the rest goes by it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from letta_adapters.backends.runtime import _compat
from letta_adapters.backends.runtime.environment import MARKER
from letta_adapters.cli.variables import VARIABLES, list_variables, to_table
from tests.cli.conftest import Done
from tests.faults._server import Server

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "letta_adapters"
NAMES: Final = {variable.name for variable in VARIABLES}
# Set for the embedded runtime, and looked for in the processes and in the program that run there.
RUNTIME_S: Final = {
    *_compat.QUIET,
    _compat.MEMORY_URL,
    _compat.INSTALLED_BY,
    MARKER,
    "LETTA_ADAPTERS_GRACE_MS",
    "LETTA_ADAPTERS_RECYCLE_AT",
    "LETTA_CODE_AGENT_ROLE",
    "LETTA_SUBAGENT_LAUNCH",
    "LETTA_PARENT_AGENT_ID",
}
_READS: Final = {"environ.get", "environ", "getenv", "from_env", "secret_from_env", "_variable"}


@pytest.fixture(scope="module")
def nodes() -> list[tuple[str, ast.AST]]:
    """The syntax of the files that may read a variable, but for the table itself."""
    found: list[tuple[str, ast.AST]] = []
    for file in {*PACKAGE.rglob("*.py")} - {PACKAGE / "cli" / "variables.py"}:
        text = file.read_text("utf-8")
        if re.search(r"environ\b|getenv|from_env|LETTA_[A-Z]", text):
            where = file.relative_to(ROOT).as_posix()
            found += [(where, node) for node in ast.walk(ast.parse(text))]
    return found


def test_every_name_of_letta_in_the_package_is_in_the_table(
    nodes: list[tuple[str, ast.AST]],
) -> None:
    found = {
        node.value: where
        for where, node in nodes
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"LETTA_[A-Z_]*[A-Z]", node.value)
    }
    assert {"LETTA_BASE_URL", "LETTA_RIG_MODEL", "LETTA_LIVE_EMBEDDED"} <= set(found)
    assert {name: found[name] for name in found.keys() - NAMES - RUNTIME_S} == {}
    assert {name for name in NAMES if name.startswith("LETTA_")} <= set(found)


def test_every_literal_read_of_the_environment_is_in_the_table(
    nodes: list[tuple[str, ast.AST]],
) -> None:
    read = {name: where for where, node in nodes for name in _read_by(node)}
    assert {"LETTA_BASE_URL", "NO_COLOR", "CI"} <= set(read)
    assert {name: where for name, where in read.items() if name not in NAMES} == {}


def _read_by(node: ast.AST) -> Iterator[str]:
    """Yield the name in ``os.environ.get("NAME")``, ``os.environ["NAME"]`` and their like."""
    if isinstance(node, ast.Call) and node.args:
        target, key = node.func, node.args[0]
    elif isinstance(node, ast.Subscript):
        target, key = node.value, node.slice
    else:
        return
    if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
        return
    text = ast.unparse(target)
    if any(text == name or text.endswith(f".{name}") for name in _READS):
        yield key.value


def test_the_page_has_the_table() -> None:
    assert to_table() in (ROOT / "docs" / "environment.md").read_text("utf-8")
    assert len(NAMES) == len(VARIABLES)


def test_doctor_lists_them_without_a_value(
    cli: Callable[..., Done], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "sk-let-hunter2")
    monkeypatch.setenv("LETTA_APP_SERVER_TOKEN", "hunter2")
    done = cli("doctor")
    assert done.code == 0
    listed = done.out.split("\nEnvironment\n")[1].split("\n\n")[0].splitlines()
    said = {words[1]: " ".join(words[2:]) for words in map(str.split, listed) if words[1] in NAMES}
    assert set(said) == NAMES
    assert said["LETTA_API_KEY"] == "set: the key of the Letta API"
    assert said["LETTA_MODEL"].startswith("not set: ")
    assert "hunter2" not in done.out + done.err


def test_a_proxy_in_small_letters_is_set() -> None:
    there = {v.name for v, is_set in list_variables({"https_proxy": "x", "term": "x"}) if is_set}
    assert there == {"HTTPS_PROXY"}
