"""The names users rely on, and what importing them costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import letta_adapters
from letta_adapters import aio, testing

FIXED = [
    "LettaClient",
    "AsyncLettaClient",
    "Session",
    "AsyncSession",
    "prompt",
    "create_agent",
    "create_session",
    "resume_session",
    "aprompt",
    "Rest",
    "Local",
    "Remote",
    "InitMessage",
    "AssistantMessage",
    "ReasoningMessage",
    "ToolCallMessage",
    "ToolResultMessage",
    "StreamEvent",
    "ErrorMessage",
    "RetryMessage",
    "ResultMessage",
    "UnknownMessage",
    "MessagePage",
    "extract_stream_text_delta",
    "Transcript",
    "image_from_file",
    "image_from_bytes",
    "image_from_url",
    "Allow",
    "Deny",
    "tool",
    "Tool",
    "LettaError",
    "UnsupportedOptionError",
]


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_name_is_there_and_listed(name: str) -> None:
    assert name in letta_adapters.__all__
    assert name in dir(letta_adapters)
    assert getattr(letta_adapters, name) is not None


def test_every_listed_name_can_be_imported() -> None:
    for name in letta_adapters.__all__:
        assert hasattr(letta_adapters, name), name


@pytest.mark.parametrize(
    ("module", "own"), [(letta_adapters, {"__version__", "aprompt"}), (testing, set())]
)
def test_what_is_listed_is_what_is_loaded_on_first_use(module: ModuleType, own: set[str]) -> None:
    """The list is written out for whoever reads the source, such as a type checker."""
    parsed = ast.parse(inspect.getsource(module))
    (listed,) = [
        ast.literal_eval(node.value)
        for node in parsed.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert listed == module.__all__
    assert len(listed) == len(set(listed))
    assert set(listed) == own | set(module._HOME_OF)


@pytest.mark.parametrize("module", [letta_adapters, testing])
def test_what_is_listed_is_imported_for_type_checkers(module: ModuleType) -> None:
    parsed = ast.parse(inspect.getsource(module))
    (block,) = [node for node in parsed.body if isinstance(node, ast.If)]
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(imported) == set(module.__all__) - {"__version__"}
    for name, path in imported.items():
        home, _, attribute = path.rpartition(".")
        assert getattr(module, name) is getattr(importlib.import_module(home), attribute), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = letta_adapters.nonsense


def test_the_async_functions_have_the_sync_ones_names_and_parameters() -> None:
    for name in ("prompt", "create_agent", "create_session", "resume_session"):
        here = inspect.signature(getattr(letta_adapters, name))
        there = inspect.signature(getattr(aio, name))
        assert list(here.parameters) == list(there.parameters), name
    assert inspect.iscoroutinefunction(aio.prompt)
    assert inspect.iscoroutinefunction(aio.create_agent)
    assert not inspect.iscoroutinefunction(aio.create_session)
    assert not inspect.iscoroutinefunction(aio.resume_session)
    assert letta_adapters.aprompt is aio.prompt


def test_importing_the_package_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, letta_adapters\n"
        "heavy = {'httpx', 'websockets', 'pydantic', 'langchain_core', 'llama_index', 'asyncio'}\n"
        "heavy.add('starlette')\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_messages_carry_the_reference_tags() -> None:
    tags = {
        "init": letta_adapters.InitMessage,
        "assistant": letta_adapters.AssistantMessage,
        "reasoning": letta_adapters.ReasoningMessage,
        "tool_call": letta_adapters.ToolCallMessage,
        "tool_result": letta_adapters.ToolResultMessage,
        "tool_progress": letta_adapters.ToolProgressMessage,
        "stream_event": letta_adapters.StreamEvent,
        "error": letta_adapters.ErrorMessage,
        "retry": letta_adapters.RetryMessage,
        "result": letta_adapters.ResultMessage,
    }
    assert {tag: cls.type for tag, cls in tags.items()} == {tag: tag for tag in tags}


@pytest.mark.parametrize(
    ("path", "name", "home"),
    [
        ("letta_adapters.session", "AsyncSession", "letta_adapters.client.session.AsyncSession"),
        ("letta_adapters.specs", "Local", "letta_adapters.backends.config.Local"),
        (
            "letta_adapters.client",
            "AsyncLettaClient",
            "letta_adapters.client.client.AsyncLettaClient",
        ),
        ("letta_adapters.sync", "LettaClient", "letta_adapters.sync.client.LettaClient"),
        ("letta_adapters.sync", "Session", "letta_adapters.sync.client.Session"),
        ("letta_adapters.sync", "create_agent", "letta_adapters.sync.client.create_agent"),
        ("letta_adapters.tools", "Tool", "letta_adapters.tools.client_side.Tool"),
        ("letta_adapters.tools", "tool", "letta_adapters.tools.client_side.tool"),
        ("letta_adapters.tools", "ToolContext", "letta_adapters.tools.context.ToolContext"),
        ("letta_adapters.tools", "ToolOutcome", "letta_adapters.tools.result.ToolResult"),
        ("letta_adapters.permissions", "Allow", "letta_adapters.permissions.Allow"),
        (
            "letta_adapters.testing.websocket",
            "WebSocketPlayer",
            "letta_adapters.testing.recording.websocket.WebSocketPlayer",
        ),
    ],
)
def test_a_name_of_earlier_versions_is_the_one_of_today(path: str, name: str, home: str) -> None:
    found = getattr(importlib.import_module(path), name)
    assert f"{found.__module__}.{found.__qualname__}" == home


# Modules whose paths applications may use; all others say "Internal" in their first line.
PUBLIC_MODULES = {
    "letta_adapters": "aio content errors images messages options session specs tracing",
    "letta_adapters.backends": "config connector",
    "letta_adapters.cli": "",
    "letta_adapters.client": "client session structured",
    "letta_adapters.langchain": "chat_model errors runnable",
    "letta_adapters.llama_index": "agent llm",
    "letta_adapters.permissions": "",
    "letta_adapters.sync": "client",
    "letta_adapters.testing": "cassette fakes leaks local plugin scripted_model websocket",
    "letta_adapters.testing.live": "contracts test_contracts",
    "letta_adapters.testing.llama_index": "agents llms watching",
    "letta_adapters.tools": "client_side",
    "letta_adapters.tools.mcp": "config",
    "letta_adapters.web": "",
    "letta_adapters.web.agui": "",
}


def test_a_module_that_is_not_public_says_so_in_its_first_line() -> None:
    root = Path(letta_adapters.__file__).parent
    unmarked = set()
    for file in root.rglob("*.py"):
        doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        name = ".".join(("letta_adapters", *file.relative_to(root).with_suffix("").parts))
        if not doc.startswith("Internal: "):
            unmarked.add(name.removesuffix(".__init__"))
    packages = set(PUBLIC_MODULES) - {"letta_adapters.backends"}
    modules = {f"{package}.{m}" for package, ms in PUBLIC_MODULES.items() for m in ms.split()}
    assert unmarked - {"letta_adapters._version"} == packages | modules
