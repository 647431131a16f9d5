"""The private parts of Letta Code that this package uses are where it looks."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import pytest

import letta_adapters.backends.runtime as package
from letta_adapters.backends.runtime import _compat
from letta_adapters.backends.runtime.find import find_installation
from tests._private_parts import make_checks
from tests._wheel import needs_wheel
from tools.road import Tree

pytestmark = needs_wheel

FOLDER: Final = Path(_compat.__file__).parent
BACKENDS: Final = FOLDER.parent


@cache
def _payload() -> Path:
    return find_installation().app.parents[1]


@cache
def _source() -> str:
    """Return the source of Letta Code, which is one file of some 24 MB."""
    return find_installation().app.read_text("utf-8")


def _once(text: str) -> bool:
    """Return whether this stands in the source, and in one place only."""
    return _source().count(text) == 1


def _in_source(text: str) -> bool:
    return text in _source()


def _as_text(name: str) -> bool:
    """Return whether the source has a text, or a key, of this name."""
    return f'"{name}"' in _source()


def _as_key(name: str) -> bool:
    return re.search(rf"\b{name}\b(:|\?\.|\)|,| =| &&)", _source()) is not None


def _as_variable(name: str) -> bool:
    return re.search(rf'env\w*\.{name}\b|"{name}"', _source()) is not None


def _is_file(path: str) -> bool:
    return any((_payload() / name).is_file() for name in (path, f"{path}.exe"))


_VARIABLES: Final = (
    *(_compat.STATE_DIR, _compat.MEMORY_URL, _compat.MODEL_SERVER, _compat.MODEL_SERVER_KEY),
    *(_compat.INSTALLED_BY, *_compat.QUIET),
    *("LETTA_CODE_AGENT_ROLE", "LETTA_PARENT_AGENT_ID", "LETTA_SUBAGENT_LAUNCH"),
)
_TEXTS: Final = (
    *(_compat.LETTA, _compat.STATE, _compat.MESSAGES, _compat.LEDGER, *_compat.HOOKS),
    *(*_compat.IN_LETTA, *_compat.IN_STATE),
    *("settings.json", "settings.local.json", "subagent", "reflection", "--short"),
    *(_compat.SKILLS, _compat.MODS, _compat.MEMORY_LIMITS, _compat.MEANT_TAG),
    *("origin:letta-code", "role:subagent", "parent:"),
)
_KEYS: Final = (
    *(_compat.QUEUED, _compat.ENTRIES, _compat.ACCEPTED_AT, *_compat.COMPLETED),
    *("processStart", "alwaysAsk", "mergeInstructions"),
)
# These places are replaced, and left alone if there is none or more than one.
_PLACES: Final = (
    "function getReflectionSettings(agentId, workingDirectory = process.cwd()) {\n",
    "state: params.state,\n    systemInfoReminderEnabled: ",
    "const result = this.runStream(",
)
_AROUND: Final = (
    "async* streamOnce(input) {",
    "yield providerLettaChunk({",
    "toPiMessages(input.uiMessages)",
)
_PROBES: Final[dict[str, Callable[[], bool]]] = {
    _compat.PACKAGE: lambda: _payload().parent.name == _compat.PACKAGE,
    _compat.PAYLOAD: lambda: _payload().name == _compat.PAYLOAD,
    **{path: partial(_is_file, path) for path in (_compat.NODE, _compat.APP, _compat.MANIFEST)},
    **{name: partial(_as_variable, name) for name in _VARIABLES},
    **{name: partial(_as_text, name) for name in _TEXTS},
    **{name: partial(_as_key, name) for name in _KEYS},
    _compat.MEMORY: lambda: _once('(storageDir, "memfs", agentId, "memory")'),
    _compat.SOCKET_LINE: lambda: _once("console.log(`WebSocket: ${"),
    _compat.CONNECTIONS: lambda: _once("`app-server-${"),
    _compat.LOCK: lambda: _in_source("}.lock`"),
    _compat.CANDIDATE: lambda: _in_source("}.candidate-${owner.pid}-${owner.token}"),
    **{
        word: lambda: _in_source("? `default:${agentId}` : `conversation:${conversationId}`")
        for word in ("conversation:", "default:")
    },
    "type:": lambda: _once("`type:${"),
    "expandFilePath": lambda: _once("function expandFilePath("),
    "true,": lambda: _once("systemInfoReminderEnabled: true,"),
    **{text: partial(_once, text) for text in _PLACES},
    **{text: partial(_in_source, text) for text in _AROUND},
}
# Words that other things are called as well.
_COMMON: Final = {
    *(_compat.AGENTS, _compat.CONVERSATIONS, _compat.MEMORY, _compat.ENTRIES, "state", "logs"),
    *(
        "default:",
        "secrets",
        "providers",
        "cache",
        "disposition",
        "reflection",
        "subagent",
        "true,",
        "skills",
    ),
}


class TestPrivateParts(make_checks(package, _PROBES, common=_COMMON)):
    """The private parts of Letta Code are listed, and are there."""


def _strings(value: Any) -> Iterator[str]:
    """Yield the texts of a value of ``_compat.cjs``, and the names that it gives to Letta Code."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def test_what_the_preloads_know_is_listed() -> None:
    command = f"console.log(JSON.stringify(require({json.dumps(str(FOLDER / '_compat.cjs'))})))"
    node = find_installation().node
    printed = subprocess.run([node, "-e", command], capture_output=True, text=True, check=True)
    known = json.loads(printed.stdout)
    listed = {part.name for part in _compat.PARTS}
    texts = {text for value in known.values() for text in _strings(value)}
    # `git status` is git's, and public.
    assert texts - listed == {"status"}
    assert known["COMPLETED"] == _compat.COMPLETED
    assert set(known["NO_REFLECTION"]) & listed == {"mergeInstructions"}
    shared = [name for name in known if hasattr(_compat, name)]
    assert {name: known[name] for name in shared} == {n: getattr(_compat, n) for n in shared}


