"""The table of options is the code's, and every limit in it is real."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import (
    AsyncLettaClient,
    InvalidInputError,
    MemoryBlock,
    Postpone,
    Rest,
    UnsupportedOptionError,
)
from letta_adapters.backends.app_server.agents import _check_blocks
from letta_adapters.backends.app_server.options import refuse
from letta_adapters.backends.capabilities import (
    LETTA_CODE,
    LETTA_CODE_LIMITS,
    LETTA_CODE_ON_API,
    OPTION_SUPPORT,
    REST,
    Capabilities,
    capability_table,
    check_supported,
    describe_capabilities,
    option_table,
)
from letta_adapters.options import AgentOptions, SessionOptions

DOC = Path(__file__).parents[2] / "docs" / "options.md"

REFUSED: dict[str, AgentOptions | SessionOptions] = {
    "allowed_tools": SessionOptions(allowed_tools=("Bash(rm:*)",)),
    "ask_timeout_answer": SessionOptions(
        can_use_tool=lambda *_: True, ask_timeout=1, ask_timeout_answer=Postpone()
    ),
    "base_tools": AgentOptions(base_tools=False),
    "disallowed_tools": SessionOptions(disallowed_tools=("mcp__*",)),
    "memfs": SessionOptions(memfs=False),
    "memfs_startup": SessionOptions(memfs_startup="skip"),
    "permission_mode": SessionOptions(permission_mode="plan"),
    "sleeptime": SessionOptions(sleeptime={"behavior": "reminder"}),
    "system_info_reminder": SessionOptions(system_info_reminder=False),
}
VALUES: dict[str, Any] = {
    "agent_free": True,
    "stateless": True,
    "append_system_prompt": "And rhyme.",
    "personality": "linus",
    "secrets": {"TOKEN": "x"},
    "toolset": "none",
    "offered_tools": ("Read",),
    "block_ids": ("block-1",),
    "tool_ids": ("tool-1",),
    "embedding": "openai/x",
    "include_status_messages": True,
    "max_steps": 2,
    "memfs": True,
    "memfs_startup": "blocking",
    "skill_sources": ("project",),
    "system_info_reminder": True,
    "sleeptime": {"trigger": "off"},
    "cwd": "/",
    "permission_mode": "strict",
    "allowed_tools": ("Bash",),
    "disallowed_tools": ("Bash",),
}


def test_the_documented_tables_are_the_codes() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert option_table() in text
    assert capability_table() in text


def test_every_capability_says_what_it_means_and_what_others_do() -> None:
    meanings = describe_capabilities()
    assert list(meanings) == [field.name for field in fields(Capabilities)]
    assert {name: text for name, text in meanings.items() if len(text) != 2} == {}


def test_calls_that_wait_are_durable_on_the_letta_api_alone() -> None:
    backends = (REST, LETTA_CODE, LETTA_CODE_ON_API)
    assert [backend.durable_pending_calls for backend in backends] == [True, False, False]


@pytest.mark.parametrize(
    "option",
    sorted(
        LETTA_CODE_LIMITS.keys()
        - {"memory", "offered_tools", "reasoning_effort", "stateless", "system_prompt"}
    ),
)
def test_every_limit_is_refused_by_name(option: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=option):
        refuse(REFUSED[option], "remote")


@pytest.mark.parametrize("field", [{"limit": 100}, {"read_only": True}])
def test_memory_blocks_have_no_limits_in_letta_code(field: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOptionError, match="memory"):
        _check_blocks([MemoryBlock(label="notes", **field)], "local")


@pytest.mark.parametrize("text", [">", "|-", '""'])
def test_a_description_that_no_memory_file_can_hold_is_refused_before_the_agent_is_made(
    text: str,
) -> None:
    with pytest.raises(InvalidInputError, match="description"):
        _check_blocks([MemoryBlock(label="notes", value="x", description=text)], "local")


@pytest.mark.parametrize("option", sorted(OPTION_SUPPORT))
@pytest.mark.parametrize("backend", ["rest", "local", "remote"])
def test_an_option_is_taken_exactly_where_the_table_says_so(option: str, backend: str) -> None:
    cls = AgentOptions if option in AgentOptions.model_fields else SessionOptions
    options = cls(**{option: VALUES[option]})
    if backend in OPTION_SUPPORT[option]:
        check_supported(options, backend)
        return
    with pytest.raises(UnsupportedOptionError) as caught:
        check_supported(options, backend)
    assert (caught.value.option, caught.value.backend) == (option, backend)
    assert caught.value.supported_by == OPTION_SUPPORT[option]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.request("COMMAND", "list_memory", body={"agent_id": "agent-1"}),
        lambda client: client.agents.memory_files("agent-1"),
        lambda client: client.resume_session("conv-1", agent_id="agent-1").resume_queue(),
        lambda client: client.connect_provider("anthropic", api_key="x"),
    ],
    ids=["by hand", "of an agent", "of a session", "of a provider"],
)
async def test_the_letta_api_refuses_commands_before_it_is_asked(call: Any) -> None:
    # Nothing listens there: a request would end in another error.
    async with AsyncLettaClient(Rest(base_url="http://127.0.0.1:9", api_key="")) as client:
        with pytest.raises(UnsupportedOptionError) as caught:
            await call(client)
    assert (caught.value.backend, caught.value.supported_by) == ("rest", ("local", "remote"))
