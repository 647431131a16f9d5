"""Options are checked before any I/O, and nothing is silently ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from letta_adapters import (
    AuthenticationError,
    ConfigurationError,
    InvalidInputError,
    LettaClient,
    Local,
    MemoryBlock,
    Remote,
    Rest,
    Sleeptime,
    UnsupportedOptionError,
    create_session,
    resume_session,
)
from letta_adapters.client.client import resolve_backend
from letta_adapters.options import AgentOptions, SessionOptions

NOWHERE = Rest(base_url="http://127.0.0.1:9", api_key="")

LETTA_CODE_ONLY = {
    "memfs": True,
    "skill_sources": ["project"],
    "system_info_reminder": False,
    "sleeptime": {"trigger": "off"},
    "cwd": "/tmp",
    "permission_mode": "strict",
}


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(resolve_backend(None), Local)
    monkeypatch.setenv("LETTA_APP_SERVER_URL", "ws://127.0.0.1:1")
    assert isinstance(resolve_backend(None), Remote)
    monkeypatch.setenv("LETTA_API_KEY", "k")
    assert isinstance(resolve_backend(None), Rest)
    monkeypatch.delenv("LETTA_API_KEY")
    monkeypatch.setenv("LETTA_BASE_URL", "http://127.0.0.1:1")
    assert isinstance(resolve_backend(None), Rest)


@pytest.mark.parametrize(("name", "kind"), [("cloud", Rest), ("local", Local), ("remote", Remote)])
def test_a_backend_can_be_named(name: Any, kind: type) -> None:
    assert isinstance(resolve_backend(name), kind)
    assert resolve_backend(NOWHERE) is NOWHERE


@pytest.mark.parametrize("backend", ["mars", 3, object()])
def test_what_is_no_backend_is_refused(backend: Any) -> None:
    with pytest.raises(InvalidInputError, match="backend must be"):
        LettaClient(backend)


def test_an_app_server_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="LETTA_APP_SERVER_URL"):
        LettaClient("remote")
    monkeypatch.setenv("LETTA_APP_SERVER_URL", "ws://[bad")
    with pytest.raises(InvalidInputError, match="url: must be a ws://"):
        LettaClient("remote")


@pytest.mark.parametrize("backend", [None, "local", Local(), Remote(url="ws://127.0.0.1:9")])
def test_letta_code_backends_are_made_without_any_io(backend: Any) -> None:
    with LettaClient(backend) as client:
        session = client.create_session("agent-local-1", permission_mode="acceptEdits")
        assert session.agent_id is None
        with pytest.raises(UnsupportedOptionError, match="max_steps") as caught:
            client.create_session("agent-local-1", max_steps=3)
        assert caught.value.supported_by == ("rest",)


def test_an_http_client_is_for_the_letta_api() -> None:
    with pytest.raises(InvalidInputError, match="http_client"):
        LettaClient(Local(), http_client=httpx.AsyncClient())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Remote(url="http://127.0.0.1:1"), "url: must be a ws://"),
        (lambda: Remote(url="ws://[bad"), "url: must be a ws://"),
        (lambda: Remote(url="ws://"), "url: must be a ws://"),
        (lambda: Remote(url="wss://host:port"), "url: must be a ws://"),
        (lambda: Local(openai_compatible={"api_key": "x"}), "base_url"),
        (lambda: Local(openai_compatible={"base_url": "x", "key": "y"}), "nothing else"),
        (lambda: Local(max_memory_mb=1), "max_memory_mb"),
    ],
)
def test_a_bad_backend_option_is_named(make: Callable[[], Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        make()


def test_the_cloud_needs_a_key() -> None:
    with pytest.raises(AuthenticationError, match="LETTA_API_KEY"):
        LettaClient("cloud")


def test_no_key_is_in_a_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "not-for-" + "anybodys-eyes"
    rest = Rest(api_key=key, headers={"authorization": key})
    assert key not in repr(rest) + str(rest)
    with pytest.raises(InvalidInputError) as caught:
        Rest(api_key=key, idle_timeout=-1)
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8283", "ftp://x", "http://"])
def test_a_base_url_must_be_http(url: str) -> None:
    with pytest.raises(InvalidInputError, match="base_url"):
        Rest(base_url=url)


def test_a_base_url_may_end_as_people_copy_it() -> None:
    assert Rest(base_url="http://127.0.0.1:8283/v1/").base_url == "http://127.0.0.1:8283"


@pytest.mark.parametrize("option", LETTA_CODE_ONLY)
def test_letta_code_options_are_refused_by_name_with_the_backend_that_can(option: str) -> None:
    value = LETTA_CODE_ONLY[option]
    with LettaClient(NOWHERE) as client:
        calls: list[Callable[..., Any]] = [
            client.create_agent,
            lambda **kw: client.create_session("agent-1", **kw),
            lambda **kw: client.resume_session("agent-1", **kw),
        ]
        for call in calls:
            with pytest.raises(UnsupportedOptionError, match=option) as caught:
                call(**{option: value})
            error = caught.value
            assert (error.option, error.backend) == (option, "rest")
            assert error.supported_by == ("local", "remote")
            assert error.code == "unsupported_option"


@pytest.mark.parametrize("option", ["allowed_tools", "disallowed_tools", "memfs_startup"])
def test_letta_code_session_options_too(option: str) -> None:
    value: Any = "skip" if option == "memfs_startup" else ["Bash"]
    with pytest.raises(UnsupportedOptionError, match=option):
        create_session("agent-1", backend=NOWHERE, **{option: value})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"permission_mode": "yolo"}, "permission_mode"),
        ({"skill_sources": "project"}, "skill_sources"),
        ({"skill_sources": ["moon"]}, "skill_sources"),
        ({"max_steps": 0}, "max_steps"),
        ({"turn_timeout": -1}, "turn_timeout"),
        ({"model": ""}, "model"),
        ({"can_use_tool": "yes"}, "can_use_tool"),
        ({"sleeptime": {"trigger": "never"}}, "sleeptime"),
        ({"include_partial_message": True}, "include_partial_message: is not an option"),
    ],
)
def test_a_bad_session_option_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        create_session("agent-1", backend=NOWHERE, **options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tags": "one"}, "tags"),
        ({"memory": [{"value": "no label"}]}, "memory.0: label: Field required"),
        ({"memory": [{"label": "a", "limit": 0}]}, "memory.0: limit"),
        ({"persona": "a", "memory": [{"label": "persona"}]}, "same label"),
        ({"modle": "x"}, "modle: is not an option"),
    ],
)
def test_a_bad_agent_option_is_named(options: dict[str, Any], named: str) -> None:
    with LettaClient(NOWHERE) as client, pytest.raises(InvalidInputError, match=named):
        client.create_agent(model="m", **options)


def test_memory_blocks_come_in_order() -> None:
    options = AgentOptions(
        persona="p",
        human="h",
        memory=({"label": "project", "value": "x"},),
    )
    assert [(b.label, b.value) for b in options.blocks()] == [
        ("persona", "p"),
        ("human", "h"),
        ("project", "x"),
    ]
    assert MemoryBlock(label="x").value == ""
    assert Sleeptime().trigger == "step-count"
    assert SessionOptions(cwd="/tmp").cwd == Path("/tmp")


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "needs an agent id or a conversation id"),
        (("bogus",), {}, "not an agent id"),
        (("agent-1",), {"agent_id": "agent-2"}, "given twice"),
        (("conv-1",), {"conversation_id": "conv-2"}, "given twice"),
        ((), {"conversation_id": "default"}, "needs its agent's id"),
        ((), {"agent_id": "agent-1", "conversation_id": "x"}, "not a conversation id"),
        ((), {"agent_id": "conv-1"}, "not an agent id"),
    ],
)
def test_bad_ids_are_refused_before_any_io(
    args: tuple[str, ...], kwargs: dict[str, str], text: str
) -> None:
    with pytest.raises(InvalidInputError, match=text):
        resume_session(*args, backend=NOWHERE, **kwargs)


def test_ids_are_none_until_a_session_is_open() -> None:
    session = resume_session("agent-1", backend=NOWHERE)
    assert (session.agent_id, session.conversation_id, session.session_id) == (None, None, None)
    session.close()


def test_a_client_and_a_backend_are_one_too_many() -> None:
    with LettaClient(NOWHERE) as client, pytest.raises(InvalidInputError, match="not both"):
        create_session("agent-1", client=client, backend=NOWHERE)