def test_the_preloads_name_private_parts_in_one_file() -> None:
    words = {part.name for part in _compat.PARTS} - _COMMON
    strays = [
        (path.name, word)
        for path in FOLDER.glob("*.cjs")
        if path.name != "_compat.cjs"
        for code in [re.sub(r"^\s*//.*$", "", path.read_text("utf-8"), flags=re.MULTILINE)]
        for word in words
        if f'"{word}"' in code or re.search(rf"\.{re.escape(word)}\b", code)
    ]
    assert strays == []


def test_no_other_package_names_private_parts() -> None:
    # Options of ours are called so, variables that users set, and a directory that nobody reads.
    known = {*_COMMON, _compat.MEMORIES, _compat.LETTA, _compat.MODEL_SERVER}
    words = {part.name for part in _compat.PARTS} - known - {_compat.MODEL_SERVER_KEY}
    strays = [
        (module, node.value)
        for module, tree in Tree(BACKENDS.parent).parsed.items()
        if module != "backends.runtime._compat"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in words
    ]
    assert strays == []


# -- frames ---------------------------------------------------------------------------------------


def _frames(folder: Path) -> set[str]:
    """Return the types of the frames that a package makes."""
    return {
        value.value
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "type"
        if isinstance(value, ast.Constant) and isinstance(value.value, str)
    } - {"text", "image", "base64"}


@pytest.mark.parametrize(
    "name",
    [
        *sorted(_frames(BACKENDS / "app_server")),
        # Those that the server sends and a turn, or the account of a conversation, depends on.
        *("control_request", "external_tool_call_request", "input_accepted", "stream_delta"),
        *("turn_finished", "update_device_status", "update_loop_status", "update_queue"),
    ],
)
def test_a_frame_is_one_of_those_that_letta_code_publishes(name: str) -> None:
    types = _payload() / "app" / "dist" / "types" / "types"
    assert any(f'"{name}"' in path.read_text("utf-8") for path in types.glob("*.d.ts")), (
        f"The frame {name} is not one of those that Letta Code publishes: list it in _compat.py."
    )
