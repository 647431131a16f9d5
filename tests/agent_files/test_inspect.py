"""An agent file is shown whole, or refused, whatever stands in it."""

from __future__ import annotations

import copy
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import InvalidInputError, inspect_agent_file
from letta_adapters.client.agent_file import MAX_BYTES
from tests.agent_files._made import SOURCE, agent, document, dump, tool

MCP = {
    "id": "mcp-0",
    "server_type": "stdio",
    "server_name": "shell",
    "server_url": None,
    "stdio_config": {"command": "sh", "args": ["-c", "curl evil"]},
}


def test_it_shows_what_the_file_holds_and_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "a.af"
    path.write_bytes(
        dump(
            agents=[agent(secrets={"TOKEN": "abc", "OTHER": ""})],
            mcp_servers=[MCP],
            tools=[
                tool(pip_requirements=[{"name": "requests", "version": "2.0"}]),
                tool("memory_insert", tool_type="letta_sleeptime_core", source_code=None),
                tool("run_code", tool_type="letta_builtin", source_code=None),
                tool("look", tool_type="external_mcp", source_code=None),
            ],
        )
    )
    shown = inspect_agent_file(path)
    (found,) = shown.agents
    assert (found.name, found.model, found.messages) == ("librarian", "openai/gpt-5", 1)
    assert (found.tools, found.blocks) == (("multiply", "memory_insert"), ("persona",))
    assert shown.blocks[0].value == "I keep books."
    assert [t.name for t in shown.untrusted] == ["multiply", "look"]
    assert shown.tools[0].source == SOURCE
    assert shown.tools[0].requirements == ("requests==2.0",)
    assert shown.mcp_servers[0].address == "sh -c curl evil"
    assert shown.secrets == ("OTHER", "TOKEN")
    assert shown.exposed_secrets == ("TOKEN",)
    assert shown.demands == ("run:multiply", "run:run_code", "run:look", "mcp:shell")
    assert "abc" not in repr(shown)


def test_a_tool_of_lettas_own_that_brings_source_is_code_of_the_file() -> None:
    made = tool("memory_insert", tool_type="letta_core")
    shown = inspect_agent_file(dump(tools=[tool(), made]))
    assert [t.name for t in shown.untrusted] == ["multiply", "memory_insert"]
    assert "run:memory_insert" in shown.demands


def test_a_tool_that_asks_for_approval_demands_nothing() -> None:
    rules = [{"type": "requires_approval", "tool_name": "multiply"}]
    assert inspect_agent_file(dump(agents=[agent(tool_rules=rules)])).demands == ()
    # One agent of two lets it run.
    both = [agent(tool_rules=rules), agent(id="agent-1")]
    assert inspect_agent_file(dump(agents=both)).demands == ("run:multiply",)


@pytest.mark.parametrize(
    "last",
    [
        {"id": "message-1", "role": "assistant", "tool_calls": [{"id": "call-1"}]},
        {"id": "message-1", "role": "approval", "approve": True},
    ],
)
def test_a_history_that_ends_in_a_call_is_a_demand(last: dict[str, Any]) -> None:
    messages = [{"id": "message-0", "role": "system"}, last]
    for order in (messages, messages[::-1]):
        made = agent(messages=order, in_context_message_ids=["message-0", "message-1"])
        assert "pending:librarian" in inspect_agent_file(dump(agents=[made])).demands


def test_parts_that_name_things_of_another_server_are_left_out_and_said() -> None:
    made = agent(tools=["run_code"], folder_ids=["source-1"], include_base_tools=True)
    shown = inspect_agent_file(dump(agents=[made], groups=[{"id": "group-0"}]))
    assert shown.left_out == (
        "agents[0].tools",
        "agents[0].folder_ids",
        "agents[0].include_base_tools",
        "groups",
    )


def test_the_digest_is_of_the_content_and_not_of_its_spelling() -> None:
    made = document()
    spelled = json.dumps(dict(reversed(made.items())), indent=4).encode()
    assert inspect_agent_file(spelled).digest == inspect_agent_file(dump()).digest
    made["tools"][0]["pip_requirements"] = [{"name": "evil"}]
    changed = inspect_agent_file(json.dumps(made).encode())
    assert changed.digest != inspect_agent_file(dump()).digest
    assert changed.tools[0].digest != inspect_agent_file(dump()).tools[0].digest


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (dump()[:-9], "no JSON"),
        (b"[]", "no JSON object"),
        (b'{"agents": 1e999}', "too large"),
        (b'{"agents": NaN}', "NaN"),
        (b'{"agents": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"a":' * 100_000, "too deeply|no JSON"),
        (dump(metadata=json.loads("[" * 90 + "]" * 90)), "ok"),
        (dump(metadata=json.loads("[" * 150 + "]" * 150)), "100 deep"),
        (dump().replace(b'"name": "multiply"', b'"name": "a", "name": "b"', 1), "stands twice"),
        (b'{"agent_type": "memgpt_agent", "core_memory": []}', "older format"),
        (json.dumps({"agents": [agent()]}).encode(), "another version"),
        (dump(agents=[]), "no agent"),
        (dump(tools=[tool(), tool(id="tool-2")]), "two entries"),
        (dump(tools=[]), "not in the file"),
        (dump(agents=[agent(tool_ids=["tool-of-the-server"])]), "not in the file"),
        (dump(blocks=[{"id": "block-0"}] * 10_001), "more than"),
        (b" " * (MAX_BYTES + 1), "64 MiB"),
    ],
)
def test_what_is_no_agent_file_is_refused(data: bytes, says: str) -> None:
    if says == "ok":
        assert inspect_agent_file(data).agents
        return
    with pytest.raises(InvalidInputError, match=says):
        inspect_agent_file(data)


def test_a_path_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none.af", tmp_path, tmp_path / "pipe", "/dev/zero", "a\0b"):
        with pytest.raises(InvalidInputError):
            inspect_agent_file(path)


def _walk(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    if not isinstance(value, dict | list):
        return
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _walk(child, (*path, key))


def test_no_value_in_any_place_breaks_it() -> None:
    whole = document(mcp_servers=[MCP], sources=[{"id": "s", "embedding_config": {"handle": "a"}}])
    places = [path for path in _walk(whole) if path]
    assert len(places) > 60
    for path in places:
        for odd in (None, 3, "x", [], [3], {}, {"a": [1]}):
            made = copy.deepcopy(whole)
            where: Any = made
            for key in path[:-1]:
                where = where[key]
            where[path[-1]] = odd
            with suppress(InvalidInputError):
                inspect_agent_file(json.dumps(made).encode())
