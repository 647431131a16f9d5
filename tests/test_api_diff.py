"""What ``python -m tools.api`` says of two versions of a small package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tools.api import ROOT, Difference, compare, main, read_api

FACE = """
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toy.{home} import Client as Client
    from toy.{home} import ask as ask
    from toy.{home} import {extra} as {extra}

_HOMES = {{"{home}": "Client ask {extra}"}}
__all__ = ["__version__", *_HOMES]
"""
BEFORE = {
    "__init__.py": FACE.format(home="client", extra="forget"),
    "client.py": """
class _Base:
    def close(self) -> None: ...

class Client(_Base):
    limit: int = 3
    def send(self, text: str, wait: float = 1.0) -> str: ...
    def stop(self) -> None: ...
    def _inner(self, a): ...

def ask(text: str, *, loud: bool = False) -> str: ...
def forget(text: str) -> None: ...
""",
}
NOW = {
    "__init__.py": FACE.format(home="moved", extra="keep"),
    "moved.py": """
class _Base:
    def close(self) -> None: ...

class Client(_Base):
    limit: int = 4
    async def send(self, text: str, *, wait: float) -> str: ...
    def stop(self) -> None: ...
    def _inner(self, a, b): ...
    def start(self) -> None: ...

def ask(text: str, *, loud: bool = False) -> str: ...
def keep(text: str) -> None: ...
""",
}


def plant(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        file = folder / "toy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def differences(folder: Path, old: Mapping[str, str], new: Mapping[str, str]) -> list[Difference]:
    before, now = plant(folder / "before", old), plant(folder / "now", new)
    return compare(read_api(before, "toy", [""]), read_api(now, "toy", [""]))


def test_what_only_moved_is_no_difference_and_the_rest_is_named(tmp_path: Path) -> None:
    said = [str(difference) for difference in differences(tmp_path, BEFORE, NOW)]
    assert said == [
        "- toy.forget(text: str) -> None",
        "~ toy.Client.limit\n    before  : int = 3\n    now     : int = 4",
        "~ toy.Client.send\n"
        "    before  (text: str, wait: float = 1.0) -> str\n"
        "    now     (text: str, *, wait: float) -> str (coroutine)\n"
        "    breaks  parameter is now required: wait\n"
        "    breaks  parameter kind was changed: wait",
        "+ toy.Client.start() -> None",
        "+ toy.keep(text: str) -> None",
    ]


def test_a_function_made_from_another_has_its_signature(tmp_path: Path) -> None:
    plain = {"__init__.py": "__all__ = ['ask']\n\ndef ask(text: str) -> str: ...\n"}
    made = {
        "__init__.py": "from toy.core import Core, blocking\n\n"
        "__all__ = ['ask']\n\nask = blocking(Core.ask)\n",
        "core.py": "class Base:\n    async def ask(self, /, text: str) -> str: ...\n\n"
        "class Core(Base): ...\n\n"
        "def blocking(function): ...\n",
    }
    assert differences(tmp_path, plain, made) == []


def test_a_class_that_is_gone_is_said_once(tmp_path: Path) -> None:
    old = {"__init__.py": "__all__ = ['A']\n\nclass A:\n    def run(self): ...\n"}
    found = differences(tmp_path, old, {"__init__.py": "__all__ = []\n"})
    assert [str(difference) for difference in found] == ["- toy.A (class)"]


def test_the_names_of_this_package_are_found() -> None:
    kept = {"__init__", "__version__"}
    names = {name.rpartition(".")[2] for name in read_api(ROOT)}
    assert {"prompt", "Session", "ChatLetta", "LettaAgent", "CassetteTransport"} <= names
    assert not [name for name in names if name.startswith("_") and name not in kept]


def test_a_reference_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-reference"]) == 2
    assert "no-such-reference" in capsys.readouterr().err
